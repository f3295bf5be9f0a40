//! Faults that a rule injects, so that people see how callers take them: delays, and answers instead of the service's.
//!
//! In: the rule's [`Fault`] and two draws, one for the delay and one for the abort. Out: what befalls this request. Both may: the
//! answer then comes after the delay.

use std::time::Duration;

use crate::filters::Reply;
use crate::percentage::Percentage;

/// What befalls some requests of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Some are sent on later.
    pub delay: Option<Delay>,
    /// Some are answered by the proxy.
    pub abort: Option<Abort>,
}

/// A delay before a request is sent on. It counts against the request's timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub duration: Duration,
    /// How many requests.
    pub percentage: Percentage,
}

/// An answer of the proxy instead of the service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// What is answered.
    pub status: AbortStatus,
    /// How many requests.
    pub percentage: Percentage,
}

/// What an aborted request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status; gRPC callers hear what gRPC makes of it.
    Http(u16),
    /// A gRPC status; other callers hear the HTTP status that it stands for.
    Grpc(u16),
}

/// What befalls one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// It is held for this long.
    pub delay: Option<Duration>,
    /// Then it is answered with this.
    pub abort: Option<AbortStatus>,
}

impl Fault {
    /// What befalls the request with these draws.
    ///
    /// * `draws`: uniform over `u64` and independent, for the delay and for the abort; the caller owns the random source.
    pub fn draw(&self, draws: [u64; 2]) -> Drawn {
        Drawn {
            delay: self.delay.filter(|delay| delay.percentage.holds(draws[0])).map(|delay| delay.duration),
            abort: self.abort.filter(|abort| abort.percentage.holds(draws[1])).map(|abort| abort.status),
        }
    }
}

impl AbortStatus {
    /// The answer.
    pub fn reply(self) -> Reply {
        let (status, grpc_status) = match self {
            Self::Http(status) => (status, None),
            Self::Grpc(code) => (http_status_of(code), Some(code)),
        };
        Reply { status, grpc_status, fields: Vec::new(), text: "a fault was injected by the route\n", reason: "fault-injected" }
    }
}

/// The HTTP status that a gRPC status stands for, as gRPC's own gateways translate (google.rpc.Code).
fn http_status_of(code: u16) -> u16 {
    match code {
        3 | 9 | 11 => 400,
        16 => 401,
        7 => 403,
        5 => 404,
        6 | 10 => 409,
        8 => 429,
        1 => 499,
        12 => 501,
        14 => 503,
        4 => 504,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(percent: f64) -> Percentage {
        Percentage::from_percent(percent).unwrap()
    }

    #[test]
    fn delay_and_abort_are_drawn_apart() {
        let delay = Delay { duration: Duration::from_millis(100), percentage: percent(50.0) };
        let abort = Abort { status: AbortStatus::Http(503), percentage: percent(10.0) };
        let fault = Fault { delay: Some(delay), abort: Some(abort) };
        let cases = [
            ([0, 0], true, true),
            ([0, 100_000], true, false),
            ([500_000, 99_999], false, true),
            ([500_000, 100_000], false, false),
            ([1_000_000, 1_000_000], true, true),
        ];
        for (draws, delayed, aborted) in cases {
            let want = Drawn { delay: delayed.then_some(delay.duration), abort: aborted.then_some(abort.status) };
            assert_eq!(fault.draw(draws), want, "{draws:?}");
        }
        assert_eq!(Fault::default().draw([0, 0]), Drawn::default());
    }

    #[test]
    fn none_is_never_drawn_and_all_always() {
        for draw in [0, 1, 999_999, u64::MAX] {
            let of = |share| Fault { abort: Some(Abort { status: AbortStatus::Http(500), percentage: share }), delay: None };
            assert_eq!(of(Percentage::NONE).draw([draw, draw]).abort, None);
            assert_eq!(of(Percentage::ALL).draw([draw, draw]).abort, Some(AbortStatus::Http(500)));
        }
    }

    #[test]
    fn each_caller_hears_the_fault_in_its_own_words() {
        let http = AbortStatus::Http(418).reply();
        assert_eq!((http.status, http.grpc_status, http.reason), (418, None, "fault-injected"));
        for (code, status) in [(14, 503), (4, 504), (7, 403), (16, 401), (2, 500), (8, 429), (12, 501), (5, 404)] {
            let grpc = AbortStatus::Grpc(code).reply();
            assert_eq!((grpc.status, grpc.grpc_status), (status, Some(code)));
        }
    }
}
