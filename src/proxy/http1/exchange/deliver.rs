//! Answering: the endpoint's response on its way to the client, or the proxy's own.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use leno_core::names::Name;
use leno_core::resilience::Outcome;

use super::super::answer::Answer;
use super::super::body::{Body, Plain};
use super::super::flow::{Flow, Patience, Stopped, beside};
use super::super::head::HeadError;
use super::super::request::Framing;
use super::super::response::{Keep, Undelivered};
use super::attempts::Arrived;
use super::{After, End, Exchange};
use crate::buffers::Buffer;
use crate::connection::{Connection, Side};
use crate::filters::Filtered;
use crate::idle::{Idle, within};
use crate::io::Io;
use crate::telemetry::{Access, Destination, RequestRecord, Spoken, Tried};

impl Exchange<'_> {
    /// Sends the response to the client, with the rest of the request still going up where there is any.
    pub(super) async fn deliver(&mut self, arrived: Arrived) -> End {
        let Arrived { io, response, keep, inbox, out } = arrived;
        self.outcome.status = response.status;
        self.outcome.grpc_status = response.grpc_status;
        self.outcome.reason = response.undelivered.map(|why| why.refusal().reason());
        if response.tunnel {
            return self.become_tunnel(io, &inbox, out).await;
        }
        let plain = if self.asked.is_old { Plain::Yes } else { Plain::No };
        let patience = Patience::WithReceiver(self.connection.context.settings.stall_timeout);
        let mut down = Flow::new(Body::new(response.body, plain), inbox, out, false, patience);
        // The app has begun to answer: how long it waits for the rest is its own affair.
        self.up.patience = Patience::Endless;
        let (client, buffers) = (&self.connection.io, &self.connection.context.buffers);
        let carried = match down.take_in() {
            Err(bad) => Ok(Err(Stopped::Malformed(bad))),
            Ok(()) => {
                let idle = self.target.route().and_then(|route| route.idle_timeout).map(Idle::new);
                self.up.idle.clone_from(&idle);
                down.idle.clone_from(&idle);
                let (up, down) = (pin!(self.up.run(client, &io, buffers)), pin!(down.run(&io, client, buffers)));
                let both = pin!(beside(client, &mut self.upload, up, down));
                within(idle.as_ref(), both).await.unwrap_or(Err(Stopped::Idle))
            }
        };
        let now = Instant::now();
        self.outcome.bytes_out = down.body.bytes;
        self.outcome.reason = match carried {
            Ok(Ok(())) => self.outcome.reason,
            Ok(Err(Stopped::Sender(_) | Stopped::Malformed(_))) => Some("response-cut"),
            Ok(Err(Stopped::Stalled)) => Some("client-too-slow"),
            Ok(Err(Stopped::Idle)) | Err(Stopped::Idle) => Some("idle-timeout"),
            Ok(Err(Stopped::Receiver(_))) | Err(_) => Some("client-gone"),
        };
        self.record(now);
        if !matches!(carried, Ok(Ok(()))) {
            client.abort_on_close();
            return End::Close;
        }
        let whole = self.up.is_done() && !self.upload.refused;
        if whole
            && response.keep_alive
            && down.inbox.is_empty()
            && let Some(in_flight) = &self.in_flight
        {
            in_flight.rest(io, now, self.connection.context.settings.rest);
        }
        match keep {
            _ if !whole => End::Linger,
            Keep::No if self.is_last() => End::Part,
            Keep::No => End::Linger,
            Keep::Silently | Keep::Told => End::Again,
        }
    }

    /// Whether the client sends nothing more: it has said so, and nothing of it is on its way (RFC 9112 section 9.6).
    fn is_last(&self) -> bool {
        !self.request.keep_alive && self.request.body == Framing::None && self.up.inbox.is_empty()
    }

    /// The protocol changes: what either side has sent already goes on first.
    async fn become_tunnel(&mut self, io: Io, from_server: &Buffer, mut out: Buffer) -> End {
        out.append(from_server.filled());
        let sent = self.connection.io.write_all(out.filled()).await;
        if sent.is_err() || io.write_all(self.up.inbox.filled()).await.is_err() {
            self.outcome.reason = Some("cut");
            self.record(Instant::now());
            return End::Close;
        }
        if let Some(in_flight) = &self.in_flight {
            in_flight.report(Outcome::Success, &self.connection.context);
        }
        End::Tunnel(io)
    }

    /// The proxy answers itself.
    pub(super) async fn answer(&mut self, status: u16, text: &str, reason: &'static str) -> End {
        let fields = self.target.filtered().map(Filtered::for_pages).unwrap_or_default();
        self.answer_with(status, text, reason, &fields).await
    }

    /// The proxy answers itself, with `fields` besides those of every answer.
    pub(super) async fn answer_with(&mut self, status: u16, text: &str, reason: &'static str, fields: &[(Name, Name)]) -> End {
        let context = &self.connection.context;
        let whole = self.up.body.is_done();
        let close = !whole || !self.request.keep_alive || context.draining.has_started();
        let is_inbound = matches!(self.connection.side, Side::Inbound { .. });
        let answer = Answer {
            status,
            text,
            close,
            tell_kept: self.request.is_old,
            is_head: self.asked.is_head,
            retry_after_s: self.target.retry_after_s(),
            undelivered: Undelivered::by_reason(reason).filter(|_| is_inbound),
            fields,
        };
        let mut out = context.buffers.take();
        answer.write(&mut out);
        let written = self.connection.io.write_all(out.filled()).await;
        self.outcome.status = status;
        self.outcome.reason = Some(reason);
        self.outcome.bytes_out = text.len() as u64;
        self.record(Instant::now());
        match (written, close) {
            (Err(_), _) => End::Close,
            (Ok(()), true) => End::Linger,
            (Ok(()), false) => End::Again,
        }
    }

    /// One record per request.
    pub(super) fn record(&self, now: Instant) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.ended(self.outcome.reason, self.outcome.status, self.outcome.grpc_status, &self.connection.context);
        }
        let bytes = self.up.inbox.block();
        self.connection.context.recorder.request(&RequestRecord {
            direction: self.connection.side.direction(),
            spoken: Spoken::Http1,
            destination: &self.outcome.labels,
            access: self.outcome.decided.access(),
            method: self.request.method.text(bytes),
            path: self.request.target.text(bytes),
            authority: self.request.authority.text(bytes),
            request_id: self.id.text(bytes),
            trace: self.trace.as_deref(),
            status: self.outcome.status,
            grpc_status: self.outcome.grpc_status,
            reason: self.outcome.reason,
            tried: self.tries.tried(self.request.method.text(bytes), self.target.route()),
            peer: self.connection.peer,
            upstream: self.outcome.upstream,
            secured: self.outcome.secured.as_deref(),
            bytes_in: self.up.body.bytes,
            bytes_out: self.outcome.bytes_out,
            duration: now.saturating_duration_since(self.started),
        });
    }
}

/// Answers a head that is refused, and closes: nothing after it can be trusted.
pub(super) async fn refuse(connection: &Connection, error: HeadError) -> After {
    let text = format!("{error}\n");
    refuse_with(connection, error.status(), &text, error.reason()).await
}

pub(super) async fn refuse_with(connection: &Connection, status: u16, text: &str, reason: &'static str) -> After {
    let labels = match &connection.side {
        Side::Inbound { labels, .. } => Rc::clone(labels),
        Side::Outbound { service, .. } => Rc::new(Destination { service: Some(service.id.clone()), version: None, route: None }),
        Side::Explicit | Side::Outside { .. } => Rc::new(Destination { service: None, version: None, route: None }),
    };
    let mut out = connection.context.buffers.take();
    Answer { status, text, close: true, tell_kept: false, is_head: false, undelivered: None, retry_after_s: None, fields: &[] }
        .write(&mut out);
    let written = connection.io.write_all(out.filled()).await;
    connection.context.recorder.request(&RequestRecord {
        direction: connection.side.direction(),
        spoken: Spoken::Http1,
        destination: &labels,
        access: Access::default(),
        method: "",
        path: "",
        authority: "",
        request_id: "",
        trace: None,
        status,
        grpc_status: None,
        reason: Some(reason),
        tried: Tried::default(),
        peer: connection.peer,
        upstream: None,
        secured: connection.secured().map(Rc::as_ref),
        bytes_in: 0,
        bytes_out: text.len() as u64,
        duration: Duration::ZERO,
    });
    match written {
        Ok(()) => After::Linger,
        Err::<(), io::Error>(_) => After::Close,
    }
}
