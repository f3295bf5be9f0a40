//! When what comes from elsewhere (keys of token issuers, addresses of host names) is asked for. Time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leno_core::names::Name;
use tokio::time::Instant;

/// How soon what failed is tried again; the time doubles with each failure up to that of a refresh.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be asked for when.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// How long an answer goes without being asked for again.
    refresh: Duration,
    entries: BTreeMap<Name, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// `None` while it is being fetched.
    due: Option<Instant>,
    failures: u32,
}

impl Schedule {
    /// Of nothing yet; answers are asked for again after `refresh`.
    pub(crate) fn new(refresh: Duration) -> Self {
        Self { refresh, entries: BTreeMap::new() }
    }

    /// These are to be fetched from now on, new ones at once, and no others.
    pub(crate) fn want(&mut self, uris: &BTreeSet<Name>, now: Instant) {
        self.entries.retain(|uri, _| uris.contains(uri));
        for uri in uris {
            self.entries.entry(uri.clone()).or_insert(Entry { due: Some(now), failures: 0 });
        }
    }

    /// Takes at most `count` of those that are due.
    pub(crate) fn take_due(&mut self, now: Instant, count: usize) -> Vec<Name> {
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now)).take(count);
        due.map(|(uri, entry)| {
            entry.due = None;
            uri.clone()
        })
        .collect()
    }

    /// A fetch has ended.
    pub(crate) fn done(&mut self, uri: &Name, well: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(uri) else { return };
        entry.failures = if well { 0 } else { entry.failures.saturating_add(1) };
        let wait = if well { self.refresh } else { RETRY.saturating_mul(1 << (entry.failures - 1).min(16)).min(self.refresh) };
        entry.due = Some(now + wait);
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_mins(5);

    #[test]
    fn keys_are_fetched_at_once_then_every_five_minutes_and_sooner_after_failures() {
        let (now, a) = (Instant::now(), Name::from("https://a"));
        let mut schedule = Schedule::new(REFRESH);
        schedule.want(&[a.clone()].into(), now);
        assert_eq!(schedule.take_due(now, 8), std::slice::from_ref(&a));
        assert_eq!((schedule.take_due(now, 8), schedule.next()), (vec![], None), "it is being fetched");
        schedule.done(&a, true, now);
        assert_eq!(schedule.next(), Some(now + REFRESH));
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            schedule.done(&a, false, now);
            assert_eq!(schedule.next(), Some(now + Duration::from_secs(seconds)));
        }
        schedule.done(&a, true, now);
        schedule.done(&a, false, now);
        assert_eq!(schedule.next(), Some(now + RETRY), "a success begins anew");
        schedule.want(&BTreeSet::new(), now);
        schedule.done(&a, true, now);
        assert_eq!(schedule.next(), None, "nobody wants it any more");
    }

    #[test]
    fn no_more_are_taken_than_there_is_room_for() {
        let now = Instant::now();
        let mut schedule = Schedule::new(REFRESH);
        schedule.want(&(0..20).map(|number| Name::from(format!("https://{number}"))).collect(), now);
        assert_eq!((schedule.take_due(now, 8).len(), schedule.take_due(now, 8).len(), schedule.take_due(now, 8).len()), (8, 8, 4));
    }
}
