//! The response's body: whatever waits for the proxy, then the trailers.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf as _;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body, Frame};
use leno_xds::message::Message;
use tokio_util::sync::DropGuard;

use crate::publish::counters::Counters;
use crate::publish::outbox::{Ending, Next, Outbox};

/// A body that never ends by itself. Dropped when the stream ends, for whatever reason.
#[derive(Debug)]
pub(super) enum Responses {
    /// Of an open stream.
    Open {
        /// What waits.
        outbox: Arc<Outbox>,
        /// What is counted.
        counters: Arc<Counters>,
        /// Tells the reader that the stream is over.
        _over: DropGuard,
    },
    /// The one answer of a method that has one, then its end in good order.
    Answer(Message),
    /// The trailers are to come.
    Ending(Ending),
    /// The trailers were sent, or there is nothing to send at all.
    Ended,
}

impl Body for Responses {
    type Data = Message;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Message>, Infallible>>> {
        let (outbox, counters) = match &*self {
            Self::Open { outbox, counters, .. } => (outbox, counters),
            Self::Answer(_) | Self::Ending(_) | Self::Ended => return Poll::Ready(self.step().map(Ok)),
        };
        match outbox.poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Next::Message(message)) => {
                counters.count_sent(message.resources(), message.remaining());
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Poll::Ready(Next::End(ending)) => {
                *self = Self::Ended;
                Poll::Ready(Some(Ok(Frame::trailers(trailers(&ending)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Ended)
    }
}

impl Responses {
    /// What comes next of a body that waits for nothing.
    fn step(&mut self) -> Option<Frame<Message>> {
        match std::mem::replace(self, Self::Ended) {
            Self::Answer(message) => {
                *self = Self::Ending(Ending { code: 0, message: String::new() });
                Some(Frame::data(message))
            }
            Self::Ending(ending) => Some(Frame::trailers(trailers(&ending))),
            Self::Open { .. } | Self::Ended => None,
        }
    }
}

/// The fields that end a gRPC stream.
pub(super) fn trailers(ending: &Ending) -> HeaderMap {
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
