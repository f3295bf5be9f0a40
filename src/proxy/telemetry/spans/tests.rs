//! Spans as they are sent, and what becomes of them when the collector does not take them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leno_core::names::Name;
use leno_core::percentage::Percentage;
use leno_core::retry::Reason;
use leno_core::trace::Propagation;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::export::{BATCH_MAX, Export, ExportError, Exporter, TRIES_MAX};
use super::otlp::{ExportTraceServiceRequest, SpanKind, Value};
use super::*;
use crate::telemetry::test_support::{record, somewhere};
use crate::telemetry::{Direction, RequestRecord, Retried, Spoken, Tried, Went};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn resource() -> Resource {
    Resource::of(&Name::from("web"), &WorkloadId::new("shop", "web-1"))
}

fn tracer(share: Percentage, room: usize) -> (Arc<Tracer>, mpsc::Receiver<Finished>) {
    let (spans, queue) = mpsc::channel(room);
    (Arc::new(Tracer { propagation: Propagation::default(), share, spans, counts: Arc::default() }), queue)
}

fn headers() -> Vec<(String, String)> {
    vec![("traceparent".to_owned(), format!("00-{TRACE}-b7ad6b7169203331-01")), ("tracestate".to_owned(), "a=1".to_owned())]
}

/// The span of a request, as the collector gets it.
fn sent(record: &RequestRecord<'_>) -> otlp::Span {
    let (tracer, mut queue) = tracer(Percentage::NONE, 1);
    tracer.begin(&headers(), [1, 2, 3]).finish(record);
    let request = resource().request(&[queue.try_recv().unwrap()]);
    let read = ExportTraceServiceRequest::decode(request.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read, request);
    read.resource_spans[0].scope_spans[0].spans[0].clone()
}

fn attribute(span: &otlp::Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::List(list) => format!(
            "{:?}",
            list.values
                .iter()
                .filter_map(|value| match &value.value {
                    Some(Value::Text(text)) => Some(text.as_str()),
                    Some(Value::Number(_) | Value::List(_)) | None => None,
                })
                .collect::<Vec<_>>()
        ),
    })
}

#[test]
fn a_span_says_by_the_names_of_opentelemetry_what_the_record_says() {
    let destination = somewhere("v1");
    let retried = [Retried { reason: Reason::ConnectFailure, went: Went::Succeeded }];
    let span = sent(&RequestRecord {
        path: "/a?token=secret",
        authority: "payment:8080",
        upstream: Some(([10, 0, 0, 7], 80).into()),
        tried: Tried { tries: 2, retried: &retried, retry_safe: true },
        ..record(&destination, 200)
    });
    assert_eq!((span.name.as_str(), span.kind, span.status.as_ref()), ("GET", SpanKind::Client as i32, None));
    assert_eq!(
        (span.trace_id, span.parent_span_id.len(), span.span_id[7]),
        (u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes().to_vec(), 8, 3)
    );
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 3_000_000);
    let span = otlp::Span { trace_id: Vec::new(), ..span };
    let wanted = [
        ("http.request.method", Some("GET")),
        ("url.path", Some("/a")),
        ("url.full", Some("http://payment:8080/a")),
        ("http.response.status_code", Some("200")),
        ("http.request.resend_count", Some("1")),
        ("server.address", Some("payment")),
        ("server.port", Some("8080")),
        ("network.peer.address", Some("10.0.0.7")),
        ("leno.destination", Some("shop/payment")),
        ("leno.version", Some("v1")),
        ("leno.retries", Some(r#"["connect-failure succeeded"]"#)),
        ("error.type", None),
        ("rpc.system", None),
    ];
    for (key, value) in wanted {
        assert_eq!(attribute(&span, key).as_deref(), value, "{key}");
    }
    assert!(!format!("{span:?}").contains("secret"), "queries stay here");
}

#[test]
fn failures_are_the_clients_or_the_servers() {
    let destination = somewhere("v1");
    let failed = |direction, spoken, status, grpc_status, reason| {
        let path = if spoken == Spoken::Grpc { "/shop.Payment/Pay" } else { "/pay" };
        let span = sent(&RequestRecord { direction, spoken, path, grpc_status, reason, ..record(&destination, status) });
        (span.status.is_some(), attribute(&span, "error.type"))
    };
    let said = |text: &str| Some(text.to_owned());
    use {Direction::Inbound, Direction::Outbound, Spoken::Grpc, Spoken::Http1};
    assert_eq!(failed(Outbound, Http1, 404, None, None), (true, said("404")));
    assert_eq!(failed(Inbound, Http1, 404, None, None), (false, None));
    assert_eq!(failed(Inbound, Http1, 503, None, Some("no-endpoint")), (true, said("no-endpoint")));
    assert_eq!(failed(Inbound, Http1, 403, None, Some("denied")), (false, said("denied")));
    assert_eq!(failed(Outbound, Http1, 200, None, Some("response-cut")), (true, said("response-cut")));
    assert_eq!(failed(Outbound, Grpc, 200, Some(0), None), (false, None));
    assert_eq!(failed(Outbound, Grpc, 200, Some(5), None), (true, said("5")));
    assert_eq!(failed(Inbound, Grpc, 200, Some(5), None), (false, None));
    assert_eq!(failed(Inbound, Grpc, 200, Some(14), Some("connect-failed")), (true, said("connect-failed")));
}

#[test]
fn grpc_has_its_own_names_and_unknown_methods_are_one() {
    let destination = somewhere("v1");
    let rpc = sent(&RequestRecord { spoken: Spoken::Grpc, path: "/shop.Payment/Pay", grpc_status: Some(0), ..record(&destination, 200) });
    assert_eq!(rpc.name, "shop.Payment/Pay");
    let said = ["rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"].map(|key| attribute(&rpc, key).unwrap());
    assert_eq!(said, ["grpc", "shop.Payment", "Pay", "0"]);
    let odd = sent(&RequestRecord { method: "BREW", ..record(&destination, 200) });
    assert_eq!((odd.name.as_str(), attribute(&odd, "http.request.method").as_deref()), ("HTTP", Some("_OTHER")));
    assert_eq!(attribute(&odd, "http.request.method_original").as_deref(), Some("BREW"));
}

#[test]
fn what_a_client_makes_is_cut() {
    let (destination, long) = (somewhere("v1"), "é".repeat(40_000));
    let span = sent(&RequestRecord { method: &long, path: &long, authority: &long, request_id: &long, ..record(&destination, 200) });
    assert!(span.encoded_len() < 4096, "{} bytes", span.encoded_len());
}

#[test]
fn traces_that_are_not_kept_cost_no_span_and_a_full_queue_drops() {
    let destination = somewhere("v1");
    let (unwanted, mut none) = tracer(Percentage::NONE, 8);
    unwanted.begin(&Vec::<(String, String)>::new(), [1, 2, 3]).finish(&record(&destination, 200));
    assert!(none.try_recv().is_err());
    let (wanted, mut queue) = tracer(Percentage::ALL, 8);
    for draw in 0..20 {
        wanted.begin(&Vec::<(String, String)>::new(), [1, 2, draw]).finish(&record(&destination, 200));
    }
    assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), 8);
    assert_eq!(wanted.counts().all()[3], ("overflow", 12));
}

/// A collector that does as it is told, with what it was sent and when.
#[derive(Clone, Default)]
struct Told {
    answers: Arc<Mutex<Vec<Result<u64, Failure>>>>,
    batches: Arc<Mutex<Vec<(Instant, usize)>>>,
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("told to fail")]
struct Failure {
    may_pass: bool,
}

impl ExportError for Failure {
    fn may_pass(&self) -> bool {
        self.may_pass
    }
}

impl Export for Told {
    type Error = Failure;

    async fn export(&mut self, spans: &ExportTraceServiceRequest) -> Result<u64, Failure> {
        self.batches.lock().unwrap().push((Instant::now(), spans.resource_spans[0].scope_spans[0].spans.len()));
        self.answers.lock().unwrap().pop().unwrap_or(Ok(0))
    }
}

/// What becomes of `spans`, one after the other, where the collector answers as in `answers` and then well.
async fn exported(spans: usize, answers: &[Result<u64, Failure>]) -> (Told, [(&'static str, u64); 4]) {
    let (tracer, queue) = tracer(Percentage::ALL, QUEUE_MAX);
    let told = Told::default();
    told.answers.lock().unwrap().extend(answers.iter().rev());
    let counts = Arc::clone(tracer.counts());
    let exporter = tokio::spawn(Exporter { collector: told.clone(), resource: resource(), counts: Arc::clone(&counts) }.run(queue));
    let destination = somewhere("v1");
    for draw in 0..spans as u64 {
        tracer.begin(&Vec::<(String, String)>::new(), [1, 2, draw]).finish(&record(&destination, 200));
    }
    // The clock is paused: this is as long as everything takes.
    sleep(Duration::from_secs(3600)).await;
    drop(tracer);
    exporter.await.unwrap();
    let counted = counts.all();
    (told, counted)
}

#[tokio::test(start_paused = true)]
async fn spans_are_sent_together_and_counted_as_the_collector_says() {
    let (told, counted) = exported(BATCH_MAX + 10, &[Ok(3)]).await;
    let sizes: Vec<usize> = told.batches.lock().unwrap().iter().map(|(_, size)| *size).collect();
    assert_eq!(sizes, [BATCH_MAX, 10]);
    assert_eq!(counted, [("exported", BATCH_MAX as u64 + 7), ("rejected", 3), ("failed", 0), ("overflow", 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_waited_for_longer_each_time_and_given_up_in_the_end() {
    let down = Err(Failure { may_pass: true });
    let (told, counted) = exported(1, &[down, down]).await;
    assert_eq!((told.batches.lock().unwrap().len(), counted[0]), (3, ("exported", 1)));
    let (told, counted) = exported(1, &[down; 8]).await;
    let batches = told.batches.lock().unwrap().clone();
    assert_eq!((batches.len(), counted[2]), (TRIES_MAX as usize, ("failed", 1)));
    let pauses: Vec<Duration> = batches.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    for (exponent, pause) in (0..).zip(&pauses) {
        let most = Duration::from_secs(1 << exponent);
        assert!(*pause >= most / 2 && *pause <= most + Duration::from_millis(2), "{pauses:?}");
    }
    let (told, counted) = exported(1, &[Err(Failure { may_pass: false })]).await;
    assert_eq!((told.batches.lock().unwrap().len(), counted[1]), (1, ("rejected", 1)), "a refusal is not repeated");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_sent_at_the_end_and_a_collector_that_is_down_holds_up_nothing() {
    let (tracer, queue) = tracer(Percentage::ALL, QUEUE_MAX);
    let told = Told::default();
    told.answers.lock().unwrap().extend([Err(Failure { may_pass: true }); 8]);
    let counts = Arc::clone(tracer.counts());
    let exporter = tokio::spawn(Exporter { collector: told.clone(), resource: resource(), counts: Arc::clone(&counts) }.run(queue));
    let began = Instant::now();
    tracer.begin(&Vec::<(String, String)>::new(), [1, 2, 3]).finish(&record(&somewhere("v1"), 200));
    drop(tracer);
    exporter.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((told.batches.lock().unwrap().len(), counts.all()[2]), (1, ("failed", 1)));
}
