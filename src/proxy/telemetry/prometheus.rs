//! The metrics page, in the Prometheus text format 0.0.4, and the same figures as values.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use leno_core::names::ServiceId;
use leno_core::retry::Reason;

use super::events;
use super::recorder::{Authorized, Handshake, Registry, WorkerSeries, locked};
use super::series::{BUCKETS_US, Counter, RequestSeries};
use super::{Destination, Direction, Origin, Spoken};
use crate::mirror::Outcome;

/// The content type of [`Registry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Requests of one (direction, protocol, destination), summed over the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFigures {
    /// By class of the status: index 0 counts requests that ended without one, 1 to 5 are 1xx to 5xx.
    pub by_class: [u64; 6],
    /// Answers the proxy itself gave.
    pub own: u64,
    /// Observations per latency bucket, as [`super::series::BUCKETS_US`].
    pub buckets: [u64; BUCKETS_US.len() + 1],
    /// Sum of the latencies, in microseconds.
    pub sum_us: u64,
    /// Body bytes from clients.
    pub bytes_in: u64,
    /// Body bytes to clients.
    pub bytes_out: u64,
    /// Requests that were sent again, or would have been: why, what became of it, how often.
    pub retries: BTreeMap<(Reason, &'static str), u64>,
}

/// A total's name, its help text, and where it is in the figures.
type Total = (&'static str, &'static str, fn(&RequestFigures) -> u64);

/// Whose requests: one series. The flag says whether the connection between proxies was mutual TLS.
pub type RequestKey = (Direction, Spoken, bool, Destination);

impl RequestFigures {
    fn add(&mut self, series: &RequestSeries) {
        let sum = |into: &mut [u64], from: &[Counter]| into.iter_mut().zip(from).for_each(|(into, from)| *into += from.get());
        sum(&mut self.by_class, &series.by_class);
        sum(&mut self.buckets, &series.duration.buckets);
        self.own += series.own.get();
        self.sum_us += series.duration.sum_us.get();
        self.bytes_in += series.bytes_in.get();
        self.bytes_out += series.bytes_out.get();
        for (reason, went, count) in series.retries.counts() {
            *self.retries.entry((reason, went.as_str())).or_default() += count;
        }
    }
}

struct Labels<'a>(Direction, Option<Spoken>, bool, &'a str, &'a Destination);

impl std::fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(direction, spoken, mutual, source, destination) = self;
        write!(f, "direction=\"{}\",source=\"{}\",destination=\"", direction.as_str(), escaped(source))?;
        match &destination.service {
            Some(ServiceId { namespace, name }) => write!(f, "{}/{}", escaped(namespace), escaped(name))?,
            None => f.write_str("unknown")?,
        }
        let label = |value: &Option<leno_core::names::Name>| escaped(value.as_deref().unwrap_or(""));
        write!(f, "\",version=\"{}\",route=\"{}\"", label(&destination.version), label(&destination.route))?;
        if let Some(spoken) = spoken {
            write!(f, ",protocol=\"{}\"", spoken.as_str())?;
        }
        write!(f, ",mtls=\"{mutual}\"")
    }
}

pub(super) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Registry {
    /// Every request series, summed over the workers.
    pub fn requests(&self) -> BTreeMap<RequestKey, RequestFigures> {
        let mut figures: BTreeMap<RequestKey, RequestFigures> = BTreeMap::new();
        for worker in locked(&self.workers).iter() {
            for (direction, spoken, mutual, destination, series) in locked(&worker.requests).iter() {
                if let Some(series) = series.upgrade() {
                    figures.entry((*direction, *spoken, *mutual, destination.clone())).or_default().add(&series);
                }
            }
        }
        figures
    }

    /// The metrics page. `source` is the workload's name.
    pub fn render(&self, source: &str) -> String {
        let mut page = String::with_capacity(8 * 1024);
        // Writing to a String cannot fail.
        let _ = self.render_requests(&mut page, source).and_then(|()| self.render_connections(&mut page, source));
        page
    }

    fn render_requests(&self, page: &mut String, source: &str) -> std::fmt::Result {
        let figures = self.requests();
        let rows = || {
            figures.iter().map(|((direction, spoken, mutual, to), value)| (Labels(*direction, Some(*spoken), *mutual, source, to), value))
        };
        head(page, "leno_requests_total", "counter", "Requests, by class of the status sent to the client.")?;
        for (labels, value) in rows() {
            for (class, count) in value.by_class.iter().enumerate().filter(|(_, count)| **count > 0) {
                let class = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"][class];
                writeln!(page, "leno_requests_total{{{labels},code=\"{class}\"}} {count}")?;
            }
        }
        head(page, "leno_request_duration_seconds", "histogram", "From a request's first byte to its response's last.")?;
        for (labels, value) in rows() {
            let mut below = 0;
            for (bound, count) in BUCKETS_US.iter().zip(value.buckets) {
                below += count;
                #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
                let seconds = *bound as f64 / 1e6;
                writeln!(page, "leno_request_duration_seconds_bucket{{{labels},le=\"{seconds}\"}} {below}")?;
            }
            let count: u64 = value.buckets.iter().sum();
            #[expect(clippy::cast_precision_loss, reason = "a sum of seconds needs no more than 52 bits")]
            let sum = value.sum_us as f64 / 1e6;
            writeln!(page, "leno_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}")?;
            writeln!(page, "leno_request_duration_seconds_sum{{{labels}}} {sum}")?;
            writeln!(page, "leno_request_duration_seconds_count{{{labels}}} {count}")?;
        }
        let totals: [Total; 3] = [
            ("leno_request_bytes_total", "Body bytes received from clients.", |value| value.bytes_in),
            ("leno_response_bytes_total", "Body bytes sent to clients.", |value| value.bytes_out),
            ("leno_proxy_answers_total", "Requests the proxy answered or gave up itself.", |value| value.own),
        ];
        for (name, help, value) in totals {
            head(page, name, "counter", help)?;
            for (labels, figures) in rows() {
                writeln!(page, "{name}{{{labels}}} {}", value(figures))?;
            }
        }
        let help = "Retries by why the try before failed, and what became of them: succeeded, failed, or why they were not made.";
        head(page, "leno_retries_total", "counter", help)?;
        for (labels, figures) in rows() {
            for ((reason, went), count) in &figures.retries {
                writeln!(page, "leno_retries_total{{{labels},reason=\"{}\",outcome=\"{went}\"}} {count}", reason.as_str())?;
            }
        }
        Ok(())
    }

    fn render_connections(&self, page: &mut String, source: &str) -> std::fmt::Result {
        let workers = locked(&self.workers);
        let mut tcp: BTreeMap<(Direction, bool, Destination), [u64; 4]> = BTreeMap::new();
        let mut reasons: BTreeMap<(Direction, &str), u64> = BTreeMap::new();
        for worker in workers.iter() {
            for (direction, mutual, destination, series) in locked(&worker.tcp).iter() {
                let Some(series) = series.upgrade() else { continue };
                let row = tcp.entry((*direction, *mutual, destination.clone())).or_default();
                let values = [&series.closed, &series.failed, &series.bytes_in, &series.bytes_out];
                row.iter_mut().zip(values).for_each(|(into, from)| *into += from.get());
            }
            for (direction, reason, counter) in locked(&worker.reasons).iter() {
                *reasons.entry((*direction, reason)).or_default() += counter.get();
            }
        }
        for (index, (name, help)) in TCP_METRICS.iter().enumerate() {
            head(page, name, "counter", help)?;
            for ((direction, mutual, destination), row) in &tcp {
                writeln!(page, "{name}{{{}}} {}", Labels(*direction, None, *mutual, source, destination), row[index])?;
            }
        }
        head(page, "leno_errors_total", "counter", "Requests and connections the proxy could not carry, by reason.")?;
        for ((direction, reason), count) in reasons {
            let (direction, origin) = (direction.as_str(), Origin::of(reason));
            writeln!(page, "leno_errors_total{{direction=\"{direction}\",origin=\"{origin}\",reason=\"{reason}\"}} {count}")?;
        }
        render_authorized(&workers, page)?;
        let gauge: [(&str, &str, &str, usize); 2] = [
            ("leno_connections_open", "gauge", "Connections from clients that are open.", 0),
            ("leno_connections_total", "counter", "Connections accepted from clients.", 1),
        ];
        for (name, kind, help, which) in gauge {
            head(page, name, kind, help)?;
            for direction in [Direction::Inbound, Direction::Outbound] {
                let of = |worker: &super::recorder::WorkerSeries| {
                    [&worker.connections_open, &worker.connections_total][which][direction.index()].get()
                };
                let sum: u64 = workers.iter().map(|worker| of(worker)).sum();
                writeln!(page, "{name}{{direction=\"{}\"}} {sum}", direction.as_str())?;
            }
        }
        render_handshakes(&workers, page)?;
        events::render(&workers, page)?;
        render_mirrors(&workers, page)?;
        head(
            page,
            "leno_worker_tasks",
            "gauge",
            "Tasks of the workers, as of their last sweep: connections, HTTP/2 requests, and a few of their own.",
        )?;
        writeln!(page, "leno_worker_tasks {}", workers.iter().map(|worker| worker.tasks.get()).sum::<u64>())?;
        head(page, "leno_detection_timeouts_total", "counter", "Connections whose client stayed silent on a port of undeclared protocol.")?;
        writeln!(page, "leno_detection_timeouts_total {}", workers.iter().map(|worker| worker.detection_timeouts.get()).sum::<u64>())?;
        head(page, "leno_access_log_dropped_total", "counter", "Access log lines dropped because standard output was not read.")?;
        writeln!(page, "leno_access_log_dropped_total {}", workers.iter().map(|worker| worker.access_log_dropped.get()).sum::<u64>())?;
        self.spans.get().map_or(Ok(()), |spans| spans.render(page))
    }
}

fn render_mirrors(workers: &[Arc<WorkerSeries>], page: &mut String) -> std::fmt::Result {
    let name = "leno_mirrored_total";
    head(page, name, "counter", "Copies of requests for mirrors, by what became of them.")?;
    for outcome in Outcome::ALL {
        let count: u64 = workers.iter().map(|worker| worker.mirrored[outcome as usize].get()).sum();
        if count > 0 {
            writeln!(page, "{name}{{outcome=\"{}\"}} {count}", outcome.as_str())?;
        }
    }
    head(page, "leno_mirrors_in_flight", "gauge", "Copies of requests that are on their way to mirrors.")?;
    writeln!(page, "leno_mirrors_in_flight {}", workers.iter().map(|worker| worker.mirrors_in_flight.get()).sum::<u64>())
}

fn render_handshakes(workers: &[Arc<WorkerSeries>], page: &mut String) -> std::fmt::Result {
    let name = "leno_tls_handshakes_total";
    head(page, name, "counter", "Handshakes of mutual TLS, by which end this proxy was and how they ended.")?;
    let mut sums: BTreeMap<Handshake, u64> = BTreeMap::new();
    for worker in workers {
        for (kind, count) in locked(&worker.handshakes).iter() {
            *sums.entry(*kind).or_default() += count.get();
        }
    }
    for ((end, result, is_resumed), count) in sums {
        writeln!(page, "{name}{{side=\"{}\",result=\"{result}\",resumed=\"{is_resumed}\"}} {count}", end.as_str())?;
    }
    Ok(())
}

fn render_authorized(workers: &[Arc<WorkerSeries>], page: &mut String) -> std::fmt::Result {
    let name = "leno_authorization_total";
    head(page, name, "counter", "Requests and opaque connections to the app that rules have judged, by decision, policy and caller.")?;
    let mut sums: BTreeMap<Authorized, u64> = BTreeMap::new();
    for worker in workers {
        for (key, count) in locked(&worker.authorized).iter() {
            *sums.entry(key.clone()).or_default() += count.get();
        }
    }
    for ((decision, policy, source), count) in sums {
        let (decision, policy) = (decision.as_str(), escaped(policy.as_deref().unwrap_or_default()));
        let source = source.map(|source| escaped(&source.to_string())).unwrap_or_default();
        writeln!(page, "{name}{{decision=\"{decision}\",policy=\"{policy}\",source_identity=\"{source}\"}} {count}")?;
    }
    Ok(())
}

const TCP_METRICS: [(&str, &str); 4] = [
    ("leno_tcp_connections_closed_total", "Opaque connections that ended."),
    ("leno_tcp_connections_failed_total", "Opaque connections that could not be carried."),
    ("leno_tcp_received_bytes_total", "Bytes received from clients on opaque connections."),
    ("leno_tcp_sent_bytes_total", "Bytes sent to clients on opaque connections."),
];

pub(super) fn head(page: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_support::{record, somewhere};

    #[test]
    fn the_page_sums_the_workers_and_keeps_the_label_set_closed() {
        let registry = Registry::default();
        let (one, two) = (registry.recorder(None), registry.recorder(None));
        one.request(&record(&somewhere("v1"), 200));
        two.request(&record(&somewhere("v1"), 204));
        two.request(&record(&somewhere("v2"), 503));
        let page = registry.render("web");
        let labels = r#"direction="outbound",source="web",destination="shop/payment""#;
        for line in [
            format!(r#"leno_requests_total{{{labels},version="v1",route="r",protocol="http1",mtls="false",code="2xx"}} 2"#),
            format!(r#"leno_requests_total{{{labels},version="v2",route="r",protocol="http1",mtls="false",code="5xx"}} 1"#),
            format!(r#"leno_request_duration_seconds_count{{{labels},version="v1",route="r",protocol="http1",mtls="false"}} 2"#),
            r#"leno_errors_total{direction="outbound",origin="upstream",reason="no-endpoint"} 1"#.to_owned(),
        ] {
            assert!(page.lines().any(|have| have == line), "{line}\nis missing in\n{page}");
        }
        assert!(!page.contains("/a"), "nothing of a request's path may become a label");
    }
}
