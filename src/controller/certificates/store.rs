//! Keeps the material in a Secret that all replicas share.
//!
//! Replicas agree by optimistic concurrency: who creates or replaces the Secret first wins, the others read again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::{CertificateError, Material, Policy, renew};

// The Secret's keys, in the layout of cert-manager and kubectl, and two of Leno's own.

/// Certificates by which to trust what is served.
pub const CA_BUNDLE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
/// What is served.
pub const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// What replicas show each other.
pub const PEER_TOKEN: &str = "peer-token";

/// How often a lost race is run again.
const ATTEMPTS: usize = 10;

/// The Secret cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server refused, or cannot be reached.
    #[error("Secret {namespace}/{name}: {source}")]
    Api {
        /// Namespace of the Secret.
        namespace: String,
        /// Name of the Secret.
        name: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// Certificates cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Other replicas write it again and again.
    #[error("Secret {namespace}/{name} changes under each attempt to write it: see who else writes it")]
    Contended {
        /// Namespace of the Secret.
        namespace: String,
        /// Name of the Secret.
        name: String,
    },
}

/// The Secret with the controller's certificates.
#[derive(Clone)]
pub struct Store {
    api: Api<Secret>,
    namespace: String,
    name: String,
    policy: Policy,
}

impl Store {
    /// The Secret `namespace`/`name`, whose certificates follow `policy`.
    pub fn new(client: Client, namespace: &str, name: &str, policy: Policy) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.into(), name: name.into(), policy }
    }

    /// The material that all replicas use at `now`. What is missing or due is made and written first. When somebody has
    /// deleted the Secret, what this replica `held` is written again, so that running proxies go on trusting it.
    ///
    /// # Errors
    /// When the Secret can be neither read nor written.
    pub async fn agree(&self, held: Option<&Material>, now: Timestamp) -> Result<Material, StoreError> {
        for _attempt in 0..ATTEMPTS {
            let stored = self.api.get_opt(&self.name).await.map_err(|error| self.error(error))?;
            let known = stored.as_ref().map(material_of);
            let wanted = renew(known.as_ref().or(held), &self.policy, now)?;
            if known.as_ref() == Some(&wanted) {
                return Ok(wanted);
            }
            match self.write(stored, &wanted).await {
                Ok(()) => return Ok(wanted),
                Err(kube::Error::Api(status)) if status.code == 409 => (),
                Err(error) => return Err(self.error(error)),
            }
        }
        Err(StoreError::Contended { namespace: self.namespace.clone(), name: self.name.clone() })
    }

    /// Creates the Secret, or replaces the very version that was read.
    async fn write(&self, stored: Option<Secret>, material: &Material) -> Result<(), kube::Error> {
        let data = Some(data_of(material));
        let _written = match stored {
            Some(secret) => {
                let secret = Secret { data, ..secret };
                self.api.replace(&self.name, &PostParams::default(), &secret).await?
            }
            None => {
                let labels = BTreeMap::from([("app.kubernetes.io/name".into(), "leno-controller".into())]);
                let metadata = ObjectMeta { name: Some(self.name.clone()), labels: Some(labels), ..ObjectMeta::default() };
                let type_ = Some("leno.dev/controller-tls".to_owned());
                self.api.create(&PostParams::default(), &Secret { metadata, data, type_, ..Secret::default() }).await?
            }
        };
        Ok(())
    }

    fn error(&self, source: kube::Error) -> StoreError {
        StoreError::Api { namespace: self.namespace.clone(), name: self.name.clone(), source: Box::new(source) }
    }
}

/// What the Secret holds; what is missing is empty, which [`Material::next`] takes for damaged.
fn material_of(secret: &Secret) -> Material {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    Material {
        ca_bundle: text(CA_BUNDLE),
        ca_key: text(CA_KEY),
        certificate: text(CERTIFICATE),
        key: text(KEY),
        peer_token: text(PEER_TOKEN),
    }
}

fn data_of(material: &Material) -> BTreeMap<String, ByteString> {
    let pairs = [
        (CA_BUNDLE, &material.ca_bundle),
        (CA_KEY, &material.ca_key),
        (CERTIFICATE, &material.certificate),
        (KEY, &material.key),
        (PEER_TOKEN, &material.peer_token),
    ];
    pairs.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_secret_holds_reads_back_as_it_was() {
        let policy = Policy::new(vec!["leno-controller.leno-system.svc".into()]);
        let material = renew(None, &policy, "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
        let secret = Secret { data: Some(data_of(&material)), ..Secret::default() };
        assert_eq!(material_of(&secret), material);
    }
}
