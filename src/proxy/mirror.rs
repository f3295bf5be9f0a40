//! Mirroring: copies of requests that go up beside the original and are forgotten.
//!
//! The original only hands its bytes to its [`Copies`], which takes neither time nor a refusal; a task of its own sends each copy
//! and reads what it is answered. A copy that cannot keep within its bounds is given up, and counted.
//!
//! Reading order: [`routes`], [`start`], [`Copies`], [`Copy::next`], [`Outcome`]. The sending is in `http1/mirror.rs` and
//! `http2/mirror.rs`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use leno_core::route::{Backend, Rule};
use tokio::sync::Notify;

use crate::directory::ServiceView;
use crate::pool::InFlight;
use crate::target::{Refusal, Route};
use crate::worker::Context;

/// Body bytes of a request that is mirrored: what a copy holds at most while its mirror takes nothing.
pub const BODY_MAX: usize = 64 * 1024;
/// Pieces that wait for a mirror, so that many small ones cost no more than a few large ones.
const PIECES_MAX: usize = 1024;
/// Copies that one worker has on their way.
pub const IN_FLIGHT_MAX: usize = 64;
/// How long a mirror may take for the rest once the original is wholly sent.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a mirror's answer that are read so that its connection can be used again.
pub(crate) const ANSWER_MAX: u64 = 1024 * 1024;

/// What became of a copy: the label of `leno_mirrored_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The mirror answered, whatever it said.
    Answered,
    /// The mirror's proxy said that its app did not take it.
    Undelivered,
    /// The mirror does not exist.
    Missing,
    /// The mirror has no endpoint that is ready.
    NoEndpoint,
    /// The endpoint could not be reached, or not securely.
    ConnectFailed,
    /// The connection broke before an answer.
    Disconnected,
    /// What came back was no valid answer.
    BadResponse,
    /// There was no answer in time.
    Timeout,
    /// The body is longer than [`BODY_MAX`].
    TooLong,
    /// There were too many copies on their way already.
    Overflow,
    /// The original broke off before its body was whole.
    Abandoned,
}

impl Outcome {
    /// Every outcome, in order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Answered,
        Self::Undelivered,
        Self::Missing,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::Disconnected,
        Self::BadResponse,
        Self::Timeout,
        Self::TooLong,
        Self::Overflow,
        Self::Abandoned,
    ];

    /// Metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Undelivered => "undelivered",
            Self::Missing => "missing-destination",
            Self::NoEndpoint => "no-endpoint",
            Self::ConnectFailed => "connect-failed",
            Self::Disconnected => "disconnected",
            Self::BadResponse => "bad-response",
            Self::Timeout => "timeout",
            Self::TooLong => "too-long",
            Self::Overflow => "overflow",
            Self::Abandoned => "abandoned",
        }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        if refusal == Refusal::NoEndpoint { Self::NoEndpoint } else { Self::ConnectFailed }
    }
}

/// How many copies a worker has on their way.
#[derive(Default)]
pub struct Mirrors {
    in_flight: Cell<usize>,
}

/// Who gets a copy of a request for `port` of the service that `rule` holds for. What does not exist is counted.
pub(crate) fn routes(view: &Rc<ServiceView>, rule: &Rule, port: u16, context: &Context) -> Vec<Route> {
    let mirrored = rule.mirrored(&view.service.id, port, || context.draw());
    let routes = mirrored.filter_map(|backend| match backend {
        Backend::Endpoints { service, port, version } => Some(Route::mirror(view, rule, (service, port, version), context)),
        Backend::Missing(_) | Backend::NoWeight => {
            context.recorder.mirrored(Outcome::Missing);
            None
        }
    });
    routes.collect()
}

/// Begins a copy for each of `mirrors`; `send` makes the task that sends one. `length`: that of the body, where it is known.
///
/// `None`: there is nothing to hand on.
pub(crate) fn start<F>(
    mirrors: Vec<Route>,
    length: Option<u64>,
    context: &Rc<Context>,
    send: impl Fn(Route, Rc<Copy>, Rc<Context>) -> F,
) -> Option<Copies>
where
    F: Future<Output = Outcome> + 'static,
{
    let mut copies = Vec::new();
    for route in mirrors {
        let is_long = length.is_some_and(|length| length > BODY_MAX as u64);
        let in_flight = context.mirrors.in_flight.get();
        if is_long || in_flight >= IN_FLIGHT_MAX {
            context.recorder.mirrored(if is_long { Outcome::TooLong } else { Outcome::Overflow });
            continue;
        }
        context.mirrors.in_flight.set(in_flight + 1);
        context.recorder.mirrors_in_flight(in_flight + 1);
        let copy = Rc::new(Copy::default());
        copies.push(Rc::clone(&copy));
        let sending = send(route, Rc::clone(&copy), Rc::clone(context));
        tokio::task::spawn_local(carry(copy, sending, Rc::clone(context)));
    }
    (!copies.is_empty()).then_some(Copies { all: copies, bytes: 0 })
}

/// One copy to its end.
async fn carry(copy: Rc<Copy>, sending: impl Future<Output = Outcome>, context: Rc<Context>) {
    let outcome = {
        let (sending, end) = (pin!(sending), pin!(copy.given_up()));
        tokio::select! { biased; outcome = end => outcome, outcome = sending => outcome }
    };
    copy.stop();
    let left = context.mirrors.in_flight.get().saturating_sub(1);
    context.mirrors.in_flight.set(left);
    context.recorder.mirrors_in_flight(left);
    context.recorder.mirrored(outcome);
}

/// The original's hand on its copies. Dropped before the body was whole, it gives them up.
pub struct Copies {
    all: Vec<Rc<Copy>>,
    bytes: usize,
}

impl Copies {
    /// The head, with the `body` bytes of the body that came with it.
    pub fn head(&mut self, head: &[u8], body: u64) {
        self.bytes = usize::try_from(body).unwrap_or(usize::MAX);
        self.hand(&Bytes::copy_from_slice(head));
    }

    /// The next bytes of the body.
    pub fn body(&mut self, bytes: &[u8]) {
        if self.takes(bytes.len()) {
            self.hand(&Bytes::copy_from_slice(bytes));
        }
    }

    /// The next piece of the body, which is shared unless it is small: then it would keep more memory than it has bytes.
    pub fn piece(&mut self, piece: &Bytes) {
        const SMALL: usize = 1024;
        if piece.len() < SMALL {
            self.body(piece);
        } else if self.takes(piece.len()) {
            self.hand(piece);
        }
    }

    /// The body is whole.
    pub fn whole(&mut self, trailers: Option<&HeaderMap>) {
        for copy in self.all.drain(..) {
            copy.end(End::Whole(trailers.cloned()));
        }
    }

    /// Whether `more` bytes of body are still within the bound; beyond it, nothing is.
    fn takes(&mut self, more: usize) -> bool {
        self.bytes += more;
        if self.bytes > BODY_MAX {
            self.give_up(Outcome::TooLong);
        }
        more > 0 && !self.all.is_empty()
    }

    fn hand(&self, bytes: &Bytes) {
        self.all.iter().for_each(|copy| copy.hand(bytes));
    }

    fn give_up(&mut self, outcome: Outcome) {
        for copy in self.all.drain(..) {
            copy.end(End::Cut(outcome));
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.give_up(Outcome::Abandoned);
    }
}

/// What one mirror has still to get.
#[derive(Default)]
pub struct Copy {
    waiting: RefCell<VecDeque<Bytes>>,
    end: RefCell<Option<End>>,
    changed: Notify,
}

enum End {
    Whole(Option<HeaderMap>),
    Cut(Outcome),
}

/// What [`Copy::next`] says.
#[derive(Debug)]
pub(crate) enum Next {
    /// More of the request.
    Piece(Bytes),
    /// That was all.
    End(Option<HeaderMap>),
}

impl Copy {
    /// The next piece of the request; waits for the original. Never returns once the copy is given up.
    pub(crate) async fn next(&self) -> Next {
        loop {
            let changed = self.changed.notified();
            if let Some(piece) = self.waiting.borrow_mut().pop_front() {
                return Next::Piece(piece);
            }
            if let Some(End::Whole(trailers)) = &mut *self.end.borrow_mut() {
                return Next::End(trailers.take());
            }
            changed.await;
        }
    }

    /// Whether the request has no body.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty() && matches!(&*self.end.borrow(), Some(End::Whole(None)))
    }

    /// Waits until there is no more to be waited for: the original broke off, or was sent long ago.
    async fn given_up(&self) -> Outcome {
        loop {
            let changed = self.changed.notified();
            match &*self.end.borrow() {
                Some(End::Cut(outcome)) => return *outcome,
                Some(End::Whole(_)) => break,
                None => {}
            }
            changed.await;
        }
        tokio::time::sleep(TIME_MAX).await;
        Outcome::Timeout
    }

    fn hand(&self, bytes: &Bytes) {
        if self.end.borrow().is_some() {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < PIECES_MAX {
            waiting.push_back(bytes.clone());
            drop(waiting);
            self.changed.notify_waiters();
        } else {
            drop(waiting);
            self.end(End::Cut(Outcome::TooLong));
        }
    }

    fn end(&self, end: End) {
        self.end.borrow_mut().get_or_insert(end);
        self.changed.notify_waiters();
    }

    /// Nobody sends it any more: what is still handed to it is dropped.
    fn stop(&self) {
        self.end.replace(Some(End::Cut(Outcome::Abandoned)));
        self.waiting.take();
    }
}

/// An endpoint that can take the copy, counted as busy for as long as the guard lives. How it does is not judged by copies.
pub(crate) async fn pick(route: &Route, context: &Context) -> Result<InFlight, Outcome> {
    let (endpoint, _) = route.pick(&[], context).await.map_err(|_why| Outcome::NoEndpoint)?;
    Ok(endpoint.peer.begin())
}

#[cfg(test)]
mod tests;
