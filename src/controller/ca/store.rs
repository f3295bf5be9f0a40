//! Keeps the authority in the Secret `leno-ca`, where all replicas, the user and `leno ca rotate` find it.
//!
//! Replicas agree by optimistic concurrency: who creates the Secret first wins, the others read it. One that is there is never
//! overwritten, whoever made it; only `leno ca rotate` changes it, and only one that Leno made.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};

use super::authority::{AuthorityError, Domains, make};
use super::secret::{InvalidStep, Kept, NAME};

/// How often a lost race is run again.
const ATTEMPTS: usize = 10;

/// The Secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server refused, or cannot be reached.
    #[error("Secret {NAME}: {0}")]
    Api(#[source] Box<kube::Error>),
    /// What it holds cannot be used.
    #[error("Secret {NAME}: {0}")]
    Authority(#[from] AuthorityError),
    /// Its annotation is of no step.
    #[error("Secret {NAME}: {0}")]
    Step(#[from] InvalidStep),
    /// Others create and delete it again and again.
    #[error("Secret {NAME} comes and goes under each attempt to create it: see who else writes it")]
    Contended,
    /// Somebody brought it and then took it away.
    #[error("Secret {NAME} is gone, which somebody had brought: bring it again. What it held stays in force here meanwhile")]
    Gone,
}

/// The Secret `leno-ca` of one namespace.
#[derive(Clone)]
pub struct Store {
    api: Api<Secret>,
    domains: Domains,
}

impl Store {
    /// The Secret in `namespace`; a root that is made is for `domains`.
    pub fn new(client: Client, namespace: &str, domains: Domains) -> Self {
        Self { api: Api::namespaced(client, namespace), domains }
    }

    /// What all replicas use. A Secret that does not exist is made: with what this replica `held`, so that running proxies go on
    /// being trusted, else with a new root.
    ///
    /// # Errors
    /// When the Secret can be neither read nor made.
    pub async fn agree(&self, held: Option<&Kept>, now: Timestamp) -> Result<Kept, StoreError> {
        for _attempt in 0..ATTEMPTS {
            if let Some(secret) = self.api.get_opt(NAME).await.map_err(api)? {
                return Ok(Kept::of(&secret)?);
            }
            let kept = match held {
                Some(held) if held.own => held.clone(),
                Some(_) => return Err(StoreError::Gone),
                None => make(&self.domains, now)?,
            };
            match self.api.create(&PostParams::default(), &kept.to_new_secret()).await {
                Ok(_) => {
                    tracing::info!(name = NAME, again = held.is_some(), "wrote the Secret of the mesh's certificate authority");
                    return Ok(kept);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => (),
                Err(error) => return Err(api(error)),
            }
        }
        Err(StoreError::Contended)
    }
}

fn api(source: kube::Error) -> StoreError {
    StoreError::Api(Box::new(source))
}
