//! One request for a certificate, from the token to the signature: who asks, may they ask now, what is signed.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use leno_core::names::WorkloadId;
use leno_xds::security::trust_message;
use leno_xds::wire::leno::SigningResponse;
use rustls::crypto::SecureRandom;
use tokio::sync::{Semaphore, watch};

use super::authenticate::{Applicant, Authenticator, Refusal, TOKEN_BYTES_MAX};
use super::authority::{Authority, AuthorityError, Domains, make};
use super::count::{Counts, Outcome};
use super::limit::Buckets;
use super::request::{RequestError, public_key};
use crate::publish::{Publisher, Stopped};

/// Requests looked at together: each costs two calls of the API server.
const CONCURRENT_MAX: usize = 32;
/// What one workload may ask for: a few at its start, then one now and again. Certificates of a minute need one every 42 s.
const WORKLOAD_PERMITS: u32 = 6;
const WORKLOAD_REFILL: Duration = Duration::from_secs(10);
/// Tokens refused from one address until no more of them are looked at.
const REFUSED_PERMITS: u32 = 20;
const REFUSED_REFILL: Duration = Duration::from_secs(5);
/// Workloads and addresses remembered.
const KEYS_MAX: usize = 100_000;

/// The authority in force; `None` while there is none that can be used.
pub type Current = watch::Receiver<Option<Arc<Authority>>>;

/// Why no certificate was signed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The `authorization` field is missing or of another shape.
    #[error("send the workload's token as: authorization: Bearer TOKEN")]
    NoToken,
    /// Not who the token should say.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// The request itself.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Its name fits into no certificate.
    #[error(transparent)]
    Name(#[from] leno_core::names::InvalidIdentity),
    /// Asked too often.
    #[error("too many requests of {0}: ask again in {seconds} s", seconds = WORKLOAD_REFILL.as_secs())]
    TooMany(String),
    /// Too many ask at the same time.
    #[error("too many ask at the same time: ask again in a moment")]
    Busy,
    /// There is nothing to sign with.
    #[error("there is no usable certificate authority now: see the controller's log")]
    NotReady,
    /// What signs cannot sign this.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Refused {
    /// What is counted.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoToken | Self::Refusal(Refusal::Token(_)) => Outcome::BadToken,
            Self::Refusal(Refusal::Unbound) => Outcome::Unbound,
            Self::Refusal(Refusal::Gone(_)) => Outcome::PodGone,
            Self::Refusal(Refusal::Another(_)) => Outcome::PodMismatch,
            Self::Request(_) | Self::Name(_) => Outcome::BadRequest,
            Self::TooMany(_) | Self::Busy => Outcome::RateLimited,
            Self::Refusal(Refusal::Unavailable(_)) | Self::NotReady | Self::Authority(_) => Outcome::Unavailable,
        }
    }
}

/// Signs for who proves who they are.
pub struct Signer {
    current: Current,
    authenticator: Authenticator,
    life: SignedDuration,
    random: &'static dyn SecureRandom,
    places: Semaphore,
    limits: Mutex<Limits>,
    counts: Arc<Counts>,
}

struct Limits {
    workloads: Buckets<WorkloadId>,
    refused: Buckets<IpAddr>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs by `current`, certificates that live for `life`, for those whom `authenticator` knows.
    pub fn new(current: Current, authenticator: Authenticator, life: SignedDuration) -> Self {
        let limits = Limits {
            workloads: Buckets::new(WORKLOAD_PERMITS, WORKLOAD_REFILL, KEYS_MAX),
            refused: Buckets::new(REFUSED_PERMITS, REFUSED_REFILL, KEYS_MAX),
        };
        Self {
            current,
            authenticator,
            life,
            random: rustls::crypto::aws_lc_rs::default_provider().secure_random,
            places: Semaphore::new(CONCURRENT_MAX),
            limits: Mutex::new(limits),
            counts: Arc::default(),
        }
    }

    /// The authority in force.
    pub fn authority(&self) -> Option<Arc<Authority>> {
        self.current.borrow().clone()
    }

    /// What is counted.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// What is counted, as Prometheus text.
    pub fn render(&self) -> String {
        self.counts.render(self.authority().as_deref())
    }

    /// Answers the request `csr` of who shows `token` from `address`.
    ///
    /// # Errors
    /// When it is refused, which is counted and logged.
    pub async fn sign(&self, token: Option<&str>, csr: &[u8], address: Option<IpAddr>, now: Timestamp) -> Result<SigningResponse, Refused> {
        let answer = self.answer(token, csr, address, now).await;
        match &answer {
            Ok(_) => self.counts.count(Outcome::Issued),
            Err(error) => {
                self.counts.count(error.outcome());
                tracing::warn!(?address, reason = error.outcome().label(), %error, "a certificate was refused");
            }
        }
        answer
    }

    async fn answer(&self, token: Option<&str>, csr: &[u8], address: Option<IpAddr>, now: Timestamp) -> Result<SigningResponse, Refused> {
        let token = token.filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX).ok_or(Refused::NoToken)?;
        let authority = self.authority().ok_or(Refused::NotReady)?;
        let _place = self.places.try_acquire().ok().ok_or(Refused::Busy)?;
        let applicant = self.authenticate(token, address, now).await?;
        if !self.limits(|limits| limits.workloads.take(applicant.workload.clone(), Instant::now())) {
            return Err(Refused::TooMany(applicant.workload.to_string()));
        }
        let key = public_key(csr)?;
        let identity = applicant.identity(&authority.trust().trust_domain)?;
        let mut serial = [0; 16];
        self.random.fill(&mut serial).ok().ok_or(Refused::NotReady)?;
        let signed = authority.sign(&key, &identity, self.life, serial, now)?;
        let (pod, issuer) = (&applicant.workload, &authority.signer().subject);
        tracing::info!(%pod, %identity, serial = signed.serial, until = %signed.not_after, issuer, "signed a certificate");
        let chain = signed.chain.iter().map(|der| bytes::Bytes::copy_from_slice(der)).collect();
        Ok(SigningResponse { chain, trust: Some(trust_message(authority.trust())) })
    }

    /// Whose token it is. From an address that sent many that were nobody's, none is looked at for a while.
    async fn authenticate(&self, token: &str, address: Option<IpAddr>, now: Timestamp) -> Result<Applicant, Refused> {
        if let Some(address) = address
            && !self.limits(|limits| limits.refused.has(&address, Instant::now()))
        {
            return Err(Refused::TooMany(address.to_string()));
        }
        let applicant = self.authenticator.authenticate(token, now).await;
        if let (Some(address), Err(refusal)) = (address, &applicant)
            && !matches!(refusal, Refusal::Unavailable(_))
        {
            self.limits(|limits| limits.refused.take(address, Instant::now()));
        }
        Ok(applicant?)
    }

    fn limits<R>(&self, work: impl FnOnce(&mut Limits) -> R) -> R {
        // Every change is whole, so what a panic left behind can be used.
        work(&mut self.limits.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An authority that lives as long as this process: where there is no cluster to keep one.
///
/// # Errors
/// When certificates cannot be made.
pub fn in_memory(domains: &Domains, now: Timestamp) -> Result<Current, AuthorityError> {
    let authority = Authority::load(&make(domains, now)?, domains, now)?;
    Ok(watch::channel(Some(Arc::new(authority))).1)
}

/// Tells proxies to trust by the authority that is in force now, if there is one.
///
/// # Errors
/// When the process is shutting down.
pub async fn publish_trust(current: &Current, publisher: &Publisher) -> Result<(), Stopped> {
    let authority = current.borrow().clone();
    match authority {
        Some(authority) => publisher.set_trust(authority.trust().clone()).await,
        None => Ok(()),
    }
}
