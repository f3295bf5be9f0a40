//! Where the publisher and one proxy's stream meet: the state machine of the connection, a lock and a waker.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use leno_xds::message::Message;
use leno_xds::server::{Connection, Limits};

/// Why a stream ended, as gRPC says it (<https://grpc.io/docs/guides/status-codes/>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The status code.
    pub code: u8,
    /// In words.
    pub message: String,
}

impl Ending {
    /// This process ends; another replica, or its successor, does not.
    pub(crate) fn shutdown() -> Self {
        const UNAVAILABLE: u8 = 14;
        Self { code: UNAVAILABLE, message: "this controller is shutting down: connect again".to_owned() }
    }
}

/// What waits for one proxy. The publisher puts in, the stream's writer takes out, its reader takes in answers.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    ending: Option<Ending>,
    writer: Option<Waker>,
}

/// What the writer is to do.
#[derive(Debug)]
pub enum Next {
    /// Write this.
    Message(Message),
    /// End the stream.
    End(Ending),
}

impl Outbox {
    /// An outbox for a new stream.
    pub fn new(limits: Limits) -> Self {
        Self { state: Mutex::new(State { connection: Connection::new(limits), ending: None, writer: None }) }
    }

    /// Does something with the connection. Nothing is woken: see [`Outbox::wake`].
    pub fn with<R>(&self, work: impl FnOnce(&mut Connection) -> R) -> R {
        work(&mut self.lock().connection)
    }

    /// Wakes the writer if there is something to write: once after everything of one batch was put in.
    pub fn wake(&self) {
        let mut state = self.lock();
        if !state.connection.has_waiting() && state.ending.is_none() {
            return;
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Ends the stream; the first ending counts.
    pub fn end(&self, ending: Ending) {
        self.lock().ending.get_or_insert(ending);
        self.wake();
    }

    /// The next thing to write, or the caller is woken when there is one.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Next> {
        let mut state = self.lock();
        if let Some(ending) = &state.ending {
            return Poll::Ready(Next::End(ending.clone()));
        }
        match state.connection.next_response() {
            Some(message) => Poll::Ready(Next::Message(message)),
            None => {
                state.writer = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does not make what waits wrong: every change of it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
