//! One check of one endpoint: a connection of its own, or a stream of a tunnel where bytes are carried, secured like those of requests.
//!
//! Reading order: [`ask`], [`Unwell`].

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use leno_core::health::{HttpProbe, Probe};

use crate::dial::{DialError, dial_within, reach};
use crate::http1::head::{HEAD_BYTES_MAX, Head, HeadError, find_end};
use crate::http1::response::{Asked, Response, Undelivered};
use crate::http2::probe as http2;
use crate::io::Io;
use crate::pool::Peer;
use crate::tls::Carries;
use crate::worker::Context;

/// What checks call themselves, so that an app can tell them from requests.
pub(crate) const USER_AGENT: &str = "leno-health-check";

/// Why an endpoint is not well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwell {
    /// There is no connection, or whoever answers cannot prove to be who is meant.
    #[error("it is not to be reached: {0}")]
    Refused(&'static str),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The connection or stream broke.
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    /// What came is no response.
    #[error("it does not answer in HTTP: {0}")]
    Head(#[from] HeadError),
    /// The request cannot be made.
    #[error("the check is no request: {0}")]
    Request(#[from] http::Error),
    /// It answers with a status that is not expected.
    #[error("it answers with status {0}")]
    Status(u16),
    /// It answers that it does not serve.
    #[error("its answer is not SERVING")]
    NotServing,
    /// There was no answer in time.
    #[error("there was no answer in time")]
    Slow,
}

/// What an endpoint answers to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A status.
    Status(u16),
    /// Its proxy says that the app has as many requests as it bears: it is well, and another one were left with all of them.
    Busy,
}

/// Asks the endpoint at `peer`, which has `limit` for its answer.
pub(crate) async fn ask(probe: &Probe, peer: &Rc<Peer>, limit: Duration, context: &Context) -> Result<(), Unwell> {
    match probe {
        Probe::Http(http) => {
            let peer = match http.port {
                Some(port) => context.directory.peers.get(SocketAddr::new(peer.address().ip(), port), peer.proof().clone()),
                None => Rc::clone(peer),
            };
            let answer = if http.is_http2 { http2::get(http, &peer, context).await? } else { get(http, &peer, limit, context).await? };
            match answer {
                Answer::Status(status) if !http.expects(status) => Err(Unwell::Status(status)),
                Answer::Status(_) | Answer::Busy => Ok(()),
            }
        }
        Probe::Grpc { service } => {
            if http2::is_serving(service, peer, context).await? {
                Ok(())
            } else {
                Err(Unwell::NotServing)
            }
        }
        Probe::Tcp => connect(peer, limit, context).await,
    }
}

/// The answer to a request of HTTP/1.1.
async fn get(probe: &HttpProbe, peer: &Peer, limit: Duration, context: &Context) -> Result<Answer, Unwell> {
    let io = dial_within(peer, Carries::Http1, limit, context).await.map_err(refused)?;
    let HttpProbe { path, host, .. } = probe;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\naccept: */*\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    answer(&io, context).await
}

/// The response that comes; what follows its head is not waited for.
async fn answer(io: &Io, context: &Context) -> Result<Answer, Unwell> {
    let asked = Asked { is_head: false, is_connect: false, upgrade: false, is_old: false };
    let (mut inbox, mut heads_bytes) = (context.buffers.take(), 0);
    loop {
        let mut scanned = 0;
        let length = loop {
            if let Some(length) = find_end(inbox.filled(), &mut scanned)? {
                break length;
            }
            match io.read(inbox.spare()).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                read => inbox.fill(read),
            }
        };
        heads_bytes += length;
        if heads_bytes > HEAD_BYTES_MAX {
            return Err(HeadError::TooLarge.into());
        }
        let start = inbox.start();
        let response = Response::judge(&Head::parse(inbox.block(), start..start + length)?, asked)?;
        if !response.is_interim() {
            let is_busy = response.undelivered == Some(Undelivered::Overflow);
            return Ok(if is_busy { Answer::Busy } else { Answer::Status(response.status) });
        }
        inbox.consume(length);
    }
}

/// Whether the endpoint takes a connection, and the app behind it where a proxy stands there.
async fn connect(peer: &Peer, limit: Duration, context: &Context) -> Result<(), Unwell> {
    let io = reach(peer, Carries::Bytes, limit, context).await.map_err(refused)?;
    Ok(io.finish().await?)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what becomes of an error")]
fn refused(error: DialError) -> Unwell {
    Unwell::Refused(error.refusal().reason())
}
