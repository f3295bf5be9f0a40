//! Rate limits: how many requests of a kind may pass.
//!
//! [`admit`] is the whole decision, a function of values: the generic cell rate algorithm (GCRA, ITU-T I.371), which is a bucket of
//! `burst` tokens that fills by `requests` each `per`, kept as one number: the time at which the bucket is full again. So one atomic
//! holds a bucket, and workers share it exactly without a lock.
//!
//! Reading order: [`RateLimit`], [`admit`], [`Limiter`].

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::names::Name;

/// How many requests may pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// So many in each `per`, in the long run; at least 1.
    pub requests: u32,
    /// The time they are counted over.
    pub per: Duration,
    /// So many may come at once after a quiet time; at least 1.
    pub burst: u32,
    /// Which requests are counted together.
    pub key: RateKey,
}

/// Which requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// All of the route.
    Route,
    /// Those of one caller.
    Source,
    /// Those with one value of this header field; those without it are counted together.
    Header(Name),
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, per, burst, key } = self;
        write!(f, "{requests} requests in {per:?}, up to {burst} at once, ")?;
        match key {
            RateKey::Route => f.write_str("for the whole route"),
            RateKey::Source => f.write_str("for each source"),
            RateKey::Header(name) => write!(f, "for each value of {name}"),
        }
    }
}

impl RateLimit {
    /// Time in which the bucket gains one token, in nanoseconds; at least 1.
    fn interval(&self) -> u64 {
        let per = u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX);
        (per / u64::from(self.requests.max(1))).max(1)
    }
}

/// Whether one more request may pass at `now`, when the bucket is full again at `full_at`; both are nanoseconds since the same moment.
///
/// Returns when the bucket is full again after it, or how long it has to wait, in nanoseconds.
pub fn admit(limit: &RateLimit, full_at: u64, now: u64) -> Result<u64, u64> {
    let interval = limit.interval();
    let spare = interval.saturating_mul(u64::from(limit.burst.max(1) - 1));
    match full_at.saturating_sub(now).checked_sub(spare) {
        None | Some(0) => Ok(full_at.max(now).saturating_add(interval)),
        Some(wait) => Err(wait),
    }
}

/// Sets of keys: a power of two.
const SETS: usize = 512;
/// Keys that a set holds.
const WAYS: usize = 8;
/// Keys that a limiter tells apart. Beyond them it forgets the one whose bucket is the nearest to full.
pub const KEYS_MAX: usize = SETS * WAYS;

/// The buckets of one limit. Threads share it; only the first request of a key takes a lock, one of many.
#[derive(Debug)]
pub struct Limiter {
    limit: RateLimit,
    /// The one bucket where requests are not told apart.
    whole: AtomicU64,
    sets: Option<Box<[Set]>>,
}

#[derive(Debug, Default)]
struct Set {
    /// Held while a key gets a bucket, so that none gets two.
    claim: Mutex<()>,
    buckets: [Bucket; WAYS],
}

#[derive(Debug, Default)]
struct Bucket {
    /// 0: nobody's.
    key: AtomicU64,
    full_at: AtomicU64,
}

impl Limiter {
    /// Full buckets of `limit`.
    pub fn new(limit: RateLimit) -> Self {
        let sets = match limit.key {
            RateKey::Route => None,
            RateKey::Source | RateKey::Header(_) => Some((0..SETS).map(|_| Set::default()).collect()),
        };
        Self { limit, whole: AtomicU64::new(0), sets }
    }

    /// The limit.
    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// Whether one more request may pass; otherwise how long it has to wait.
    ///
    /// * `key`: a hash of what the limit tells requests apart by; the same for the same, of a hasher that callers cannot foresee.
    /// * `now`: since the same moment for every call.
    pub fn admit(&self, key: u64, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let bucket = match &self.sets {
            None => &self.whole,
            Some(sets) => sets[usize::try_from(key >> 32).unwrap_or_default() % SETS].bucket(key.max(1)),
        };
        self.take(bucket, now).map_err(Duration::from_nanos)
    }

    /// Whether every bucket is full at `now`, so that nothing is lost with it.
    pub fn is_full(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let buckets = self.sets.iter().flat_map(|sets| sets.iter()).flat_map(|set| &set.buckets);
        buckets.map(|bucket| &bucket.full_at).chain([&self.whole]).all(|full_at| full_at.load(Ordering::Relaxed) <= now)
    }

    /// Takes a token, if there is one. Exact, however many threads do so at once.
    fn take(&self, bucket: &AtomicU64, now: u64) -> Result<(), u64> {
        let mut full_at = bucket.load(Ordering::Relaxed);
        loop {
            let next = admit(&self.limit, full_at, now)?;
            match bucket.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => full_at = changed,
            }
        }
    }
}

impl Set {
    /// The bucket of `key`, which is not 0.
    fn bucket(&self, key: u64) -> &AtomicU64 {
        if let Some(bucket) = self.find(key) {
            return bucket;
        }
        let _claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = self.find(key) {
            return bucket;
        }
        // A bucket that is full again is as good as a new one; where none is, the one that is the nearest to it is forgotten.
        let oldest = self.buckets.iter().min_by_key(|bucket| bucket.full_at.load(Ordering::Relaxed));
        let bucket = oldest.unwrap_or(&self.buckets[0]);
        bucket.key.store(0, Ordering::Release);
        bucket.full_at.store(0, Ordering::Release);
        bucket.key.store(key, Ordering::Release);
        &bucket.full_at
    }

    fn find(&self, key: u64) -> Option<&AtomicU64> {
        self.buckets.iter().find(|bucket| bucket.key.load(Ordering::Acquire) == key).map(|bucket| &bucket.full_at)
    }
}

#[cfg(test)]
mod tests;
