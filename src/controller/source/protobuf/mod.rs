//! Watches of Kubernetes' own kinds in protobuf: what the API server writes several times faster than JSON, and what is read without
//! looking at the fields that nobody keeps.
//!
//! A layer of the client. It asks for protobuf where a watch of such a kind begins, and hands on lines of JSON, as the watch
//! would have had, with the fields of [`schema`] alone; everything above it is as it would be without. Answers that are no protobuf, as those of
//! servers that cannot, pass as they are.
//!
//! Reading order: [`Layer`], `frames`, `transcode`, [`schema`].

mod frames;
mod schema;
mod transcode;

use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Body as HttpBody, Frame};
use kube::client::Body;
use tower::{BoxError, Service};

use self::frames::Frames;
use self::transcode::status_line;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Protobuf where the server can.
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf, application/json");
/// Longest status that refuses a watch.
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer;

impl<S> tower::Layer<S> for Layer {
    type Service = Transcoding<S>;

    fn layer(&self, inner: S) -> Transcoding<S> {
        Transcoding { inner }
    }
}

/// A client's service that asks for protobuf.
#[derive(Clone, Debug)]
pub(crate) struct Transcoding<S> {
    inner: S,
}

type Answer = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

impl<S, B> Service<Request<Body>> for Transcoding<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + 'static,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let is_ours = is_watch(request.uri());
        if is_ours {
            request.headers_mut().insert(ACCEPT, ACCEPTED);
        }
        let answered = self.inner.call(request);
        Box::pin(async move {
            match answered.await {
                Ok(answer) if is_ours && is_protobuf(answer.headers()) => transcoded(answer).await,
                Ok(answer) => Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync())),
                Err(error) => Err(error),
            }
        })
    }
}

/// The answer in JSON.
async fn transcoded<B>(answer: Response<B>) -> Result<Response<Answer>, BoxError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = answer.into_parts();
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.headers.remove(CONTENT_LENGTH);
    if head.status.is_success() {
        return Ok(Response::from_parts(head, lines(body)));
    }
    match Limited::new(body, STATUS_BYTES_MAX).collect().await {
        Ok(status) => {
            let status = status_line(&status.to_bytes())?;
            let body = http_body_util::Full::from(status).map_err(|never| match never {});
            Ok(Response::from_parts(head, body.boxed_unsync()))
        }
        Err(error) => Err(error),
    }
}

/// The events of a watch, a line for each.
fn lines<B>(body: B) -> Answer
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut frames = Frames::default();
    let pieces = body.into_data_stream().map(move |piece| {
        let piece: Bytes = piece.map_err(Into::<BoxError>::into)?;
        Ok::<_, BoxError>(Frame::data(frames.lines(&piece)?))
    });
    // After what cannot be read the watch begins again.
    let until_broken = stream::unfold(Some(Box::pin(pieces)), |pieces| async {
        let mut pieces = pieces?;
        let piece: Result<_, BoxError> = pieces.next().await?;
        let rest = piece.is_ok().then_some(pieces);
        Some((piece, rest))
    });
    StreamBody::new(until_broken).boxed_unsync()
}

/// Whether a watch of a kind with a schema begins.
fn is_watch(uri: &Uri) -> bool {
    let watches = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    watches && schema::is_path(uri.path())
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(PROTOBUF.as_bytes()))
}

#[cfg(test)]
mod tests;
