//! Mutual TLS between the proxies of a mesh: who the other end is, proven.
//!
//! Reading order: [`security`] (what a worker proves itself with, and whom it trusts), [`verify`] (what a certificate proves),
//! [`hello`] (telling a proxy of the mesh from everybody else), `meet` and `handshake` (how both ends come together), [`stream`] (the
//! connection itself), `records` and `seal` (what is read and written of it), [`originate`] (ordinary TLS with servers outside the mesh,
//! the one exception from what follows).
//!
//! Invariants: TLS 1.3 only; nothing is sent to an endpoint before it has proven the identity that discovery promised; a
//! resumed session is verified like a new one; a renewal touches no connection that is there.

mod handshake;
pub mod hello;
mod meet;
pub mod originate;
mod records;
mod seal;
mod secured;
pub mod security;
mod standing;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod verify;

use std::fmt;
use std::io;
use std::sync::Arc;

use leno_core::names::Identity;
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

pub use originate::{Carries, Originator};
pub use secured::Secured;
pub use security::{Security, Unproven};
pub use standing::Standing;
pub use stream::TlsStream;
pub(crate) use stream::WRITE_MAX;
pub use verify::Wrong;

/// The protocol inside is HTTP; its preface tells the version.
pub const ALPN_HTTP: &[u8] = b"leno/http";
/// Connections of HTTP/1 are streams inside.
pub const ALPN_HTTP_TUNNEL: &[u8] = b"leno/http-tunnel";
/// Connections of apps are streams inside, whose bytes are not looked at.
pub const ALPN_TUNNEL: &[u8] = b"leno/tunnel";
/// The bytes inside are not looked at.
pub const ALPN_TCP: &[u8] = b"leno/tcp";

/// What is carried inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inner {
    /// HTTP of any version.
    Http,
    /// Connections of HTTP/1, many of them, each a stream of HTTP/2.
    HttpTunnel,
    /// Connections of apps, many of them, each a stream of HTTP/2.
    Tunnel,
    /// Bytes that are not looked at: one connection of an app.
    Tcp,
}

impl Inner {
    /// All of them, in the order in which a server agrees on them (RFC 7301 section 3.2): who offers a tunnel gets one.
    pub const ALL: [Self; 4] = [Self::HttpTunnel, Self::Http, Self::Tunnel, Self::Tcp];

    /// Its name in the handshake.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http => ALPN_HTTP,
            Self::HttpTunnel => ALPN_HTTP_TUNNEL,
            Self::Tunnel => ALPN_TUNNEL,
            Self::Tcp => ALPN_TCP,
        }
    }

    /// What a client that wants it offers, the best first: a proxy of before there were tunnels carries connections one by one.
    pub fn offers(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http => &[ALPN_HTTP],
            Self::HttpTunnel => &[ALPN_HTTP_TUNNEL, ALPN_HTTP],
            Self::Tunnel => &[ALPN_TUNNEL, ALPN_TCP],
            Self::Tcp => &[ALPN_TCP],
        }
    }

    /// The one with this name.
    pub fn of(alpn: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|inner| inner.alpn() == alpn)
    }

    /// Whether many connections are carried in it.
    pub fn is_tunnel(self) -> bool {
        matches!(self, Self::HttpTunnel | Self::Tunnel)
    }
}

/// Which end of a handshake this proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// It dialled.
    Client,
    /// It was dialled.
    Server,
}

impl End {
    /// Metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What a handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The protocol's version.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub cipher: CipherSuite,
    /// The group of the key exchange.
    pub group: NamedGroup,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
}

impl Agreed {
    /// The version as logs write it, `TLSv1_3`.
    pub fn version(&self) -> &'static str {
        self.version.as_str().unwrap_or("unknown")
    }

    /// The cipher suite by its IANA name, `TLS13_AES_256_GCM_SHA384`.
    pub fn cipher(&self) -> &'static str {
        self.cipher.as_str().unwrap_or("unknown")
    }

    /// The group by its IANA name, `X25519MLKEM768`.
    pub fn group(&self) -> &'static str {
        self.group.as_str().unwrap_or("unknown")
    }
}

/// What a handshake has shown.
pub struct Proven {
    /// Who the peer is.
    pub identity: Identity,
    /// What is carried inside.
    pub inner: Inner,
    /// What was agreed on.
    pub agreed: Agreed,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum Failed {
    /// This proxy cannot prove itself.
    Unproven(Unproven),
    /// The peer is not who it should be, or cannot prove it.
    Wrong(Wrong),
    /// The peer broke the protocol, or has refused this proxy.
    Protocol(rustls::Error),
    /// A server outside the mesh does not prove its name, or does not speak TLS as it should.
    Outside(rustls::Error),
    /// The connection broke.
    Io(io::Error),
    /// It took too long.
    Timeout,
}

impl Failed {
    /// Metric label: a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unproven(_) => "no-certificate",
            Self::Wrong(wrong) => wrong.reason(),
            Self::Protocol(rustls::Error::AlertReceived(_)) => "refused-by-peer",
            Self::Protocol(rustls::Error::NoCertificatesPresented) => "no-peer-certificate",
            Self::Protocol(_) => "protocol",
            Self::Outside(_) => "outside",
            Self::Io(_) => "broken",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unproven(unproven) => unproven.fmt(f),
            Self::Wrong(wrong) => wrong.fmt(f),
            Self::Protocol(rustls::Error::AlertReceived(alert)) => {
                write!(f, "the peer refused the handshake ({alert:?}); its own log says why")
            }
            Self::Protocol(error) => write!(f, "the peer does not speak the mesh's TLS: {error}"),
            Self::Outside(error) => write!(f, "no TLS with the server outside (see spec.external.tls of its MeshService): {error}"),
            Self::Io(error) => write!(f, "the connection broke during the handshake: {error}"),
            Self::Timeout => f.write_str("the handshake took too long"),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => match Wrong::of(&error) {
                Some(wrong) => Self::Wrong(wrong.clone()),
                None => Self::Protocol(error),
            },
            Err(error) => Self::Io(error),
        }
    }
}

/// Whether the peer has ended the connection because this proxy's certificate did not convince it. It says so only after this
/// end's handshake is done (RFC 8446 section 4.4.2), and before anything that was sent has reached its app.
pub fn is_refusal(error: &io::Error) -> bool {
    use rustls::AlertDescription as A;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = inner else { return false };
    let about_certificates = [
        A::BadCertificate,
        A::UnsupportedCertificate,
        A::CertificateRevoked,
        A::CertificateExpired,
        A::CertificateUnknown,
        A::UnknownCA,
        A::CertificateRequired,
        A::AccessDenied,
    ];
    about_certificates.contains(alert)
}

/// The time certificates are compared with.
pub(crate) fn now() -> rustls_pki_types::UnixTime {
    rustls_pki_types::UnixTime::now()
}

/// Dialled by whom: an expected identity, shared by everything that refers to it.
pub type Expected = Arc<Identity>;
