//! The controller without a cluster: a folder of manifests, served to proxies over the control stream.
//!
//! For proxies on plain machines (`leno-proxy run` with `LENO_INTERCEPT=off` and `LENO_SERVICES`) and for measurements. There
//! is nothing to inject and nowhere to write status to; what is wrong with a file is in the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use leno_translate::{Defaults, Kind, Translator};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::certificates::serving::Serving;
use crate::publish::Publisher;
use crate::run::{EVENTS_MAX, follow_lists, listen};
use crate::settings::Settings;
use crate::source::folder::{self, Notes};
use crate::{health, stream};

/// Serves `folder` until `cancel`.
///
/// # Errors
/// When the folder cannot be read, or a port cannot be had.
pub(crate) async fn run(settings: &Settings, folder: PathBuf, serving: &Serving, cancel: CancellationToken) -> anyhow::Result<()> {
    let (events, told) = mpsc::channel(EVENTS_MAX);
    let (publisher, task) = Publisher::new(Translator::new(Defaults::new(&settings.cluster_domain)), Kind::ALL, told);
    let health = Arc::new(health::Health::default());
    health.certificates_are_ready();
    let counters = Arc::clone(publisher.counters());
    let admin = listen(settings.admin_listen).await?;
    let router = health::router(Arc::clone(&health), Arc::new(move || counters.render()));
    let control = listen(settings.control_listen).await?;
    let server = serving.server_config(&["h2"])?;
    let (notes, noted) = watch::channel(Notes::default());
    let source = folder::run(folder.clone(), events, notes, cancel.clone());
    let parts = async {
        tokio::join!(task.run(cancel.clone()), follow_lists(publisher.clone(), health), tell(&folder, noted), async {
            axum::serve(admin, router).await.context("the port of health and metrics failed")
        },)
    };
    let served = stream::serve(control, Some(server), publisher.clone(), stream::Settings::default(), cancel.clone());
    tokio::select! {
        read = source => read.with_context(|| format!("--folder {}", folder.display())),
        served = served => served.context("the control stream's listener failed"),
        _never = parts => Ok(()),
    }
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
