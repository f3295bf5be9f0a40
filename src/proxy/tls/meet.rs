//! How a connection comes to be TLS: both ends shake hands, and each is shown who the other is.
//!
//! Reading order: [`TlsStream::connect`], [`TlsStream::accept`], [`TlsStream::originate`].

use std::io;
use std::net::{IpAddr, Shutdown};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use leno_core::endpoints::Origination;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshake::{Session, Shaken, shake};
use super::originate::server_name;
use super::verify::{Presented, Roots};
use super::{Agreed, Carries, Expected, Failed, Inner, Originator, Proven, Secured, Security, TlsStream, Wrong, now};
use crate::buffers::{Buffer, Buffers};

/// How long a connection whose handshake failed is read on.
const PART_TIME_MAX: Duration = Duration::from_millis(500);
/// How much of it is.
const PART_BYTES_MAX: usize = 64 * 1024;

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
}

impl Shaken {
    /// Forgets what the peer has shown, unless it is looked at again.
    fn keep_chain_of(&mut self, inner: Inner) {
        if !inner.is_tunnel() {
            self.chain = Vec::new();
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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    };
    if timeout(PART_TIME_MAX, drain).await.is_err() {
        tracing::debug!("a peer whose handshake failed still sends");
    }
}
