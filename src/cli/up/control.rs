//! The control plane in this process: the same publisher and the same stream that a cluster's controller serves, on loopback.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use leno_controller::certificates::serving::Serving;
use leno_controller::certificates::{Policy, renew};
use leno_controller::publish::{Publisher, Task};
use leno_controller::source::SourceEvent;
use leno_controller::stream;
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
}

impl ControlPlane {
    /// Starts it, with a certificate authority that exists in memory only.
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
        let (publisher, task): (Publisher, Task) = Publisher::new(Translator::new(Defaults::new(CLUSTER_DOMAIN)), Kind::ALL, receiver);
        tasks.spawn(task.run(cancel.clone()));
        let tls = serving.server_config(&["h2"])?;
        let served = stream::serve(listener, Some(tls), publisher.clone(), None, stream::Settings::default(), cancel.clone());
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the control stream cannot be served: proxies go on with what they know");
            }
        });
        Ok(Self { publisher, events, address })
    }
}
