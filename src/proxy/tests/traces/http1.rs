//! Traces of HTTP/1 requests.

use std::io::Write;
use std::sync::{Arc, mpsc};

use leno_core::filters::{FieldChanges, Filters};
use leno_core::percentage::Percentage;
use leno_core::retry::Retry;
use leno_core::route::{RouteTable, Rule};
use leno_core::service::Protocol;
use leno_core::trace::collector::Protocol as Spoken;
use leno_proxy::telemetry::LogSink;

use crate::collector::{CLIENT, Collector, SERVER, Span};
use crate::support::{Message, PATIENCE, Peer, Server, Setup, eventually, nowhere};
use crate::{SPAN, TRACE, pair, settings, tracing};

fn http(collector: &Collector, share: Percentage, propagation: &str) -> leno_proxy::telemetry::Tracing {
    tracing(collector.address, Spoken::Http, share, propagation)
}

/// What the app was sent, to look its fields up.
fn told(requests: &mpsc::Receiver<String>) -> Message {
    Message { head: requests.recv().unwrap(), body: Vec::new() }
}

fn get(fields: &str) -> String {
    format!("GET /pay?amount=1 HTTP/1.1\r\nHost: payment\r\n{fields}\r\n")
}

/// The spans of both proxies: the caller's and the app's.
fn both(spans: &[Span]) -> (&Span, &Span) {
    let of = |kind| spans.iter().find(|span| span.kind == kind).unwrap();
    (of(CLIENT), of(SERVER))
}

#[test]
fn a_request_through_two_proxies_is_one_trace_and_each_span_is_the_child_of_the_one_before() {
    let (app, requests) = Server::telling();
    let collector = Collector::http();
    let (_caller, _callee, address) = pair(app.address, Protocol::Http, &http(&collector, Percentage::NONE, "W3C"));
    let mut client = Peer::dial(address);
    assert_eq!(
        client.ask(&get(&format!("traceparent: 00-{TRACE}-{SPAN}-01\r\nTraceState: a=1,b=2\r\nx-request-id: r-1\r\n"))).status(),
        200
    );
    let spans = collector.spans(2);
    let (caller, callee) = both(&spans);
    assert_eq!((&*caller.trace, &*callee.trace), (TRACE, TRACE));
    assert_eq!((&*caller.parent, &callee.parent), (SPAN, &caller.id), "the caller's proxy is the parent of the app's");
    let sent = told(&requests);
    assert_eq!(sent.field("traceparent"), Some(&*format!("00-{TRACE}-{}-01", callee.id)), "and the app's proxy that of the app");
    assert_eq!((sent.field("tracestate"), &*caller.state, &*callee.state), (Some("a=1,b=2"), "a=1,b=2", "a=1,b=2"));
    assert_eq!(sent.head.to_ascii_lowercase().matches("trace").count(), 2, "{}", sent.head);
    let name = |span: &Span| ["service.name", "k8s.namespace.name", "k8s.pod.name"].map(|key| span.resource[key].clone());
    assert_eq!(
        (name(caller), name(callee)),
        (["web", "shop", "web-1"].map(String::from), ["payment", "shop", "payment-1"].map(String::from))
    );
    for span in &spans {
        let said = ["http.request.method", "url.path", "http.response.status_code", "server.address", "http.request.header.x-request-id"];
        assert_eq!(said.map(|key| &*span.attributes[key]), ["GET", "/pay", "200", "payment", "r-1"]);
        assert!(!span.is_error && !format!("{span:?}").contains("amount"), "{span:?}");
    }
    assert_eq!(caller.attributes["leno.destination"], "shop/payment");
}

#[test]
fn who_decides_first_decides_for_all_that_follow() {
    let (app, requests) = Server::telling();
    let collector = Collector::http();
    let (_caller, _callee, address) = pair(app.address, Protocol::Http, &http(&collector, Percentage::ALL, "W3C"));
    let mut client = Peer::dial(address);
    client.ask(&get(&format!("traceparent: 00-{TRACE}-{SPAN}-00\r\n")));
    assert!(told(&requests).field("traceparent").unwrap().ends_with("-00"), "an upstream's no is a no, though all traces are kept here");
    client.ask(&get("tracestate: a=1\r\n"));
    let sent = told(&requests);
    let spans = collector.spans(2);
    let (caller, callee) = both(&spans);
    assert_eq!((&*caller.parent, &callee.parent, &callee.trace), ("", &caller.id, &caller.trace), "a trace begins at the first proxy");
    assert_eq!(sent.field("traceparent"), Some(&*format!("00-{}-{}-01", callee.trace, callee.id)));
    assert_eq!(sent.field("tracestate"), None, "it belonged to no trace");
}

#[test]
fn a_trace_that_is_not_kept_is_not_kept_anywhere() {
    let (app, requests) = Server::telling();
    let collector = Collector::http();
    let (_caller, _callee, address) = pair(app.address, Protocol::Http, &http(&collector, Percentage::NONE, "W3C"));
    let mut client = Peer::dial(address);
    client.ask(&get(""));
    assert!(told(&requests).field("traceparent").unwrap().ends_with("-00"));
    client.ask(&get(&format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n")));
    assert!(collector.spans(2).iter().all(|span| span.trace == TRACE));
}

#[test]
fn b3_is_answered_in_the_form_that_it_came_in_beside_other_forms() {
    let (app, requests) = Server::telling();
    let collector = Collector::http();
    let (_caller, _callee, address) = pair(app.address, Protocol::Http, &http(&collector, Percentage::NONE, "B3,W3C"));
    let mut client = Peer::dial(address);
    client
        .ask(&get(&format!("X-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {SPAN}\r\nX-B3-ParentSpanId: 1111111111111111\r\nX-B3-Sampled: 1\r\n")));
    let sent = told(&requests);
    client.ask(&get(&format!("b3: {TRACE}-{SPAN}-1\r\n")));
    let single = told(&requests);
    let spans = collector.spans(4);
    let servers: Vec<&Span> = spans.iter().filter(|span| span.kind == SERVER).collect();
    let fields = ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "traceparent"];
    let traceparent = |span: &Span| format!("00-{TRACE}-{}-01", span.id);
    let wanted = [TRACE, &servers[0].id, &servers[0].parent, "1", &traceparent(servers[0])].map(|value| Some(value.to_owned()));
    assert_eq!(fields.map(|name| sent.field(name).map(str::to_owned)), wanted);
    assert_eq!(sent.field("b3"), None);
    assert_eq!(single.field("b3"), Some(&*format!("{TRACE}-{}-1-{}", servers[1].id, servers[1].parent)));
    assert_eq!((single.field("x-b3-traceid"), single.field("traceparent")), (None, Some(&*traceparent(servers[1]))));
}

#[test]
fn what_a_route_takes_out_is_not_put_in_again() {
    let (app, requests) = Server::telling();
    let collector = Collector::http();
    let request = FieldChanges { remove: vec!["traceparent".into()], ..FieldChanges::default() };
    let filters = Some(Arc::new(Filters { request, ..Filters::default() }));
    let routes = RouteTable::new("shop/p".into(), None, vec![Rule { name: "all".into(), filters, ..Rule::default() }]);
    let setup = Setup { routes, settings: settings("web", &http(&collector, Percentage::ALL, "W3C")), ..Setup::to(&[&app]) };
    let (_mesh, address) = setup.start();
    Peer::dial(address).ask(&get(&format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n")));
    assert_eq!(told(&requests).field("traceparent"), None);
    assert_eq!(collector.spans(1)[0].parent, SPAN);
}

#[test]
fn failures_and_retries_are_told() {
    let collector = Collector::http();
    let app = Server::answering("here");
    let retry = Some(Arc::new(Retry::default()));
    let routes = RouteTable::new("shop/p".into(), None, vec![Rule { name: "all".into(), retry, ..Rule::default() }]);
    let settings = settings("web", &http(&collector, Percentage::ALL, "W3C"));
    let (mesh, address) = Setup { routes, settings, ..Setup::default() }.start();
    mesh.set_endpoints(&[(nowhere(), "v1"), (app.address, "v2")]);
    let mut client = Peer::dial(address);
    while client.ask(&get("")).status() == 200 && !mesh.metrics().contains("leno_retries_total{") {}
    mesh.set_endpoints(&[]);
    eventually("nobody is left", || client.ask(&get("")).status() == 503);
    eventually("a span tells of a retry and one of the failure", || {
        let spans = collector.now();
        let retried = spans.iter().any(|span| {
            let said = |key: &str| span.attributes.get(key).map(String::as_str);
            said("http.request.resend_count") == Some("1")
                && said("leno.retries") == Some("connect-failure succeeded")
                && said("leno.version") == Some("v2")
                && !span.is_error
        });
        retried && spans.iter().any(|span| span.attributes.get("error.type").is_some_and(|kind| kind == "no-endpoint") && span.is_error)
    });
}

#[test]
fn a_tunnel_is_one_span_that_ends_with_it() {
    let app = Server::start(|mut peer| {
        peer.message();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        peer.until("bye");
    });
    let collector = Collector::http();
    let (_caller, _callee, address) = pair(app.address, Protocol::Http, &http(&collector, Percentage::ALL, "W3C"));
    let mut client = Peer::dial(address);
    client.send(&get("Connection: upgrade\r\nUpgrade: echo\r\n"));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    client.send("hello, bye");
    drop(client);
    let spans = collector.spans(2);
    let (caller, callee) = both(&spans);
    assert_eq!((&callee.parent, &*callee.attributes["http.response.status_code"]), (&caller.id, "101"));
}

#[test]
fn a_collector_that_is_down_costs_no_request_and_little_memory() {
    let app = Server::answering("here");
    let tracing = tracing(nowhere(), Spoken::Grpc, Percentage::ALL, "W3C");
    let settings = settings("web", &tracing);
    let counts = Arc::clone(settings.tracer.as_ref().unwrap().counts());
    let (_mesh, address) = Setup { settings, ..Setup::to(&[&app]) }.start();
    let mut client = Peer::dial(address);
    const REQUESTS: u64 = 3000;
    for _ in 0..REQUESTS {
        assert_eq!(client.ask(&get("")).status(), 200);
    }
    assert_eq!(counts.all()[0], ("exported", 0));
    // What waits in the queue, and the batch that is being sent. A record may be written after its answer.
    let waiting = leno_proxy::telemetry::spans::QUEUE_MAX as u64 + 512;
    eventually("the rest is dropped", || counts.all()[3].1 >= REQUESTS - waiting);
    let registry = leno_proxy::telemetry::Registry::default();
    registry.traces(&counts);
    assert!(registry.render("web").contains("leno_spans_total{outcome=\"exported\"} 0\n"));
}

#[test]
fn the_access_log_names_trace_and_span() {
    struct Pipe(mpsc::Sender<Vec<u8>>);
    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (app, collector, (log, lines)) = (Server::answering("here"), Collector::http(), mpsc::channel());
    let log = Some(LogSink::start(Pipe(log)).unwrap());
    let settings = settings("web", &http(&collector, Percentage::ALL, "W3C"));
    let (_mesh, address) = Setup { settings, log, ..Setup::to(&[&app]) }.start();
    Peer::dial(address).ask(&get(&format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n")));
    let line = String::from_utf8(lines.recv_timeout(PATIENCE).unwrap()).unwrap();
    let wanted = format!("\"trace_id\":\"{TRACE}\",\"span_id\":\"{}\"", collector.spans(1)[0].id);
    assert!(line.contains(&wanted), "{line}");
}
