//! Sends a copy of an HTTP/1 request, and reads and drops what it is answered.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use super::body::{Body, Plain};
use super::head::{self, HEAD_BYTES_MAX, Head, HeadError};
use super::response::{Asked, Response};
use crate::buffers::Buffers;
use crate::dial::{may_use, reach};
use crate::io::Io;
use crate::mirror::{self, ANSWER_MAX, Copy, Next, Outcome};
use crate::pool::{Peer, Sure};
use crate::target::Route;
use crate::tls::Carries;
use crate::worker::Context;

/// Sends `copy` to one of the route's endpoints.
pub(super) async fn send(route: Route, copy: Rc<Copy>, asked: Asked, context: Rc<Context>) -> Outcome {
    let in_flight = match mirror::pick(&route, &context).await {
        Ok(in_flight) => in_flight,
        Err(outcome) => return outcome,
    };
    let peer = in_flight.peer();
    let io = match connect(peer, &context).await {
        Ok(io) => io,
        Err(outcome) => return outcome,
    };
    match exchange(&io, &copy, asked, &context.buffers).await {
        Ok(answer) => {
            if answer.rests {
                in_flight.rest(io, Instant::now(), context.settings.rest);
            }
            answer.outcome
        }
        Err(outcome) => outcome,
    }
}

async fn connect(peer: &Peer, context: &Context) -> Result<Io, Outcome> {
    may_use(peer, context).map_err(|error| Outcome::from(error.refusal()))?;
    match peer.reuse(Instant::now(), Sure::AskKernel) {
        Some(io) => Ok(io),
        None => {
            let dialled = reach(peer, Carries::Http1, context.settings.connect_timeout, context);
            Box::pin(dialled).await.map_err(|error| error.refusal().into())
        }
    }
}

struct Answer {
    outcome: Outcome,
    /// Whether the connection may serve another request.
    rests: bool,
}

/// The request up, with the answer read beside it.
async fn exchange(io: &Io, copy: &Copy, asked: Asked, buffers: &Rc<Buffers>) -> Result<Answer, Outcome> {
    let (mut up, mut answer) = (pin!(upload(io, copy)), pin!(read(io, asked, buffers)));
    tokio::select! {
        biased;
        sent = &mut up => {
            if let Err(error) = sent {
                tracing::debug!(%error, "a mirror takes no more of a request");
            }
            answer.await
        }
        answer = &mut answer => answer.map(|answer| Answer { rests: false, ..answer }),
    }
}

async fn upload(io: &Io, copy: &Copy) -> io::Result<()> {
    while let Next::Piece(piece) = copy.next().await {
        io.write_all(&piece).await?;
    }
    Ok(())
}

/// Reads the answer to its end, or as much of it as is worth the connection.
async fn read(io: &Io, asked: Asked, buffers: &Rc<Buffers>) -> Result<Answer, Outcome> {
    io.readable().await.map_err(gone)?;
    let bad = |_: HeadError| Outcome::BadResponse;
    let (mut inbox, mut out) = (buffers.take(), buffers.take());
    let mut heads_bytes = 0;
    let response = loop {
        let mut scanned = 0;
        let length = loop {
            if let Some(length) = head::find_end(inbox.filled(), &mut scanned).map_err(bad)? {
                break length;
            }
            match io.read(inbox.spare()).await.map_err(gone)? {
                0 => return Err(Outcome::Disconnected),
                read => inbox.fill(read),
            }
        };
        heads_bytes += length;
        if heads_bytes > HEAD_BYTES_MAX {
            return Err(Outcome::BadResponse);
        }
        let start = inbox.start();
        let response = Response::judge(&Head::parse(inbox.block(), start..start + length).map_err(bad)?, asked).map_err(bad)?;
        inbox.consume(length);
        if !response.is_interim() {
            break response;
        }
    };
    let outcome = if response.undelivered.is_some() { Outcome::Undelivered } else { Outcome::Answered };
    let mut body = Body::new(response.body, Plain::Yes);
    loop {
        body.transfer(&mut inbox, &mut out).map_err(|_malformed| Outcome::BadResponse)?;
        out.clear();
        if body.is_done() {
            return Ok(Answer { outcome, rests: response.keep_alive && inbox.is_empty() });
        }
        if body.bytes > ANSWER_MAX {
            return Ok(Answer { outcome, rests: false });
        }
        match io.read(inbox.spare()).await.map_err(gone)? {
            0 if body.end_of_input() => return Ok(Answer { outcome, rests: false }),
            0 => return Err(Outcome::Disconnected),
            read => inbox.fill(read),
        }
    }
}

fn gone(_: io::Error) -> Outcome {
    Outcome::Disconnected
}
