//! A tunnel's own connection, as `h2` reads and writes it: what `h2` writes in one go leaves in one go.
//!
//! `h2` flushes after each frame that is not small. Here it only encrypts; whoever drives the connection calls [`Carrier::poll_send`]
//! when nothing is left to do, so that the frames of all streams that had something to say share system calls.

use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::TlsStream;

/// The connection of a tunnel, for whom it is not kept open.
pub(super) struct Watched(Weak<TlsStream>);

impl Watched {
    /// Whether the connection is open, as the kernel knows it now; costs a system call.
    pub(super) fn is_open(&self) -> bool {
        self.0.upgrade().is_some_and(|stream| stream.is_open())
    }
}

/// One end is `h2`'s, the other its driver's.
#[derive(Clone)]
pub(super) struct Carrier(Rc<TlsStream>);

impl Carrier {
    pub(super) fn new(stream: TlsStream) -> Self {
        Self(Rc::new(stream))
    }

    /// For looking at the connection as long as it is driven.
    pub(super) fn watched(&self) -> Watched {
        Watched(Rc::downgrade(&self.0))
    }

    /// Hands everything written to the kernel.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_buf(cx, buf)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_keep(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_finish(cx)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.poll_keep(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
