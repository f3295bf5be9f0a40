//! Sends a copy of an HTTP/2 request, and reads and drops what it is answered.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::Request;

use super::head;
use super::upstream::Who;
use crate::http1::response::UNDELIVERED;
use crate::mirror::{self, ANSWER_MAX, Copy, Next, Outcome};
use crate::target::Route;
use crate::worker::Context;

/// Sends `copy`, whose head is `request`, to one of the route's endpoints. Dropped midway, it resets the stream.
pub(super) async fn send(route: Route, copy: Rc<Copy>, mut request: Request<()>, context: Rc<Context>) -> Outcome {
    let in_flight = match mirror::pick(&route, &context).await {
        Ok(in_flight) => in_flight,
        Err(outcome) => return outcome,
    };
    let peer = in_flight.peer();
    let lease = match peer.http2.lease(peer, Who::NOBODY, in_flight.attempt(), &context).await {
        Ok(lease) => lease,
        Err(refusal) => return refusal.into(),
    };
    if lease.is_originated() {
        *request.uri_mut() = head::with_https(request.uri());
    }
    let ends = copy.is_empty();
    let Ok((answer, mut to)) = lease.send(request, ends) else { return Outcome::Disconnected };
    let (mut up, mut answer) = (pin!(upload(&mut to, &copy, ends)), pin!(read(answer)));
    let outcome = tokio::select! {
        biased;
        sent = &mut up => {
            if let Err(error) = sent {
                tracing::debug!(%error, "a mirror takes no more of a request");
            }
            answer.await
        }
        answer = &mut answer => answer,
    };
    outcome.unwrap_or_else(|error| {
        tracing::debug!(%error, "a mirror gave no answer");
        if error.is_reset() { Outcome::BadResponse } else { Outcome::Disconnected }
    })
}

async fn upload(to: &mut SendStream<Bytes>, copy: &Copy, is_sent: bool) -> Result<(), h2::Error> {
    if is_sent {
        return Ok(());
    }
    loop {
        match copy.next().await {
            Next::Piece(piece) => send_piece(to, piece).await?,
            Next::End(Some(trailers)) => return to.send_trailers(trailers),
            Next::End(None) => return to.send_data(Bytes::new(), true),
        }
    }
}

async fn send_piece(to: &mut SendStream<Bytes>, piece: Bytes) -> Result<(), h2::Error> {
    to.reserve_capacity(1);
    while to.capacity() == 0 {
        match poll_fn(|cx| to.poll_capacity(cx)).await {
            Some(room) => {
                room?;
            }
            None => return Err(h2::Reason::CANCEL.into()),
        }
    }
    to.send_data(piece, false)
}

/// Reads the answer to its end, or as much of it as anybody could want.
async fn read(answer: ResponseFuture) -> Result<Outcome, h2::Error> {
    let response = answer.await?;
    let outcome = if response.headers().contains_key(UNDELIVERED) { Outcome::Undelivered } else { Outcome::Answered };
    let mut body: RecvStream = response.into_body();
    let mut bytes = 0;
    while let Some(piece) = body.data().await {
        let length = piece?.len();
        body.flow_control().release_capacity(length)?;
        bytes += length as u64;
        if bytes > ANSWER_MAX {
            break;
        }
    }
    Ok(outcome)
}
