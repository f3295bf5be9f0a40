//! What one worker proves itself with and whom it trusts, made into configurations for handshakes.
//!
//! A configuration is made once for each expected identity and kept with its own session store, so that a session is
//! only ever resumed with who it was made with. Everything made is dropped when the certificate or the trust changes:
//! a session that outlived either would prove what is no longer so.
//!
//! Reading order: [`Security::client`], [`Security::server`], [`Unproven`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use leno_core::names::Identity;
use leno_core::trust::Trust;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::UnixTime;

use super::Inner;
use super::verify::{MeshClient, Roots, ServerIs};
use crate::identity::Credentials;

/// Configurations kept at once: identities that an app talks to.
const CLIENTS_MAX: usize = 512;
/// Sessions kept for one identity, over all its endpoints.
const SESSIONS_MAX: usize = 128;

/// What one worker proves itself with and whom it trusts.
pub struct Security {
    provider: Arc<CryptoProvider>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    credentials: Option<Arc<Credentials>>,
    roots: Option<Arc<Roots>>,
    server: Option<Arc<ServerConfig>>,
    clients: HashMap<(Arc<Identity>, Inner), Kept, RandomState>,
    /// Counts uses, to know which was used last.
    turn: u64,
}

struct Kept {
    config: Arc<ClientConfig>,
    used: u64,
}

/// Why this proxy cannot prove itself, or verify others.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unproven {
    /// It has not got a certificate yet.
    #[error("this proxy has no certificate yet; its log says why, and `leno check` whether the controller can sign")]
    NoCertificate,
    /// It has not been told whom to trust.
    #[error("this proxy has not been told yet which roots to trust; is leno-controller reachable?")]
    NoTrust,
    /// Its certificate was not renewed in time.
    #[error("this proxy's certificate expired {} s ago and was not renewed; is leno-controller reachable?", .0.as_secs())]
    Expired(Duration),
    /// The certificate cannot be used.
    #[error("this proxy's certificate cannot be used: {0}")]
    Unusable(rustls::Error),
}

impl Default for Security {
    fn default() -> Self {
        Self { provider: Arc::new(default_provider()), state: RefCell::default() }
    }
}

impl Security {
    /// A new certificate. Connections that are there go on.
    pub fn set_credentials(&self, credentials: Arc<Credentials>) {
        let mut state = self.state.borrow_mut();
        state.forget();
        state.credentials = Some(credentials);
    }

    /// Whom to trust from now on. Connections that are there go on.
    pub fn set_trust(&self, trust: Arc<Trust>) {
        let roots = Roots::new(trust, &self.provider);
        let mut state = self.state.borrow_mut();
        state.forget();
        state.roots = Some(Arc::new(roots));
    }

    /// What this proxy proves itself with now.
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        self.state.borrow().credentials.clone()
    }

    /// Whom it trusts now.
    pub fn roots(&self) -> Option<Arc<Roots>> {
        self.state.borrow().roots.clone()
    }

    /// Whether this proxy can prove itself and verify others now.
    pub fn check(&self, now: UnixTime) -> Result<(), Unproven> {
        self.state.borrow().holds(now).map(|_| ())
    }

    /// For handshakes of those who dial this proxy.
    pub fn server(&self, now: UnixTime) -> Result<Arc<ServerConfig>, Unproven> {
        let mut state = self.state.borrow_mut();
        let (credentials, roots) = state.proven(now)?;
        if let Some(config) = &state.server {
            return Ok(Arc::clone(config));
        }
        let config = self.make_server(&credentials, roots).map(Arc::new).map_err(Unproven::Unusable)?;
        state.server = Some(Arc::clone(&config));
        Ok(config)
    }

    /// For handshakes with `expected`, about bytes of the kind `inner`.
    pub fn client(&self, expected: &Arc<Identity>, inner: Inner, now: UnixTime) -> Result<Arc<ClientConfig>, Unproven> {
        let mut state = self.state.borrow_mut();
        let (credentials, roots) = state.proven(now)?;
        state.turn += 1;
        let turn = state.turn;
        let key = (Arc::clone(expected), inner);
        if let Some(kept) = state.clients.get_mut(&key) {
            kept.used = turn;
            return Ok(Arc::clone(&kept.config));
        }
        let config = self.make_client(&credentials, roots, expected, inner).map(Arc::new).map_err(Unproven::Unusable)?;
        state.make_room();
        state.clients.insert(key, Kept { config: Arc::clone(&config), used: turn });
        Ok(config)
    }

    fn make_server(&self, credentials: &Credentials, roots: Arc<Roots>) -> Result<ServerConfig, rustls::Error> {
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = config.with_client_cert_verifier(Arc::new(MeshClient { roots }));
        let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&credentials.certified))));
        config.alpn_protocols = Inner::ALL.map(|inner| inner.alpn().to_vec()).into();
        config.enable_secret_extraction = true;
        // Sessions travel in tickets, so that a server remembers nothing of its clients.
        config.ticketer = Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Each connection replaces the ticket that it came with.
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    fn make_client(
        &self,
        credentials: &Credentials,
        roots: Arc<Roots>,
        expected: &Arc<Identity>,
        inner: Inner,
    ) -> Result<ClientConfig, rustls::Error> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider)).with_protocol_versions(&[&rustls::version::TLS13])?;
        let verifier = ServerIs { roots, expected: Arc::clone(expected) };
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&credentials.certified))));
        config.alpn_protocols = inner.offers().iter().map(|name| name.to_vec()).collect();
        config.enable_sni = false;
        config.enable_secret_extraction = true;
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(config)
    }
}

impl State {
    fn forget(&mut self) {
        self.server = None;
        self.clients.clear();
    }

    fn proven(&self, now: UnixTime) -> Result<(Arc<Credentials>, Arc<Roots>), Unproven> {
        self.holds(now).map(|(credentials, roots)| (Arc::clone(credentials), Arc::clone(roots)))
    }

    /// What holds now, if this proxy can prove itself and verify others with it.
    fn holds(&self, now: UnixTime) -> Result<(&Arc<Credentials>, &Arc<Roots>), Unproven> {
        let credentials = self.credentials.as_ref().ok_or(Unproven::NoCertificate)?;
        let roots = self.roots.as_ref().ok_or(Unproven::NoTrust)?;
        let end = u64::try_from(credentials.held.not_after).unwrap_or_default();
        match now.as_secs().checked_sub(end) {
            Some(late @ 1..) => Err(Unproven::Expired(Duration::from_secs(late))),
            Some(0) | None => Ok((credentials, roots)),
        }
    }

    fn make_room(&mut self) {
        if self.clients.len() < CLIENTS_MAX {
            return;
        }
        let oldest = self.clients.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.clients.remove(&oldest);
        }
    }
}
