//! One connection in a tunnel, read and written with `&self` as others are.
//!
//! A reset of either side is a reset of the connection at the other end, and so is the end of the tunnel: nobody takes a cut stream
//! for a whole one. What is read is given back to the sender's window as it is taken.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::PIECE_MAX;
use super::links::Lease;
use crate::io::Io;
use crate::tls::{Agreed, Secured};

/// One connection in a tunnel.
pub struct TunnelStream {
    state: RefCell<State>,
    agreed: Agreed,
    secured: Option<Rc<Secured>>,
    /// Its place in the tunnel, where this proxy has opened it.
    lease: Option<Lease>,
}

struct State {
    from: RecvStream,
    to: To,
    /// What has come and was not taken yet.
    unread: Bytes,
    is_ended: bool,
}

/// The way to the peer.
enum To {
    /// It waits to hear whether the connection is there.
    Answer(SendResponse<Bytes>),
    /// It hears what is sent.
    Data(SendStream<Bytes>),
}

impl std::fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelStream").field("agreed", &self.agreed).finish_non_exhaustive()
    }
}

impl TunnelStream {
    /// One that this proxy has opened; `lease` is its place in the tunnel.
    pub(super) fn opened(from: RecvStream, to: SendStream<Bytes>, agreed: Agreed, lease: Lease) -> Self {
        let secured = lease.secured();
        Self::new(from, To::Data(to), (agreed, secured), Some(lease))
    }

    /// One that the peer has opened, and waits to hear of.
    pub(super) fn asked(from: RecvStream, answer: SendResponse<Bytes>, agreed: Agreed, secured: Option<Rc<Secured>>) -> Self {
        Self::new(from, To::Answer(answer), (agreed, secured), None)
    }

    fn new(from: RecvStream, to: To, (agreed, secured): (Agreed, Option<Rc<Secured>>), lease: Option<Lease>) -> Self {
        Self { state: RefCell::new(State { from, to, unread: Bytes::new(), is_ended: false }), agreed, secured, lease }
    }

    /// Who is at both ends of the tunnel.
    pub fn secured(&self) -> Option<&Rc<Secured>> {
        self.secured.as_ref()
    }

    /// What the tunnel's handshake agreed on.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// The other end of it is there.
    pub(crate) fn established(&self) {
        let state = &mut *self.state.borrow_mut();
        if let To::Answer(answer) = &mut state.to {
            // A peer that is gone meanwhile is noticed as soon as it is read from.
            match answer.send_response(Response::new(()), false) {
                Ok(data) => state.to = To::Data(data),
                Err(error) => tracing::debug!(%error, "whoever has opened a connection in a tunnel is gone"),
            }
        }
    }

    /// There is no other end, for the reason that `status` stands for.
    pub(crate) fn refused(&self, status: u16) {
        let state = &mut *self.state.borrow_mut();
        match &mut state.to {
            To::Answer(answer) => {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                if let Err(error) = answer.send_response(response, true) {
                    tracing::debug!(%error, "whoever has opened a connection in a tunnel is gone");
                }
            }
            To::Data(data) => data.send_reset(Reason::CONNECT_ERROR),
        }
    }

    /// Resets it.
    pub fn reset(&self) {
        match &mut self.state.borrow_mut().to {
            To::Answer(answer) => answer.send_reset(Reason::CONNECT_ERROR),
            To::Data(data) => data.send_reset(Reason::CONNECT_ERROR),
        }
    }

    /// Waits until the peer has reset it, or the tunnel is gone.
    pub fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let reset = match &mut self.state.borrow_mut().to {
            To::Answer(answer) => answer.poll_reset(cx),
            To::Data(data) => data.poll_reset(cx),
        };
        reset.map(|reset| match reset {
            Ok(reason) => broken(reason.into()),
            Err(error) => broken(error),
        })
    }

    /// Reads what is there; `WouldBlock` when nothing is. `Ok(0)` is the end.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let mut filled = 0;
        while filled < into.len() {
            match state.poll_piece(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(())) if state.is_ended => break,
                Poll::Ready(Ok(())) => {
                    let count = state.unread.len().min(into.len() - filled);
                    into[filled..filled + count].copy_from_slice(&state.unread[..count]);
                    state.take(count);
                    filled += count;
                }
                Poll::Ready(Err(error)) if filled == 0 => return Err(error),
                Poll::Pending if filled == 0 => return Err(io::ErrorKind::WouldBlock.into()),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        Ok(filled)
    }

    /// Waits until there is something to read, or the end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.borrow_mut().poll_piece(cx)
    }

    /// As [`TunnelStream::try_read`], waiting until something is there.
    pub(crate) fn poll_read_buf(&self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        ready!(state.poll_piece(cx))?;
        let count = state.unread.len().min(into.remaining());
        into.put_slice(&state.unread[..count]);
        state.take(count);
        Poll::Ready(Ok(()))
    }

    /// Writes what is there to `to`, without a copy of its own; 0 is the end.
    pub(crate) fn poll_relay(&self, to: &Io, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        ready!(state.poll_piece(cx))?;
        if state.unread.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let written = ready!(to.poll_write(cx, &state.unread))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        state.take(written);
        Poll::Ready(Ok(written))
    }

    /// Reads a long piece of `from` and sends it as it is, as soon as the peer's window has room; 0 is the end.
    pub(crate) fn poll_feed(&self, from: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        let room = ready!(state.poll_room(PIECE_MAX, cx))?;
        let mut piece = BytesMut::with_capacity(room);
        let read = loop {
            match from.try_read_buf(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(from.poll_read_ready(cx))?,
                read => break read?,
            }
        };
        if read > 0 {
            state.send(piece.freeze())?;
        }
        Poll::Ready(Ok(read))
    }

    /// Takes at least one byte of `from`, as soon as the peer's window has room.
    pub fn poll_write(&self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        let taken = ready!(state.poll_room(from.len(), cx))?;
        state.send(Bytes::copy_from_slice(&from[..taken]))?;
        Poll::Ready(Ok(taken))
    }

    /// Says that nothing more will be written; the other direction stays open.
    pub fn finish(&self) -> io::Result<()> {
        match &mut self.state.borrow_mut().to {
            To::Answer(_) => Err(io::ErrorKind::NotConnected.into()),
            To::Data(to) => to.send_data(Bytes::new(), true).map_err(broken),
        }
    }

    /// Whether nothing is there to be read, neither bytes nor the end, and the tunnel is open, as the kernel knows it now.
    pub fn is_quiet(&self) -> bool {
        let is_pending = self.state.borrow_mut().poll_piece(&mut Context::from_waker(Waker::noop())).is_pending();
        is_pending && self.lease.as_ref().is_none_or(Lease::is_open)
    }
}

/// As a close does, this says that nothing more comes, after everything that was written: without it `h2` would throw away what waits.
impl Drop for TunnelStream {
    fn drop(&mut self) {
        if let To::Data(to) = &mut self.state.get_mut().to {
            // One that has ended or was reset has said so already.
            let _said = to.send_data(Bytes::new(), true);
        }
    }
}

impl State {
    /// Waits until there are bytes that were not taken yet, or the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() && !self.is_ended {
            match ready!(self.from.poll_data(cx)) {
                Some(Ok(piece)) => self.unread = piece,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => self.is_ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the peer's window has room; gives how much, up to `wanted`.
    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let To::Data(to) = &mut self.to else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let wanted = wanted.min(PIECE_MAX);
        to.reserve_capacity(wanted);
        loop {
            match to.capacity() {
                0 => match ready!(to.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                },
                room => return Poll::Ready(Ok(room.min(wanted))),
            }
        }
    }

    fn send(&mut self, piece: Bytes) -> io::Result<()> {
        match &mut self.to {
            To::Answer(_) => Err(io::ErrorKind::NotConnected.into()),
            To::Data(to) => to.send_data(piece, false).map_err(broken),
        }
    }

    /// The first `count` bytes were taken: the peer may send as many again.
    fn take(&mut self, count: usize) {
        self.unread.advance(count);
        if count > 0 && self.from.flow_control().release_capacity(count).is_err() {
            tracing::debug!("a tunnel is gone while its last bytes are read");
        }
    }
}

/// What has become of the stream, as connections say it.
fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
