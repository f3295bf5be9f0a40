//! Against `samples`: events as Kubernetes' own serializers write them, in protobuf (with the length in front) and in JSON.

use std::fmt::Debug;

use http::StatusCode;
use http_body_util::Full;
use kube::api::WatchEvent;
use leno_api::k8s::{EndpointSlice, Pod, Service, Watched};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::*;

macro_rules! sample {
    ($name:literal) => {
        (&include_bytes!(concat!("samples/", $name, ".pb"))[..], include_str!(concat!("samples/", $name, ".json")))
    };
}

fn event<T: DeserializeOwned + Clone>(line: &[u8]) -> WatchEvent<T> {
    serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)))
}

fn lines_of(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut frames = Frames::default();
    pieces.into_iter().flat_map(|piece| frames.lines(piece.as_ref()).unwrap()).collect()
}

/// What is kept of an event is the same whether it comes in protobuf or in JSON.
fn check<T: Debug + PartialEq + Clone>((protobuf, json): (&[u8], &str))
where
    Watched<T>: DeserializeOwned,
{
    let object = |line: &[u8]| match event::<Watched<T>>(line) {
        WatchEvent::Added(object) => ("added", object),
        WatchEvent::Modified(object) => ("modified", object),
        WatchEvent::Deleted(object) => ("deleted", object),
        other @ (WatchEvent::Bookmark(_) | WatchEvent::Error(_)) => panic!("{other:?}"),
    };
    assert_eq!(object(&lines_of([protobuf])), object(json.as_bytes()));
}

#[test]
fn what_is_kept_of_an_object_is_the_same_in_protobuf_and_in_json() {
    check::<Pod>(sample!("pod"));
    check::<Service>(sample!("service"));
    check::<EndpointSlice>(sample!("slice"));
}

#[test]
fn bookmarks_and_errors_of_a_watch_are_told_as_such() {
    let WatchEvent::Bookmark(bookmark) = event::<Watched<Pod>>(&lines_of([sample!("bookmark").0])) else { panic!() };
    assert_eq!((bookmark.types.kind.as_str(), bookmark.metadata.resource_version.as_str()), ("Pod", "99"));
    assert_eq!(bookmark.metadata.annotations["k8s.io/initial-events-end"], "true");
    let WatchEvent::Error(status) = event::<Watched<Pod>>(&lines_of([sample!("status").0])) else { panic!() };
    assert_eq!((status.code, status.reason.as_str(), status.message.as_str()), (410, "Expired", "too old"));
}

proptest! {
    /// However the bytes are cut, the same lines come.
    #[test]
    fn events_come_out_whole_however_the_stream_is_cut(piece in 1usize..2_000) {
        let stream = [sample!("pod").0, sample!("slice").0, sample!("bookmark").0].concat();
        let lines = lines_of(stream.chunks(piece));
        prop_assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 3);
        prop_assert_eq!(lines, lines_of([stream]));
    }

    /// Broken bytes are an error, or some event; never the end of the process. A line is JSON whatever the event held.
    #[test]
    fn broken_events_never_panic(at in 0usize..1_000, byte: u8, cut in 4usize..1_100) {
        let mut event = sample!("pod").0[4..].to_vec();
        let at = at % event.len();
        event[at] = byte;
        event.truncate(cut);
        let mut line = Vec::new();
        if transcode::event_line(&event, &mut line).is_ok() {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok(), "{}", String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _broken_or_not = transcode::event_line(&noise, &mut Vec::new());
        let _broken_or_not = status_line(&noise);
        let _broken_or_not = Frames::default().lines(&noise);
    }
}

/// What comes of a request for `uri` that the server answers with this; and what it was asked to accept.
async fn answered(uri: &str, status: StatusCode, content_type: &'static str, body: &'static [u8]) -> (String, Result<Vec<u8>, BoxError>) {
    let server = service_fn(move |request: Request<Body>| async move {
        let accept = request.headers().get(ACCEPT).map(|value| value.to_str().unwrap().to_owned());
        let answer = Response::builder().status(status).header(CONTENT_TYPE, content_type).header("x-accept", accept.unwrap_or_default());
        Ok::<_, BoxError>(answer.body(Full::from(body).map_err(|never| -> BoxError { match never {} })).unwrap())
    });
    let response = Layer.layer(server).oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
    let accept = response.headers()["x-accept"].to_str().unwrap().to_owned();
    (accept, response.into_body().collect().await.map(|body| body.to_bytes().to_vec()))
}

#[tokio::test]
async fn watches_of_kubernetes_kinds_are_asked_for_in_protobuf_and_all_else_is_left_alone() {
    let watch = "http://server/api/v1/pods?limit=1&watch=true";
    let (accept, body) = answered(watch, StatusCode::OK, "application/vnd.kubernetes.protobuf;stream=watch", sample!("pod").0).await;
    assert_eq!(accept, "application/vnd.kubernetes.protobuf, application/json");
    assert!(matches!(event::<Watched<Pod>>(&body.unwrap()), WatchEvent::Added(_)));

    for (uri, content_type) in [
        (watch, "application/json"),
        ("http://server/api/v1/pods", "application/json"),
        ("http://server/apis/leno.dev/v1alpha1/trafficpolicies?watch=true", "application/json"),
    ] {
        let (_, body) = answered(uri, StatusCode::OK, content_type, b"as it is").await;
        assert_eq!(body.unwrap(), b"as it is", "{uri}");
    }
}

#[tokio::test]
async fn a_watch_that_is_refused_says_why_and_one_that_breaks_ends_with_an_error() {
    let watch = "http://server/api/v1/services?watch=true";
    let status = sample!("status").0;
    // The status itself stands in the event's object, after the type (`\x0a\x05ERROR`) and two lengths.
    let envelope = &status[status.windows(4).position(|bytes| bytes == b"k8s\0").unwrap()..];
    let (_, body) = answered(watch, StatusCode::GONE, PROTOBUF, envelope).await;
    let refused: kube::core::Status = serde_json::from_slice(&body.unwrap()).unwrap();
    assert_eq!((refused.code, refused.reason.as_str()), (410, "Expired"));

    let (_, body) = answered(watch, StatusCode::OK, PROTOBUF, b"\0\0\0\x02no").await;
    assert!(body.is_err());
}
