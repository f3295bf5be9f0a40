//! Mutual TLS between the proxies of a mesh: who the other end is, proven.

use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

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
