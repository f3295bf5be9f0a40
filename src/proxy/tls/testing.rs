//! Both ends of ordinary TLS, for tests of what comes after the handshake.

use std::sync::Arc;

use leno_core::endpoints::Origination;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::PrivateKeyDer;

/// Whose certificate servers show.
pub(super) const NAME: &str = "api.example.com";

/// An authority, and a server that it vouches for.
pub(super) struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self { authority: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(super) fn origination(&self) -> Arc<Origination> {
        Arc::new(Origination { server_name: NAME.into(), roots: vec![Arc::from(&**self.authority.der())] })
    }

    /// A server of one version, with one cipher suite or all.
    pub(super) fn server(&self, version: &'static SupportedProtocolVersion, suite: Option<SupportedCipherSuite>) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::new(provider(suite))).with_protocol_versions(&[version]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, &self.authority).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.enable_secret_extraction = true;
        config.ticketer = Ticketer::new().unwrap();
        Arc::new(config)
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider(None))).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.enable_secret_extraction = true;
        Arc::new(config)
    }
}

fn provider(suite: Option<SupportedCipherSuite>) -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.retain(|known| suite.is_none_or(|wanted| wanted == *known));
    provider
}

/// Every suite that rustls knows, with its version.
pub(super) fn suites() -> impl Iterator<Item = (&'static SupportedProtocolVersion, SupportedCipherSuite)> {
    // The server's key is of ECDSA.
    let suites = default_provider().cipher_suites.into_iter().filter(|suite| !suite.suite().as_str().unwrap().contains("_RSA_"));
    suites.map(|suite| (if suite.tls13().is_some() { &rustls::version::TLS13 } else { &rustls::version::TLS12 }, suite))
}
