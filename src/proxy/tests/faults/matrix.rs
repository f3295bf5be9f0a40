//! The table, and the test that makes it.
//!
//! Each line: what the server does, the call, and then, without a policy for retries and with one more try by policy (on 5xx,
//! retriable-4xx and grpc-unavailable), what the caller sees, the reason in log and metric and whether another try would be safe, the
//! number of tries, and what `leno_retries_total` counts. Without a policy there are 600 ms for the whole request, with it 200 ms for each try; an idle
//! response is cut after 300 ms.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use leno_core::retry::{Backoff, Reason, Retry};
use leno_core::route::{RouteTable, Rule};
use leno_core::service::Protocol;
use leno_proxy::telemetry::LogSink;
use serde_json::Value;

use crate::client::Call;
use crate::server::{Fault, Server};
use crate::support::{Mesh, PATIENCE, Setup, eventually};

const TABLE: &str = include_str!("matrix.txt");

/// Set to write the table anew; read the diff.
const UPDATE: &str = "UPDATE_FAULTS";

#[test]
fn every_fault_has_its_answer_its_reason_its_tries_and_its_metric_and_leaves_nothing_behind() {
    let rows = Fault::ALL.map(|fault| thread::spawn(move || [false, true].map(|by_policy| column(fault, by_policy))));
    let mut table = format!("{:<21}{:<16}{:<68}{}\n", "fault", "call", "without a policy", "one more try by policy");
    for (fault, row) in Fault::ALL.into_iter().zip(rows) {
        let [without, with] = row.join().unwrap();
        for (call, (without, with)) in Call::ALL.into_iter().zip(without.into_iter().zip(with)) {
            writeln!(table, "{:<21}{:<16}{without:<68}{with}", fault.name(), call.name()).unwrap();
        }
    }
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/matrix.txt"), &table).unwrap();
        return;
    }
    let (have, want): (Vec<_>, Vec<_>) = (table.lines().collect(), TABLE.lines().collect());
    let differ: Vec<_> = have.iter().zip(&want).filter(|(have, want)| have != want).collect();
    assert!(have == want, "set {UPDATE} to write the table anew; (is, was):\n{differ:#?}");
}

/// All calls to one server, and what is left of them after that.
fn column(fault: Fault, by_policy: bool) -> [String; 4] {
    let server = Server::start(fault);
    let (log, lines) = channel();
    let mut setup =
        Setup { log: Some(LogSink::start(Pipe(log)).unwrap()), protocol: Protocol::Detect, routes: routes(by_policy), ..Setup::default() };
    setup.settings.connect_timeout = Duration::from_millis(150);
    let (mesh, address) = setup.start();
    let tasks = settled(&mesh);
    mesh.set_endpoints(&[(server.address, "v1")]);
    let cells = Call::ALL.map(|call| {
        let before = retries(&mesh);
        let seen = call.make(address, fault.is_http2());
        let line = next(&lines);
        cell(&seen, &line, &mesh, &before)
    });
    // Connections may rest while there is an endpoint, and no longer.
    mesh.set_endpoints(&[]);
    eventually(&format!("{}: no connection of a client stays open", fault.name()), || {
        metric(&mesh, "leno_connections_open{direction=\"outbound\"}") == 0
    });
    eventually(&format!("{}: no connection to the server stays open", fault.name()), || server.open() == 0);
    eventually(&format!("{}: no task stays", fault.name()), || metric(&mesh, "leno_worker_tasks") == tasks);
    cells
}

fn routes(by_policy: bool) -> RouteTable {
    let on = [Reason::ServerError, Reason::Retriable4xx, Reason::GrpcUnavailable].into_iter().collect();
    let backoff = Backoff { base: Duration::from_millis(1), max: Duration::from_millis(1) };
    let retry = Retry { attempts: 1, per_try_timeout: Some(Duration::from_millis(200)), on, methods: Vec::new(), backoff };
    let timeout = Duration::from_millis(if by_policy { 10_000 } else { 600 });
    let rule = Rule { name: "all".into(), idle_timeout: Some(Duration::from_millis(300)), ..Rule::default() };
    RouteTable::new("shop/payment".into(), Some(timeout), vec![rule]).with_retry(by_policy.then(|| Arc::new(retry)))
}

/// What the caller saw, and what the record and the metrics say of it.
fn cell(seen: &str, line: &Value, mesh: &Mesh, before: &BTreeMap<String, u64>) -> String {
    let text = |field: &str| line[field].as_str().map(str::to_owned);
    let status = line["status"].as_u64().map_or_else(|| "-".to_owned(), |status| status.to_string());
    let logged =
        if line["protocol"] == "grpc" { line["grpc_status"].as_u64().map_or(status, |code| format!("grpc {code}")) } else { status };
    let saw = if seen.starts_with("cut") { format!("{logged}, {seen}") } else { seen.to_owned() };
    assert!(saw.starts_with(&logged), "the caller saw {seen}, and the log says {line}");
    let safe = if line["retry_safe"] == true { "safe" } else { "unsafe" };
    let reason = text("reason").map_or_else(|| "-".to_owned(), |reason| format!("{reason}, {safe}"));
    let mut cell = format!("{saw} {reason} x{}", line["tries"]);
    if let Some(reason) = text("reason") {
        let origin = text("origin").unwrap();
        let counted = format!("leno_errors_total{{direction=\"outbound\",origin=\"{origin}\",reason=\"{reason}\"}}");
        assert!(metric(mesh, &counted) > 0, "{counted} is not there for {line}");
    }
    for (what, count) in retries(mesh) {
        let count = count - before.get(&what).copied().unwrap_or_default();
        if count > 0 {
            write!(cell, " {what}={count}").unwrap();
        }
    }
    let stopped = text("no_retry");
    assert!(stopped.is_none_or(|by| cell.contains(&format!("/{by}="))), "{cell}, and the log says {line}");
    cell
}

/// What `leno_retries_total` counts, by reason and outcome.
fn retries(mesh: &Mesh) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in mesh.metrics().lines().filter(|line| line.starts_with("leno_retries_total{")) {
        let label = |name: &str| line.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
        let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        *counts.entry(format!("{}/{}", label(",reason"), label("outcome"))).or_default() += count;
    }
    counts
}

fn metric(mesh: &Mesh, name: &str) -> u64 {
    let page = mesh.metrics();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_default()
}

/// How many tasks the worker has when it does nothing.
fn settled(mesh: &Mesh) -> u64 {
    eventually("the worker has counted its tasks", || metric(mesh, "leno_worker_tasks") > 0);
    metric(mesh, "leno_worker_tasks")
}

/// The next line of the access log.
fn next(lines: &Receiver<Vec<u8>>) -> Value {
    let chunk = lines.recv_timeout(PATIENCE).expect("the request is logged");
    serde_json::from_slice(&chunk).unwrap_or_else(|error| panic!("one line of JSON: {error}: {}", String::from_utf8_lossy(&chunk)))
}

/// Hands on what is written.
struct Pipe(Sender<Vec<u8>>);

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
