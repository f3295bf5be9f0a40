use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Some moment.
#[expect(clippy::disallowed_methods, reason = "an `Instant` can be had from a clock only; which one does not matter")]
fn some_moment() -> Instant {
    Instant::now()
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered { status, grpc_status: None, retry_after: None }
}

fn grpc_answered(code: u16) -> Outcome {
    Outcome::Answered { status: 200, grpc_status: Some(code), retry_after: None }
}

fn get(outcome: Outcome) -> Attempt<'static> {
    Attempt {
        outcome,
        made: Made::default(),
        method: "GET",
        is_grpc: false,
        can_replay: true,
        is_unsent: false,
        has_others: true,
        left: None,
    }
}

fn post(outcome: Outcome) -> Attempt<'static> {
    Attempt { method: "POST", ..get(outcome) }
}

fn grpc(outcome: Outcome) -> Attempt<'static> {
    Attempt { is_grpc: true, ..post(outcome) }
}

fn on(reasons: &[Reason]) -> Retry {
    Retry { on: reasons.iter().copied().collect(), ..Retry::default() }
}

fn is_again(policy: Option<&Retry>, attempt: &Attempt<'_>) -> bool {
    matches!(decide(policy, attempt, || true, 0), Verdict::Again { .. })
}

fn stop(policy: &Retry, attempt: &Attempt<'_>) -> Option<Stop> {
    match decide(Some(policy), attempt, || true, u64::MAX) {
        Verdict::Stopped { by, .. } => Some(by),
        Verdict::Again { .. } | Verdict::Settled => None,
    }
}

#[test]
fn without_a_policy_only_what_no_app_has_seen_and_what_a_resting_connection_lost_is_sent_again() {
    for outcome in [Outcome::Reset, Outcome::TimedOut, answered(503), answered(200), grpc_answered(14)] {
        assert_eq!(decide(None, &get(outcome), || true, 0), Verdict::Settled, "{outcome:?}");
    }
    let unreached = |retries| Attempt { made: Made { retries, ..Made::default() }, ..post(Outcome::Unreached) };
    assert!(is_again(None, &unreached(0)) && is_again(None, &unreached(1)) && !is_again(None, &unreached(2)));
    assert!(!is_again(None, &Attempt { has_others: false, ..unreached(0) }), "there is nobody else");
    let unprocessed = |unprocessed| Attempt { made: Made { unprocessed, ..Made::default() }, ..post(Outcome::Unprocessed) };
    assert!(is_again(None, &unprocessed(2)) && !is_again(None, &unprocessed(3)));
    assert!(is_again(None, &get(Outcome::Stale)) && !is_again(None, &post(Outcome::Stale)));
    assert!(is_again(None, &Attempt { is_unsent: true, ..post(Outcome::Stale) }));
    assert!(!is_again(None, &Attempt { made: Made { stale: 1, ..Made::default() }, ..get(Outcome::Stale) }), "once");
}

#[test]
fn names_of_statuses_also_mean_what_the_proxy_would_answer_with_them() {
    use Reason::{
        ConnectFailure, GatewayError, GrpcDeadlineExceeded, GrpcInternal, GrpcUnavailable, Reset, Retriable4xx, ServerError, Timeout,
    };
    let unreached = Outcome::Unreached;
    let cases: [(Attempt<'_>, &[Reason]); 13] = [
        (get(unreached), &[ConnectFailure, GatewayError, ServerError]),
        (get(Outcome::Reset), &[Reset, GatewayError, ServerError]),
        (get(Outcome::TimedOut), &[Timeout, GatewayError, ServerError]),
        (get(answered(503)), &[GatewayError, ServerError]),
        (get(answered(500)), &[ServerError]),
        (get(answered(501)), &[ServerError]),
        (get(answered(429)), &[Retriable4xx]),
        (get(answered(404)), &[]),
        (get(answered(200)), &[]),
        (grpc(unreached), &[ConnectFailure, GatewayError, ServerError, GrpcUnavailable]),
        (grpc(grpc_answered(14)), &[GrpcUnavailable]),
        (grpc(grpc_answered(13)), &[GrpcInternal]),
        (grpc(Outcome::TimedOut), &[GrpcDeadlineExceeded]),
    ];
    for (attempt, names) in cases {
        for reason in Reason::ALL {
            // Whatever a name says, a request that may not be repeated is not.
            let is_unsafe = attempt.is_grpc && !reason.is_grpc() && attempt.outcome != unreached;
            let want = names.contains(&reason) && !is_unsafe;
            assert_eq!(is_again(Some(&on(&[reason])), &attempt), want, "{attempt:?} on {reason:?}");
        }
    }
}

#[test]
fn another_try_is_safe_where_no_app_has_seen_the_request_or_it_may_be_repeated() {
    let naming = Retry { methods: vec!["POST".into()], ..Retry::default() };
    let cases = [
        (None, "GET", false, true),
        (None, "POST", false, false),
        (None, "POST", true, true),
        (Some(&naming), "POST", false, true),
        (Some(&naming), "PUT", false, false),
    ];
    for (policy, method, is_unseen, safe) in cases {
        assert_eq!(is_safe(policy, method, is_unseen), safe, "{method} {is_unseen}");
    }
    assert!(Outcome::Unreached.is_unseen() && Outcome::Unprocessed.is_unseen());
    assert!(!Outcome::Stale.is_unseen() && !Outcome::TimedOut.is_unseen());
}

#[test]
fn a_post_is_repeated_only_where_no_app_has_seen_it_or_where_the_policy_names_its_method() {
    let all: Vec<Reason> = Reason::ALL.into_iter().filter(|reason| !reason.is_grpc()).collect();
    let named = Retry { methods: vec!["POST".into()], ..on(&all) };
    for outcome in [Outcome::Reset, Outcome::TimedOut, answered(503), answered(500), answered(409)] {
        assert_eq!(stop(&on(&all), &post(outcome)), Some(Stop::Method), "{outcome:?}");
        assert!(is_again(Some(&named), &post(outcome)), "{outcome:?}");
        assert_eq!(stop(&named, &get(outcome)), Some(Stop::Method), "the list is the whole list: {outcome:?}");
    }
    assert!(is_again(Some(&on(&all)), &post(Outcome::Unreached)));
    assert!(is_again(Some(&named), &get(Outcome::Unreached)));
}

#[test]
fn a_status_of_grpc_is_said_for_grpc_alone() {
    let policy = on(&[Reason::GrpcUnavailable]);
    assert!(is_again(Some(&policy), &grpc(grpc_answered(14))));
    assert!(is_again(Some(&policy), &grpc(Outcome::Reset)), "gRPC would be told UNAVAILABLE");
    assert!(is_again(Some(&policy), &grpc(answered(503))), "gRPC reads 503 as UNAVAILABLE");
    for outcome in [Outcome::Reset, answered(503), Outcome::Unreached, grpc_answered(14)] {
        assert!(!is_again(Some(&policy), &get(outcome)), "{outcome:?}");
    }
}

#[test]
fn each_bound_stops_a_try_and_says_which_one() {
    let policy = Retry { attempts: 1, ..Retry::default() };
    let failed = get(answered(503));
    assert_eq!(stop(&policy, &failed), None);
    assert_eq!(stop(&policy, &Attempt { made: Made { retries: 1, ..Made::default() }, ..failed }), Some(Stop::Attempts));
    assert_eq!(stop(&policy, &Attempt { can_replay: false, ..failed }), Some(Stop::Body));
    assert_eq!(stop(&policy, &Attempt { left: Some(Duration::from_millis(24)), ..failed }), Some(Stop::Time));
    assert_eq!(decide(Some(&policy), &failed, || false, 0), Verdict::Stopped { reason: Reason::GatewayError, by: Stop::Budget });
    assert_eq!(stop(&Retry { attempts: 0, ..policy }, &get(Outcome::Unreached)), Some(Stop::Attempts), "a policy may say: never");
}

#[test]
fn the_time_an_endpoint_asks_for_is_waited_where_there_is_as_much() {
    let asked = |after| get(Outcome::Answered { status: 503, grpc_status: None, retry_after: Some(after) });
    let second = Duration::from_secs(1);
    let policy = Retry::default();
    assert_eq!(
        decide(Some(&policy), &asked(second), || true, 0),
        Verdict::Again { after: second, reason: Reason::GatewayError, is_free: false }
    );
    assert_eq!(stop(&policy, &Attempt { left: Some(second), ..asked(second) }), Some(Stop::Time));
    assert_eq!(stop(&policy, &asked(RETRY_AFTER_MAX + second)), Some(Stop::Time));
    assert_eq!(stop(&policy, &asked(RETRY_AFTER_MAX)), None);
}

#[test]
fn a_bound_that_stops_costs_the_service_nothing() {
    let untouched = || -> bool { unreachable!("nothing was to be taken") };
    let policy = Retry { attempts: 0, ..Retry::default() };
    assert!(matches!(decide(Some(&policy), &get(answered(503)), untouched, 0), Verdict::Stopped { .. }));
    assert_eq!(decide(Some(&policy), &get(answered(404)), untouched, 0), Verdict::Settled);
    assert!(matches!(decide(Some(&policy), &get(Outcome::Stale), untouched, 0), Verdict::Again { .. }), "free of charge");
}

#[test]
fn a_full_budget_gives_what_was_saved_up_and_then_ten_each_second() {
    let start = some_moment();
    let mut budget = Budget::new(start);
    let taken = |budget: &mut Budget, now| (0..1000).take_while(|_| budget.take(now)).count();
    assert_eq!(taken(&mut budget, start), 100);
    assert_eq!(taken(&mut budget, start + Duration::from_millis(99)), 0);
    assert_eq!(taken(&mut budget, start + Duration::from_millis(100)), 1);
    for _ in 0..50 {
        budget.request(start + Duration::from_millis(100));
    }
    assert_eq!(taken(&mut budget, start + Duration::from_millis(100)), 10, "a fifth of fifty requests");
    assert_eq!(taken(&mut budget, start + Duration::from_secs(3600)), 100, "no more is saved");
}

#[test]
fn names_of_reasons_are_all_different_and_indices_are_places() {
    for (place, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), place);
        assert_eq!(Reason::ALL.iter().filter(|other| other.as_str() == reason.as_str()).count(), 1);
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let retry_after = proptest::option::of((0_u64..20_000).prop_map(Duration::from_millis));
    let answer = (100_u16..600, proptest::option::of(0_u16..17), retry_after)
        .prop_map(|(status, grpc_status, retry_after)| Outcome::Answered { status, grpc_status, retry_after });
    let plain = vec![Outcome::Stale, Outcome::Unprocessed, Outcome::Unreached, Outcome::Reset, Outcome::TimedOut];
    prop_oneof![select(plain), answer]
}

fn policy() -> impl Strategy<Value = Retry> {
    let methods = select(vec![vec![], vec!["POST"], vec!["GET", "PATCH"]]);
    let backoff = (0_u64..500, 0_u64..5000);
    (0_u32..=Retry::ATTEMPTS_MAX, vec(select(Reason::ALL.to_vec()), 0..6), methods, backoff).prop_map(|(attempts, on, methods, backoff)| {
        Retry {
            attempts,
            per_try_timeout: None,
            on: on.into_iter().collect(),
            methods: methods.into_iter().map(Name::from).collect(),
            backoff: Backoff { base: Duration::from_millis(backoff.0), max: Duration::from_millis(backoff.1) },
        }
    })
}

/// What does not change from try to try.
fn request() -> impl Strategy<Value = Attempt<'static>> {
    (select(vec!["GET", "POST", "PATCH", "PUT"]), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(method, is_grpc, can_replay, has_others)| Attempt {
            method: if is_grpc { "POST" } else { method },
            is_grpc,
            can_replay,
            has_others,
            ..get(answered(200))
        },
    )
}

proptest! {
    /// Whatever endpoints do, a request ends: after the tries of the policy and those that are free.
    #[test]
    fn every_request_ends(policy in proptest::option::of(policy()), request in request(), outcomes in vec(outcome(), 40), draw: u64) {
        let mut made = Made::default();
        let mut tries = 0;
        for outcome in outcomes {
            tries += 1;
            let verdict = decide(policy.as_ref(), &Attempt { outcome, made, ..request }, || true, draw);
            let Verdict::Again { is_free, .. } = verdict else { break };
            made.count(outcome, is_free);
        }
        let most = policy.map_or(OTHERS_MAX, |policy| policy.attempts);
        prop_assert!(tries <= 1 + most + 1 + UNPROCESSED_MAX, "{tries} tries");
    }

    /// What an app may have seen is sent again only where the request may be repeated.
    #[test]
    fn what_is_unsafe_is_never_repeated(policy in proptest::option::of(policy()), request in request(), outcome in outcome(), draw: u64) {
        let attempt = Attempt { outcome, ..request };
        let may_be_seen = !matches!(outcome, Outcome::Unreached | Outcome::Unprocessed);
        let is_named = policy.as_ref().is_some_and(|policy| {
            policy.allows(attempt.method) || (attempt.is_grpc && policy.on.iter().any(Reason::is_grpc)) || attempt.outcome.reason().is_some_and(Reason::is_grpc)
        });
        if may_be_seen && !is_idempotent(attempt.method) && !is_named {
            prop_assert!(!is_again(policy.as_ref(), &attempt));
        }
        if !attempt.can_replay {
            prop_assert!(!is_again(policy.as_ref(), &attempt));
        }
    }

    /// A try never begins after the request's own time.
    #[test]
    fn a_wait_ends_within_the_time_that_is_left(policy in policy(), request in request(), outcome in outcome(), left in 1_u64..3000, draw: u64) {
        let left = Duration::from_millis(left);
        let verdict = decide(Some(&policy), &Attempt { outcome, left: Some(left), ..request }, || true, draw);
        if let Verdict::Again { after, .. } = verdict {
            prop_assert!(after < left);
        }
    }

    /// Waits grow, never beyond the most, and are spread over the whole range.
    #[test]
    fn backoff_lies_between_nothing_and_its_bound(base in 0_u64..100_000, max in 0_u64..100_000, retries in 0_u32..40, draw: u64) {
        let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) };
        let delay = backoff.delay(retries, draw);
        prop_assert!(delay <= backoff.max);
        prop_assert!(delay <= backoff.base * 2_u32.saturating_pow(retries.min(14)) || retries > 14);
        prop_assert_eq!(backoff.delay(retries, 0), Duration::ZERO);
        let most = backoff.delay(retries, u64::MAX);
        prop_assert!(delay <= most && most <= backoff.delay(retries + 1, u64::MAX));
    }

    /// Over any stretch of time, retries are at most a fifth of the requests, ten each second, and what was saved up.
    #[test]
    fn retries_stay_within_the_budget(steps in vec((0_u64..400, any::<bool>()), 1..400)) {
        let start = some_moment();
        let (mut now, mut budget) = (start, Budget::new(start));
        let (mut requests, mut retries) = (0_u64, 0_u64);
        for (micros, is_request) in steps {
            now += Duration::from_micros(micros * 10);
            if is_request {
                requests += 1;
                budget.request(now);
            } else if budget.take(now) {
                retries += 1;
            }
            let millis = u64::try_from(now.duration_since(start).as_millis()).unwrap();
            prop_assert!(retries * 1000 <= Budget::RETRIES_SAVED_MAX * 1000 + requests * 200 + millis * 10);
        }
    }
}
