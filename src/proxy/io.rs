//! One end of a connection, as the data plane reads and writes it.
//!
//! Every method takes `&self`, so that one task can read and write the same connection at once without splitting it.
//! No caller sees whether a connection is plain or mutual TLS. What is written is flushed by [`Io::write_all`], [`Io::flush`] and
//! [`Io::finish`], and while anybody waits to read; [`Io::write`] alone may leave some of it behind.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::{Agreed, Secured, TlsStream};
use crate::tunnel::TunnelStream;

/// How long a connection is silent before its peer is asked whether it is still there.
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// How often it is asked again.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// How often it may leave the question unanswered.
const PROBES: u32 = 3;

/// One end of a connection.
#[derive(Debug)]
pub enum Io {
    /// Plain TCP.
    Plain(TcpStream),
    /// Mutual TLS.
    Tls(Box<TlsStream>),
    /// A stream of a tunnel, which is mutual TLS.
    Tunnelled(Box<TunnelStream>),
}

impl Io {
    /// Dials `address`.
    pub async fn dial(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::Plain(dial(address).await?))
    }

    /// What the handshake agreed on, where the connection is mutual TLS.
    pub fn agreed(&self) -> Option<Agreed> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.agreed()),
            Self::Tunnelled(stream) => Some(stream.agreed()),
        }
    }

    /// Who is at both ends, where the connection is mutual TLS.
    pub fn secured(&self) -> Option<&Rc<Secured>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.secured(),
            Self::Tunnelled(stream) => stream.secured(),
        }
    }

    /// Waits until the connection is known to be dead both ways: it was reset, or its peer answers no keep-alive probe. A
    /// peer that has closed its own direction is not dead: it may be waiting for an answer.
    pub async fn dead(&self) -> io::Error {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.tcp(),
            Self::Tunnelled(stream) => return poll_fn(|cx| stream.poll_reset(cx)).await,
        };
        match stream.ready(Interest::ERROR).await {
            Ok(_) => stream.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
            Err(error) => error,
        }
    }

    /// Reads what is there; `WouldBlock` when nothing is. `Ok(0)` is the end.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => receive(stream, into),
            Self::Tls(stream) => stream.try_read(into),
            Self::Tunnelled(stream) => stream.try_read(into),
        }
    }

    /// Waits until there may be something to read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_readable(cx),
            Self::Tunnelled(stream) => stream.poll_readable(cx),
        }
    }

    /// Reads at least one byte into `into`; 0 is the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_readable(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    /// Writes at least one byte of `from`.
    pub fn poll_write(&self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, &[io::IoSlice::new(from)])
    }

    /// Writes at least one byte of `from`, one part after the other.
    pub(crate) fn poll_write_parts(&self, cx: &mut Context<'_>, from: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => loop {
                match send(stream, from) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_write_ready(cx))?,
                    result => return Poll::Ready(result),
                }
            },
            Self::Tls(stream) => stream.poll_write(cx, from),
            Self::Tunnelled(stream) => stream.poll_write(cx, from.iter().find(|part| !part.is_empty()).map_or(&[], |part| part)),
        }
    }

    /// Waits until the kernel has everything that was written.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_flush(cx),
            // The tunnel's own task does.
            Self::Tunnelled(_) => Poll::Ready(Ok(())),
        }
    }

    /// Waits until there may be something to read, without a buffer: for connections at rest.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Reads at least one byte; 0 is the end.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, into)).await
    }

    /// Writes at least one byte; [`Io::flush`] says that it is on its way.
    pub async fn write(&self, from: &[u8]) -> io::Result<usize> {
        match poll_fn(|cx| self.poll_write(cx, from)).await {
            Ok(0) if !from.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            result => result,
        }
    }

    /// Writes all of `from`.
    pub async fn write_all(&self, mut from: &[u8]) -> io::Result<()> {
        while !from.is_empty() {
            let written = self.write(from).await?;
            from = &from[written..];
        }
        self.flush().await
    }

    /// Waits until the kernel has everything that was written.
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Says that nothing more will be written; the other direction stays open.
    pub async fn finish(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    /// As [`Io::finish`].
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Poll::Ready(SockRef::from(stream).shutdown(Shutdown::Write)),
            Self::Tls(stream) => stream.poll_finish(cx),
            Self::Tunnelled(stream) => Poll::Ready(stream.finish()),
        }
    }

    /// Says that nothing more will be written, where closing alone does not say so: TLS has a word of its own for it.
    pub async fn part(&self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(_) | Self::Tunnelled(_) => self.finish().await,
        }
    }

    /// Makes the close to come a reset, so that the peer cannot take a cut stream for a whole one.
    pub fn abort_on_close(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.tcp(),
            Self::Tunnelled(stream) => return stream.reset(),
        };
        stream.set_zero_linger().unwrap_or_else(|error| tracing::debug!(%error, "cannot reset a connection"));
    }

    /// The other end of what it carries is there. Only who has opened a tunnel's stream waits to hear of it.
    pub fn established(&self) {
        if let Self::Tunnelled(stream) = self {
            stream.established();
        }
    }

    /// It is not carried, for the reason that `status` stands for in HTTP. Who has opened a tunnel's stream is told; others are reset.
    pub fn refused(&self, status: u16) {
        match self {
            Self::Plain(_) | Self::Tls(_) => self.abort_on_close(),
            Self::Tunnelled(stream) => stream.refused(status),
        }
    }

    /// Whether the connection is open, as the kernel knows it now: neither its end nor a reset comes next. A tunnel's stream is asked of
    /// its tunnel.
    pub fn is_open(&self) -> bool {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.tcp(),
            Self::Tunnelled(stream) => return stream.is_quiet(),
        };
        let seen = rustix::net::recv(stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(seen, Ok((1.., _)) | Err(rustix::io::Errno::AGAIN))
    }

    /// Whether the connection is quiet and open, as the kernel knows it now. Bytes nobody asked for count as not quiet.
    ///
    /// Costs a system call, unlike [`Io::try_read`], which may not know yet what has just arrived.
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Plain(stream) => {
                let mut byte = [0];
                let seen = rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
                matches!(seen, Err(rustix::io::Errno::AGAIN))
            }
            Self::Tls(stream) => stream.is_quiet(),
            Self::Tunnelled(stream) => stream.is_quiet(),
        }
    }
}

/// Reads what is there; `WouldBlock` when nothing is.
///
/// Fewer bytes than there was room for are all there were: the next call waits for more without asking the kernel, which would be a
/// system call in vain for each message. What arrives after that, the end as well, is told by epoll as a new edge (epoll(7), "Questions
/// and answers", 9).
pub(crate) fn receive(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    let asked = stream.try_io(Interest::READABLE, || {
        (read, _) = rustix::net::recv(stream, &mut *into, RecvFlags::empty())?;
        // To the runtime this says that nothing is left.
        if 0 < read && read < into.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match asked {
        Err(error) if read == 0 => Err(error),
        Ok(()) | Err(_) => Ok(read),
    }
}

/// Hands bytes to the kernel, as many as it takes; `WouldBlock` when it takes none.
pub(crate) fn send(stream: &TcpStream, from: &[io::IoSlice<'_>]) -> io::Result<usize> {
    stream.try_io(Interest::WRITABLE, || {
        let sent = match from {
            [whole] => rustix::net::send(stream, whole, SendFlags::NOSIGNAL)?,
            parts => rustix::io::writev(stream, parts)?,
        };
        Ok(sent)
    })
}

/// Dials `address` without saying anything yet.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Whoever is on the same machine is not gone without a word: its kernel is this one.
    if address.ip().is_loopback() || stream.local_addr()?.ip() == address.ip() {
        stream.set_nodelay(true)?;
    } else {
        prepare(&SockRef::from(&stream))?;
    }
    Ok(stream)
}

/// No delay for what is written; and probes, so that a peer that is gone without a word does not hold a connection for ever. What a
/// listener has been prepared with, the connections that it accepts have as well.
pub(crate) fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_nodelay(true)
}

/// For what speaks tokio's traits (HTTP/2).
impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => stream.poll_read_buf(cx, buf),
            Self::Tunnelled(stream) => stream.poll_read_buf(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(&self, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(&self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => stream.poll_finish(cx),
            Self::Tunnelled(stream) => Poll::Ready(stream.finish()),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn accepted_connections_have_what_their_listener_was_prepared_with() {
        let listener = crate::listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = dial(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        let times = (accepted.tcp_keepalive_time().unwrap(), accepted.tcp_keepalive_interval().unwrap());
        assert_eq!((times, accepted.tcp_keepalive_retries().unwrap()), ((PROBE_AFTER, PROBE_EVERY), PROBES));
        let client = SockRef::from(&client);
        assert!(client.tcp_nodelay().unwrap() && !client.keepalive().unwrap(), "both ends are here");
    }

    #[tokio::test]
    async fn a_short_read_is_all_there_was_and_what_comes_later_is_read_as_well() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = dial(listener.local_addr().unwrap()).await.unwrap();
        let (mut other, _) = listener.accept().unwrap();
        let io = Io::Plain(stream);
        let mut block = [0; 8];
        for _ in 0..3 {
            other.write_all(b"word").unwrap();
            assert_eq!(io.read(&mut block).await.unwrap(), 4);
            let mut was_asked = false;
            let Io::Plain(tcp) = &io else { unreachable!() };
            let asked = tcp.try_io(Interest::READABLE, || {
                was_asked = true;
                Ok(())
            });
            assert!(asked.is_err() && !was_asked, "the kernel is not asked for what is not there");
        }
        other.write_all(b"longer than the block").unwrap();
        drop(other);
        let mut whole = Vec::new();
        while let count @ 1.. = io.read(&mut block).await.unwrap() {
            whole.extend_from_slice(&block[..count]);
        }
        assert_eq!(whole, b"longer than the block", "and the end is found");
    }
}
