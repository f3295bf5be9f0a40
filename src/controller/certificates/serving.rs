//! The serving certificate as listeners use it: replaced while they run.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WantsServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificateError, Material};
use crate::ca::proof::Asking;

/// What is served now. Clones share it.
#[derive(Clone, Debug)]
pub struct Serving {
    provider: Arc<CryptoProvider>,
    current: Arc<ArcSwap<Current>>,
}

#[derive(Debug)]
struct Current {
    material: Material,
    key: Arc<CertifiedKey>,
}

impl Serving {
    /// Serves `material`.
    ///
    /// # Errors
    /// When it does not hold a certificate and its key.
    pub fn new(material: Material) -> Result<Self, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let current = ArcSwap::from_pointee(Current::new(material, &provider)?);
        Ok(Self { provider, current: Arc::new(current) })
    }

    /// Serves `material` from the next handshake on. Returns whether it is new.
    ///
    /// # Errors
    /// When it does not hold a certificate and its key; what was served before stays.
    pub fn replace(&self, material: Material) -> Result<bool, CertificateError> {
        if self.current.load().material == material {
            return Ok(false);
        }
        self.current.store(Arc::new(Current::new(material, &self.provider)?));
        Ok(true)
    }

    /// What is served now.
    pub fn material(&self) -> Material {
        self.current.load().material.clone()
    }

    /// Certificates (PEM) by which to trust what is served.
    pub fn ca_bundle(&self) -> String {
        self.current.load().material.ca_bundle.clone()
    }

    /// What replicas show each other.
    pub fn peer_token(&self) -> String {
        self.current.load().material.peer_token.clone()
    }

    /// A listener's configuration, TLS 1.2 and 1.3, with `alpn` in order of preference.
    ///
    /// # Errors
    /// Never with this crate's provider.
    pub fn server_config(&self, alpn: &[&str]) -> Result<Arc<ServerConfig>, CertificateError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions()?;
        Ok(self.finished(builder.with_no_client_auth(), alpn))
    }

    /// The configuration of the control stream's listener: TLS 1.3, HTTP/2, and clients are asked who they are
    /// (see [`crate::ca::proof`]).
    ///
    /// # Errors
    /// Never with this crate's provider.
    pub fn server_config_for_proxies(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_protocol_versions(&[&rustls::version::TLS13])?;
        Ok(self.finished(builder.with_client_cert_verifier(Arc::new(Asking(Arc::clone(&self.provider)))), &["h2"]))
    }

    fn finished(&self, builder: ConfigBuilder<ServerConfig, WantsServerCert>, alpn: &[&str]) -> Arc<ServerConfig> {
        let mut config = builder.with_cert_resolver(Arc::new(Resolver(Arc::clone(&self.current))));
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The configuration by which one replica calls another.
    ///
    /// # Errors
    /// When the bundle cannot be read.
    pub fn client_config(&self) -> Result<Arc<rustls::ClientConfig>, CertificateError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(self.ca_bundle().as_bytes()).flatten());
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

impl Current {
    fn new(material: Material, provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(material.certificate.as_bytes()).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(CertificateError::Unreadable("tls.crt"))?;
        let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes())
            .map_err(|_pem: rustls_pki_types::pem::Error| CertificateError::Unreadable("tls.key"))?;
        let key = CertifiedKey::from_der(chain, key, provider)?;
        Ok(Self { material, key: Arc::new(key) })
    }
}

#[derive(Debug)]
struct Resolver(Arc<ArcSwap<Current>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}
