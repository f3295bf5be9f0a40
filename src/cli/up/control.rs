//! The control plane in this process: the same publisher and the same stream that a cluster's controller serves, on loopback.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use leno_controller::ca::authenticate::Authenticator;
use leno_controller::ca::authenticate::tokens::Tokens;
use leno_controller::ca::authority::Domains;
use leno_controller::ca::signer::{Signer, in_memory, publish_trust};
use leno_controller::certificates::serving::Serving;
use leno_controller::certificates::{Policy, renew};
use leno_controller::jwks;
use leno_controller::lookup;
use leno_controller::publish::{Publisher, Task};
use leno_controller::source::SourceEvent;
use leno_controller::stream;
use leno_core::names::Name;
use leno_proxy::control::ControllerAddress;
use leno_proxy::sidecar::client_tls;
use leno_translate::{Defaults, Kind, Translator};
use rustls_pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::explain::CLUSTER_DOMAIN;

/// Events that wait to be published.
const EVENTS_MAX: usize = 256;
/// How long the certificates of proxies live: as in a cluster.
const IDENTITY_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// The certificate lives as long as the process, and it is nobody else's.
const CERTIFICATE_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3000);

/// A running control plane.
pub struct ControlPlane {
    /// What is known, and who runs what.
    pub publisher: Publisher,
    /// Where objects go in.
    pub events: mpsc::Sender<SourceEvent>,
    /// Where proxies find it.
    pub address: ControllerAddress,
    /// Whose certificates it signs.
    pub tokens: Arc<Tokens>,
}

impl ControlPlane {
    /// Starts it, with certificate authorities (its own, and the mesh's) that exist in memory only.
    ///
    /// # Errors
    /// When there is no loopback port to be had.
    pub async fn start(tasks: &TaskTracker, cancel: &CancellationToken) -> anyhow::Result<Self> {
        let mut policy = Policy::new(vec!["localhost".to_owned()]);
        policy.serving_life = CERTIFICATE_LIFE;
        let serving = Serving::new(renew(None, &policy, Timestamp::now())?)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no loopback port for the control stream")?;
        let address = ControllerAddress {
            address: listener.local_addr()?.to_string(),
            name: ServerName::try_from("localhost").context("localhost is a name")?,
            tls: client_tls(&serving.ca_bundle())?,
        };
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let defaults = Defaults::new(CLUSTER_DOMAIN);
        let trust_domain = Name::clone(&defaults.trust_domain);
        let (publisher, task): (Publisher, Task) = Publisher::new(Translator::new(defaults), Kind::ALL, receiver);
        tasks.spawn(task.run(cancel.clone()));
        tasks.spawn(jwks::run(publisher.key_uris(), events.clone()));
        tasks.spawn(lookup::run(publisher.outside_hosts(), events.clone()));
        let tokens = Arc::new(Tokens::default());
        let signer = signer(trust_domain, Arc::clone(&tokens), &publisher).await?;
        let tls = serving.server_config_for_proxies()?;
        let served = stream::serve(listener, Some(tls), publisher.clone(), Some(signer), stream::Settings::default(), cancel.clone());
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the control stream cannot be served: proxies go on with what they know");
            }
        });
        Ok(Self { publisher, events, address, tokens })
    }
}

/// Signs for those who show one of `tokens`, by a certificate authority that exists in memory only.
async fn signer(trust_domain: Name, tokens: Arc<Tokens>, publisher: &Publisher) -> anyhow::Result<Arc<Signer>> {
    let domains = Domains { own: trust_domain, also: Vec::new() };
    let current = in_memory(&domains, Timestamp::now())?;
    publish_trust(&current, publisher).await?;
    Ok(Arc::new(Signer::new(current, Authenticator::Static(tokens), IDENTITY_LIFE)))
}
