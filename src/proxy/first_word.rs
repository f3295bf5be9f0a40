//! Clients that say nothing at first: whoever speaks first, it is heard.
//!
//! Perhaps the server speaks first, so one is dialled and both are listened to. While neither has said a word, the end of that
//! server (a pod that is replaced, say) is no end for the client: another one takes its place. So a connection that was opened ahead
//! of its first request is not closed just when that comes.
//!
//! Reading order: [`silent`], `heard`, [`Ends`].

use std::future::ready;
use std::time::{Duration, Instant};

use leno_core::service::Protocol;
use tokio::time::timeout;

use crate::admit::{Came, admit};
use crate::authorization::{Decided, may_be_opaque};
use crate::buffers::Buffer;
use crate::connection::{Connection, Met, Side, http, unread};
use crate::detect::{Verdict, detect};
use crate::dial::{Dialled, Heard, dial, refuse};
use crate::target::OTHERS_MAX;
use crate::tls::Inner;

/// How many servers may end one connection without a word before the client hears of it.
const ENDS_MAX: usize = 8;

/// The client says nothing: perhaps the server speaks first. It is dialled, and both are listened to.
pub(crate) async fn silent(connection: Box<Connection>, protocol: Protocol) -> Option<Met> {
    if !may_be_opaque(&connection) {
        return spoken(connection).await;
    }
    let mut dialled = match dial(&connection, None).await {
        Ok(dialled) => Box::new(dialled),
        Err(failure) => {
            refuse(&connection, &failure, &Decided::default());
            return None;
        }
    };
    if heard(&connection, &mut dialled).await == Speaker::Server {
        return Some(Met::Opaque(connection, Some(dialled)));
    }
    // It may still be a proxy of the mesh: one whose first message was late on the way.
    let mut connection = match Box::pin(admit(connection, protocol)).await? {
        (connection, Came::Proven(Inner::Http) | Came::ForProbes) => return http(connection).await,
        (connection, Came::Proven(inner)) => return Some(unread(connection, inner)),
        (connection, Came::Plain | Came::Silent) => connection,
    };
    if protocol != Protocol::Detect {
        return Some(opaque(connection, dialled));
    }
    let wait = connection.context.settings.detect_timeout;
    loop {
        match detect(connection.first.as_ref().map_or(&[], Buffer::filled)) {
            Verdict::Http1 => return Some(Met::Http1(connection)),
            Verdict::Http2 => return Some(Met::Http2(connection)),
            Verdict::Opaque => return Some(opaque(connection, dialled)),
            Verdict::NeedMore => match timeout(wait, connection.read_first()).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) | Err(_) => return Some(opaque(connection, dialled)),
                Ok(Err(_)) => return None,
            },
        }
    }
}

/// Bytes to be carried as they are. A server that has gone while the client was silent is not given them.
fn opaque(connection: Box<Connection>, mut dialled: Box<Dialled>) -> Met {
    let has_ended = dialled.has_said_nothing() && matches!(dialled.hear(&connection.context.buffers), Heard::End);
    let is_another = has_ended && may_be_replaced(&connection);
    Met::Opaque(connection, (!is_another).then_some(dialled))
}

/// Who speaks first, or has no more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
}

/// Listens to both sides. A server that ends without a word is replaced by another one, as often as [`Ends`] says.
async fn heard(connection: &Connection, dialled: &mut Box<Dialled>) -> Speaker {
    let context = &connection.context;
    let (mut ends, mut since) = (Ends::default(), Instant::now());
    loop {
        tokio::select! {
            biased;
            _ = dialled.io.readable() => {}
            _ = connection.io.readable() => return Speaker::Client,
        }
        match dialled.hear(&context.buffers) {
            Heard::Nothing => continue,
            Heard::Bytes => return Speaker::Server,
            Heard::End => {}
        }
        tokio::select! {
            biased;
            _ = connection.io.readable() => return Speaker::Client,
            () = ready(()) => {}
        }
        if !may_be_replaced(connection) || !ends.add(since.elapsed(), context.settings.detect_timeout) {
            return Speaker::Server;
        }
        // Its place among the connections that may be in use is free for the other one.
        dialled.let_go();
        match Box::pin(dial(connection, Some(dialled.address))).await {
            Ok(other) => **dialled = other,
            Err(_) => return Speaker::Server,
        }
        since = Instant::now();
    }
}

/// Whether anybody else can take the server's place: a service has other endpoints, an app is alone.
fn may_be_replaced(connection: &Connection) -> bool {
    matches!(connection.side, Side::Outbound { .. })
}

/// How servers have ended one connection without a word.
#[derive(Debug, Default)]
struct Ends {
    all: usize,
    /// In a row.
    at_once: usize,
}

impl Ends {
    /// One more has, after it was listened to for `held`. Whether another one is to be dialled: servers that end at once (within `quick`)
    /// refuse the connection, and a few of them are enough.
    fn add(&mut self, held: Duration, quick: Duration) -> bool {
        self.all += 1;
        self.at_once = if held < quick { self.at_once + 1 } else { 0 };
        self.all <= ENDS_MAX && self.at_once <= OTHERS_MAX
    }
}

/// The client says nothing, and the rules of the port want a request: nobody is dialled before there is one.
async fn spoken(mut connection: Box<Connection>) -> Option<Met> {
    loop {
        match detect(connection.first.as_ref().map_or(&[], Buffer::filled)) {
            Verdict::Http1 => return Some(Met::Http1(connection)),
            Verdict::Http2 => return Some(Met::Http2(connection)),
            Verdict::Opaque => return Some(Met::Opaque(connection, None)),
            Verdict::NeedMore => connection.read_begun().await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(300);

    #[test]
    fn servers_that_end_at_once_are_given_up_after_a_few_and_others_after_more() {
        let mut refusing = Ends::default();
        let again: Vec<bool> = (0..3).map(|_| refusing.add(Duration::ZERO, QUICK)).collect();
        assert_eq!(again, [true, true, false]);
        let mut ending = Ends::default();
        assert!((0..ENDS_MAX).all(|_| ending.add(QUICK, QUICK)));
        assert!(!ending.add(QUICK, QUICK));
    }

    #[test]
    fn servers_that_end_at_once_count_in_a_row() {
        let mut ends = Ends::default();
        let held = [Duration::ZERO, Duration::ZERO, QUICK, Duration::ZERO, Duration::ZERO];
        assert!(held.into_iter().all(|held| ends.add(held, QUICK)));
        assert!(!ends.add(Duration::ZERO, QUICK));
    }
}
