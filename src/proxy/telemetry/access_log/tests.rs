//! Lines as they are written: which, and what they say.

use leno_core::access_log::Field;

use super::*;
use crate::telemetry::Registry;
use crate::telemetry::test_support::{record, somewhere};
use crate::telemetry::{Access, Recorder, Retried, Tried, Went};
use crate::tls::Secured;

struct Pipe(std::sync::mpsc::Sender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a log with these settings writes of what `happens`.
async fn written(settings: LogSettings, happens: impl FnOnce(&Recorder)) -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sink = LogSink::start(Pipe(sender)).unwrap();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let registry = Registry::default();
            happens(&registry.recorder(AccessLog::new(settings, "web".into(), sink)));
            tokio::time::sleep(FLUSH_AFTER * 2).await;
        })
        .await;
    // The writing thread ends with the last sink, and its end of the pipe with it.
    String::from_utf8(receiver.iter().flatten().collect()).unwrap()
}

fn secured() -> Secured {
    let identity = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}");
    Secured {
        source: identity("web").parse().unwrap(),
        destination: identity("payment").parse().unwrap(),
        agreed: crate::tls::Agreed {
            version: rustls::ProtocolVersion::TLSv1_3,
            cipher: rustls::CipherSuite::TLS13_AES_256_GCM_SHA384,
            group: rustls::NamedGroup::X25519MLKEM768,
            is_resumed: false,
        },
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn errors_mode_writes_failed_requests_only_and_each_line_is_json() {
    let log = written(AccessLogMode::Errors.into(), |recorder| {
        recorder.request(&record(&somewhere("v1"), 200));
        recorder.request(&record(&somewhere("v1"), 503));
    });
    let log = log.await;
    assert!(!log.contains("identity"), "nobody is proven on a plain connection");
    let line: serde_json::Value = serde_json::from_str(&log).expect("one line only");
    assert_eq!((&line["status"], &line["destination"]), (&503.into(), &"shop/payment".into()));
    assert_eq!(line["path"], "/a\"b");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_line_names_both_ends_of_a_mutual_tls_connection_and_what_they_agreed_on() {
    let (secured, destination) = (secured(), somewhere("v1"));
    let log = written(AccessLogMode::All.into(), |recorder| {
        recorder.request(&RequestRecord { secured: Some(&secured), ..record(&destination, 200) });
    });
    let line: serde_json::Value = serde_json::from_str(&log.await).expect("one line only");
    let ends = (&line["source_identity"], &line["destination_identity"]);
    assert_eq!(ends, (&secured.source.to_string().into(), &secured.destination.to_string().into()));
    let tls = ["tls_version", "tls_cipher", "tls_group"].map(|field| line[field].as_str().unwrap());
    assert_eq!(tls, ["TLSv1_3", "TLS13_AES_256_GCM_SHA384", "X25519MLKEM768"]);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_share_of_the_good_requests_is_written_and_every_failed_one() {
    const EACH: usize = 2000;
    let settings = LogSettings { share: "25".parse().unwrap(), ..AccessLogMode::All.into() };
    let log = written(settings, |recorder| {
        for _ in 0..EACH {
            recorder.request(&record(&somewhere("v1"), 200));
            recorder.request(&record(&somewhere("v1"), 503));
        }
    });
    let log = log.await;
    let count = |status: &str| log.lines().filter(|line| line.contains(status)).count();
    assert_eq!(count("\"status\":503"), EACH);
    // 25 % of 2000, and ten times its standard deviation around it.
    assert!((300..700).contains(&count("\"status\":200")), "{}", count("\"status\":200"));
}

/// A request of which everything is known.
fn whole<'a>(destination: &'a super::super::Destination, secured: &'a Secured, policy: &'a leno_core::names::Name) -> RequestRecord<'a> {
    RequestRecord {
        grpc_status: Some(14),
        tried: Tried { tries: 2, retry_safe: false, retried: STOPPED },
        upstream: Some(([127, 0, 0, 1], 2).into()),
        secured: Some(secured),
        access: Access { policy: Some(policy), would_deny: Some(policy) },
        ..record(destination, 503)
    }
}

const STOPPED: &[Retried] = &[Retried { reason: leno_core::retry::Reason::Reset, went: Went::Stopped(leno_core::retry::Stop::Method) }];

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn templates_have_the_names_and_the_values_of_json() {
    let (destination, secured, policy) = (somewhere("v1"), secured(), "p".into());
    let trace = crate::telemetry::spans::testing();
    let whole = RequestRecord { trace: Some(&trace), ..whole(&destination, &secured, &policy) };
    let json = written(AccessLogMode::All.into(), |recorder| recorder.request(&whole)).await;
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
    let names: std::collections::BTreeSet<&str> = line.keys().map(String::as_str).collect();
    assert_eq!(names, Field::ALL.iter().map(|field| field.as_str()).collect(), "{json}");
    for field in Field::ALL.iter().filter(|field| **field != Field::Time) {
        let format = format!("[%{{{}}}]", field.as_str()).parse().unwrap();
        let log = written(LogSettings { format, ..AccessLogMode::All.into() }, |recorder| recorder.request(&whole)).await;
        let value = &line[field.as_str()];
        let value = value.as_str().map_or_else(|| value.to_string(), |text| text.replace('"', "\\\""));
        assert_eq!(log, format!("[{value}]\n"));
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn what_has_no_value_is_a_dash_and_no_client_ends_a_line_or_a_quotation() {
    let destination = somewhere("v1");
    let format = r#""%{method} %{path}" %{status} %{upstream} %{policy} "%{request_id}""#.parse().unwrap();
    let log = written(LogSettings { format, ..AccessLogMode::All.into() }, |recorder| {
        recorder.request(&RequestRecord { request_id: "a\"\\\n\u{9b}b", ..record(&destination, 0) });
    });
    assert_eq!(log.await, "\"GET /a\\\"b\" - - - \"a\\\"\\\\\\x0a\\x9bb\"\n");
}
