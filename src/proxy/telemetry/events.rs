//! What resilience has done, counted by service: endpoints left out, breakers that changed, requests beyond a limit.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use leno_core::breaker::Phase;
use leno_core::limits::Limit;
use leno_core::names::ServiceId;
use leno_core::outlier::Cause;

use super::prometheus::{escaped, head};
use super::recorder::{Recorder, WorkerSeries, locked};

/// Services beyond this many are counted together. They come from configuration, but a cluster may have many.
const SERVICES_MAX: usize = 4096;

/// Something that happened to a service's endpoints or to a request for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// An endpoint was left out for a time.
    Ejected(Cause),
    /// An endpoint's breaker came to a state.
    Breaker(Phase),
    /// A request or connection was beyond a limit.
    Overflow(Limit),
}

/// Metric, help and label of events of one kind, and which events those are.
type Kind = (&'static str, &'static str, &'static str, fn(Event) -> Option<&'static str>);

const KINDS: [Kind; 3] = [
    ("leno_endpoint_ejections_total", "Endpoints that outlier detection has left out for a time.", "cause", |event| match event {
        Event::Ejected(cause) => Some(cause.as_str()),
        Event::Breaker(_) | Event::Overflow(_) => None,
    }),
    ("leno_circuit_breaker_transitions_total", "Circuit breakers of endpoints that came to a state.", "to", |event| match event {
        Event::Breaker(phase) => Some(phase.as_str()),
        Event::Ejected(_) | Event::Overflow(_) => None,
    }),
    ("leno_overflow_total", "Requests and opaque connections that were beyond a limit of their service.", "limit", |event| match event {
        Event::Overflow(limit) => Some(limit.as_str()),
        Event::Ejected(_) | Event::Breaker(_) => None,
    }),
];

/// Counts by event and service; `None` counts those beyond the bound.
pub(super) type Events = Mutex<BTreeMap<(Event, Option<ServiceId>), u64>>;

impl Recorder {
    /// Counts an event. These are few beside requests, so a lock that only the scraper shares costs nothing.
    pub fn event(&self, event: Event, service: &ServiceId) {
        let mut events = locked(&self.shared().events);
        let key = (event, Some(service.clone()));
        let key = if events.len() < SERVICES_MAX || events.contains_key(&key) { key } else { (event, None) };
        *events.entry(key).or_default() += 1;
    }
}

pub(super) fn render(workers: &[Arc<WorkerSeries>], page: &mut String) -> std::fmt::Result {
    let mut sums: BTreeMap<(Event, Option<ServiceId>), u64> = BTreeMap::new();
    for worker in workers {
        for (key, count) in locked(&worker.events).iter() {
            *sums.entry(key.clone()).or_default() += count;
        }
    }
    for (name, help, label, of) in KINDS {
        head(page, name, "counter", help)?;
        for ((event, service), count) in &sums {
            let Some(value) = of(*event) else { continue };
            let service = service.as_ref().map_or_else(|| "unknown".to_owned(), |service| escaped(&service.to_string()));
            writeln!(page, "{name}{{destination=\"{service}\",{label}=\"{value}\"}} {count}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Registry;

    #[test]
    fn events_are_summed_over_workers_and_services_beyond_the_bound_are_counted_together() {
        let registry = Registry::default();
        let (one, two) = (registry.recorder(None), registry.recorder(None));
        let payment = ServiceId::new("shop", "payment");
        one.event(Event::Ejected(Cause::ConsecutiveErrors), &payment);
        two.event(Event::Ejected(Cause::ConsecutiveErrors), &payment);
        two.event(Event::Breaker(Phase::HalfOpen), &payment);
        for number in 0..=SERVICES_MAX {
            one.event(Event::Overflow(Limit::Requests), &ServiceId::new("shop", format!("service-{number}")));
        }
        let page = registry.render("shop/web-1");
        assert!(page.contains("leno_endpoint_ejections_total{destination=\"shop/payment\",cause=\"consecutive-errors\"} 2\n"), "{page}");
        assert!(page.contains("leno_circuit_breaker_transitions_total{destination=\"shop/payment\",to=\"half-open\"} 1\n"));
        assert!(page.contains("leno_overflow_total{destination=\"unknown\",limit=\"requests\"} 2\n"));
        assert!(locked(&one.shared().events).len() <= SERVICES_MAX + 1);
    }
}
