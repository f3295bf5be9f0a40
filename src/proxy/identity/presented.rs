//! The certificate the control stream shows: always the newest, so that each new connection is made with it.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

/// What the stream's TLS shows; nothing at first.
#[derive(Debug, Default)]
pub struct Presented(RwLock<Option<Arc<CertifiedKey>>>);

impl Presented {
    /// From now on this is shown; `None` shows nothing.
    pub fn set(&self, certified: Option<Arc<CertifiedKey>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
    }

    /// `tls` with this as client certificate. Connections are not resumed: a resumed one would go on with the certificate of old.
    pub fn by(self: &Arc<Self>, tls: &ClientConfig) -> ClientConfig {
        let mut tls = tls.clone();
        tls.client_auth_cert_resolver = Arc::clone(self) as Arc<dyn ResolvesClientCert>;
        tls.resumption = Resumption::disabled();
        tls
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_certs(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
