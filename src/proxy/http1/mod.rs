//! HTTP/1: one connection, request by request.
//!
//! Reading order: [`serve`], [`exchange`] (the life of one request), [`head`] (lines and fields), [`request`] and
//! [`response`] (what they say, and what is sent on), [`flow`], [`body`] and [`chunked`] (bodies), [`answer`] (what the
//! proxy says itself).
//!
//! Invariants: a head or a body that two recipients could read differently is never sent on; a connection at rest holds
//! no buffer; requests of one connection are answered in their order.

pub mod answer;
pub mod body;
pub mod chunked;
mod exchange;
mod explicit;
pub mod flow;
pub mod head;
mod mirror;
pub(crate) mod record;
pub mod request;
pub mod response;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use crate::buffers::Buffer;
use crate::connection::Connection;
use crate::io::Io;
use exchange::After;

/// How long a closing connection is read on, so that the client sees the last answer and not a reset.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much is read on.
const LINGER_BYTES: usize = 1024 * 1024;

/// Serves requests until the connection ends.
pub(crate) async fn serve(mut connection: Box<Connection>) {
    let after = loop {
        // What was read beyond a request waits where the first bytes did: a connection at rest keeps nothing else.
        if connection.first.as_ref().is_none_or(Buffer::is_empty) {
            connection.first = None;
            match connection.context.draining.or_ready(|cx| connection.io.poll_readable(cx)).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
        if let Err(after) = Box::pin(one(&mut connection)).await {
            break after;
        }
    };
    match after {
        After::Close => {}
        After::Part => {
            // Who is gone meanwhile has what it wanted.
            let _gone = connection.io.part().await;
        }
        After::Linger => Box::pin(linger(&connection.io)).await,
        After::Tunnel(tunnel) => {
            let carried = Box::pin(tunnel.carry(&connection)).await;
            tunnel.record.write(&connection, &carried);
        }
        After::Connected(next) => Box::pin(explicit::go_on(connection, next)).await,
    }
}

/// One request. What was read beyond it waits in the connection, if that goes on.
async fn one(connection: &mut Connection) -> Result<(), After> {
    let inbox = connection.first.take().unwrap_or_else(|| connection.context.buffers.take());
    connection.first = Some(exchange::run(connection, inbox).await?);
    Ok(())
}

/// Closes so that what was written last arrives: no reset while the client still sends.
async fn linger(io: &Io) {
    if io.finish().await.is_err() {
        return;
    }
    let drain = async {
        let mut block = [0; 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match io.read(&mut block).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    if timeout(LINGER_TIME, drain).await.is_err() {
        tracing::debug!("the client still sends to a connection that is closed");
    }
}

/// Whether reading may simply be tried again.
fn is_not_yet(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
