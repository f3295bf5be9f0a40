//! The task that keeps the proxy's certificate fresh, whether or not the control stream is up.
//!
//! It hears from the stream ([`Heard`]) and gives it, and through it the workers, each new certificate ([`Granted`]).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use leno_core::names::Name;
use leno_core::trust::{Held, Trust};
use leno_xds::security::trust_of;
use leno_xds::wire::leno::SigningResponse;
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::Credentials;
use super::credentials::{CredentialsError, accept};
use super::presented::Presented;
use super::renewal::Renewal;
use super::request::Request;
use super::shown::{Shown, ends, expired, written};
use super::sign::{SignError, Signer};

/// How long the task sleeps at most: the clock may be set, and a laptop may have slept.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What the control stream says to the keeper.
#[derive(Clone, Debug)]
pub enum Heard {
    /// The stream is up.
    Up,
    /// It is not any more.
    Down,
    /// The controller does not take the certificate that the stream shows.
    Refused,
    /// By which roots peers are verified, and which certificate signs.
    Trust(Arc<Trust>),
}

/// What the keeper gives.
#[derive(Clone, Debug)]
pub struct Granted {
    /// To be used from now on.
    pub credentials: Arc<Credentials>,
    /// What came with it, where the stream has not said better.
    pub trust: Option<Arc<Trust>>,
}

/// Why an attempt gave no certificate.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("no key can be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("the controller signed a certificate that cannot be used: {0}")]
    Answer(#[from] CredentialsError),
    #[error("the controller signed a certificate and did not say by which roots peers are verified: bring it to the proxy's version")]
    NoTrust,
}

impl AttemptError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Key(_) => "no-key",
            Self::Sign(error) => error.reason(),
            Self::Answer(_) | Self::NoTrust => "bad-answer",
        }
    }
}

/// The wall clock, since 1970. A clock before that counts as 1970: nothing is valid then.
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Everything the task needs.
pub struct Keeper<S> {
    /// Who signs.
    pub signer: S,
    /// The workload's namespace, which a certificate must name.
    pub namespace: Name,
    /// What the control stream shows.
    pub presented: Arc<Presented>,
    /// What people are shown.
    pub shown: Arc<Shown>,
    /// From the control stream.
    pub heard: UnboundedReceiver<Heard>,
    /// To the control stream.
    pub granted: UnboundedSender<Granted>,
    /// The time since 1970.
    pub clock: fn() -> Duration,
}

impl<S: Signer> Keeper<S> {
    /// Runs until the control stream's task has ended.
    pub async fn run(self) {
        let renewal = Renewal::at_once((self.clock)());
        Keeping { keeper: self, renewal, held: None, trust: None, live: false, lapsed: false }.run().await;
    }
}

/// The task with what it knows.
struct Keeping<S> {
    keeper: Keeper<S>,
    renewal: Renewal,
    held: Option<Held>,
    /// What peers are verified by, as far as the keeper has heard.
    trust: Option<Arc<Trust>>,
    /// Whether the stream is up, and so `trust` current.
    live: bool,
    /// Whether the end of the certificate has been told.
    lapsed: bool,
}

impl<S: Signer> Keeping<S> {
    async fn run(mut self) {
        loop {
            let now = self.now();
            self.tell_end(now);
            let due = self.renewal.due();
            if now >= due {
                if !self.renew().await {
                    return;
                }
                continue;
            }
            let end = self.held.as_ref().filter(|_| !self.lapsed).map_or(due, ends);
            let wait = due.min(end).saturating_sub(now).min(LOOK_EVERY);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                heard = self.keeper.heard.recv() => match heard {
                    Some(heard) => self.hear(heard),
                    None => return,
                },
            }
        }
    }

    fn now(&self) -> Duration {
        (self.keeper.clock)()
    }

    /// The end of what is held; long past where nothing is.
    fn end(&self) -> Duration {
        self.held.as_ref().map_or(Duration::ZERO, ends)
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Up => {
                self.live = true;
                self.look_at_issuer();
            }
            Heard::Down => self.live = false,
            Heard::Refused => {
                self.live = false;
                self.renewal.unusable(self.now(), fastrand::f64());
            }
            Heard::Trust(trust) => {
                self.trust = Some(trust);
                if !self.look_at_issuer() {
                    self.renewal.outdated(self.now(), self.end(), fastrand::f64());
                }
            }
        }
    }

    /// Whether what is held comes from the certificate that signs now, as far as that is known.
    fn look_at_issuer(&mut self) -> bool {
        let (Some(held), Some(trust)) = (&self.held, &self.trust) else { return true };
        let current = trust.issuer.is_empty() || held.issuer == trust.issuer;
        if current {
            self.renewal.usable();
        }
        current
    }

    /// Asks for a certificate. `false` when nobody wants it any more.
    async fn renew(&mut self) -> bool {
        match self.attempt().await {
            Ok(granted) => {
                self.take(&granted);
                self.keeper.granted.send(granted).is_ok()
            }
            Err(error) => {
                self.give_up(&error);
                !self.keeper.granted.is_closed()
            }
        }
    }

    async fn attempt(&mut self) -> Result<Granted, AttemptError> {
        let request = Request::new()?;
        let SigningResponse { chain, trust } = self.keeper.signer.sign(request.csr()).await?;
        while let Ok(heard) = self.keeper.heard.try_recv() {
            self.hear(heard);
        }
        // What the stream says is newer than an answer; without a stream the answer is: a root may have been replaced meanwhile.
        let told = if self.live { self.trust.clone() } else { None };
        let better = if told.is_some() { None } else { Some(Arc::new(trust_of(trust.ok_or(AttemptError::NoTrust)?))) };
        let verified_by = told.or_else(|| better.clone()).ok_or(AttemptError::NoTrust)?;
        let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let credentials = accept(&request, chain, &verified_by, &self.keeper.namespace, self.now())?;
        Ok(Granted { credentials: Arc::new(credentials), trust: better })
    }

    fn take(&mut self, granted: &Granted) {
        let held = &granted.credentials.held;
        if let Some(trust) = &granted.trust {
            self.trust = Some(Arc::clone(trust));
        }
        let (identity, until) = (&held.identity, written(held.not_after));
        tracing::info!(%identity, serial = &*held.serial, until, "the controller signed a certificate");
        self.keeper.presented.set(Some(Arc::clone(&granted.credentials.certified)));
        self.keeper.shown.renewed(held.clone());
        self.renewal.signed(self.now(), ends(held), fastrand::f64());
        self.held = Some(held.clone());
        self.lapsed = false;
        if !self.look_at_issuer() {
            self.renewal.unusable(self.now(), fastrand::f64());
        }
    }

    fn give_up(&mut self, error: &AttemptError) {
        let now = self.now();
        self.renewal.failed(now, self.end(), fastrand::f64());
        let retry_in = self.renewal.due().saturating_sub(now);
        match &self.held {
            Some(held) if !expired(held, now) => {
                let until = written(held.not_after);
                tracing::warn!(%error, ?retry_in, until, "the certificate could not be renewed; the one held serves until it ends");
            }
            Some(_) | None => tracing::error!(%error, ?retry_in, "there is no certificate: peers of the mesh cannot be talked to"),
        }
        self.keeper.shown.failed(error.reason(), error.to_string());
    }

    /// Says once that the certificate has ended, and shows it no more.
    fn tell_end(&mut self, now: Duration) {
        let Some(held) = self.held.as_ref().filter(|held| !self.lapsed && expired(held, now)) else { return };
        tracing::error!(
            identity = %held.identity,
            ended = written(held.not_after),
            "the certificate has expired and no new one could be had: connections with peers of the mesh fail until the controller \
             signs one; see that leno-controller runs and can be reached, and what it says of this pod's token"
        );
        self.lapsed = true;
        self.keeper.presented.set(None);
    }
}

#[cfg(test)]
mod tests;
