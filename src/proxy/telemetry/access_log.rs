//! The access log: one line per request on standard output, JSON or by a template, written by a thread of its own.
//!
//! Workers hand over whole chunks of lines; when the reader of standard output is too slow, chunks are dropped and counted, never
//! waited for.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use leno_core::access_log::Format;
use leno_core::percentage::Percentage;

use super::RequestRecord;
use super::line::Line;
use super::recorder::TcpRecord;
use super::series::Counter;

/// Which requests are logged (`LENO_ACCESS_LOG`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogMode {
    /// None.
    Off,
    /// Those that ended with 5xx, that the proxy itself answered or gave up, or that an Audit policy would have refused.
    #[default]
    Errors,
    /// Every one.
    All,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Which requests.
    pub mode: AccessLogMode,
    /// How many of those that did not fail; those that did are logged in any case.
    pub share: Percentage,
    /// The form of a line.
    pub format: Format,
}

impl From<AccessLogMode> for LogSettings {
    fn from(mode: AccessLogMode) -> Self {
        Self { mode, share: Percentage::ALL, format: Format::Json }
    }
}

/// The text names no mode.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("access log mode {0:?} is not known: write all, errors or off")]
pub struct InvalidMode(String);

impl FromStr for AccessLogMode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        match text {
            "off" => Ok(Self::Off),
            "errors" => Ok(Self::Errors),
            "all" => Ok(Self::All),
            other => Err(InvalidMode(other.to_owned())),
        }
    }
}

/// Chunks that may wait for the writer.
const CHUNKS_WAITING_MAX: usize = 64;
/// A chunk is handed over when it is this long, or after [`FLUSH_AFTER`].
const CHUNK_BYTES: usize = 32 * 1024;
/// How long a line may wait in its worker.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// The writer's end: shared by all workers.
#[derive(Clone, Debug)]
pub struct LogSink(SyncSender<Vec<u8>>);

impl LogSink {
    /// Starts the thread that writes to `output`. It ends when every sink and log is gone.
    pub fn start(mut output: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<Vec<u8>>(CHUNKS_WAITING_MAX);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            while let Ok(chunk) = receiver.recv() {
                if output.write_all(&chunk).and_then(|()| output.flush()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self(sender))
    }
}

/// One worker's access log.
pub struct AccessLog {
    settings: LogSettings,
    random: RefCell<fastrand::Rng>,
    source: leno_core::names::Name,
    buffer: Rc<RefCell<Vec<u8>>>,
    sink: LogSink,
}

impl AccessLog {
    /// A worker's log; `None` when nothing is to be logged. `source` is the workload's name.
    pub fn new(settings: LogSettings, source: leno_core::names::Name, sink: LogSink) -> Option<Self> {
        let random = RefCell::new(fastrand::Rng::new());
        (settings.mode != AccessLogMode::Off).then(|| Self { settings, random, source, buffer: Rc::default(), sink })
    }

    pub(super) fn request(&self, record: &RequestRecord<'_>, dropped: &Counter) {
        let failed = record.reason.is_some() || record.access.would_deny.is_some() || record.status >= 500 || record.status == 0;
        if self.is_wanted(failed) {
            self.write(&Line::of_request(&self.source, record), dropped);
        }
    }

    pub(super) fn tcp(&self, record: &TcpRecord<'_>, dropped: &Counter) {
        if self.is_wanted(record.reason.is_some() || record.access.would_deny.is_some()) {
            self.write(&Line::of_connection(&self.source, record), dropped);
        }
    }

    fn is_wanted(&self, failed: bool) -> bool {
        let share = self.settings.share;
        let in_share = || share == Percentage::ALL || share.holds(self.random.borrow_mut().u64(..));
        failed || (self.settings.mode == AccessLogMode::All && in_share())
    }

    fn write(&self, line: &Line<'_>, dropped: &Counter) {
        let mut buffer = self.buffer.borrow_mut();
        let first = buffer.is_empty();
        let start = buffer.len();
        let written = match &self.settings.format {
            Format::Json => serde_json::to_writer(&mut *buffer, line).is_ok(),
            Format::Template(template) => line.write(template, &mut buffer).is_ok(),
        };
        if !written {
            buffer.truncate(start);
            dropped.add(1);
            return;
        }
        buffer.push(b'\n');
        if buffer.len() >= CHUNK_BYTES {
            drop(buffer);
            hand_over(&self.buffer, &self.sink, dropped);
        } else if first {
            drop(buffer);
            let (buffer, sink) = (Rc::clone(&self.buffer), self.sink.clone());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(FLUSH_AFTER).await;
                hand_over(&buffer, &sink, &Counter::default());
            });
        }
    }
}

fn hand_over(buffer: &RefCell<Vec<u8>>, sink: &LogSink, dropped: &Counter) {
    let chunk = std::mem::take(&mut *buffer.borrow_mut());
    if chunk.is_empty() {
        return;
    }
    match sink.0.try_send(chunk) {
        Ok(()) => {}
        Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => {
            dropped.add(chunk.iter().filter(|byte| **byte == b'\n').count() as u64);
        }
    }
}

#[cfg(test)]
mod tests;
