//! One TLS connection, read and written with `&self` as plain ones are.
//!
//! Encrypted bytes are read into blocks of the worker, decrypted where they lie, and leave nothing behind but a record that is not
//! whole yet. What is written is encrypted at once and handed to the kernel as far as it takes it; [`TlsStream::poll_flush`] waits for the
//! rest, and so does everything that waits to read, so nothing stays behind when the caller only reads from then on.
//!
//! The end of a stream is its `close_notify`. A connection that ends without one was cut, and reading it is an error: only
//! so can nobody take a cut body for a whole one (RFC 8446 section 6.1).
//!
//! Reading order: `meet` (how it comes to be), [`TlsStream::try_read`], [`TlsStream::poll_write`], `state` (what is there of it).

mod state;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use rustls_pki_types::CertificateDer;
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use self::state::State;
use super::handshake::Shaken;
use super::records::length;
use super::seal::FRAGMENT_MAX;
use super::verify::Roots;
use super::{Agreed, Expected, Inner, Secured, Standing, now};
use crate::buffers::{BLOCK, Buffer, Buffers, LARGE_BLOCK};
use crate::io::{receive, send};

/// What is written at once of long bytes: they fill a block.
pub(crate) const WRITE_MAX: usize = LARGE_BLOCK / BLOCK * FRAGMENT_MAX;

/// A TLS connection whose handshake is done.
pub struct TlsStream {
    tcp: TcpStream,
    state: RefCell<State>,
    buffers: Rc<Buffers>,
    agreed: Agreed,
    /// What is carried inside, as the handshake has it; `None` with a server outside the mesh.
    inner: Option<Inner>,
    /// What the peer has shown, where it is looked at again.
    chain: Vec<CertificateDer<'static>>,
    /// What records say of it, where it is mutual.
    secured: Option<Rc<Secured>>,
}

/// Who says whether there is something to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// The runtime, which may not know yet of what has just arrived.
    Runtime,
    /// The kernel, at the price of a system call.
    Kernel,
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("tcp", &self.tcp).field("agreed", &self.agreed).finish_non_exhaustive()
    }
}

impl TlsStream {
    /// One whose handshake has come to `shaken`.
    pub(super) fn new(tcp: TcpStream, shaken: Shaken, inner: Option<Inner>, secured: Option<Rc<Secured>>, buffers: &Rc<Buffers>) -> Self {
        let Shaken { records, chain, alpn: _, agreed, behind, owed } = shaken;
        let state = State::new(records, behind, &owed, buffers);
        Self { tcp, state: RefCell::new(state), buffers: Rc::clone(buffers), agreed, inner, chain, secured }
    }

    /// What the handshake agreed on.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// What is carried inside, as the handshake has it; `None` with a server outside the mesh.
    pub fn inner(&self) -> Option<Inner> {
        self.inner
    }

    /// What the peer of a tunnel has proven, for looking at it again later.
    pub fn standing(&self, roots: Arc<Roots>, expected: Option<&Expected>) -> Option<Standing> {
        (!self.chain.is_empty()).then(|| Standing::new(self.chain.clone(), roots, expected.map(Arc::clone), now()))
    }

    /// Who is at both ends, where both have proven it.
    pub fn secured(&self) -> Option<&Rc<Secured>> {
        self.secured.as_ref()
    }

    /// The connection beneath.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Reads what is there; `WouldBlock` when nothing is. `Ok(0)` is the end, said by the peer.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let mut filled = 0;
        while filled < into.len() {
            match self.find(&mut state, Ask::Runtime, into.len()) {
                Ok(true) => filled += state.take(&mut into[filled..]),
                Ok(false) => break,
                // What is there is told first; the error comes again.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
            // Nothing more was read, and what is not there is not asked for.
            if state.raw.is_none() {
                break;
            }
        }
        Ok(filled)
    }

    /// Whether there are decrypted bytes, or the end (`false`); `WouldBlock` when neither is. `wanted` is how much the caller has room for.
    fn find(&self, state: &mut State, ask: Ask, wanted: usize) -> io::Result<bool> {
        while state.plain == 0 {
            if state.is_ended {
                return Ok(false);
            }
            match state.open_next() {
                Ok(true) => {}
                Ok(false) => self.pull(state, ask, wanted)?,
                Err(error) => {
                    state.tell(&error, &self.buffers);
                    // If it can be told at once.
                    self.send(state).unwrap_or_else(|error| tracing::debug!(%error, "the peer cannot be told what was wrong"));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
        Ok(true)
    }

    /// Reads more of what has arrived, behind what is there of a record.
    fn pull(&self, state: &mut State, ask: Ask, wanted: usize) -> io::Result<()> {
        let is_much = state.is_fast || wanted >= LARGE_BLOCK;
        let mut block = self.room(state.raw.take(), is_much);
        let read = match ask {
            Ask::Runtime => receive(&self.tcp, block.spare()),
            Ask::Kernel => rustix::net::recv(&self.tcp, block.spare(), RecvFlags::DONTWAIT).map(|(read, _)| read).map_err(io::Error::from),
        };
        if let Ok(read) = read {
            block.fill(read);
            state.is_fast = read >= BLOCK;
        }
        state.raw = Some(block).filter(|block| !block.is_empty());
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// A block with room for the record that has begun, if one has, and for more.
    fn room(&self, begun: Option<Buffer>, is_much: bool) -> Buffer {
        let Some(mut begun) = begun else { return if is_much { self.buffers.take_large() } else { self.buffers.take() } };
        let is_long = length(begun.filled()).is_ok_and(|length| length.is_some_and(|length| length > BLOCK));
        if (is_much || is_long) && begun.block().len() < LARGE_BLOCK {
            let mut large = self.buffers.take_large();
            large.append(begun.filled());
            return large;
        }
        begun.compact();
        begun
    }

    /// Reads into what may not have been written to yet: nothing is cleared first.
    pub fn poll_read_buf(&self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.remaining();
        let mut state = self.state.borrow_mut();
        while into.remaining() > 0 {
            match self.find(&mut state, Ask::Runtime, before) {
                Ok(true) => state.put(into),
                Ok(false) => break,
                Err(_) if into.remaining() < before => break,
                Err(error) if is_not_yet(&error) => {
                    self.flush_while_waiting(&mut state, cx);
                    ready!(self.tcp.poll_read_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What was written goes out while the caller waits for what comes back.
    fn flush_while_waiting(&self, state: &mut State, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(error)) = self.poll_send(state, cx) {
            tracing::debug!(%error, "the peer takes nothing more; what it said before is still read");
        }
    }

    /// Waits until there is something to read inside, or the end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        self.flush_while_waiting(&mut state, cx);
        loop {
            match self.find(&mut state, Ask::Runtime, 0) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if is_not_yet(&error) => ready!(self.tcp.poll_read_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Takes at least one byte of `from`; what the kernel does not take of it waits, and stops the next call.
    pub fn poll_write(&self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let mut state = self.state.borrow_mut();
        let taken = state.seal(from, &self.buffers)?;
        match self.send(&mut state) {
            Err(error) if !is_not_yet(&error) => Poll::Ready(Err(error)),
            Ok(()) | Err(_) => Poll::Ready(Ok(taken)),
        }
    }

    /// Hands everything written to the kernel.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(&mut self.state.borrow_mut(), cx)
    }

    fn poll_send(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.send(state) {
                Err(error) if is_not_yet(&error) => ready!(self.tcp.poll_write_ready(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    fn send(&self, state: &mut State) -> io::Result<()> {
        while let Some(out) = &mut state.out {
            if out.is_empty() {
                state.out = None;
                break;
            }
            match send(&self.tcp, &[IoSlice::new(out.filled())])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => out.consume(sent),
            }
        }
        Ok(())
    }

    /// Says that nothing more will be written; the other direction stays open.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.borrow_mut().close(&self.buffers)?;
        ready!(self.poll_flush(cx))?;
        Poll::Ready(SockRef::from(&self.tcp).shutdown(Shutdown::Write))
    }

    /// Whether nothing is there to be read, neither bytes nor the end, as the kernel knows it now. What TLS says to itself
    /// (a ticket, new keys) does not count.
    pub fn is_quiet(&self) -> bool {
        matches!(self.find(&mut self.state.borrow_mut(), Ask::Kernel, 0), Err(error) if is_not_yet(&error))
    }
}

/// Whether it may simply be tried again.
fn is_not_yet(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
