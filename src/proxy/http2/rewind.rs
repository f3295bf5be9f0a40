//! A connection as `h2` reads and writes it. What detection has read of it is read once more, and on a connection that somebody
//! has opened to this proxy the frames are watched: once they are found to be abuse nothing more is read, and [`Found`] says so.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::watch::{Abuse, Watch};
use crate::buffers::Buffer;
use crate::gather::Gather;

/// What was found out about the peer of a connection.
pub(super) type Found = Rc<Cell<Option<Abuse>>>;

/// Reads `first`, then the connection.
pub(super) struct Rewind {
    io: Gather,
    first: Option<Buffer>,
    guard: Option<Box<Guard>>,
}

struct Guard {
    watch: Watch,
    found: Found,
    /// How long a header block may take.
    head_timeout: Duration,
    /// Set while a header block is open.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Rewind {
    /// A connection to a peer that was chosen.
    pub(super) fn new(io: Gather) -> Self {
        Self { io, first: None, guard: None }
    }

    /// A connection that somebody has opened to this proxy.
    pub(super) fn watched(io: Gather, first: Option<Buffer>, head_timeout: Duration) -> (Self, Found) {
        let found = Found::default();
        let guard = Guard { watch: Watch::new(Instant::now()), found: Rc::clone(&found), head_timeout, deadline: None };
        (Self { io, first, guard: Some(Box::new(guard)) }, found)
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(first) = &mut self.first {
            let count = first.len().min(buf.remaining());
            buf.put_slice(&first.filled()[..count]);
            first.consume(count);
            if first.is_empty() {
                self.first = None;
            }
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Guard {
    /// Whether the header block that is open has taken too long; the task is woken when it will have.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(since) = self.watch.block_since() else {
            self.deadline = None;
            return Poll::Pending;
        };
        let until = since + self.head_timeout;
        self.deadline.get_or_insert_with(|| Box::pin(sleep_until(until.into()))).as_mut().poll(cx)
    }
}

impl AsyncRead for Rewind {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.guard.as_ref().is_some_and(|guard| guard.found.get().is_some()) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = self.poll_bytes(cx, buf);
        let Some(guard) = &mut self.guard else { return read };
        match read {
            Poll::Ready(Ok(())) => {
                guard.found.set(guard.watch.received(&buf.filled()[before..], Instant::now).err());
                // A block that ended and one that began since have a time each.
                if guard.watch.block_since().is_none() {
                    guard.deadline = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(guard.poll_too_slow(cx));
                guard.found.set(Some(Abuse::SlowHead));
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Rewind {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        if let Some(guard) = &mut self.guard {
            guard.watch.sent(&buf[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        if let Some(guard) = &mut self.guard {
            let mut left = written;
            for part in bufs {
                let count = left.min(part.len());
                guard.watch.sent(&part[..count]);
                left -= count;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
