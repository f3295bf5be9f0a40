//! How often somebody may ask: a bucket for each, without a timer. Time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A bucket of permits for each key, refilled steadily.
#[derive(Debug)]
pub struct Buckets<K> {
    /// One permit comes back after this.
    refill: Duration,
    /// What may be ahead of the refill: all permits but one.
    burst: Duration,
    /// Most keys known at a time; beyond, nobody new gets a permit until a bucket is full again.
    keys_max: usize,
    /// When each bucket is full again; a bucket that is not named is full.
    full_at: HashMap<K, Instant>,
}

impl<K: Hash + Eq> Buckets<K> {
    /// Buckets of `permits` (at least one), refilled with one every `refill`, for at most `keys_max` keys at a time.
    pub fn new(permits: u32, refill: Duration, keys_max: usize) -> Self {
        Self { refill, burst: refill * permits.saturating_sub(1), keys_max, full_at: HashMap::new() }
    }

    /// Takes a permit of `key`; whether there was one.
    pub fn take(&mut self, key: K, now: Instant) -> bool {
        if !self.has(&key, now) {
            return false;
        }
        if self.full_at.len() >= self.keys_max && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= self.keys_max {
                return false;
            }
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        *full_at = (*full_at).max(now) + self.refill;
        true
    }

    /// Whether `key` has a permit.
    pub fn has(&self, key: &K, now: Instant) -> bool {
        self.full_at.get(key).is_none_or(|full_at| full_at.saturating_duration_since(now) <= self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_let_through_and_then_one_for_every_refill() {
        let (mut buckets, now) = (Buckets::new(3, SECOND, 10), Instant::now());
        let taken = |buckets: &mut Buckets<_>, at| (0..5).filter(|_| buckets.take("web", at)).count();
        assert_eq!(taken(&mut buckets, now), 3);
        assert_eq!(taken(&mut buckets, now + SECOND - Duration::from_millis(1)), 0);
        assert_eq!(taken(&mut buckets, now + SECOND), 1);
        assert_eq!(taken(&mut buckets, now + 100 * SECOND), 3, "no more than full");
        assert!(buckets.take("cart", now), "to each his own");
    }

    #[test]
    fn no_more_keys_are_kept_than_the_limit_and_full_buckets_make_room() {
        let (mut buckets, now) = (Buckets::new(2, SECOND, 2), Instant::now());
        assert!(buckets.take(1, now) && buckets.take(2, now) && buckets.take(2, now));
        assert!(!buckets.take(3, now), "at the limit");
        assert!(buckets.take(1, now), "who is known goes on");
        assert!(buckets.take(3, now + 2 * SECOND));
        assert_eq!(buckets.full_at.len(), 1);
    }
}
