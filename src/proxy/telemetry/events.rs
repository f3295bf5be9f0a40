//! What resilience has done, counted by service: endpoints left out, breakers that changed, requests beyond a limit, health checks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, Weak};

use leno_core::breaker::Phase;
use leno_core::endpoints::EndpointsId;
use leno_core::health::Became;
use leno_core::limits::Limit;
use leno_core::names::ServiceId;
use leno_core::outlier::Cause;

use super::prometheus::{escaped, head};
use super::recorder::{Recorder, WorkerSeries, locked};
use crate::concurrency::Limiter;
use crate::resilience::health::CheckedSet;

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
    /// The app had as many requests as it bears.
    Full,
    /// An endpoint was asked whether it is well.
    Checked {
        /// What came of it.
        is_well: bool,
    },
    /// Checks have changed what an endpoint counts as.
    Health(Became),
}

/// Metric, help and label of events of one kind, and which events those are.
type Kind = (&'static str, &'static str, &'static str, fn(Event) -> Option<&'static str>);

const KINDS: [Kind; 5] = [
    ("leno_endpoint_ejections_total", "Endpoints that outlier detection has left out for a time.", "cause", |event| match event {
        Event::Ejected(cause) => Some(cause.as_str()),
        Event::Breaker(_) | Event::Overflow(_) | Event::Full | Event::Checked { .. } | Event::Health(_) => None,
    }),
    ("leno_circuit_breaker_transitions_total", "Circuit breakers of endpoints that came to a state.", "to", |event| match event {
        Event::Breaker(phase) => Some(phase.as_str()),
        Event::Ejected(_) | Event::Overflow(_) | Event::Full | Event::Checked { .. } | Event::Health(_) => None,
    }),
    (
        "leno_overflow_total",
        "Requests and opaque connections that were beyond a limit of their service, or beyond what the app bears.",
        "limit",
        |event| match event {
            Event::Overflow(limit) => Some(limit.as_str()),
            Event::Full => Some("concurrency"),
            Event::Ejected(_) | Event::Breaker(_) | Event::Checked { .. } | Event::Health(_) => None,
        },
    ),
    ("leno_health_checks_total", "Health checks of endpoints, by what came of them.", "outcome", |event| match event {
        Event::Checked { is_well: true } => Some("passed"),
        Event::Checked { is_well: false } => Some("failed"),
        Event::Ejected(_) | Event::Breaker(_) | Event::Overflow(_) | Event::Full | Event::Health(_) => None,
    }),
    ("leno_health_transitions_total", "Endpoints that health checks have found to be healthy again, or unhealthy.", "to", |event| {
        match event {
            Event::Health(became) => Some(became.as_str()),
            Event::Ejected(_) | Event::Breaker(_) | Event::Overflow(_) | Event::Full | Event::Checked { .. } => None,
        }
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

/// The endpoints that a worker checks, by service port.
pub(super) type Checking = Mutex<BTreeMap<EndpointsId, Weak<CheckedSet>>>;

impl Recorder {
    /// This worker checks the endpoints of `id`.
    pub(crate) fn checks(&self, id: &EndpointsId, set: &Arc<CheckedSet>) {
        let mut checking = locked(&self.shared().checking);
        checking.retain(|_, set| set.strong_count() > 0);
        checking.insert(id.clone(), Arc::downgrade(set));
    }
}

/// What limits the requests that the app is given at once, by its ports.
pub(super) type Limiters = Mutex<Vec<(u16, Weak<Limiter>)>>;

impl Recorder {
    /// These are the ports of the app that have a limiter.
    pub(crate) fn limiters(&self, limiters: &[(u16, Arc<Limiter>)]) {
        *locked(&self.shared().limiters) = limiters.iter().map(|(port, limiter)| (*port, Arc::downgrade(limiter))).collect();
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
    render_unhealthy(workers, page)?;
    render_limiters(workers, page)
}

fn render_limiters(workers: &[Arc<WorkerSeries>], page: &mut String) -> std::fmt::Result {
    let mut limiters = BTreeMap::new();
    for worker in workers {
        limiters.extend(locked(&worker.limiters).iter().filter_map(|(port, limiter)| Some((*port, limiter.upgrade()?))));
    }
    let limit = "Requests that the app is given at once, as learnt from how long it takes to answer.";
    let in_flight = "Requests that the app has got and not begun to answer.";
    let value: [fn(&Limiter) -> u32; 2] = [Limiter::limit, Limiter::in_flight];
    for (value, (name, help)) in value.into_iter().zip([("leno_concurrency_limit", limit), ("leno_concurrency_in_flight", in_flight)]) {
        head(page, name, "gauge", help)?;
        for (port, limiter) in &limiters {
            writeln!(page, "{name}{{destination=\"{}\",port=\"{port}\"}} {}", escaped(&limiter.service.to_string()), value(limiter))?;
        }
    }
    Ok(())
}

fn render_unhealthy(workers: &[Arc<WorkerSeries>], page: &mut String) -> std::fmt::Result {
    let mut sets = BTreeMap::new();
    for worker in workers {
        sets.extend(locked(&worker.checking).iter().filter_map(|(id, set)| Some((id.clone(), set.upgrade()?.unhealthy()))));
    }
    let name = "leno_endpoints_unhealthy";
    head(page, name, "gauge", "Endpoints that are left out because their health checks fail.")?;
    for (EndpointsId { service, port }, count) in sets {
        writeln!(page, "{name}{{destination=\"{}\",port=\"{port}\"}} {count}", escaped(&service.to_string()))?;
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
