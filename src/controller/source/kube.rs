//! Objects of a Kubernetes cluster: one watch for each kind, each on its own.
//!
//! A kind begins with the list of all its objects and goes on with their changes; a watch that breaks begins again. Objects of a list are
//! handed on one by one as they come, so that a hundred thousand of them are never held beside what is made of them. A kind
//! whose definition is not installed has no objects, which is said at once so that nobody waits for it; it is asked for again,
//! so that it is there when it is installed later. ReferenceGrants are read in whichever version the cluster serves.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStream, pin_mut};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use leno_api as api;
use leno_api::k8s::Watched;
use leno_translate::{Change, Kind};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::SourceEvent;
use super::watchable::{Lenient, Listing, Watchable};
use crate::metrics::Metrics;

/// Wait before a broken watch begins again; it doubles up to the longest.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Watches every kind until `cancel`.
pub async fn run(client: Client, events: Sender<SourceEvent>, metrics: Arc<Metrics>, cancel: CancellationToken) {
    let source = Source { client, events, metrics };
    let all = async {
        tokio::join!(
            source.watch::<Watched<api::k8s::Service>>(),
            source.watch::<Watched<api::k8s::EndpointSlice>>(),
            source.watch::<Watched<api::k8s::Pod>>(),
            source.watch::<Lenient<api::MeshService>>(),
            source.watch_grants(),
            source.watch::<Lenient<api::TrafficPolicy>>(),
            source.watch::<Lenient<api::SecurityPolicy>>(),
        )
    };
    let _ended = cancel.run_until_cancelled(Box::pin(all)).await;
}

/// Nobody listens any more.
struct Closed;

struct Source {
    client: Client,
    events: Sender<SourceEvent>,
    metrics: Arc<Metrics>,
}

impl Source {
    async fn watch<W: Watchable>(&self) {
        if let Err(Unsupported::Streaming) = self.follow::<W>(W::LISTING).await {
            tracing::info!(kind = %W::kind(&()), "the API server cannot stream lists: listing page by page");
            let _closed = self.follow::<W>(Listing::Paged).await;
        }
    }

    /// Watches ReferenceGrants, which need not be installed, as v1 or as v1beta1.
    async fn watch_grants(&self) {
        for turn in 0.. {
            let Err(Unsupported::Kind) = self.follow::<Watched<api::k8s::ReferenceGrant>>(Listing::Paged).await else { return };
            // Both versions are asked for before nobody is granted anything: one may have come in the other's place.
            if turn > 0 {
                tracing::debug!("the cluster knows no ReferenceGrant: no policy may name services of other namespaces");
                let none = self.send(SourceEvent::Listed(Kind::ReferenceGrant, Vec::new()));
                if none.await.is_err() {
                    return;
                }
                tokio::time::sleep(WAIT_MAX).await;
            }
            let Err(Unsupported::Kind) = self.follow::<Watched<api::k8s::ReferenceGrantBeta>>(Listing::Paged).await else { return };
        }
    }

    async fn follow<W: Watchable>(&self, listing: Listing) -> Result<(), Unsupported> {
        let stream = watcher(Api::<W>::all(self.client.clone()), W::selection(listing.config()));
        match self.forward::<W, _>(stream, listing).await {
            Ok(()) | Err(Stop::Closed) => Ok(()),
            Err(Stop::Unsupported(what)) => Err(what),
        }
    }

    /// Hands on what `stream` says, waiting a while after each error.
    async fn forward<W, S>(&self, stream: S, listing: Listing) -> Result<(), Stop>
    where
        W: Watchable,
        S: TryStream<Ok = Event<W>, Error = watcher::Error>,
        S: futures_util::Stream<Item = Result<Event<W>, watcher::Error>>,
    {
        pin_mut!(stream);
        let (mut count, mut wait) = (0, WAIT_MIN);
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    wait = WAIT_MIN;
                    self.event(event, &mut count).await?;
                }
                Err(error) => {
                    self.error::<W>(&error, listing).await?;
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(WAIT_MAX);
                }
            }
        }
        Ok(())
    }

    /// Hands on one event; `count` is that of the objects listed so far.
    async fn event<W: Watchable>(&self, event: Event<W>, count: &mut usize) -> Result<(), Closed> {
        match event {
            Event::Init => {
                *count = 0;
                self.send(SourceEvent::Listing(W::KIND)).await?;
            }
            Event::InitApply(object) => {
                *count += 1;
                self.send(SourceEvent::Changed(object.change())).await?;
            }
            Event::InitDone => {
                tracing::info!(kind = %W::kind(&()), count = *count, "listed");
                self.send(SourceEvent::Whole(W::KIND)).await?;
            }
            Event::Apply(object) => self.send(SourceEvent::Changed(object.change())).await?,
            Event::Delete(object) => self.send(SourceEvent::Changed(Change::Delete(object.key()))).await?,
        }
        Ok(())
    }

    async fn error<W: Watchable>(&self, error: &watcher::Error, listing: Listing) -> Result<(), Stop> {
        let kind = W::kind(&());
        let problem = problem(error, listing);
        if problem == Problem::Missing && W::IS_OPTIONAL {
            return Err(Stop::Unsupported(Unsupported::Kind));
        }
        self.metrics.source_restarted();
        match problem {
            Problem::NoStreaming => return Err(Stop::Unsupported(Unsupported::Streaming)),
            Problem::Missing => {
                tracing::warn!(%kind, "the cluster does not know this kind: install Leno's definitions (helm upgrade, or kubectl apply -f crds/)");
                self.send(SourceEvent::Listing(W::KIND)).await?;
                self.send(SourceEvent::Whole(W::KIND)).await?;
            }
            Problem::Forbidden => {
                tracing::error!(%kind, %error, "the controller may not read this kind: give its service account get, list and watch (the chart's ClusterRole does)");
            }
            Problem::Passing => tracing::warn!(%kind, %error, "watch broke, beginning again"),
        }
        Ok(())
    }

    async fn send(&self, event: SourceEvent) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_event: tokio::sync::mpsc::error::SendError<SourceEvent>| Closed)
    }
}

/// What the cluster cannot do.
#[derive(Debug)]
enum Unsupported {
    /// Lists that are streamed.
    Streaming,
    /// The kind, in this version.
    Kind,
}

enum Stop {
    Closed,
    Unsupported(Unsupported),
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// What an error means for the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    /// The API server cannot stream lists.
    NoStreaming,
    /// The kind's definition is not installed.
    Missing,
    /// The controller may not read the kind.
    Forbidden,
    /// It will pass.
    Passing,
}

fn problem(error: &watcher::Error, listing: Listing) -> Problem {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => 0,
    };
    match code {
        404 => Problem::Missing,
        401 | 403 => Problem::Forbidden,
        // `sendInitialEvents` is an unknown or forbidden parameter.
        400 | 422 if listing == Listing::Streamed => Problem::NoStreaming,
        _ => Problem::Passing,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use leno_translate::Object;
    use tokio::sync::mpsc;

    use super::*;

    fn refused(code: u16) -> watcher::Error {
        watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(Status { code, ..Status::default() })))
    }

    #[test]
    fn an_error_is_told_by_its_code() {
        let cases = [
            (404, Listing::Streamed, Problem::Missing),
            (403, Listing::Paged, Problem::Forbidden),
            (422, Listing::Streamed, Problem::NoStreaming),
            (422, Listing::Paged, Problem::Passing),
            (410, Listing::Streamed, Problem::Passing),
            (500, Listing::Paged, Problem::Passing),
        ];
        for (code, listing, expected) in cases {
            assert_eq!(problem(&refused(code), listing), expected, "{code} {listing:?}");
        }
    }

    fn service(name: &str) -> Watched<api::k8s::Service> {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name, "namespace": "shop"}})).unwrap()
    }

    async fn said(events: Vec<Result<Event<Watched<api::k8s::Service>>, watcher::Error>>) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(16);
        let source = Source { client: unreachable_client(), events: sender, metrics: Arc::default() };
        let _stop = source.forward(futures_util::stream::iter(events), Listing::Streamed).await;
        drop(source);
        let mut said = Vec::new();
        while let Some(event) = receiver.recv().await {
            said.push(match event {
                SourceEvent::Changed(Change::Apply(object)) => format!("apply {}", object.key()),
                SourceEvent::Changed(change) => format!("{change:?}"),
                SourceEvent::Listing(kind) => format!("{kind:?} listing"),
                SourceEvent::Whole(kind) => format!("{kind:?} whole"),
                SourceEvent::Listed(kind, objects) => format!("{kind:?} listed {}", objects.len()),
                SourceEvent::Keys(uri, _) => format!("keys of {uri}"),
                SourceEvent::Addresses(host, _) => format!("addresses of {host}"),
            });
        }
        said
    }

    fn unreachable_client() -> Client {
        Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_broke_off_is_never_told_to_be_whole_and_the_next_is() {
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(service("half"))),
            Err(refused(500)),
            Ok(Event::Init),
            Ok(Event::InitApply(service("cart"))),
            Ok(Event::InitApply(service("payment"))),
            Ok(Event::InitDone),
            Ok(Event::Apply(service("web"))),
        ];
        let expected = [
            "Service listing",
            "apply Service shop/half",
            "Service listing",
            "apply Service shop/cart",
            "apply Service shop/payment",
            "Service whole",
            "apply Service shop/web",
        ];
        assert_eq!(said(events).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_is_not_installed_has_no_objects_and_is_asked_for_again() {
        let events = vec![Err(refused(404)), Ok(Event::Init), Ok(Event::InitApply(service("cart"))), Ok(Event::InitDone)];
        let expected = ["Service listing", "Service whole", "Service listing", "apply Service shop/cart", "Service whole"];
        assert_eq!(said(events).await, expected);
    }

    /// What an API server says to a list of ReferenceGrants, and what became of its definitions meanwhile.
    #[derive(Default)]
    struct Grants {
        served: Option<&'static str>,
        lists: Vec<String>,
    }

    /// An API server that serves ReferenceGrants in one version, or not at all, and no changes of them.
    fn api_server(grants: Arc<std::sync::Mutex<Grants>>) -> Client {
        let answer = move |request: http::Request<kube::client::Body>| {
            let mut grants = grants.lock().unwrap();
            let path = request.uri().path().to_owned();
            let version = path.split('/').nth(3).unwrap_or_default().to_owned();
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let served = grants.served == Some(&*version);
            let (code, body) = match (served, is_watch) {
                (true, false) => {
                    grants.lists.push(version);
                    let items = serde_json::json!([{"metadata": {"name": "g", "namespace": "books"}, "spec": {}}]);
                    (200, serde_json::json!({"metadata": {"resourceVersion": "1"}, "items": items}))
                }
                // Its time is over at once: the definition may have gone meanwhile.
                (true, true) => {
                    (410, serde_json::json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": ""}))
                }
                (false, _) => {
                    (404, serde_json::json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": ""}))
                }
            };
            let response = http::Response::builder().status(code).body(kube::client::Body::from(body.to_string().into_bytes())).unwrap();
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn reference_grants_are_found_in_whichever_version_is_installed_whenever_that_is() {
        let grants = Arc::new(std::sync::Mutex::new(Grants::default()));
        let (events, mut told) = mpsc::channel(1);
        let source = Source { client: api_server(Arc::clone(&grants)), events, metrics: Arc::default() };
        let watching = tokio::spawn(async move { source.watch_grants().await });
        for (served, count) in [(None, 0), (Some("v1beta1"), 1), (Some("v1"), 1), (None, 0), (Some("v1"), 1)] {
            grants.lock().unwrap().served = served;
            let mut has_come = 0;
            loop {
                match told.recv().await {
                    Some(SourceEvent::Listing(Kind::ReferenceGrant)) => has_come = 0,
                    Some(SourceEvent::Changed(Change::Apply(Object::ReferenceGrant(_)))) => has_come += 1,
                    Some(SourceEvent::Whole(Kind::ReferenceGrant)) => {}
                    Some(SourceEvent::Listed(Kind::ReferenceGrant, none)) => has_come = none.len(),
                    other => panic!("nothing but grants is listed: {other:?}"),
                }
                if has_come == count && grants.lock().unwrap().lists.last().map(String::as_str).filter(|_| count > 0) == served {
                    break;
                }
            }
        }
        watching.abort();
    }
}
