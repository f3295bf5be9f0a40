//! Checks over HTTP/2: a request, or `grpc.health.v1.Health/Check`, on a connection of its own.

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{Method, Request};
use leno_core::health::HttpProbe;
use prost::Message;

use super::head;
use super::upstream::{Lease, Upstreams, Who};
use crate::http1::response::{UNDELIVERED, Undelivered};
use crate::pool::Peer;
use crate::resilience::probe::{self, Answer, Unwell};
use crate::worker::Context;

/// What an answer to a check may say; a status of the server takes two bytes.
const ANSWER_MAX: usize = 4096;
/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: i32 = 1;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The answer to a `GET`.
pub(crate) async fn get(probe: &HttpProbe, peer: &Peer, context: &Context) -> Result<Answer, Unwell> {
    let uri = format!("http://{}{}", probe.host, probe.path);
    let request = Request::get(uri).header(USER_AGENT, probe::USER_AGENT).body(())?;
    let links = Upstreams::default();
    let (_lease, _sent, response) = send(&links, request, Bytes::new(), peer, context).await?;
    Ok(if is_busy(&response) { Answer::Busy } else { Answer::Status(response.status().as_u16()) })
}

/// Whether the endpoint says that it serves `service`.
pub(crate) async fn is_serving(service: &str, peer: &Peer, context: &Context) -> Result<bool, Unwell> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}/grpc.health.v1.Health/Check", peer.address()))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, probe::USER_AGENT)
        .body(())?;
    let message = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut body = Vec::with_capacity(5 + message.len());
    body.push(0);
    body.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    body.extend(message);
    let links = Upstreams::default();
    let (_lease, _sent, response) = send(&links, request, body.into(), peer, context).await?;
    if is_busy(&response) {
        return Ok(true);
    }
    let is_ok = response.status() == 200;
    let in_head = head::grpc_status(response.headers());
    let (answer, in_trailers) = read(response.into_body()).await?;
    Ok(is_ok && in_head.or(in_trailers) == Some(0) && said(&answer) == Some(SERVING))
}

/// Sends a request with its whole body; what comes back must be kept for as long as the response is read.
async fn send(
    links: &Upstreams,
    mut request: Request<()>,
    body: Bytes,
    peer: &Peer,
    context: &Context,
) -> Result<(Lease, SendStream<Bytes>, http::Response<RecvStream>), Unwell> {
    let lease = links.lease(peer, Who::NOBODY, None, context).await.map_err(|refusal| Unwell::Refused(refusal.reason()))?;
    if lease.is_originated() {
        *request.uri_mut() = head::with_https(request.uri());
    }
    let (answer, mut to) = lease.send(request, body.is_empty())?;
    if !body.is_empty() {
        to.send_data(body, true)?;
    }
    let response = answer.await?;
    Ok((lease, to, response))
}

/// Whether the app behind its proxy has as many requests as it bears.
fn is_busy(response: &http::Response<RecvStream>) -> bool {
    let undelivered = response.headers().get(UNDELIVERED).map(|value| Undelivered::read(value.as_bytes()));
    undelivered == Some(Undelivered::Overflow)
}

/// Reads an answer and the gRPC status after it.
async fn read(mut body: RecvStream) -> Result<(Bytes, Option<u16>), Unwell> {
    let mut answer = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        if answer.len() + piece.len() > ANSWER_MAX {
            return Err(Unwell::NotServing);
        }
        answer.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await?;
    Ok((answer.freeze(), trailers.as_ref().and_then(head::grpc_status)))
}

/// The status in the message that `answer` is: not compressed, and after its length (gRPC over HTTP/2).
fn said(mut answer: &[u8]) -> Option<i32> {
    if answer.try_get_u8().ok()? != 0 {
        return None;
    }
    let length = usize::try_from(answer.try_get_u32().ok()?).ok()?;
    HealthCheckResponse::decode(answer.get(..length)?).ok().map(|response| response.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_from_a_whole_message_only() {
        assert_eq!(said(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(said(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        assert_eq!(said(&[0, 0, 0, 0, 0]), Some(0), "UNKNOWN is not written");
        for bad in [&[][..], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 3, 8, 1], &[0, 0, 0, 0, 2, 8], &[0, 255, 255, 255, 255]] {
            assert_eq!(said(bad), None, "{bad:?}");
        }
    }
}
