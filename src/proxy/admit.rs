//! Who comes in: what a connection to the app must prove before anything is done for it.
//!
//! A proxy of the mesh is told by its first message and has to prove who it is, whatever the port's mode says, so that the
//! mode can change, and proxies can come, in any order. Everybody else is plain, the app's own TLS included: let in as it
//! is, or, where the mode is strict, refused by a reset before the app has heard of it. Only declared probes pass there.
//!
//! The mode is looked up for each connection and each request, so that a change holds for connections that are there.
//!
//! Reading order: [`admit`], [`is_refused`], [`is_probe`].

use std::rc::Rc;
use std::time::Instant;

use leno_core::authorize::Mode;
use leno_core::names::Name;
use leno_core::request::Caller;
use leno_core::service::Protocol;
use tokio::time::timeout;

use crate::buffers::Buffer;
use crate::connection::{Connection, Side};
use crate::detect::{Verdict, detect};
use crate::io::Io;
use crate::telemetry::{Access, Destination, TcpRecord};
use crate::tls::hello::{Hello, peek};
use crate::tls::{Agreed, End, Failed, Inner, TlsStream};
use crate::worker::Context;

/// Counted and logged where a connection had to prove something and was plain.
const PLAIN_TEXT: &str = "plain-text";

/// How a connection that may go on has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// Its client has proven who it is, and says what is inside.
    Proven(Inner),
    /// It is plain, and what was read of it so far says what it is.
    Plain,
    /// It is plain, and its client has been silent for the time detection gives.
    Silent,
    /// It is plain where nobody may be, and is good for declared probes alone.
    ForProbes,
}

/// What the first bytes were.
enum Heard {
    Ours,
    Plain,
    Silence,
    Gone,
}

/// Lets a connection to the app in, or not: `None` when it is over. Where HTTP is declared the client speaks first, and is waited
/// for; elsewhere its silence may mean that the app is to speak, and who breaks it later is to be asked again.
pub(crate) async fn admit(mut connection: Box<Connection>, protocol: Protocol) -> Option<(Box<Connection>, Came)> {
    let context = Rc::clone(&connection.context);
    let Side::Inbound { port, .. } = connection.side else { return Some((connection, Came::Plain)) };
    if !context.settings.identity {
        return Some((connection, Came::Plain));
    }
    context.directory.wait_for_workload().await;
    let came = match hear(&mut connection, port, protocol).await {
        Heard::Ours => {
            context.silent.said_hello(connection.peer.ip());
            return secure(connection).await.map(|(connection, inner)| (connection, Came::Proven(inner)));
        }
        Heard::Gone => return None,
        Heard::Plain => Came::Plain,
        Heard::Silence => {
            // Without redirection every client has the same address.
            if context.settings.intercepts {
                context.silent.was_silent(connection.peer.ip(), Instant::now());
            }
            Came::Silent
        }
    };
    if mode(&context, port) != Mode::Strict {
        return Some((connection, came));
    }
    if may_be_probe(&connection, port) {
        return Some((connection, Came::ForProbes));
    }
    refuse(&connection.side, connection.peer, connection.since, &context);
    connection.io.abort_on_close();
    None
}

/// What holds for `port` now. As long as nobody has said, nobody is let in unproven.
fn mode(context: &Context, port: u16) -> Mode {
    context.directory.workload().map_or(Mode::Strict, |workload| workload.guard(port).mode)
}

/// Reads until it is clear whether a proxy of the mesh speaks.
async fn hear(connection: &mut Connection, port: u16, protocol: Protocol) -> Heard {
    let context = Rc::clone(&connection.context);
    let mut end = Instant::now() + context.settings.handshake_timeout;
    loop {
        match peek(connection.first.as_ref().map_or(&[], Buffer::filled)) {
            Hello::Ours => return Heard::Ours,
            Hello::Other => return Heard::Plain,
            Hello::NeedMore => {}
        }
        let is_silent = connection.first.is_none();
        let is_strict = mode(&context, port) == Mode::Strict;
        if is_silent && !is_strict && protocol.is_http() {
            match context.draining.or_else(connection.read_first()).await {
                Some(Ok(1..)) => end = Instant::now() + context.settings.handshake_timeout,
                Some(Ok(0) | Err(_)) | None => return Heard::Gone,
            }
            continue;
        }
        // Whoever has begun a hello is given the time to end it: its rest may have been lost on the way.
        let now = Instant::now();
        let wait = if is_silent && !is_strict {
            context.silent.wait(connection.peer.ip(), context.settings.detect_timeout, now)
        } else {
            end.saturating_duration_since(now)
        };
        match timeout(wait, connection.read_first()).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) if is_silent && is_strict => return Heard::Gone,
            // Closed, or half closed: the app may still have something to say.
            Ok(Ok(0)) => return Heard::Plain,
            Ok(Err(_)) => return Heard::Gone,
            Err(_) if is_silent => return Heard::Silence,
            Err(_) => return Heard::Plain,
        }
    }
}

/// The handshake with a proxy of the mesh.
async fn secure(connection: Box<Connection>) -> Option<(Box<Connection>, Inner)> {
    let Connection { io, peer, caller: _, tls: _, side, first, context, since } = *connection;
    let Io::Plain(tcp) = io else { return None };
    let accepting = TlsStream::accept(tcp, first, &context.security, &context.buffers);
    let shaken = match timeout(context.settings.handshake_timeout, accepting).await {
        Ok(result) => result,
        Err(_) => Err(Failed::Timeout),
    };
    match shaken {
        Ok((stream, proven)) => {
            context.recorder.handshake(End::Server, "ok", proven.agreed.is_resumed);
            let namespace = Some(Name::clone(&proven.identity.namespace));
            let caller = Rc::new(Caller { namespace, identity: Some(proven.identity) });
            let (io, tls) = (Io::Tls(Box::new(stream)), Some(proven.agreed));
            Some((Box::new(Connection { io, peer, caller, tls, side, first: None, context, since }), proven.inner))
        }
        Err(failed) => {
            context.recorder.handshake(End::Server, failed.reason(), false);
            tracing::info!(error = %failed, reason = failed.reason(), %peer, "refused a caller whose handshake failed");
            record(&side, peer, since, &context, failed.reason());
            None
        }
    }
}

/// Whether what was read of a plain connection may become a declared probe.
fn may_be_probe(connection: &Connection, port: u16) -> bool {
    let probes = &connection.context.settings.probes;
    let Some(first) = &connection.first else { return false };
    match detect(first.filled()) {
        Verdict::Http1 | Verdict::NeedMore => probes.has(port),
        Verdict::Http2 => probes.has_grpc(port),
        Verdict::Opaque => false,
    }
}

/// What a request is asked for before it is known whether it may pass.
pub(crate) enum Asks<'a> {
    /// HTTP/1: its method, and its whole target in origin-form; it has no body and changes no protocol.
    Http(&'a str, &'a str),
    /// gRPC: its path.
    Grpc(&'a str),
    /// Anything else.
    Other,
}

/// Whether a request is a probe that was declared, from a plain connection.
pub(crate) fn is_probe(side: &Side, tls: Option<&Agreed>, asks: &Asks<'_>, context: &Context) -> bool {
    let Side::Inbound { port, .. } = side else { return false };
    let probes = &context.settings.probes;
    tls.is_none()
        && match asks {
            Asks::Http(method, target) => probes.allow_http(*port, method, target),
            Asks::Grpc(path) => probes.allow_grpc(*port, path),
            Asks::Other => false,
        }
}

/// Whether a request must not pass because its connection proves nothing and its port is strict.
pub(crate) fn is_refused(side: &Side, tls: Option<&Agreed>, asks: &Asks<'_>, context: &Context) -> bool {
    let Side::Inbound { port, .. } = side else { return false };
    context.settings.identity && tls.is_none() && mode(context, *port) == Mode::Strict && !is_probe(side, tls, asks, context)
}

/// Keeps the record of a connection that proved nothing where it had to.
pub(crate) fn refuse(side: &Side, peer: std::net::SocketAddr, since: Instant, context: &Context) {
    tracing::info!(%peer, "refused plain text on a port whose mode is Strict");
    record(side, peer, since, context, PLAIN_TEXT);
}

fn record(side: &Side, peer: std::net::SocketAddr, since: Instant, context: &Context, reason: &'static str) {
    let labels = match side {
        Side::Inbound { labels, .. } => Rc::clone(labels),
        Side::Outbound { .. } | Side::Outside { .. } | Side::Explicit => Rc::<Destination>::default(),
    };
    context.recorder.tcp(&TcpRecord {
        direction: side.direction(),
        destination: &labels,
        access: Access::default(),
        peer,
        upstream: None,
        secured: None,
        reason: Some(reason),
        bytes_in: 0,
        bytes_out: 0,
        duration: since.elapsed(),
    });
}
