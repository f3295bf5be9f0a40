//! Retries: whether a try that failed is followed by another one, and after how long.
//!
//! In: how the try ended, what was tried before, the policy of the route, the service's budget, the time that is left and a
//! random `draw`. Out: a [`Verdict`]. Nothing here reads a clock or a random source, so plain values test every rule.
//!
//! Reading order: [`decide`], [`Retry`], [`Reason`], [`Budget`].
//!
//! What is done without a policy: a connection that had rested and was closed under the request is replaced once; what the
//! endpoint says it has not begun is sent again; and where no app can have seen the request it goes to another endpoint. A
//! policy takes the last of these over: it says on what, how often, after how long and at what cost for the service.
//!
//! Safe and unsafe: a request that no app has seen may always be sent again. Everything else is for requests that may be
//! repeated: those of an idempotent method (RFC 9110 section 9.2.2), or of a method that the policy names. gRPC knows only
//! POST, so a policy that names a status of gRPC has said it for gRPC's requests, and for no others.

use std::time::{Duration, Instant};

use crate::names::Name;

/// What a policy says of retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first, at most [`Retry::ATTEMPTS_MAX`]. 0: none.
    pub attempts: u32,
    /// Time for one try, up to the response's head; `None` is unlimited.
    pub per_try_timeout: Option<Duration>,
    /// On what.
    pub on: Conditions,
    /// Methods whose requests may be sent twice; an empty list means the idempotent ones.
    pub methods: Vec<Name>,
    /// How long between tries.
    pub backoff: Backoff,
}

impl Retry {
    /// The most tries after the first.
    pub const ATTEMPTS_MAX: u32 = 10;
    /// Tries after the first where the policy does not say.
    pub const ATTEMPTS: u32 = 2;
    /// What is retried where the policy does not say: what the client would see as 502, 503 or 504.
    pub const ON: [Reason; 4] = [Reason::GatewayError, Reason::ConnectFailure, Reason::Reset, Reason::Timeout];

    /// Whether a request of this method may be sent twice.
    pub fn allows(&self, method: &str) -> bool {
        if self.methods.is_empty() { is_idempotent(method) } else { self.methods.iter().any(|name| **name == *method) }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: Self::ATTEMPTS,
            per_try_timeout: None,
            on: Self::ON.into_iter().collect(),
            methods: Vec::new(),
            backoff: Backoff::default(),
        }
    }
}

/// Whether sending such a request twice has the effect of sending it once (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Whether sending a request once more does no more than sending it once: no app has seen it, or it may be repeated. This is where that
/// is decided, for tries that follow and for what the access log says (`retry_safe`).
pub fn is_safe(policy: Option<&Retry>, method: &str, is_unseen: bool) -> bool {
    is_unseen || policy.map_or_else(|| is_idempotent(method), |policy| policy.allows(method))
}

/// How long between tries: any time up to `base`, then up to twice that, and so on up to `max` (full jitter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Most before the second try.
    pub base: Duration,
    /// Most before any try.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

impl Backoff {
    /// The time before the try after `retries` of them; `draw` is uniform over `u64`.
    pub fn delay(self, retries: u32, draw: u64) -> Duration {
        let most = 2_u32.checked_pow(retries).and_then(|factor| self.base.checked_mul(factor)).unwrap_or(self.max).min(self.max);
        // Below `most`, so it fits again: hours at the most.
        let nanos = (most.as_nanos().min(u128::from(u64::MAX)) * u128::from(draw)) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Why a try failed, as policies and metrics name it: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A connection that had rested was closed under the request. No policy names it.
    Stale,
    /// The endpoint said that it has not begun the request (RFC 9113 section 8.7). No policy names it.
    Unprocessed,
    /// No connection: no app has seen the request.
    ConnectFailure,
    /// The connection or stream ended before the head of a valid response.
    Reset,
    /// No response within the time for one try.
    Timeout,
    /// 502, 503 or 504.
    GatewayError,
    /// Any 5xx.
    ServerError,
    /// 408, 409, 425 or 429.
    Retriable4xx,
    /// gRPC's CANCELLED.
    GrpcCancelled,
    /// gRPC's DEADLINE_EXCEEDED.
    GrpcDeadlineExceeded,
    /// gRPC's INTERNAL.
    GrpcInternal,
    /// gRPC's RESOURCE_EXHAUSTED.
    GrpcResourceExhausted,
    /// gRPC's UNAVAILABLE.
    GrpcUnavailable,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = 13;
    /// All of them, by [`Reason::index`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::Stale,
        Self::Unprocessed,
        Self::ConnectFailure,
        Self::Reset,
        Self::Timeout,
        Self::GatewayError,
        Self::ServerError,
        Self::Retriable4xx,
        Self::GrpcCancelled,
        Self::GrpcDeadlineExceeded,
        Self::GrpcInternal,
        Self::GrpcResourceExhausted,
        Self::GrpcUnavailable,
    ];

    /// Name in policies, and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale-connection",
            Self::Unprocessed => "unprocessed",
            Self::ConnectFailure => "connect-failure",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::GatewayError => "gateway-error",
            Self::ServerError => "5xx",
            Self::Retriable4xx => "retriable-4xx",
            Self::GrpcCancelled => "grpc-cancelled",
            Self::GrpcDeadlineExceeded => "grpc-deadline-exceeded",
            Self::GrpcInternal => "grpc-internal",
            Self::GrpcResourceExhausted => "grpc-resource-exhausted",
            Self::GrpcUnavailable => "grpc-unavailable",
        }
    }

    /// Place in [`Reason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether it is a status of gRPC.
    pub fn is_grpc(self) -> bool {
        self >= Self::GrpcCancelled
    }
}

/// The reasons that a policy names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions(u16);

impl Conditions {
    /// Whether `reason` is one of them.
    pub fn has(self, reason: Reason) -> bool {
        self.0 & (1 << reason.index()) != 0
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.has(*reason))
    }
}

impl FromIterator<Reason> for Conditions {
    fn from_iter<I: IntoIterator<Item = Reason>>(reasons: I) -> Self {
        Self(reasons.into_iter().fold(0, |set, reason| set | (1 << reason.index())))
    }
}

/// How one try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A connection that had rested was closed before the response's first byte.
    Stale,
    /// The endpoint says that it has not begun the request.
    Unprocessed,
    /// There was no connection to the endpoint, or none from its proxy to its app, or the app had as many requests as it bears.
    Unreached,
    /// The connection or stream ended before the head of a valid response.
    Reset,
    /// No response within the time for one try.
    TimedOut,
    /// A response's head is there.
    Answered {
        /// Its status.
        status: u16,
        /// `grpc-status`, where the head is the whole response of gRPC.
        grpc_status: Option<u16>,
        /// The time that the endpoint asks for before the next try (429 and 503).
        retry_after: Option<Duration>,
    },
}

impl Outcome {
    /// Whether no app can have seen the request.
    pub fn is_unseen(self) -> bool {
        match self {
            Self::Unprocessed | Self::Unreached => true,
            Self::Stale | Self::Reset | Self::TimedOut | Self::Answered { .. } => false,
        }
    }

    /// Why it is a failure, by its closest name; `None` where it is none.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Stale => Some(Reason::Stale),
            Self::Unprocessed => Some(Reason::Unprocessed),
            Self::Unreached => Some(Reason::ConnectFailure),
            Self::Reset => Some(Reason::Reset),
            Self::TimedOut => Some(Reason::Timeout),
            Self::Answered { grpc_status: Some(code), .. } => match code {
                1 => Some(Reason::GrpcCancelled),
                4 => Some(Reason::GrpcDeadlineExceeded),
                8 => Some(Reason::GrpcResourceExhausted),
                13 => Some(Reason::GrpcInternal),
                14 => Some(Reason::GrpcUnavailable),
                _ => None,
            },
            Self::Answered { status, .. } => match status {
                502..=504 => Some(Reason::GatewayError),
                500..=599 => Some(Reason::ServerError),
                408 | 409 | 425 | 429 => Some(Reason::Retriable4xx),
                _ => None,
            },
        }
    }

    /// The name in `retryOn` by which it is to be retried. The names of statuses also mean what the proxy itself would answer
    /// with them: 502 for a connection that failed or broke, 504 for a try that took too long; in gRPC 14 and 4.
    fn named(self, on: Conditions, is_grpc: bool) -> Option<Reason> {
        use Reason::{ConnectFailure, GatewayError, GrpcDeadlineExceeded, GrpcUnavailable, Reset, Retriable4xx, ServerError, Timeout};
        let own = self.reason()?;
        let names: &[Reason] = match own {
            Reason::Stale | Reset => &[Reset, GatewayError, ServerError, GrpcUnavailable],
            Reason::Unprocessed | ConnectFailure => &[ConnectFailure, GatewayError, ServerError, GrpcUnavailable],
            Timeout => &[Timeout, GatewayError, ServerError, GrpcDeadlineExceeded],
            GatewayError => &[GatewayError, ServerError, GrpcUnavailable],
            ServerError => &[ServerError],
            // gRPC reads it as UNAVAILABLE, and no other 4xx.
            Retriable4xx if matches!(self, Self::Answered { status: 429, .. }) => &[Retriable4xx, GrpcUnavailable],
            Retriable4xx => &[Retriable4xx],
            Reason::GrpcCancelled | GrpcDeadlineExceeded | Reason::GrpcInternal | Reason::GrpcResourceExhausted | GrpcUnavailable => {
                return Some(own).filter(|own| is_grpc && on.has(*own));
            }
        };
        // A name of gRPC comes first: it is what allows the request to be repeated.
        let holds = |name: &&Reason| on.has(**name) && (is_grpc || !name.is_grpc());
        names.iter().rev().find(holds).copied()
    }
}

/// What is known of a request whose try has ended.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// What was tried before.
    pub made: Made,
    /// The request's method.
    pub method: &'a str,
    /// Whether the request is gRPC's.
    pub is_grpc: bool,
    /// Whether everything that was sent of it can be sent once more.
    pub can_replay: bool,
    /// Whether nothing at all of it was sent.
    pub is_unsent: bool,
    /// Whether there may be other endpoints.
    pub has_others: bool,
    /// Time until the request's own time is over; `None` is unlimited.
    pub left: Option<Duration>,
}

/// Tries that followed another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Because a policy said so, or because no app had seen the request.
    pub retries: u32,
    /// Because a resting connection was closed.
    pub stale: u32,
    /// Because the endpoint had not begun the request.
    pub unprocessed: u32,
}

impl Made {
    /// One more, after a try that ended with `outcome`; `is_free` as the verdict said.
    pub fn count(&mut self, outcome: Outcome, is_free: bool) {
        match outcome {
            Outcome::Stale if is_free => self.stale += 1,
            Outcome::Unprocessed if is_free => self.unprocessed += 1,
            Outcome::Stale | Outcome::Unprocessed | Outcome::Unreached | Outcome::Reset | Outcome::TimedOut | Outcome::Answered { .. } => {
                self.retries += 1
            }
        }
    }
}

/// Endpoints tried without a policy when one cannot be reached, after the first.
const OTHERS_MAX: u32 = 2;
/// How often a request that its endpoint has not begun is sent again.
const UNPROCESSED_MAX: u32 = 3;
/// The longest an endpoint's `Retry-After` is waited for. Beyond that the client gets the response, and can wait itself.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after this long.
    Again {
        /// How long.
        after: Duration,
        /// Why.
        reason: Reason,
        /// Whether it is done whatever a policy says, and costs nothing.
        is_free: bool,
    },
    /// It was no failure, or nothing says that it is to be retried: what came of it is the answer.
    Settled,
    /// It would be tried again, but may not: what came of it is the answer.
    Stopped {
        /// Why it would be.
        reason: Reason,
        /// Why it may not.
        by: Stop,
    },
}

/// Why there is no further try though the policy asks for one: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stop {
    /// The app may have seen the request, and its method is none that may be repeated.
    Method,
    /// All tries are made.
    Attempts,
    /// The body was too long to be kept.
    Body,
    /// The request's own time is over before the next try would begin.
    Time,
    /// Too many requests to the service are retries.
    Budget,
}

impl Stop {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// Metric label and log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Attempts => "attempts",
            Self::Body => "body",
            Self::Time => "time",
            Self::Budget => "budget",
        }
    }
}

/// Says what follows a try.
///
/// * `take`: takes one retry out of the service's [`Budget`], where the policy asks for one; `false` when it is used up.
/// * `draw`: uniform over `u64`.
pub fn decide(policy: Option<&Retry>, attempt: &Attempt<'_>, take: impl FnOnce() -> bool, draw: u64) -> Verdict {
    let Some(reason) = attempt.outcome.reason() else { return Verdict::Settled };
    if is_free(attempt) {
        return Verdict::Again { after: Duration::ZERO, reason, is_free: true };
    }
    // A connection that has just been closed is one thing, and one that breaks under each request another.
    let reason = if reason == Reason::Stale { Reason::Reset } else { reason };
    let Some(policy) = policy else {
        let goes_elsewhere = attempt.outcome == Outcome::Unreached && attempt.has_others && attempt.made.retries < OTHERS_MAX;
        return if goes_elsewhere && attempt.can_replay {
            Verdict::Again { after: Duration::ZERO, reason, is_free: false }
        } else {
            Verdict::Settled
        };
    };
    let Some(name) = attempt.outcome.named(policy.on, attempt.is_grpc) else { return Verdict::Settled };
    let is_allowed = name.is_grpc() || is_safe(Some(policy), attempt.method, attempt.outcome.is_unseen());
    let stopped = |by| Verdict::Stopped { reason, by };
    if !is_allowed {
        return stopped(Stop::Method);
    }
    if attempt.made.retries >= policy.attempts {
        return stopped(Stop::Attempts);
    }
    if !attempt.can_replay {
        return stopped(Stop::Body);
    }
    let wanted = match attempt.outcome {
        Outcome::Answered { retry_after: Some(after), .. } => after,
        Outcome::Stale | Outcome::Unprocessed | Outcome::Unreached | Outcome::Reset | Outcome::TimedOut | Outcome::Answered { .. } => {
            Duration::ZERO
        }
    };
    let after = wanted.saturating_add(policy.backoff.delay(attempt.made.retries, draw));
    if wanted > RETRY_AFTER_MAX || attempt.left.is_some_and(|left| after >= left) {
        return stopped(Stop::Time);
    }
    if take() { Verdict::Again { after, reason, is_free: false } } else { stopped(Stop::Budget) }
}

/// Whether it is sent again whatever a policy says, at once: connections come and go.
fn is_free(attempt: &Attempt<'_>) -> bool {
    attempt.can_replay
        && match attempt.outcome {
            Outcome::Stale => attempt.made.stale == 0 && (attempt.is_unsent || is_idempotent(attempt.method)),
            Outcome::Unprocessed => attempt.made.unprocessed < UNPROCESSED_MAX,
            Outcome::Unreached | Outcome::Reset | Outcome::TimedOut | Outcome::Answered { .. } => false,
        }
}

/// How many retries a service may get: 20 % of its requests, and 10 more each second. A token bucket in thousandths of a retry.
///
/// Without it, an overloaded service would get a multiple of its load exactly when it can bear the least.
#[derive(Clone, Debug)]
pub struct Budget {
    thousandths: u64,
    filled_to: Instant,
}

impl Budget {
    /// What one request adds.
    const PER_REQUEST: u64 = 200;
    /// What a millisecond adds.
    const PER_MILLISECOND: u64 = 10;
    /// What one retry takes.
    const PER_RETRY: u64 = 1000;
    /// The most that is saved up: ten quiet seconds.
    pub const RETRIES_SAVED_MAX: u64 = 100;

    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self { thousandths: Self::RETRIES_SAVED_MAX * Self::PER_RETRY, filled_to: now }
    }

    /// A request has come.
    pub fn request(&mut self, now: Instant) {
        self.fill(now);
        self.add(Self::PER_REQUEST);
    }

    /// Takes one retry out of it, where there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        match self.thousandths.checked_sub(Self::PER_RETRY) {
            Some(left) => {
                self.thousandths = left;
                true
            }
            None => false,
        }
    }

    /// Whole milliseconds only: what is left of the last one counts the next time.
    fn fill(&mut self, now: Instant) {
        let millis = u64::try_from(now.saturating_duration_since(self.filled_to).as_millis()).unwrap_or(u64::MAX);
        if millis > 0 {
            self.add(millis.saturating_mul(Self::PER_MILLISECOND));
            self.filled_to += Duration::from_millis(millis);
        }
    }

    fn add(&mut self, thousandths: u64) {
        self.thousandths = self.thousandths.saturating_add(thousandths).min(Self::RETRIES_SAVED_MAX * Self::PER_RETRY);
    }
}

#[cfg(test)]
mod tests;
