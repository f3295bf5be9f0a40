//! The terminal: another screen while the mesh runs, and the old one afterwards.

use std::io::{self, Write};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};

/// A screen to draw on. Dropping it brings back what was there before.
pub struct Screen(());

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When the output is no terminal any more.
    pub fn open() -> io::Result<Self> {
        execute!(io::stdout(), EnterAlternateScreen, Hide, DisableLineWrap, Clear(ClearType::All))?;
        Ok(Self(()))
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        let (width, height) = crossterm::terminal::size().unwrap_or((80, 24));
        (width.into(), height.into())
    }

    /// Shows `lines`, the first of them as a head. Only what changed moves, so nothing flickers.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for (row, line) in (0..).zip(lines) {
            let style = if row == 0 { Attribute::Bold } else { Attribute::Reset };
            queue!(out, MoveTo(0, row), SetAttribute(style), Print(line), SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _gone = execute!(io::stdout(), EnableLineWrap, Show, LeaveAlternateScreen);
    }
}
