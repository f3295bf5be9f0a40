//! One TLS connection, read and written with `&self` as plain ones are.
//!
//! Encrypted bytes are read into blocks of the worker, decrypted where they lie, and leave nothing behind but a record that is not
//! whole yet. What is written is encrypted at once and handed to the kernel as far as it takes it; [`TlsStream::poll_flush`] waits for the
//! rest, and so does everything that waits to read, so nothing stays behind when the caller only reads from then on.
//!
//! The end of a stream is its `close_notify`. A connection that ends without one was cut, and reading it is an error: only
//! so can nobody take a cut body for a whole one (RFC 8446 section 6.1).
//!
//! Reading order: [`TlsStream::connect`], [`TlsStream::accept`], [`TlsStream::try_read`], [`TlsStream::poll_write`].

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use leno_core::endpoints::Origination;
use rustix::net::RecvFlags;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshake::{Session, Shaken, shake};
use super::originate::server_name;
use super::records::{Opened, Records, length};
use super::seal::FRAGMENT_MAX;
use super::verify::{Presented, Roots};
use super::{Agreed, Carries, Expected, Failed, Inner, Originator, Proven, Secured, Security, Standing, Wrong, now};
use crate::buffers::{BLOCK, Buffer, Buffers, LARGE_BLOCK};
use crate::io::{receive, send};

/// How long a connection whose handshake failed is read on.
const PART_TIME_MAX: Duration = Duration::from_millis(500);
/// How much of it is.
const PART_BYTES_MAX: usize = 64 * 1024;
/// With less room than this, what is kept is sent before more is.
const ROOM_MIN: usize = 1024;
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

struct State {
    records: Records,
    /// What was read from the network: `plain` bytes decrypted, `tail` bytes behind them that are of no more use, and records.
    raw: Option<Buffer>,
    plain: usize,
    tail: usize,
    /// Whether a read filled a whole block: the next one is larger.
    is_fast: bool,
    /// The peer has said that it sends nothing more.
    is_ended: bool,
    /// This end has.
    is_closed: bool,
    /// Records that the kernel has not taken.
    out: Option<Buffer>,
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
        let session = UnbufferedClientConnection::new(config, name).map_err(Failed::Protocol)?;
        let mut shaken = shake(&tcp, Session::Client(session), None, buffers).await?;
        let roots = security.roots().ok_or(Failed::Unproven(super::Unproven::NoTrust))?;
        if shaken.chain.is_empty() {
            return Err(Failed::Wrong(Wrong::Missing));
        }
        if !is_verified_by(shaken.agreed, before.as_ref(), &roots) {
            roots.verify_server(&shaken.chain, expected, now()).map_err(Failed::Wrong)?;
        }
        let agreed = shaken.alpn.as_deref().filter(|agreed| inner.offers().contains(agreed)).and_then(Inner::of);
        let agreed = agreed.ok_or(Failed::Protocol(rustls::Error::NoApplicationProtocol))?;
        let secured = Secured::outbound(expected, shaken.agreed, security);
        shaken.keep_chain_of(agreed);
        Ok(Self::new(tcp, shaken, Some(agreed), secured, buffers))
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
        let session = UnbufferedClientConnection::new(config, server_name(origination)?).map_err(Failed::Outside)?;
        let mut shaken = shake(&tcp, Session::Client(session), None, buffers).await.map_err(|error| match error.into() {
            Failed::Protocol(error) => Failed::Outside(error),
            other @ (Failed::Unproven(_) | Failed::Wrong(_) | Failed::Outside(_) | Failed::Io(_) | Failed::Timeout) => other,
        })?;
        // A server without ALPN speaks HTTP/1.1; HTTP/2 has to be agreed on (RFC 9113 section 3.2).
        if carries == Carries::Http2 && shaken.alpn.as_deref() != carries.alpn() {
            return Err(Failed::Outside(rustls::Error::NoApplicationProtocol));
        }
        shaken.chain = Vec::new();
        Ok(Self::new(tcp, shaken, None, None, buffers))
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
        let session = UnbufferedServerConnection::new(config).map_err(Failed::Protocol)?;
        let mut shaken = match shake(&tcp, Session::Server(session), first, buffers).await {
            Ok(shaken) => shaken,
            Err(error) => {
                part(&tcp, buffers).await;
                return Err(error.into());
            }
        };
        let roots = security.roots().ok_or(Failed::Unproven(super::Unproven::NoTrust))?;
        if shaken.chain.is_empty() {
            return Err(Failed::Wrong(Wrong::Missing));
        }
        let identity = match is_verified_by(shaken.agreed, before.as_ref(), &roots) {
            true => roots.verified(&shaken.chain),
            false => roots.verify(&shaken.chain, Presented::ByClient, now()),
        };
        let identity = identity.map_err(Failed::Wrong)?;
        let inner = shaken.alpn.as_deref().and_then(Inner::of);
        let inner = inner.ok_or(Failed::Protocol(rustls::Error::NoApplicationProtocol))?;
        let proven = Proven { identity, inner, agreed: shaken.agreed };
        let secured = Secured::inbound(&proven.identity, shaken.agreed, security);
        shaken.keep_chain_of(inner);
        Ok((Self::new(tcp, shaken, Some(inner), secured, buffers), proven))
    }

    fn new(tcp: TcpStream, shaken: Shaken, inner: Option<Inner>, secured: Option<Rc<Secured>>, buffers: &Rc<Buffers>) -> Self {
        let Shaken { records, chain, alpn: _, agreed, behind, owed } = shaken;
        let (raw, plain) = behind.map_or((None, 0), |(raw, plain)| (Some(raw), plain));
        let out = Some(owed).filter(|owed| !owed.is_empty()).map(|owed| {
            let mut out = buffers.take();
            out.append(&owed);
            out
        });
        let state = State { records, raw, plain, tail: 0, is_fast: false, is_ended: false, is_closed: false, out };
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
        self.read_asking(into, Ask::Runtime)
    }

    fn read_asking(&self, into: &mut [u8], ask: Ask) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let mut filled = 0;
        while filled < into.len() {
            match self.find(&mut state, ask, into.len()) {
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

    /// Takes at least one byte of `from` and keeps it, encrypted, for [`TlsStream::poll_flush`]: what is written in several pieces
    /// leaves in one. Waits only when much is kept already.
    pub fn poll_keep(&self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        if state.out.as_ref().is_some_and(|out| out.room() < ROOM_MIN) {
            ready!(self.poll_send(&mut state, cx))?;
        }
        Poll::Ready(state.seal(from, &self.buffers))
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

impl Shaken {
    /// Forgets what the peer has shown, unless it is looked at again.
    fn keep_chain_of(&mut self, inner: Inner) {
        if inner != Inner::Tunnel {
            self.chain = Vec::new();
        }
    }
}

impl State {
    /// Opens the next record, if it is here whole.
    fn open_next(&mut self) -> Result<bool, rustls::Error> {
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
    fn take(&mut self, into: &mut [u8]) -> usize {
        let Some(raw) = &self.raw else { return 0 };
        let count = self.plain.min(into.len());
        into[..count].copy_from_slice(&raw.filled()[..count]);
        self.used(count);
        count
    }

    /// The same, into what may not have been written to yet.
    fn put(&mut self, into: &mut ReadBuf<'_>) {
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

    fn seal(&mut self, from: &[IoSlice<'_>], buffers: &Rc<Buffers>) -> io::Result<usize> {
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

    fn close(&mut self, buffers: &Rc<Buffers>) -> io::Result<()> {
        if !self.is_closed {
            self.is_closed = true;
            self.records.close(self.out.get_or_insert_with(|| buffers.take())).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Tells the peer, once, what it did wrong. Nothing more is written then.
    fn tell(&mut self, error: &rustls::Error, buffers: &Rc<Buffers>) {
        if !self.is_closed {
            self.is_closed = true;
            let told = self.records.alert(error, self.out.get_or_insert_with(|| buffers.take()));
            told.unwrap_or_else(|error| tracing::debug!(%error, "the peer cannot be told what was wrong"));
        }
    }
}

/// Whether the handshake itself has verified the peer's certificate, by the roots that are still trusted. It does not where it resumes a
/// session.
fn is_verified_by(agreed: Agreed, before: Option<&Arc<Roots>>, roots: &Arc<Roots>) -> bool {
    !agreed.is_resumed && before.is_some_and(|before| Arc::ptr_eq(before, roots))
}

/// Ends a connection whose handshake failed, so that what the peer was told of it arrives: no reset while it still sends.
async fn part(tcp: &TcpStream, buffers: &Rc<Buffers>) {
    if SockRef::from(tcp).shutdown(Shutdown::Write).is_err() {
        return;
    }
    let mut block = buffers.take();
    let drain = async {
        let mut left = PART_BYTES_MAX;
        while left > 0 && tcp.readable().await.is_ok() {
            match tcp.try_read(block.spare()) {
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

/// Whether it may simply be tried again.
fn is_not_yet(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests;
