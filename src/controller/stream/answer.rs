//! What goes to the proxy: whatever waits, then the trailers; or one answer.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use h2::SendStream;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use leno_xds::message::Message;

use crate::publish::counters::Counters;
use crate::publish::outbox::{Ending, Next, Outbox};

/// Writes what waits until the stream ends, for whatever reason.
pub(super) async fn write(stream: &mut SendStream<Message>, outbox: &Outbox, counters: &Counters) {
    poll_fn(|context| poll_write(stream, outbox, counters, context)).await;
}

/// Takes from the outbox only what the proxy has room for: until then newer states replace older ones.
fn poll_write(stream: &mut SendStream<Message>, outbox: &Outbox, counters: &Counters, context: &mut Context<'_>) -> Poll<()> {
    if stream.poll_reset(context).is_ready() {
        return Poll::Ready(());
    }
    loop {
        stream.reserve_capacity(1);
        while stream.capacity() == 0 {
            let Some(Ok(_)) = ready!(stream.poll_capacity(context)) else { return Poll::Ready(()) };
        }
        match ready!(outbox.poll_next(context)) {
            Next::Message(message) => {
                counters.count_sent(message.resources(), message.remaining());
                if stream.send_data(message, false).is_err() {
                    return Poll::Ready(());
                }
            }
            Next::End(ending) => {
                let _gone = stream.send_trailers(trailers(&ending));
                return Poll::Ready(());
            }
        }
    }
}

/// Begins a response that goes on; `None` when the proxy has gone.
pub(super) fn begin(respond: &mut SendResponse<Message>) -> Option<SendStream<Message>> {
    respond.send_response(grpc(StatusCode::OK, HeaderMap::new()), false).ok()
}

/// Answers with one message, and that all went well.
pub(super) fn answer(respond: &mut SendResponse<Message>, message: Message) {
    if let Some(mut stream) = begin(respond) {
        // Of a proxy that has gone there is nothing to be said.
        let _gone = stream.send_data(message, false);
        let _gone = stream.send_trailers(trailers(&Ending { code: 0, message: String::new() }));
    }
}

/// Says at once how the call ended.
pub(super) fn end(respond: &mut SendResponse<Message>, ending: &Ending) {
    refuse(respond, StatusCode::OK, trailers(ending));
}

/// Answers without a body.
pub(super) fn refuse(respond: &mut SendResponse<Message>, status: StatusCode, fields: HeaderMap) {
    let _gone = respond.send_response(grpc(status, fields), true);
}

fn grpc(status: StatusCode, fields: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The fields that end a gRPC stream.
fn trailers(ending: &Ending) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(2);
    fields.insert("grpc-status", HeaderValue::from(u16::from(ending.code)));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&ending.message)) {
        fields.insert("grpc-message", message);
    }
    fields
}

/// What is not printable ASCII, and the percent sign (gRPC over HTTP/2, "Percent-Encoded").
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                let _infallible = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_fits_into_a_trailer() {
        let fields = trailers(&Ending { code: 3, message: "100 % \n ü".to_owned() });
        assert_eq!(fields["grpc-status"], "3");
        assert_eq!(fields["grpc-message"], "100 %25 %0A %C3%BC");
    }
}
