//! Follows the Secret of the authority: a change is in force at every replica within seconds, and proxies are told whom to trust.
//!
//! What cannot be used never replaces what can: the authority before stays in force, and the log and an Event on the Secret say
//! what is wrong with the new one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::watch;

use super::authority::{Authority, Domains};
use super::expiry::warnings;
use super::secret::{Kept, NAME};
use super::store::{Store, StoreError};
use crate::health::Health;
use crate::publish::Publisher;

/// How often the Secret is read.
const EVERY: Duration = Duration::from_secs(2);
/// How long the API server may take for one round.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often what is wrong is said again.
const REPEAT: SignedDuration = SignedDuration::from_hours(12);

/// Follows the Secret.
pub struct Keeper {
    /// Where it is.
    pub store: Store,
    /// For whom it signs.
    pub domains: Domains,
    /// Told what is in force.
    pub current: watch::Sender<Option<Arc<Authority>>>,
    /// Told whom to trust.
    pub publisher: Publisher,
    /// Told once there is an authority.
    pub health: Arc<Health>,
    /// Where Events are written, by the replica that leads.
    pub events: Events,
}

/// Writes Events about the Secret while this replica leads.
pub struct Events {
    recorder: Recorder,
    about: ObjectReference,
    leading: watch::Receiver<bool>,
}

/// What this replica has seen so far.
#[derive(Default)]
struct Seen {
    kept: Option<Kept>,
    /// What was last said, and when.
    said: Option<(String, Timestamp)>,
}

impl Seen {
    /// Whether `text` is to be said at `now`: it is new, or was said long ago.
    fn is_news(&mut self, text: &str, now: Timestamp) -> bool {
        let news = self.said.as_ref().is_none_or(|(said, at)| said != text || now >= *at + REPEAT);
        if news {
            self.said = Some((text.to_owned(), now));
        }
        news
    }
}

impl Keeper {
    /// Follows the Secret for ever.
    pub async fn run(self) -> Infallible {
        let mut seen = Seen::default();
        loop {
            if tokio::time::timeout(PATIENCE, self.look(&mut seen, Timestamp::now())).await.is_err() {
                tracing::warn!(name = NAME, "the API server takes too long about the Secret of the certificate authority, asking again");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Looks once, and says what there is to say.
    async fn look(&self, seen: &mut Seen, now: Timestamp) {
        let Err(error) = self.round(seen, now).await else { return self.warn(seen, now).await };
        let text = error.to_string();
        if seen.is_news(&text, now) {
            let stays = self.current.borrow().is_some();
            tracing::error!(%error, authority_before_stays = stays, "the mesh's certificate authority cannot be used");
            self.events.write("Unusable", text).await;
        }
    }

    /// Reads the Secret and brings into force what is new.
    async fn round(&self, seen: &mut Seen, now: Timestamp) -> Result<(), StoreError> {
        let kept = self.store.agree(seen.kept.as_ref(), now).await?;
        let aged = self.current.borrow().as_ref().is_none_or(|authority| authority.has_aged(now));
        if seen.kept.as_ref() == Some(&kept) && !aged {
            return Ok(());
        }
        let authority = Arc::new(Authority::load(&kept, &self.domains, now)?);
        let _stopped = self.publisher.set_trust(authority.trust().clone()).await;
        let (signer, roots) = (authority.signer(), authority.roots().len());
        let rotation = kept.step.map(|step| step.to_string());
        tracing::info!(signer = signer.subject, serial = signer.serial, until = %signer.not_after, roots, rotation, "certificate authority in force");
        self.current.send_replace(Some(authority));
        seen.kept = Some(kept);
        self.health.authority_is_ready();
        Ok(())
    }

    /// Says which certificates are about to end.
    async fn warn(&self, seen: &mut Seen, now: Timestamp) {
        let Some(authority) = self.current.borrow().clone() else { return };
        let text: Vec<String> = warnings(&authority, now).into_iter().map(|warning| warning.text).collect();
        if text.is_empty() {
            seen.said = None;
            return;
        }
        let text = text.join("; ");
        if seen.is_news(&text, now) {
            tracing::warn!("{text}");
            self.events.write("Expiring", text).await;
        }
    }
}

impl Events {
    /// Events about the Secret in `namespace`, by the replica called `pod` while `leading`.
    pub fn new(client: Client, namespace: &str, pod: &str, leading: watch::Receiver<bool>) -> Self {
        let reporter = Reporter { controller: "leno.dev/controller".to_owned(), instance: Some(pod.to_owned()) };
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(NAME.to_owned()),
            ..ObjectReference::default()
        };
        Self { recorder: Recorder::new(client, reporter), about, leading }
    }

    /// Writes a warning, which `kubectl get events` and `kubectl describe secret leno-ca` show.
    async fn write(&self, reason: &str, note: String) {
        if !*self.leading.borrow() {
            return;
        }
        // The API server takes at most 1 024 bytes.
        let note = note.chars().take(250).collect();
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "KeepAuthority".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &self.about).await {
            tracing::warn!(%error, reason, "an Event could not be written");
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
