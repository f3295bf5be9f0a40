//! What is there of a connection: bytes that were read, and records that are to be written.

use std::io::{self, IoSlice};
use std::rc::Rc;

use tokio::io::ReadBuf;

use crate::buffers::{Buffer, Buffers, LARGE_BLOCK};
use crate::tls::records::{Opened, Records, length};
use crate::tls::seal::FRAGMENT_MAX;

pub(super) struct State {
    pub(super) records: Records,
    /// What was read from the network: `plain` bytes decrypted, `tail` bytes behind them that are of no more use, and records.
    pub(super) raw: Option<Buffer>,
    pub(super) plain: usize,
    tail: usize,
    /// Whether a read filled a whole block: the next one is larger.
    pub(super) is_fast: bool,
    /// The peer has said that it sends nothing more.
    pub(super) is_ended: bool,
    /// This end has.
    is_closed: bool,
    /// Records that the kernel has not taken.
    pub(super) out: Option<Buffer>,
}

impl State {
    /// That of a connection whose handshake has just ended: `behind` it has come what may be decrypted in part, and `owed` is still to be sent.
    pub(super) fn new(records: Records, behind: Option<(Buffer, usize)>, owed: &[u8], buffers: &Rc<Buffers>) -> Self {
        let (raw, plain) = behind.map_or((None, 0), |(raw, plain)| (Some(raw), plain));
        let out = (!owed.is_empty()).then(|| {
            let mut out = buffers.take();
            out.append(owed);
            out
        });
        Self { records, raw, plain, tail: 0, is_fast: false, is_ended: false, is_closed: false, out }
    }

    /// Opens the next record, if it is here whole.
    pub(super) fn open_next(&mut self) -> Result<bool, rustls::Error> {
        let Some(raw) = &mut self.raw else { return Ok(false) };
        let Some(length) = length(raw.filled())?.filter(|length| *length <= raw.len()) else { return Ok(false) };
        match self.records.open(&mut raw.filled_mut()[..length])? {
            Opened::Data(place) if !place.is_empty() => {
                raw.consume(place.start);
                (self.plain, self.tail) = (place.len(), length - place.end);
            }
            Opened::Data(_) | Opened::Heeded => raw.consume(length),
            Opened::End => {
                raw.clear();
                self.is_ended = true;
            }
        }
        self.give_back();
        Ok(true)
    }

    /// Moves decrypted bytes into `into`; gives how many.
    pub(super) fn take(&mut self, into: &mut [u8]) -> usize {
        let Some(raw) = &self.raw else { return 0 };
        let count = self.plain.min(into.len());
        into[..count].copy_from_slice(&raw.filled()[..count]);
        self.used(count);
        count
    }

    /// The same, into what may not have been written to yet.
    pub(super) fn put(&mut self, into: &mut ReadBuf<'_>) {
        let Some(raw) = &self.raw else { return };
        let count = self.plain.min(into.remaining());
        into.put_slice(&raw.filled()[..count]);
        self.used(count);
    }

    fn used(&mut self, count: usize) {
        let Some(raw) = &mut self.raw else { return };
        raw.consume(count);
        self.plain -= count;
        if self.plain == 0 {
            raw.consume(std::mem::take(&mut self.tail));
            self.give_back();
        }
    }

    /// A connection that rests holds no block.
    fn give_back(&mut self) {
        if self.raw.as_ref().is_some_and(Buffer::is_empty) {
            self.raw = None;
        }
    }

    /// Encrypts as much of `from` as there is room for.
    pub(super) fn seal(&mut self, from: &[IoSlice<'_>], buffers: &Rc<Buffers>) -> io::Result<usize> {
        if self.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let is_much = from.iter().map(|part| part.len()).sum::<usize>() > FRAGMENT_MAX;
        let out = match self.out.take() {
            None if is_much => buffers.take_large(),
            None => buffers.take(),
            Some(out) if is_much && out.block().len() < LARGE_BLOCK => {
                let mut large = buffers.take_large();
                large.append(out.filled());
                large
            }
            Some(out) => out,
        };
        self.records.seal(from, self.out.insert(out)).map_err(io::Error::other)
    }

    /// Says, once, that nothing more will be written.
    pub(super) fn close(&mut self, buffers: &Rc<Buffers>) -> io::Result<()> {
        if !self.is_closed {
            self.is_closed = true;
            self.records.close(self.out.get_or_insert_with(|| buffers.take())).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Tells the peer, once, what it did wrong. Nothing more is written then.
    pub(super) fn tell(&mut self, error: &rustls::Error, buffers: &Rc<Buffers>) {
        if !self.is_closed {
            self.is_closed = true;
            let told = self.records.alert(error, self.out.get_or_insert_with(|| buffers.take()));
            told.unwrap_or_else(|error| tracing::debug!(%error, "the peer cannot be told what was wrong"));
        }
    }
}
