//! What is told to people while the mesh runs: lines of the processes, of the log and of the mesh itself.
//!
//! On a plain output each line is printed as it comes. While a table is on the screen the last lines stand below it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept for the screen.
const KEPT: usize = 200;

/// Where lines are told. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Says(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    on_screen: bool,
    recent: VecDeque<String>,
}

impl Says {
    /// From now on lines are kept for a table, or (`false`) printed as they come.
    pub fn on_screen(&self, on_screen: bool) {
        self.locked().on_screen = on_screen;
    }

    /// Tells `text`, which may be several lines.
    pub fn line(&self, text: &str) {
        let mut inner = self.locked();
        for line in text.lines() {
            if inner.on_screen {
                inner.recent.push_back(line.to_owned());
            } else {
                // Nobody reads any more: nothing to do about it.
                let _gone = writeln!(io::stdout(), "{line}");
            }
        }
        let spare = inner.recent.len().saturating_sub(KEPT);
        inner.recent.drain(..spare);
    }

    /// The last `count` lines.
    pub fn recent(&self, count: usize) -> Vec<String> {
        let inner = self.locked();
        inner.recent.iter().skip(inner.recent.len().saturating_sub(count)).cloned().collect()
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One event of the log, told when it is whole.
pub struct Event {
    says: Says,
    text: Vec<u8>,
}

impl Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.says.line(&String::from_utf8_lossy(&self.text));
    }
}

impl<'a> MakeWriter<'a> for Says {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        Event { says: self.clone(), text: Vec::new() }
    }
}
