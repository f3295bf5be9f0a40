//! Rules one by one, laws, and simulations of apps that queue.
#![expect(clippy::disallowed_methods, reason = "a test begins at some moment")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use proptest::prelude::*;

use super::*;

const SETTINGS: AdaptiveConcurrency = AdaptiveConcurrency { min_limit: 3, max_limit: 500, tolerance_percent: 100 };

/// Windows of full pressure in which every answer takes what `latency` says of the limit.
fn press(gradient: &mut Gradient, now: &mut Instant, windows: usize, latency: impl Fn(u32) -> Duration) {
    for _ in 0..windows {
        let limit = gradient.limit(&SETTINGS);
        *now += WINDOW + latency(limit);
        for _ in 0..SAMPLES_MIN {
            gradient.sample(&SETTINGS, latency(limit), limit, *now);
        }
    }
}

/// An app that does `at_once` requests at a time, in `takes` each; others queue.
fn queueing(at_once: u32, takes: Duration) -> impl Fn(u32) -> Duration {
    move |in_flight| takes.mul_f64((f64::from(in_flight) / f64::from(at_once)).max(1.0))
}

#[test]
fn the_limit_falls_to_what_an_app_bears_and_rises_again_when_it_bears_more() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(now);
    press(&mut gradient, &mut now, 300, queueing(8, Duration::from_millis(50)));
    let few = gradient.limit(&SETTINGS);
    assert!((8..=32).contains(&few), "{few} for an app that does 8 at once");
    press(&mut gradient, &mut now, 300, queueing(64, Duration::from_millis(50)));
    let many = gradient.limit(&SETTINGS);
    assert!((64..=200).contains(&many), "{many} for an app that does 64 at once");
    press(&mut gradient, &mut now, 300, queueing(8, Duration::from_millis(50)));
    assert!((8..=32).contains(&gradient.limit(&SETTINGS)));
}

#[test]
fn an_app_that_becomes_slower_as_such_keeps_its_limit() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(now);
    press(&mut gradient, &mut now, 300, queueing(32, Duration::from_millis(10)));
    press(&mut gradient, &mut now, 300, queueing(32, Duration::from_millis(200)));
    let limit = gradient.limit(&SETTINGS);
    assert!((32..=128).contains(&limit), "{limit} for an app that does 32 at once, however long each takes");
}

#[test]
fn without_pressure_the_limit_does_not_fall_whatever_answers_take() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(now);
    for millis in 1..300 {
        now += Duration::from_secs(1);
        for _ in 0..SAMPLES_MIN {
            gradient.sample(&SETTINGS, Duration::from_millis(millis), INITIAL_LIMIT / 3, now);
        }
        assert_eq!(gradient.limit(&SETTINGS), INITIAL_LIMIT);
    }
}

#[test]
fn a_trial_lowers_the_limit_for_one_window_and_only_under_pressure() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(now);
    press(&mut gradient, &mut now, 1, |_| Duration::from_millis(20));
    now += TRIAL_EVERY;
    press(&mut gradient, &mut now, 1, |_| Duration::from_millis(20));
    let before = whole(gradient.limit);
    assert!(gradient.is_trial);
    assert_eq!(gradient.limit(&SETTINGS), whole(gradient.limit / 4.0));
    press(&mut gradient, &mut now, 1, |_| Duration::from_millis(15));
    assert!(!gradient.is_trial && gradient.limit(&SETTINGS) == before);
    assert_eq!(gradient.baseline(), Some(Duration::from_millis(15)));
}

#[test]
fn answers_to_what_began_before_the_window_do_not_count() {
    let now = Instant::now();
    let mut gradient = Gradient::new(now);
    for _ in 0..100 {
        gradient.sample(&SETTINGS, WINDOW + Duration::from_millis(1), 100, now + WINDOW);
    }
    assert_eq!(gradient.baseline(), None);
}

#[test]
fn what_machines_do_to_quick_answers_is_no_queue() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(now);
    press(&mut gradient, &mut now, 2, |_| Duration::from_micros(100));
    press(&mut gradient, &mut now, 100, |limit| Duration::from_micros(if limit < 90 { 100 } else { 4000 }));
    assert!(gradient.limit(&SETTINGS) >= INITIAL_LIMIT, "{}", gradient.limit(&SETTINGS));
}

proptest! {
    /// Whatever it is told, the limit stays within its bounds, so something always may pass.
    #[test]
    fn the_limit_stays_within_its_bounds(
        (min_limit, more, tolerance_percent) in (1u32..50, 0u32..1000, 0u32..1000),
        told in prop::collection::vec((0u64..10_000_000, 0u32..5000, 0u64..1_000_000), 0..2000),
    ) {
        let settings = AdaptiveConcurrency { min_limit, max_limit: min_limit + more, tolerance_percent };
        let mut now = Instant::now();
        let mut gradient = Gradient::new(now);
        for (latency_us, in_flight, later_us) in told {
            now += Duration::from_micros(later_us);
            gradient.sample(&settings, Duration::from_micros(latency_us), in_flight, now);
            let limit = gradient.limit(&settings);
            prop_assert!((min_limit..=min_limit + more).contains(&limit), "{limit}");
            prop_assert!(gradient.latencies.len() <= SAMPLES_MAX);
        }
    }

    /// Whatever has happened, with an app that does not queue the limit comes up to its bound again.
    #[test]
    fn nobody_stays_locked_out(told in prop::collection::vec((0u64..10_000_000, 0u32..5000, 0u64..1_000_000), 0..500)) {
        let mut now = Instant::now();
        let mut gradient = Gradient::new(now);
        for (latency_us, in_flight, later_us) in told {
            now += Duration::from_micros(later_us);
            gradient.sample(&SETTINGS, Duration::from_micros(latency_us), in_flight, now);
        }
        now += Duration::from_secs(20);
        press(&mut gradient, &mut now, 400, |_| Duration::from_millis(20));
        let reached = (0..3).any(|_| {
            press(&mut gradient, &mut now, 1, |_| Duration::from_millis(20));
            gradient.limit(&SETTINGS) == SETTINGS.max_limit
        });
        prop_assert!(reached, "{}", gradient.limit(&SETTINGS));
    }

    /// From wherever it begins, the limit comes to a few times what an app bears, and not below it.
    #[test]
    fn the_limit_comes_to_what_the_app_bears(at_once in 1u32..100, millis in 1u64..2000) {
        let mut now = Instant::now();
        let mut gradient = Gradient::new(now);
        let takes = Duration::from_millis(millis);
        press(&mut gradient, &mut now, 500, queueing(at_once, takes));
        // Past a trial.
        let limit = (0..3).map(|_| { press(&mut gradient, &mut now, 1, queueing(at_once, takes)); gradient.limit(&SETTINGS) }).max().unwrap_or(0);
        // Answers may take twice as long, or 5 ms longer; beside that there is a queue of a square root.
        let most = 4.0 * f64::from(at_once) * (2.0 + SLACK.as_secs_f64() / takes.as_secs_f64()) + 20.0;
        prop_assert!(limit >= at_once.min(SETTINGS.max_limit) && f64::from(limit) <= most, "{limit} for {at_once}");
    }
}

/// What became of the requests of a simulation.
#[derive(Debug, Default)]
struct Report {
    answered: usize,
    refused: usize,
    /// Of those answered, in the second half.
    latencies: Vec<Duration>,
}

impl Report {
    fn percentile(&mut self, percent: usize) -> Duration {
        self.latencies.sort();
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)]
    }
}

/// Simulates an app that does `at_once` requests at a time, in `takes` each, and is sent one every `every`, for a minute. Who is told that the
/// app is full goes away.
fn simulate(at_once: usize, takes: Duration, every: Duration, settings: Option<&AdaptiveConcurrency>) -> Report {
    let start = Instant::now();
    let end = start + Duration::from_secs(60);
    let mut gradient = Gradient::new(start);
    // Those in work end at these times; each has begun, with so many under way, at these.
    let mut working: BinaryHeap<Reverse<(Instant, Instant, u32)>> = BinaryHeap::new();
    let mut queue: VecDeque<(Instant, u32)> = VecDeque::new();
    let (mut report, mut arrival) = (Report::default(), start);
    while arrival < end {
        // What ends before the next one arrives.
        while let Some(Reverse((ends, began, in_flight))) = working.peek().copied().filter(|Reverse((ends, ..))| *ends <= arrival) {
            working.pop();
            if let Some((next, in_flight)) = queue.pop_front() {
                working.push(Reverse((ends + takes, next, in_flight)));
            }
            report.answered += 1;
            if ends > start + Duration::from_secs(30) {
                report.latencies.push(ends - began);
            }
            if let Some(settings) = settings {
                let now = u32::try_from(working.len() + queue.len() + 1).unwrap_or(u32::MAX);
                gradient.sample(settings, ends - began, in_flight.max(now), ends);
            }
        }
        let in_flight = u32::try_from(working.len() + queue.len()).unwrap_or(u32::MAX);
        if settings.is_some_and(|settings| in_flight >= gradient.limit(settings)) {
            report.refused += 1;
        } else if working.len() < at_once {
            working.push(Reverse((arrival + takes, arrival, in_flight + 1)));
        } else {
            queue.push_back((arrival, in_flight + 1));
        }
        arrival += every;
    }
    report
}

/// Twice as many requests come as the app can answer. With a limit it goes on answering as many as it can, and each in a bounded time;
/// without one everybody waits longer and longer.
#[test]
fn an_overloaded_app_goes_on_answering_in_time() {
    let (at_once, takes) = (8, Duration::from_millis(50));
    let capacity_in_a_minute = 8 * 20 * 60;
    let every = takes / 16;
    let mut limited = simulate(at_once, takes, every, Some(&SETTINGS));
    let mut unlimited = simulate(at_once, takes, every, None);
    assert!(limited.answered * 100 >= capacity_in_a_minute * 90, "{} of {capacity_in_a_minute}", limited.answered);
    assert!(limited.percentile(99) <= 5 * takes, "{:?}", limited.percentile(99));
    assert!(unlimited.percentile(50) >= 200 * takes, "{:?}", unlimited.percentile(50));
}

/// What happens next and when: a caller asks, or an answer is there, to whoever began then with so many under way.
type Event = Reverse<(Instant, Option<(Instant, u32)>)>;

/// Callers who each wait for their answer before they ask again, and a little when they are refused, for a minute. Gives how many answers there
/// were, and how many were under way at most in the last half.
fn wait_in_turn(at_once: u32, takes: Duration, callers: u32) -> (usize, u32) {
    let start = Instant::now();
    let mut gradient = Gradient::new(start);
    let asks = |caller: u32| Reverse((start + Duration::from_micros(caller.into()), None));
    let mut events: BinaryHeap<Event> = (0..callers).map(asks).collect();
    let (mut queue, mut working, mut answered, mut peak) = (VecDeque::new(), 0, 0, 0);
    while let Some(Reverse((now, answer))) = events.pop().filter(|Reverse((now, _))| *now < start + Duration::from_secs(60)) {
        let in_flight = working + u32::try_from(queue.len()).unwrap_or(u32::MAX) + 1;
        if let Some((began, at_first)) = answer {
            answered += 1;
            gradient.sample(&SETTINGS, now - began, at_first.max(in_flight - 1), now);
            match queue.pop_front() {
                Some(next) => events.push(Reverse((now + takes, Some(next)))),
                None => working -= 1,
            }
            events.push(Reverse((now + Duration::from_micros(100), None)));
        } else if in_flight > gradient.limit(&SETTINGS) {
            events.push(Reverse((now + Duration::from_millis(10), None)));
        } else {
            if now > start + Duration::from_secs(30) {
                peak = peak.max(in_flight);
            }
            if working < at_once {
                working += 1;
                events.push(Reverse((now + takes, Some((now, in_flight)))));
            } else {
                queue.push_back((now, in_flight));
            }
        }
    }
    (answered, peak)
}

/// Callers who wait for their answers never are more than they are; but with few of them at once each is answered sooner.
#[test]
fn callers_who_wait_for_their_answers_do_not_all_wait_in_the_app() {
    let cases = [
        (2, 10, 48, 16),
        (2, 10, 25, 16),
        (1, 20, 60, 16),
        (8, 50, 30, 30),
        (16, 5, 100, 60),
        (64, 10, 48, 48),
        (64, 1000, 48, 48),
        (64, 10, 200, 200),
    ];
    for (at_once, millis, callers, most) in cases {
        let (answered, peak) = wait_in_turn(at_once, Duration::from_millis(millis), callers);
        let possible = f64::from(at_once.min(callers)) * 60_000.0 / millis as f64;
        assert!(answered as f64 >= 0.9 * possible, "{answered} of {possible}, {callers} callers of an app that does {at_once} at once");
        assert!(peak <= most, "{peak} of {callers} in an app that does {at_once} at once");
    }
}

/// Fewer requests come than the app can answer: none is refused.
#[test]
fn an_app_that_is_not_overloaded_is_left_alone() {
    let report = simulate(8, Duration::from_millis(50), Duration::from_millis(8), Some(&SETTINGS));
    assert_eq!(report.refused, 0);
}
