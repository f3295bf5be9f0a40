//! The controller without a cluster: a folder of manifests, served to proxies over the control stream.
//!
//! For proxies on plain machines (`leno-proxy run` with `LENO_INTERCEPT=off` and `LENO_SERVICES`) and for measurements. There
//! is nothing to inject and nowhere to write status to; what is wrong with a file is in the log. With a file of tokens, proxies
//! get certificates and prove by them who they are; without, each is who it says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use leno_translate::{Kind, Translator};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::ca::authenticate::Authenticator;
use crate::ca::authenticate::tokens::Tokens;
use crate::ca::signer::{Signer, in_memory, publish_trust};
use crate::certificates::serving::Serving;
use crate::publish::Publisher;
use crate::settings::Settings;
use crate::source::folder::{self, Notes};
use crate::wiring::{EVENTS_MAX, follow_lists, listen};
use crate::{health, jwks, lookup, stream};

/// Serves `folder` until `cancel`.
///
/// # Errors
/// When the folder or the file of tokens cannot be read, or a port cannot be had.
pub(crate) async fn run(settings: &Settings, folder: PathBuf, serving: &Serving, cancel: CancellationToken) -> anyhow::Result<()> {
    let (events, told) = mpsc::channel(EVENTS_MAX);
    let (publisher, task) = Publisher::new(Translator::new(settings.defaults()), Kind::ALL, told);
    let signer = signer(settings, &publisher).await?;
    let health = Arc::new(health::Health::default());
    health.certificates_are_ready();
    health.authority_is_ready();
    let admin = listen(settings.admin_listen).await?;
    let (counters, signs) = (Arc::clone(publisher.counters()), signer.clone());
    let render = move || counters.render() + &signs.as_ref().map(|signer| signer.render()).unwrap_or_default();
    let router = health::router(Arc::clone(&health), Arc::new(render));
    let control = listen(settings.control_listen).await?;
    let server = match &signer {
        Some(_) => serving.server_config_for_proxies()?,
        None => serving.server_config(&["h2"])?,
    };
    let (notes, noted) = watch::channel(Notes::default());
    let keys = jwks::run(publisher.key_uris(), events.clone());
    let lookups = Box::pin(lookup::run(publisher.outside_hosts(), events.clone()));
    let source = folder::run(folder.clone(), events, notes, cancel.clone());
    let parts = async {
        tokio::join!(task.run(cancel.clone()), keys, lookups, follow_lists(publisher.clone(), health), tell(&folder, noted), async {
            axum::serve(admin, router).await.context("the port of health and metrics failed")
        },)
    };
    let served = stream::serve(control, Some(server), publisher.clone(), signer, stream::Settings::default(), cancel.clone());
    tokio::select! {
        read = source => read.with_context(|| format!("--folder {}", folder.display())),
        served = served => served.context("the control stream's listener failed"),
        _never = parts => Ok(()),
    }
}

/// Who signs for whom the file of tokens names; nobody without one. The authority is this process's own: `publisher` is told
/// of it once.
async fn signer(settings: &Settings, publisher: &Publisher) -> anyhow::Result<Option<Arc<Signer>>> {
    let Some(path) = &settings.token_file else { return Ok(None) };
    let read = || -> anyhow::Result<Tokens> { Ok(Tokens::parse(&std::fs::read_to_string(path)?)?) };
    let tokens = read().with_context(|| format!("--token-file {}", path.display()))?;
    let current = in_memory(&settings.domains(), Timestamp::now())?;
    publish_trust(&current, publisher).await?;
    let signer = Signer::new(current, Authenticator::Static(Arc::new(tokens)), settings.certificate_life);
    Ok(Some(Arc::new(signer)))
}

/// Logs what is wrong with the folder's files whenever that changes.
async fn tell(folder: &Path, mut notes: watch::Receiver<Notes>) {
    while notes.changed().await.is_ok() {
        let now = notes.borrow_and_update().clone();
        for problem in &now.problems {
            tracing::error!(folder = %folder.display(), %problem, "a file is not taken in; its last good state is in force");
        }
    }
}
