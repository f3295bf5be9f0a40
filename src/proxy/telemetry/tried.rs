//! What was tried for a request, for its record; and the counters of that.

use std::sync::OnceLock;

use leno_core::retry::{Reason, Stop};

use super::series::Counter;

/// What was tried for one request.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// How often it was sent, or was to be.
    pub tries: u32,
    /// Each time it was sent again, or would have been.
    pub retried: &'a [Retried],
    /// Whether sending it once more would do no harm: [`leno_core::retry::is_safe`].
    pub retry_safe: bool,
}

impl Default for Tried<'_> {
    /// It was never sent.
    fn default() -> Self {
        Self { tries: 0, retried: &[], retry_safe: true }
    }
}

/// One retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retried {
    /// Why the try before it failed.
    pub reason: Reason,
    /// What became of it.
    pub went: Went,
}

/// What became of a retry: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// It was answered, and not with a failure.
    Succeeded,
    /// It failed as well.
    Failed,
    /// It was not made.
    Stopped(Stop),
}

impl Tried<'_> {
    /// Why there was no further try though the policy asks for one.
    pub fn stopped(&self) -> Option<&'static str> {
        match self.retried.last()?.went {
            Went::Stopped(by) => Some(by.as_str()),
            Went::Succeeded | Went::Failed => None,
        }
    }
}

impl Went {
    const COUNT: usize = 2 + Stop::COUNT;
    const ALL: [Self; Self::COUNT] = [
        Self::Succeeded,
        Self::Failed,
        Self::Stopped(Stop::Method),
        Self::Stopped(Stop::Attempts),
        Self::Stopped(Stop::Body),
        Self::Stopped(Stop::Time),
        Self::Stopped(Stop::Budget),
    ];

    fn index(self) -> usize {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::Stopped(by) => 2 + by as usize,
        }
    }

    /// Metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped(by) => by.as_str(),
        }
    }
}

/// Retries of one destination. Takes up room only where there are any.
#[derive(Debug, Default)]
pub struct RetryCounters(OnceLock<Box<[[Counter; Went::COUNT]; Reason::COUNT]>>);

impl RetryCounters {
    /// Counts one.
    pub fn count(&self, retried: Retried) {
        self.0.get_or_init(Box::default)[retried.reason.index()][retried.went.index()].add(1);
    }

    /// All that are not zero.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, Went, u64)> + '_ {
        let all = self.0.get().into_iter().flat_map(|counters| Reason::ALL.into_iter().zip(counters.iter()));
        let each = all.flat_map(|(reason, row)| Went::ALL.into_iter().zip(row).map(move |(went, counter)| (reason, went, counter.get())));
        each.filter(|(.., count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_place_of_its_own() {
        let counters = RetryCounters::default();
        for (place, went) in Went::ALL.into_iter().enumerate() {
            assert_eq!(went.index(), place);
            counters.count(Retried { reason: Reason::Reset, went });
        }
        let counts: Vec<_> = counters.counts().collect();
        assert_eq!(counts, Went::ALL.map(|went| (Reason::Reset, went, 1)));
    }
}
