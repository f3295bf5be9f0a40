//! Keeps certificates current while the controller runs: agreed with the other replicas, served, and trusted by the API server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::serving::Serving;
use super::store::Store;
use crate::health::Health;
use crate::metrics::Metrics;

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(10);
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is kept current.
pub struct Upkeep {
    /// Where replicas agree.
    pub store: Store,
    /// What is served.
    pub serving: Serving,
    /// The webhook configuration that trusts it, if there is a webhook.
    pub webhook: Option<WebhookTrust>,
    /// Told when all is well for the first time.
    pub health: Arc<Health>,
    /// Where rotations are counted.
    pub metrics: Arc<Metrics>,
}

impl Upkeep {
    /// Looks after the certificates for ever.
    pub async fn run(self) -> Infallible {
        loop {
            let wait = match self.round().await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(%error, "certificates cannot be kept current, trying again");
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn round(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let material = self.store.agree(Some(&self.serving.material()), Timestamp::now()).await?;
        if self.serving.replace(material)? {
            self.metrics.certificate_rotated();
            tracing::info!("serving a new certificate");
        }
        if let Some(webhook) = &self.webhook {
            webhook.trust(&self.serving.ca_bundle()).await?;
        }
        self.health.certificates_are_ready();
        Ok(())
    }
}

/// The MutatingWebhookConfiguration whose `caBundle` is kept current.
pub struct WebhookTrust {
    api: Api<MutatingWebhookConfiguration>,
    name: String,
}

/// The webhook configuration cannot be kept current.
#[derive(Debug, thiserror::Error)]
#[error("MutatingWebhookConfiguration {name}: {source}")]
pub struct TrustError {
    name: String,
    source: Box<kube::Error>,
}

impl WebhookTrust {
    /// The configuration called `name`.
    pub fn new(client: Client, name: &str) -> Self {
        Self { api: Api::all(client), name: name.to_owned() }
    }

    /// Writes `ca_bundle` where the configuration says something else.
    async fn trust(&self, ca_bundle: &str) -> Result<(), TrustError> {
        let failed = |source| TrustError { name: self.name.clone(), source: Box::new(source) };
        let config = self.api.get(&self.name).await.map_err(failed)?;
        let Some(operations) = trusting(&config, ca_bundle) else { return Ok(()) };
        let patch = serde_json::from_value(operations).map_err(|error| failed(kube::Error::SerdeError(error)))?;
        let _patched = self.api.patch(&self.name, &PatchParams::default(), &Patch::<()>::Json(patch)).await.map_err(failed)?;
        tracing::info!(name = self.name, "the API server trusts the webhook's certificate now");
        Ok(())
    }
}

/// The JSON patch that makes every entry of `config` trust `ca_bundle`; `None` when all do. Each change holds only while the
/// entry is still the one that was read.
fn trusting(config: &MutatingWebhookConfiguration, ca_bundle: &str) -> Option<Value> {
    let wanted = ByteString(ca_bundle.as_bytes().to_vec());
    let entries = config.webhooks.iter().flatten().enumerate();
    let stale = entries.filter(|(_, entry)| entry.client_config.ca_bundle.as_ref() != Some(&wanted));
    let operations: Vec<Value> = stale
        .flat_map(|(at, entry)| {
            [
                json!({"op": "test", "path": format!("/webhooks/{at}/name"), "value": entry.name}),
                json!({"op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": wanted}),
            ]
        })
        .collect();
    (!operations.is_empty()).then_some(Value::Array(operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bundles: [Option<&str>; 2]) -> Value {
        let entry = |(at, bundle): (usize, &Option<&str>)| {
            let bundle = bundle.map(|text| ByteString(text.as_bytes().to_vec()));
            json!({"name": format!("{at}.leno.dev"), "clientConfig": {"caBundle": bundle}, "sideEffects": "None", "admissionReviewVersions": []})
        };
        json!({"metadata": {"name": "leno-injector"}, "webhooks": bundles.iter().enumerate().map(entry).collect::<Vec<_>>()})
    }

    #[test]
    fn entries_that_trust_something_else_are_patched_and_only_those() {
        let cases = [([None, None], true), ([Some("new"), Some("old")], true), ([Some("new"), Some("new")], false)];
        for (bundles, patched) in cases {
            let mut value = config(bundles);
            let operations = trusting(&serde_json::from_value(value.clone()).unwrap(), "new");
            assert_eq!(operations.is_some(), patched, "{bundles:?}");
            if let Some(operations) = operations {
                let patch: json_patch::Patch = serde_json::from_value(operations).unwrap();
                json_patch::patch(&mut value, &patch).unwrap();
            }
            assert_eq!(value, config([Some("new"), Some("new")]));
        }
    }
}
