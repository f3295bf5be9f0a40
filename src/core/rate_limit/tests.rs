//! The law of the bucket, and that threads share it exactly.

use std::thread;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limit(requests: u32, per: Duration, burst: u32, key: RateKey) -> RateLimit {
    RateLimit { requests, per, burst, key }
}

/// How many of `count` requests at `now` pass.
fn passed(limiter: &Limiter, key: u64, now: Duration, count: u32) -> u32 {
    (0..count).map(|_| u32::from(limiter.admit(key, now).is_ok())).sum()
}

#[test]
fn a_burst_passes_at_once_and_then_the_rate_does() {
    let limiter = Limiter::new(limit(100, SECOND, 200, RateKey::Route));
    assert_eq!(passed(&limiter, 0, SECOND, 1000), 200);
    assert_eq!(limiter.admit(0, SECOND), Err(Duration::from_millis(10)), "a token comes each 10 ms");
    assert_eq!(passed(&limiter, 0, SECOND + Duration::from_millis(100), 1000), 10);
    assert_eq!(passed(&limiter, 0, 11 * SECOND, 1000), 200, "after a quiet time the burst is there again, and no more");
}

#[test]
fn who_waits_as_long_as_told_passes() {
    for (requests, per, burst) in [(1, SECOND, 1), (3, SECOND, 2), (7, Duration::from_millis(13), 5), (1_000_000, SECOND, 1)] {
        let limiter = Limiter::new(limit(requests, per, burst, RateKey::Route));
        let now = SECOND;
        let wait = (0..=burst).find_map(|_| limiter.admit(0, now).err()).expect("the burst ends");
        assert!(limiter.admit(0, now + wait - Duration::from_nanos(1)).is_err());
        assert!(limiter.admit(0, now + wait).is_ok());
    }
}

#[test]
fn limits_at_the_ends_of_their_ranges_neither_overflow_nor_let_everything_pass() {
    let long = Duration::from_secs(400_000 * 3600);
    let limiter = Limiter::new(limit(1, long, 1, RateKey::Route));
    assert_eq!(passed(&limiter, 0, SECOND, 10), 1);
    let limiter = Limiter::new(limit(1, long, 1_000_000, RateKey::Route));
    assert_eq!(passed(&limiter, 0, Duration::MAX, 10), 10);
    let limiter = Limiter::new(limit(1_000_000, Duration::from_millis(1), 1, RateKey::Route));
    assert_eq!(passed(&limiter, 0, SECOND, 10), 1);
}

#[test]
fn keys_have_buckets_of_their_own() {
    let limiter = Limiter::new(limit(1, SECOND, 3, RateKey::Source));
    for key in [0, 1, 2, 7 << 32, u64::MAX] {
        let expected = if key == 1 { 0 } else { 3 };
        assert_eq!(passed(&limiter, key, SECOND, 10), expected, "{key}: 0 and 1 are one key, which no hash is often");
    }
}

#[test]
fn keys_beyond_the_bound_take_the_place_of_those_nearest_to_full() {
    let limiter = Limiter::new(limit(1, SECOND, 1, RateKey::Source));
    // All of one set.
    let keys: Vec<u64> = (1..=WAYS as u64).collect();
    for (tenth, key) in (0..).zip(&keys) {
        assert!(limiter.admit(*key, SECOND + Duration::from_millis(10 * tenth)).is_ok());
    }
    let now = SECOND + Duration::from_millis(500);
    assert!(limiter.admit(100, now).is_ok(), "a ninth key has a place");
    assert!(keys[1..].iter().all(|key| limiter.admit(*key, now).is_err()), "the others are remembered");
    assert!(limiter.admit(keys[0], now).is_ok(), "the one that was nearest to full was forgotten");
}

#[test]
fn a_limiter_is_full_when_all_its_buckets_are() {
    for key in [RateKey::Route, RateKey::Source] {
        let limiter = Limiter::new(limit(1, SECOND, 2, key));
        assert!(limiter.is_full(Duration::ZERO));
        assert!(limiter.admit(5, SECOND).is_ok());
        assert!(!limiter.is_full(SECOND) && limiter.is_full(2 * SECOND));
    }
}

#[test]
fn threads_that_share_a_bucket_get_exactly_its_tokens() {
    for key in [RateKey::Route, RateKey::Source] {
        let limiter = Limiter::new(limit(1, SECOND, 10_000, key));
        let counts: Vec<u32> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..40).map(|key| passed(&limiter, key, SECOND, 500)).sum())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // 8 threads ask 500 times for each of 40 keys, two of which are one: 4000 for each is below the burst of a key.
        let wanted = if limiter.limit().key == RateKey::Route { 10_000 } else { 160_000 };
        assert_eq!(counts.iter().sum::<u32>(), wanted);
    }
}

#[test]
fn threads_that_meet_a_key_first_at_once_share_one_bucket() {
    for round in 0..200 {
        let limiter = Limiter::new(limit(1, SECOND, 5, RateKey::Source));
        let passed: u32 = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| passed(&limiter, 77 + round, SECOND, 5))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 5, "round {round}");
    }
}

proptest! {
    /// However requests come, no window of time sees more than its share and the burst; and never fewer than a bucket would let pass.
    #[test]
    fn no_window_sees_more_than_its_share_and_a_burst(
        requests in 1u32..50, per_ms in 1u64..5000, burst in 1u32..20, pauses in prop::collection::vec(0u64..400, 1..200),
    ) {
        let per = Duration::from_millis(per_ms);
        let limiter = Limiter::new(limit(requests, per, burst, RateKey::Route));
        let (mut now, mut passed) = (SECOND, Vec::new());
        let mut tokens = f64::from(burst);
        for pause in pauses {
            let pause = Duration::from_millis(pause);
            now += pause;
            let rate = f64::from(requests) / per.as_secs_f64();
            tokens = (tokens + pause.as_secs_f64() * rate).min(f64::from(burst));
            let passes = limiter.admit(0, now).is_ok();
            if (tokens - 1.0).abs() > 1e-3 {
                prop_assert_eq!(passes, tokens > 1.0, "{} tokens", tokens);
            }
            if passes {
                tokens -= 1.0;
                passed.push(now);
            }
        }
        for (first, from) in passed.iter().enumerate() {
            for (last, to) in passed.iter().enumerate().skip(first) {
                let share = (*to - *from).as_secs_f64() * f64::from(requests) / per.as_secs_f64();
                let count = u32::try_from(last - first + 1).unwrap();
                prop_assert!(f64::from(count) <= share + f64::from(burst) + 1e-3, "{count} in {:?}", *to - *from);
            }
        }
    }
}
