//! TLS that this proxy begins with servers outside the mesh, which know nothing of Leno: ordinary TLS, 1.3 or 1.2, by the public
//! authorities or by those that the MeshService names.
//!
//! A configuration is made once for each server name, its authorities and what is carried inside, with its own session store.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use leno_core::endpoints::Origination;
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};

use super::Failed;

/// Configurations kept at once.
const CONFIGS_MAX: usize = 256;

/// Configurations by server and by what is carried.
type Configs = HashMap<(Arc<Origination>, Carries), Arc<ClientConfig>, RandomState>;

/// What is carried on a connection that this proxy dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carries {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes that are not looked at.
    Bytes,
    /// The app's own TLS.
    OwnTls,
}

/// Begins TLS outside the mesh, for one worker.
pub struct Originator {
    provider: Arc<CryptoProvider>,
    configs: RefCell<Configs>,
}

impl Default for Originator {
    fn default() -> Self {
        Self { provider: Arc::new(default_provider()), configs: RefCell::default() }
    }
}

impl Carries {
    /// Its name in the handshake (ALPN, RFC 7301); apps' own protocols have none that is known here.
    pub fn alpn(self) -> Option<&'static [u8]> {
        match self {
            Self::Http1 => Some(b"http/1.1"),
            Self::Http2 => Some(b"h2"),
            Self::Bytes | Self::OwnTls => None,
        }
    }
}

impl Originator {
    /// For handshakes with the server that `origination` names.
    pub(super) fn client(&self, origination: &Arc<Origination>, carries: Carries) -> Result<Arc<ClientConfig>, Failed> {
        let mut configs = self.configs.borrow_mut();
        let key = (Arc::clone(origination), carries);
        if let Some(config) = configs.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = self.make(origination, carries).map_err(Failed::Outside)?;
        if configs.len() >= CONFIGS_MAX {
            configs.clear();
        }
        configs.insert(key, Arc::clone(&config));
        Ok(config)
    }

    fn make(&self, origination: &Origination, carries: Carries) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        if origination.roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for root in &origination.roots {
            roots.add(CertificateDer::from_slice(root))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions()?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = carries.alpn().map(<[u8]>::to_vec).into_iter().collect();
        config.enable_secret_extraction = true;
        // A session of TLS 1.2 that is resumed would not say which group its keys were agreed by.
        config.resumption = Resumption::in_memory_sessions(64).tls12_resumption(Tls12Resumption::Disabled);
        Ok(Arc::new(config))
    }
}

/// The name that the server's certificate must be for.
pub(super) fn server_name(origination: &Origination) -> Result<ServerName<'static>, Failed> {
    let name = ServerName::try_from(&*origination.server_name).map(|name| name.to_owned());
    name.ok().ok_or_else(|| Failed::Outside(rustls::Error::General(format!("{:?} is no server name", origination.server_name))))
}
