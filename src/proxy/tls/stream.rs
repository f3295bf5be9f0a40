//! One TLS connection, read and written with `&self` as plain ones are.
//!
//! Encrypted bytes are read into blocks of the worker and leave nothing behind but a record that is not whole yet. What is
//! written is encrypted at once and handed to the kernel as far as it takes it; [`TlsStream::poll_flush`] waits for the
//! rest, and so does everything that waits to read, so nothing stays behind when the caller only reads from then on.
//!
//! The end of a stream is its `close_notify`. A connection that ends without one was cut, and reading it is an error: only
//! so can nobody take a cut body for a whole one (RFC 8446 section 6.1).
//!
//! Reading order: [`TlsStream::connect`], [`TlsStream::accept`], [`TlsStream::try_read`], [`TlsStream::poll_write`].

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use leno_core::endpoints::Origination;
use rustix::net::RecvFlags;
use rustls::{ClientConnection, Connection, HandshakeKind, ServerConnection};
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::originate::server_name;
use super::verify::{Presented, Roots};
use super::{Agreed, Carries, Expected, Failed, Inner, Originator, Proven, Secured, Security, Standing, Wrong, now};
use crate::buffers::{BLOCK, Buffer, Buffers, LARGE_BLOCK};
use crate::io::{receive, send};

/// How long a connection whose handshake failed is read on.
const PART_TIME_MAX: Duration = Duration::from_millis(500);
/// How much of it is.
const PART_BYTES_MAX: usize = 64 * 1024;

/// A mutual TLS connection whose handshake is done.
pub struct TlsStream {
    tcp: TcpStream,
    state: RefCell<State>,
    buffers: Rc<Buffers>,
    agreed: Agreed,
    /// What records say of it, where it is mutual.
    secured: Option<Rc<Secured>>,
}

struct State {
    session: Connection,
    /// Bytes read from the network that the session has not taken yet.
    raw: Option<Buffer>,
    /// Whether a read filled a whole block: the next one is larger.
    is_fast: bool,
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
    /// Proves this proxy to who was dialled, and has `expected` proven.
    pub async fn connect(
        tcp: TcpStream,
        address: IpAddr,
        expected: &Expected,
        inner: Inner,
        security: &Security,
        buffers: &Rc<Buffers>,
    ) -> Result<Self, Failed> {
        let config = security.client(expected, inner, now()).map_err(Failed::Unproven)?;
        let before = security.roots();
        let name = ServerName::IpAddress(address.into());
        let session = ClientConnection::new(config, name).map_err(Failed::Protocol)?;
        let mut stream = Self::shake(tcp, session.into(), None, buffers).await?;
        let roots = security.roots().ok_or(Failed::Unproven(super::Unproven::NoTrust))?;
        {
            let state = stream.state.borrow();
            let chain = state.session.peer_certificates().ok_or(Failed::Wrong(Wrong::Missing))?;
            if !stream.is_verified_by(before.as_ref(), &roots) {
                roots.verify_server(chain, expected, now()).map_err(Failed::Wrong)?;
            }
            if !state.session.alpn_protocol().is_some_and(|agreed| inner.offers().contains(&agreed)) {
                return Err(Failed::Protocol(rustls::Error::NoApplicationProtocol));
            }
        }
        stream.secured = Secured::outbound(expected, stream.agreed, security);
        Ok(stream)
    }

    /// Begins TLS with the server outside that `origination` names, which has to prove that name.
    pub async fn originate(
        tcp: TcpStream,
        origination: &Arc<Origination>,
        carries: Carries,
        originator: &Originator,
        buffers: &Rc<Buffers>,
    ) -> Result<Self, Failed> {
        let config = originator.client(origination, carries)?;
        let session = ClientConnection::new(config, server_name(origination)?).map_err(Failed::Outside)?;
        let stream = Self::shake(tcp, session.into(), None, buffers).await.map_err(|failed| match failed {
            Failed::Protocol(error) => Failed::Outside(error),
            other @ (Failed::Unproven(_) | Failed::Wrong(_) | Failed::Outside(_) | Failed::Io(_) | Failed::Timeout) => other,
        })?;
        // A server without ALPN speaks HTTP/1.1; HTTP/2 has to be agreed on (RFC 9113 section 3.2).
        let agreed = stream.state.borrow().session.alpn_protocol().map(<[u8]>::to_vec);
        if carries == Carries::Http2 && agreed.as_deref() != carries.alpn() {
            return Err(Failed::Outside(rustls::Error::NoApplicationProtocol));
        }
        Ok(stream)
    }

    /// Has who dialled proven, and proves this proxy; `first` is what was read of the connection before.
    pub async fn accept(
        tcp: TcpStream,
        first: Option<Buffer>,
        security: &Security,
        buffers: &Rc<Buffers>,
    ) -> Result<(Self, Proven), Failed> {
        let config = security.server(now()).map_err(Failed::Unproven)?;
        let before = security.roots();
        let session = ServerConnection::new(config).map_err(Failed::Protocol)?;
        let mut stream = Self::shake(tcp, session.into(), first, buffers).await?;
        let roots = security.roots().ok_or(Failed::Unproven(super::Unproven::NoTrust))?;
        let proven = {
            let state = stream.state.borrow();
            let chain = state.session.peer_certificates().ok_or(Failed::Wrong(Wrong::Missing))?;
            let identity = match stream.is_verified_by(before.as_ref(), &roots) {
                true => roots.verified(chain),
                false => roots.verify(chain, Presented::ByClient, now()),
            };
            let identity = identity.map_err(Failed::Wrong)?;
            let inner = state.session.alpn_protocol().and_then(Inner::of);
            let inner = inner.ok_or(Failed::Protocol(rustls::Error::NoApplicationProtocol))?;
            Proven { identity, inner, agreed: stream.agreed }
        };
        stream.secured = Secured::inbound(&proven.identity, stream.agreed, security);
        Ok((stream, proven))
    }

    /// Whether the handshake itself has verified the peer's certificate, by the roots that are still trusted. It does not where it resumes
    /// a session.
    fn is_verified_by(&self, before: Option<&Arc<Roots>>, roots: &Arc<Roots>) -> bool {
        !self.agreed.is_resumed && before.is_some_and(|before| Arc::ptr_eq(before, roots))
    }

    /// The handshake, to its last byte.
    async fn shake(tcp: TcpStream, session: Connection, raw: Option<Buffer>, buffers: &Rc<Buffers>) -> Result<Self, Failed> {
        let unknown = Agreed {
            version: rustls::ProtocolVersion::TLSv1_3,
            cipher: rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
            group: rustls::NamedGroup::X25519MLKEM768,
            is_resumed: false,
        };
        let state = RefCell::new(State { session, raw, is_fast: false });
        let mut stream = Self { tcp, state, buffers: Rc::clone(buffers), agreed: unknown, secured: None };
        if let Err(error) = poll_fn(|cx| stream.poll_shake(cx)).await {
            if matches!(stream.state.borrow().session, Connection::Client(_)) {
                return Err(error.into());
            }
            stream.part().await;
            return Err(error.into());
        }
        stream.agreed = stream.agreement().ok_or(Failed::Protocol(rustls::Error::HandshakeNotComplete))?;
        Ok(stream)
    }

    fn poll_shake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.poll_flush(cx)?;
            let mut state = self.state.borrow_mut();
            if !state.session.is_handshaking() {
                drop(state);
                ready!(flushed);
                return self.poll_flush(cx);
            }
            match self.pull(&mut state, Ask::Runtime, 0) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if is_not_yet(&error) => ready!(self.tcp.poll_read_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Ends a connection whose handshake failed, so that what the peer was told of it arrives: no reset while it still sends.
    async fn part(&self) {
        if SockRef::from(&self.tcp).shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut block = self.buffers.take();
        let drain = async {
            let mut left = PART_BYTES_MAX;
            while left > 0 && self.tcp.readable().await.is_ok() {
                match self.tcp.try_read(block.spare()) {
                    Ok(read @ 1..) => left = left.saturating_sub(read),
                    Err(error) if is_not_yet(&error) => {}
                    Ok(0) | Err(_) => return,
                }
            }
        };
        if timeout(PART_TIME_MAX, drain).await.is_err() {
            tracing::debug!("a peer whose handshake failed still sends");
        }
    }

    fn agreement(&self) -> Option<Agreed> {
        let state = self.state.borrow();
        let session = &state.session;
        Some(Agreed {
            version: session.protocol_version()?,
            cipher: session.negotiated_cipher_suite()?.suite(),
            group: session.negotiated_key_exchange_group()?.name(),
            is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// What the handshake agreed on.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// What is carried inside, as the handshake has it; `None` with a server outside the mesh.
    pub fn inner(&self) -> Option<Inner> {
        self.state.borrow().session.alpn_protocol().and_then(Inner::of)
    }

    /// What the peer has proven, for looking at it again later.
    pub fn standing(&self, roots: Arc<Roots>, expected: Option<&Expected>) -> Option<Standing> {
        let state = self.state.borrow();
        let chain = state.session.peer_certificates()?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Standing::new(chain, roots, expected.map(Arc::clone), now()))
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
        self.read_asking(into, Ask::Runtime)
    }

    fn read_asking(&self, into: &mut [u8], ask: Ask) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let mut filled = 0;
        loop {
            match state.session.reader().read(&mut into[filled..]) {
                Ok(0) => return Ok(filled),
                Ok(read) => filled += read,
                Err(error) if !is_not_yet(&error) => return if filled > 0 { Ok(filled) } else { Err(error) },
                Err(_) if filled > 0 && state.raw.is_none() => return Ok(filled),
                Err(_) => match self.pull(&mut state, ask, into.len()) {
                    Ok(_) => {}
                    Err(_) if filled > 0 => return Ok(filled),
                    Err(error) => return Err(error),
                },
            }
            if filled == into.len() {
                return Ok(filled);
            }
        }
    }

    /// Gives the session more of what has arrived; 0 is the end of the connection. `wanted` is how much the caller has room for.
    fn pull(&self, state: &mut State, ask: Ask, wanted: usize) -> io::Result<usize> {
        if state.raw.is_none() {
            state.raw = self.receive(ask, state.is_fast || wanted >= LARGE_BLOCK)?;
            state.is_fast = state.raw.as_ref().is_some_and(|raw| raw.len() >= BLOCK);
        }
        let given = match &mut state.raw {
            Some(raw) => {
                let given = state.session.read_tls(&mut raw.filled())?;
                raw.consume(given);
                given
            }
            None => state.session.read_tls(&mut io::empty())?,
        };
        if state.raw.as_ref().is_some_and(|raw| raw.is_empty() || given == 0) {
            state.raw = None;
        }
        if let Err(error) = state.session.process_new_packets() {
            // The peer is told why, if it can be told at once.
            self.send(state).unwrap_or_else(|error| tracing::debug!(%error, "the peer cannot be told what was wrong"));
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(given)
    }

    /// What has arrived; `None` at the end.
    fn receive(&self, ask: Ask, is_much: bool) -> io::Result<Option<Buffer>> {
        let mut block = if is_much { self.buffers.take_large() } else { self.buffers.take() };
        let read = match ask {
            Ask::Runtime => receive(&self.tcp, block.spare())?,
            Ask::Kernel => {
                let (read, _) = rustix::net::recv(&self.tcp, block.spare(), RecvFlags::DONTWAIT)?;
                read
            }
        };
        block.fill(read);
        Ok((read > 0).then_some(block))
    }

    /// Reads into what may not have been written to yet: nothing is cleared first.
    pub fn poll_read_buf(&self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.remaining();
        let mut state = self.state.borrow_mut();
        loop {
            match state.session.reader().fill_buf() {
                Ok([]) => return Poll::Ready(Ok(())),
                Ok(chunk) => {
                    let count = chunk.len().min(into.remaining());
                    into.put_slice(&chunk[..count]);
                    state.session.reader().consume(count);
                }
                Err(_) if into.remaining() < before => return Poll::Ready(Ok(())),
                Err(error) if !is_not_yet(&error) => return Poll::Ready(Err(error)),
                Err(_) => match self.pull(&mut state, Ask::Runtime, into.remaining()) {
                    Ok(_) => {}
                    Err(error) if is_not_yet(&error) => {
                        self.flush_while_waiting(&mut state, cx);
                        ready!(self.tcp.poll_read_ready(cx))?;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                },
            }
            if into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
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
            let is_there = match state.session.reader().into_first_chunk() {
                Ok(_) => true,
                Err(error) => !is_not_yet(&error),
            };
            if is_there {
                return Poll::Ready(Ok(()));
            }
            match self.pull(&mut state, Ask::Runtime, 0) {
                Ok(_) => {}
                Err(error) if is_not_yet(&error) => ready!(self.tcp.poll_read_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Takes at least one byte of `from`; what the kernel does not take of it waits, and stops the next call.
    pub fn poll_write(&self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let mut state = self.state.borrow_mut();
        let taken = state.session.writer().write_vectored(from)?;
        match self.send(&mut state) {
            Err(error) if !is_not_yet(&error) => Poll::Ready(Err(error)),
            Ok(()) | Err(_) => Poll::Ready(Ok(taken)),
        }
    }

    /// Takes at least one byte of `from` and keeps it, encrypted, for [`TlsStream::poll_flush`]: what is written in several pieces
    /// leaves in one. Waits only when much is kept already.
    pub fn poll_keep(&self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let keep = || self.state.borrow_mut().session.writer().write_vectored(from);
        match keep()? {
            0 => {
                ready!(self.poll_flush(cx))?;
                Poll::Ready(keep())
            }
            taken => Poll::Ready(Ok(taken)),
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
        while state.session.wants_write() {
            if state.session.write_tls(&mut Out(&self.tcp))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Says that nothing more will be written; the other direction stays open.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.borrow_mut().session.send_close_notify();
        ready!(self.poll_flush(cx))?;
        Poll::Ready(SockRef::from(&self.tcp).shutdown(Shutdown::Write))
    }

    /// Whether nothing is there to be read, neither bytes nor the end, as the kernel knows it now. What TLS says to itself
    /// (a ticket, new keys) does not count.
    pub fn is_quiet(&self) -> bool {
        matches!(self.read_asking(&mut [0], Ask::Kernel), Err(error) if is_not_yet(&error))
    }
}

/// Whether it may simply be tried again.
fn is_not_yet(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Where the session writes to.
struct Out<'t>(&'t TcpStream);

impl Write for Out<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(from)])
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        send(self.0, from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside it, a resting connection keeps its peer's certificate and the 4 KiB that rustls reads records into.
    #[test]
    fn a_resting_connection_is_small() {
        assert!(size_of::<TlsStream>() <= 2048, "{}", size_of::<TlsStream>());
    }
}
