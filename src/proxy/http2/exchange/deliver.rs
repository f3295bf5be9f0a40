//! Answering: the endpoint's response on its way to the client, or the proxy's own.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response};
use leno_core::names::Name;

use super::super::Client;
use super::super::answer::Answer;
use super::super::flow::{Flow, Patience, Stopped};
use super::super::head;
use super::attempts::Arrived;
use super::{Exchange, spoken};
use crate::connection::Side;
use crate::filters::Filtered;
use crate::http1::head::HeadError;
use crate::http1::response::Undelivered;
use crate::idle::{Idle, within};
use crate::target::Refusal;
use crate::telemetry::{Access, Destination, RequestRecord, Tried};

impl Exchange {
    /// Sends the response to the client, with the rest of the request still going up where there is any.
    pub(super) async fn deliver(&mut self, arrived: Arrived) {
        let Arrived { response, mut send, undelivered, lease } = arrived;
        let (mut parts, body) = response.into_parts();
        self.outcome.status = parts.status.as_u16();
        self.outcome.grpc_status = head::grpc_status(&parts.headers);
        let has_length = parts.headers.contains_key(CONTENT_LENGTH);
        self.outcome.reason = undelivered.map(|why| why.refusal().reason());
        head::strip(&mut parts.headers);
        if let Some(changes) = self.target.response_changes() {
            head::change(&mut parts.headers, &changes);
        }
        self.up.settle();
        let patience = Patience { who: self.client.who(), lease, limit: self.client.context.settings.stall_timeout };
        let mut down = Flow::once(body, patience);
        let ends = down.is_empty();
        let mut to = match self.respond.send_response(Response::from_parts(parts, ()), ends) {
            Ok(to) => to,
            Err(error) => {
                send.send_reset(error.reason().unwrap_or(Reason::CANCEL));
                self.outcome.reason = Some("client-gone");
                return;
            }
        };
        if ends {
            down.skip();
        }
        let mut is_going_up = !self.up.is_done();
        let idle = self.target.route().and_then(|route| route.idle_timeout).map(Idle::new);
        self.up.idle.clone_from(&idle);
        down.idle.clone_from(&idle);
        let both = poll_fn(|cx| self.poll_both(&mut down, &mut to, &mut send, &mut is_going_up, cx));
        let carried = within(idle.as_ref(), both).await.unwrap_or(Err(Stopped::Idle));
        self.outcome.bytes_out = down.bytes;
        self.outcome.grpc_status = down.grpc_status.or(self.outcome.grpc_status);
        match carried {
            Ok(()) => {}
            Err(Stopped::Receiver(error)) => {
                send.send_reset(error.reason().unwrap_or(Reason::CANCEL));
                self.outcome.reason = Some("client-gone");
            }
            Err(Stopped::Stalled) => {
                self.outcome.reason = Some("client-too-slow");
                send.send_reset(Reason::CANCEL);
                to.send_reset(Reason::CANCEL);
            }
            Err(Stopped::Sender(error)) => {
                self.outcome.reason = Some("response-cut");
                self.cut(&error, &mut to, has_length);
            }
            Err(Stopped::Idle) => {
                send.send_reset(Reason::CANCEL);
                self.outcome.reason = Some("idle-timeout");
                self.end_early(Reason::CANCEL, (4, "nothing came or went for too long"), &mut to, has_length);
            }
        }
    }

    /// Both ways until both are done. [`Stopped`] is told from the response's point of view.
    fn poll_both(
        &mut self,
        down: &mut Flow,
        to: &mut SendStream<Bytes>,
        send: &mut SendStream<Bytes>,
        is_going_up: &mut bool,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<(), Stopped>> {
        if *is_going_up && let Poll::Ready(result) = self.up.poll(send, cx) {
            *is_going_up = false;
            match result {
                // An endpoint that has answered may refuse the rest of the body (RFC 9113 section 8.1).
                Ok(()) | Err(Stopped::Receiver(_) | Stopped::Stalled) => {}
                // The client has its whole response, so it may leave the rest of its request.
                Err(Stopped::Sender(error)) if down.is_done() => send.send_reset(error.reason().unwrap_or(Reason::CANCEL)),
                Err(Stopped::Sender(error)) => return Poll::Ready(Err(Stopped::Receiver(error))),
                Err(Stopped::Idle) => return Poll::Ready(Err(Stopped::Idle)),
            }
        }
        ready!(down.poll(to, cx))?;
        if *is_going_up { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// The response broke off: the client hears it in the endpoint's words, or in words of its own protocol.
    fn cut(&mut self, error: &h2::Error, to: &mut SendStream<Bytes>, has_length: bool) {
        if error.is_reset() {
            // What was found wrong here is no fault of the client's.
            let reason = if error.is_remote() { error.reason() } else { None };
            return to.send_reset(reason.unwrap_or(Reason::INTERNAL_ERROR));
        }
        self.end_early(Reason::INTERNAL_ERROR, (14, Refusal::Disconnected.text().trim_ascii_end()), to, has_length);
    }

    /// Nothing more of the response comes: gRPC hears why in its trailers, others get a reset.
    fn end_early(&mut self, reset: Reason, (code, message): (u16, &'static str), to: &mut SendStream<Bytes>, has_length: bool) {
        // Trailers after fewer bytes than were announced would be wrong as well.
        if self.head.is_grpc && !has_length {
            let mut trailers = HeaderMap::with_capacity(2);
            trailers.insert("grpc-status", HeaderValue::from(code));
            trailers.insert("grpc-message", HeaderValue::from_static(message));
            self.outcome.grpc_status = Some(code);
            if to.send_trailers(trailers).is_ok() {
                return;
            }
        }
        to.send_reset(reset);
    }

    /// The proxy answers itself.
    pub(super) fn answer(&mut self, status: u16, text: &'static str, reason: &'static str) {
        let fields = self.target.filtered().map(Filtered::for_pages).unwrap_or_default();
        self.answer_with((status, None), text, reason, &fields);
    }

    /// The proxy answers itself: with an HTTP status, or a gRPC status of its own for who speaks that, and `fields` besides those of every
    /// answer.
    pub(super) fn answer_with(
        &mut self,
        (status, grpc_status): (u16, Option<u16>),
        text: &'static str,
        reason: &'static str,
        fields: &[(Name, Name)],
    ) {
        let is_inbound = matches!(self.client.side, Side::Inbound { .. });
        let answer = Answer {
            status,
            grpc_status,
            text,
            is_grpc: self.head.is_grpc,
            is_head: self.head.method == Method::HEAD,
            retry_after_s: self.target.retry_after_s(),
            undelivered: Undelivered::by_reason(reason).filter(|_| is_inbound),
            fields,
        };
        self.outcome.reason = Some(reason);
        match answer.send(&mut self.respond) {
            Ok(sent) => {
                self.outcome.status = sent.status;
                self.outcome.grpc_status = sent.grpc_status;
                self.outcome.bytes_out = sent.bytes;
            }
            Err(error) => tracing::debug!(%error, "the client takes no answer"),
        }
    }

    /// One record per request.
    pub(super) fn record(&self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.ended(self.outcome.reason, self.outcome.status, self.outcome.grpc_status, &self.client.context);
        }
        self.client.context.recorder.request(&RequestRecord {
            direction: self.client.side.direction(),
            spoken: spoken(self.head.is_grpc),
            destination: &self.outcome.labels,
            access: self.outcome.decided.access(),
            method: self.head.method.as_str(),
            path: self.head.asked.as_ref().unwrap_or(&self.head.uri).path_and_query().map_or("", |path| path.as_str()),
            authority: self.head.asked.as_ref().unwrap_or(&self.head.uri).authority().map_or("", |authority| authority.as_str()),
            request_id: self.head.id.to_str().unwrap_or_default(),
            trace: self.head.trace.as_deref(),
            status: self.outcome.status,
            grpc_status: self.outcome.grpc_status,
            reason: self.outcome.reason,
            tried: self.tries.tried(self.head.method.as_str(), self.target.route()),
            peer: self.client.peer,
            upstream: self.outcome.upstream,
            secured: self.outcome.secured.as_deref(),
            bytes_in: self.up.bytes,
            bytes_out: self.outcome.bytes_out,
            duration: self.started.elapsed(),
        });
    }
}

/// Answers a head that is refused.
pub(super) fn refuse(client: &Client, parts: &Parts, error: HeadError, is_grpc: bool, respond: &mut SendResponse<Bytes>) {
    let is_host = error == HeadError::BadHost;
    let text = if is_host { "the authority is missing, invalid or contradicts Host\n" } else { "the request target is invalid\n" };
    let answer = Answer {
        status: error.status(),
        grpc_status: None,
        text,
        is_grpc,
        is_head: parts.method == Method::HEAD,
        undelivered: None,
        retry_after_s: None,
        fields: &[],
    };
    let sent = answer.send(respond).unwrap_or_default();
    let labels = match &client.side {
        Side::Inbound { labels, .. } => Rc::clone(labels),
        Side::Outbound { service, .. } => Rc::new(Destination { service: Some(service.id.clone()), version: None, route: None }),
        Side::Explicit | Side::Outside { .. } => Rc::default(),
    };
    client.context.recorder.request(&RequestRecord {
        direction: client.side.direction(),
        spoken: spoken(is_grpc),
        destination: &labels,
        access: Access::default(),
        method: parts.method.as_str(),
        path: parts.uri.path_and_query().map_or("", |path| path.as_str()),
        authority: "",
        request_id: "",
        trace: None,
        status: sent.status,
        grpc_status: sent.grpc_status,
        reason: Some(error.reason()),
        tried: Tried::default(),
        peer: client.peer,
        upstream: None,
        secured: client.secured().map(Rc::as_ref),
        bytes_in: 0,
        bytes_out: sent.bytes,
        duration: std::time::Duration::ZERO,
    });
}
