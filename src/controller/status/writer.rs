//! Writes status where it differs from what is there, by server-side apply. Every replica keeps count; only the leader writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use leno_api::{MeshService, SecurityPolicy, TrafficPolicy};
use leno_core::names::ServiceId;
use leno_translate::{Kind, ObjectKey, Report, Translator};
use leno_xds::encode::{encode_service, version};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::actual::Actual;
use super::desk::{Desk, Objects};
use super::{Status, Subject, status_of};
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::publish::receipts::Dirty;
use crate::publish::topic::{Topic, generation_name};

/// The owner of the fields of every status.
const MANAGER: &str = "leno-controller";
/// Changes that come within this time are written together: far below what a person waits for.
const PACE: Duration = Duration::from_millis(200);
/// How soon a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Writes at a time.
const WRITES_MAX: usize = 8;

/// The status writer of one replica.
pub struct Writer {
    /// How the cluster is reached.
    pub client: Client,
    /// Whose reports are written.
    pub publisher: Publisher,
    /// Where receipts come together.
    pub desk: Arc<Desk>,
    /// The statuses that are there.
    pub actual: Arc<Actual>,
    /// Whether this replica writes.
    pub leading: watch::Receiver<bool>,
    /// Where writes are counted.
    pub metrics: Arc<Metrics>,
}

/// One object whose status may have to be written.
struct Candidate {
    key: ObjectKey,
    subject: Subject,
    report: Report,
    topic: Option<Topic>,
    version: Option<Arc<str>>,
}

impl Writer {
    /// Writes until the publisher ends.
    pub async fn run(mut self) {
        let mut objects = Objects::default();
        loop {
            let dirty = tokio::select! {
                dirty = self.desk.pending() => dirty,
                reports = self.actual.changed() => Dirty { reports, ..Dirty::default() },
                changed = self.leading.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.metrics.set_leading(*self.leading.borrow_and_update());
                    Dirty { reports: objects.all().cloned().collect(), ..Dirty::default() }
                }
            };
            let Some(candidates) = self.candidates(&mut objects, dirty).await else { return };
            if *self.leading.borrow() {
                self.write_all(candidates).await;
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// The objects concerned, with their reports as they are now. `None`: the publisher has ended.
    async fn candidates(&self, objects: &mut Objects, dirty: Dirty) -> Option<Vec<Candidate>> {
        let mut keys = dirty.reports;
        keys.extend(dirty.topics.iter().flat_map(|topic| objects.of(topic)).cloned());
        let reports = self.publisher.query(move |translator| reports(translator, keys)).await.ok()?;
        let mut candidates = Vec::new();
        for (key, report) in reports {
            let subject = match key.kind {
                Kind::MeshService => Subject::MeshService,
                Kind::TrafficPolicy => Subject::TrafficPolicy,
                Kind::SecurityPolicy => Subject::SecurityPolicy,
                Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::ReferenceGrant | Kind::Workload => continue,
            };
            let Some((report, version)) = report else {
                objects.remove(&key);
                continue;
            };
            let topic = topic(&key, &report);
            objects.set(&key, topic.as_ref());
            candidates.push(Candidate { key, subject, report, topic, version });
        }
        Some(candidates)
    }

    async fn write_all(&self, candidates: Vec<Candidate>) {
        let now = Timestamp::now();
        let due = candidates.into_iter().filter_map(|candidate| {
            let status = self.wanted(&candidate, now);
            (self.actual.status(&candidate.key).as_ref() != Some(&status)).then_some((candidate.key, status))
        });
        let failed: Vec<_> = stream::iter(due)
            .map(|(key, status)| self.write(key, status))
            .buffer_unordered(WRITES_MAX)
            .filter_map(async |failed| failed)
            .collect()
            .await;
        if !failed.is_empty() {
            let desk = Arc::clone(&self.desk);
            tokio::spawn(async move {
                tokio::time::sleep(RETRY).await;
                desk.look_at(failed);
            });
        }
    }

    fn wanted(&self, candidate: &Candidate, now: Timestamp) -> Status {
        let Candidate { key, subject, report, topic, version } = candidate;
        let standing = topic.as_ref().map(|topic| self.desk.standing(topic, version.as_deref()));
        let before = self.actual.status(key);
        status_of(*subject, report, standing.as_ref(), before.as_ref().map_or(&[], Status::conditions), now)
    }

    /// Writes one status. Returns the object if that must be tried again.
    async fn write(&self, key: ObjectKey, status: Status) -> Option<ObjectKey> {
        let (resource, body) = applied(&key, &status);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let params = PatchParams::apply(MANAGER).force();
        match api.patch_status(&key.name, &params, &Patch::Apply(&body)).await {
            Ok(_) => {
                self.metrics.status_written(true);
                self.actual.wrote(key, status);
                None
            }
            // It was deleted meanwhile.
            Err(kube::Error::Api(answer)) if answer.code == 404 => None,
            Err(error) => {
                self.metrics.status_written(false);
                tracing::warn!(object = %key, %error, "cannot write status, trying again");
                Some(key)
            }
        }
    }
}

/// Reports on `keys` as they are now, with the present version of what receipts are counted for.
#[expect(clippy::type_complexity, reason = "named once, at its only use")]
fn reports(translator: &Translator, keys: BTreeSet<ObjectKey>) -> Vec<(ObjectKey, Option<(Report, Option<Arc<str>>)>)> {
    let version_of = |service: &ServiceId| translator.service(service).map(|service| version(&encode_service(&service)));
    keys.into_iter()
        .map(|key| {
            let report = translator.report(&key).map(|report| {
                let is_policy = key.kind == Kind::SecurityPolicy;
                let of_policy = is_policy.then(|| generation_name(report.generation));
                let version = of_policy.or_else(|| report.service.as_ref().and_then(version_of));
                (report, version)
            });
            (key, report)
        })
        .collect()
}

/// What receipts about the object are counted for.
fn topic(key: &ObjectKey, report: &Report) -> Option<Topic> {
    match key.kind {
        Kind::SecurityPolicy => Some(Topic::of_policy(key)),
        Kind::MeshService
        | Kind::TrafficPolicy
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Pod
        | Kind::ReferenceGrant
        | Kind::Workload => report.service.clone().map(Topic::Service),
    }
}

/// The kind to patch, and the whole of what this manager wants of the object.
fn applied(key: &ObjectKey, status: &Status) -> (ApiResource, Value) {
    let (resource, status) = match status {
        Status::MeshService(status) => (ApiResource::erase::<MeshService>(&()), json!(status)),
        Status::TrafficPolicy(status) => (ApiResource::erase::<TrafficPolicy>(&()), json!(status)),
        Status::SecurityPolicy(status) => (ApiResource::erase::<SecurityPolicy>(&()), json!(status)),
    };
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"namespace": key.namespace.as_ref(), "name": key.name.as_ref()},
        "status": status,
    });
    (resource, body)
}
