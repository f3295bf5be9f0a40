//! Opaque connections: bytes both ways, each direction closed on its own, buffers only while bytes are there.
//!
//! A connection at rest is two [`Direction`]s and nothing else: a state machine by hand, a tenth of what async functions keep.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::buffers::{BLOCK, Buffer, Buffers};
use crate::idle::{Idle, within};
use crate::io::Io;

/// How a tunnel ended.
#[derive(Debug)]
pub struct Carried {
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Why it was cut, if it was.
    pub cut: Option<io::Error>,
    /// Whether nothing came or went for too long.
    pub is_idle: bool,
}

impl Carried {
    /// Nothing was carried, because of this.
    pub(crate) fn cut(error: io::Error) -> Self {
        Self { bytes_in: 0, bytes_out: 0, cut: Some(error), is_idle: false }
    }

    /// Metric label and log field: why it was cut, if it was.
    pub fn reason(&self) -> Option<&'static str> {
        match &self.cut {
            _ if self.is_idle => Some("idle-timeout"),
            Some(_) => Some("cut"),
            None => None,
        }
    }
}

/// Blocks that one direction moves before others get their turn.
const TURNS_MAX: u32 = 16;

/// Carries bytes between `client` and `server` until both directions are closed or one is broken.
///
/// `from_client` and `from_server` are bytes that were read before. A break on one side becomes a reset on both, so that
/// nobody takes a cut stream for a whole one. There is no idle time unless `idle` says so: connections that rest for hours are
/// normal.
pub fn tunnel<'t>(
    client: &'t Io,
    from_client: Option<Buffer>,
    server: &'t Io,
    from_server: Option<Buffer>,
    buffers: &'t Rc<Buffers>,
    idle: Option<&'t Rc<Idle>>,
) -> impl Future<Output = Carried> + 't {
    let (mut up, mut down) = (Direction::new(from_client), Direction::new(from_server));
    let mut both = move |cx: &mut Context<'_>| {
        let before = up.moved + down.moved;
        let result = match (up.poll(client, server, buffers, cx), down.poll(server, client, buffers, cx)) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Some(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(None),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        };
        if let Some(idle) = idle
            && up.moved + down.moved > before
        {
            idle.touch();
        }
        (result, up.moved, down.moved)
    };
    // Boxed apart: few services say how long their connections may rest.
    let mut expired = idle.map(|idle| Box::pin(within(Some(idle), std::future::pending::<()>())));
    poll_fn(move |cx| {
        let (result, bytes_in, bytes_out) = both(cx);
        let (cut, is_idle) = match result {
            Poll::Ready(cut) => (cut, false),
            Poll::Pending => match expired.as_mut().map(|expired| expired.as_mut().poll(cx)) {
                Some(Poll::Ready(_)) => (None, true),
                Some(Poll::Pending) | None => return Poll::Pending,
            },
        };
        if cut.is_some() || is_idle {
            client.abort_on_close();
            server.abort_on_close();
        }
        Poll::Ready(Carried { bytes_in, bytes_out, cut, is_idle })
    })
}

/// One direction of a connection.
struct Direction {
    /// Read and not written yet; there only while bytes are.
    block: Option<Buffer>,
    state: State,
    /// Whether a read filled its block: the next one is larger.
    is_fast: bool,
    /// Whether what was written may not be on its way yet.
    is_kept: bool,
    /// Bytes carried.
    moved: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// More may come.
    Open,
    /// The sender has ended, the receiver is to hear of it.
    Ending,
    /// It is closed.
    Done,
}

impl Direction {
    fn new(first: Option<Buffer>) -> Self {
        let block = first.filter(|first| !first.is_empty());
        Self { block, state: State::Open, is_fast: false, is_kept: false, moved: 0 }
    }

    /// Carries what is there, to the end of the direction.
    fn poll(&mut self, from: &Io, to: &Io, buffers: &Rc<Buffers>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS_MAX {
            ready!(self.poll_write(to, cx))?;
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(to.poll_finish(cx)).or_else(unless_gone)?;
                    self.state = State::Done;
                }
                State::Open => ready!(self.poll_read(from, to, buffers, cx))?,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was read.
    fn poll_write(&mut self, to: &Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(block) = self.block.as_mut().filter(|block| !block.is_empty()) {
            let written = ready!(to.poll_write(cx, block.filled()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            block.consume(written);
            self.moved += written as u64;
            self.is_kept = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a block, or the end; at rest no block is held.
    fn poll_read(&mut self, from: &Io, to: &Io, buffers: &Rc<Buffers>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.block.is_none() {
            self.flush(to, cx)?;
            if let Io::Tunnelled(stream) = from {
                return self.went(ready!(stream.poll_relay(to, cx))?);
            }
            ready!(from.poll_readable(cx))?;
            if self.is_fast
                && let (Io::Plain(from), Io::Tunnelled(stream)) = (from, to)
            {
                return self.went(ready!(stream.poll_feed(from, cx))?);
            }
        }
        if self.is_fast {
            // The next one is larger, where this one was small.
            self.block = self.block.take().filter(|block| block.block().len() > BLOCK);
        }
        let block = self.block.get_or_insert_with(|| if self.is_fast { buffers.take_large() } else { buffers.take() });
        let read = from.try_read(block.spare());
        match read {
            Ok(0) => {
                self.block = None;
                self.state = State::Ending;
            }
            Ok(read) => {
                block.fill(read);
                self.is_fast = read >= BLOCK;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.block = None,
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }

    /// So many bytes went from end to end at once; 0 is the end.
    fn went(&mut self, bytes: usize) -> Poll<io::Result<()>> {
        self.moved += bytes as u64;
        self.is_kept |= bytes > 0;
        self.is_fast = bytes >= BLOCK;
        if bytes == 0 {
            self.state = State::Ending;
        }
        Poll::Ready(Ok(()))
    }

    /// What was written is to be on its way before anything is waited for; who waits to write comes back here.
    fn flush(&mut self, to: &Io, cx: &mut Context<'_>) -> io::Result<()> {
        if self.is_kept
            && let Poll::Ready(flushed) = to.poll_flush(cx)
        {
            self.is_kept = false;
            return flushed;
        }
        Ok(())
    }
}

/// A side that is already gone needs no closing.
fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_result<A, B, C, D, E, F, R>(_: impl FnOnce(A, B, C, D, E, F) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_resting_connection_is_small() {
        let size = size_of_result(|a: &'static Io, b, c, d, e, f| tunnel(a, b, c, d, e, f));
        assert!(size <= 256, "{size}");
    }
}
