//! The method that signs certificates: one request, one answer.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use jiff::Timestamp;
use leno_xds::frame::Decoder;
use leno_xds::message::Message;
use leno_xds::wire::leno::SigningRequest;
use prost::Message as _;

use super::exchange::code;
use crate::ca::authenticate::Refusal;
use crate::ca::request::REQUEST_BYTES_MAX;
use crate::ca::signer::{Refused, Signer};
use crate::publish::outbox::Ending;

/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest message: a request and what is around it.
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 1024;

/// Answers the signing request in `body`, or says why not.
pub(super) async fn sign(signer: &Signer, headers: &HeaderMap, address: Option<IpAddr>, body: RecvStream) -> Result<Message, Ending> {
    let message = match tokio::time::timeout(PATIENCE, only_message(body)).await {
        Ok(Some(message)) => message,
        Ok(None) => return Err(invalid("the request is no single SigningRequest of a sensible length".to_owned())),
        Err(_elapsed) => return Err(Ending { code: code::DEADLINE_EXCEEDED, message: "no request came in time".to_owned() }),
    };
    let request = match SigningRequest::decode(message) {
        Ok(request) => request,
        Err(error) => return Err(invalid(format!("the message is no SigningRequest: {error}"))),
    };
    match signer.sign(bearer(headers), &request.csr, address, Timestamp::now()).await {
        Ok(answer) => Ok(Message::other(&answer)),
        Err(refused) => Err(Ending { code: code_of(&refused), message: refused.to_string() }),
    }
}

/// The one message of a request; `None` when it is none, or more.
async fn only_message(mut body: RecvStream) -> Option<Bytes> {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let mut message = None;
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        decoder.push(&piece);
        while let Some(next) = decoder.next().ok()? {
            if message.replace(next).is_some() {
                return None;
            }
        }
    }
    decoder.finish().ok()?;
    message
}

/// The token of `authorization: Bearer …`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn invalid(message: String) -> Ending {
    Ending { code: code::INVALID_ARGUMENT, message }
}

fn code_of(refused: &Refused) -> u8 {
    match refused {
        Refused::NoToken | Refused::Refusal(Refusal::Token(_) | Refusal::Unbound) => code::UNAUTHENTICATED,
        Refused::Refusal(Refusal::Gone(_) | Refusal::Another(_)) | Refused::Name(_) => code::PERMISSION_DENIED,
        Refused::Request(_) => code::INVALID_ARGUMENT,
        Refused::TooMany(_) | Refused::Busy => code::RESOURCE_EXHAUSTED,
        Refused::Refusal(Refusal::Unavailable(_)) | Refused::NotReady | Refused::Authority(_) => code::UNAVAILABLE,
    }
}
