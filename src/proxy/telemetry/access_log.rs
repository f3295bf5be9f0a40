//! The access log: one JSON object per line on standard output, written by a thread of its own.
//!
//! Workers hand over whole chunks of lines; when the reader of standard output is too slow, chunks are dropped and counted, never
//! waited for.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::recorder::TcpRecord;
use super::series::Counter;
use super::{Access, Destination, Origin, RequestRecord};
use crate::tls::Secured;

/// Which requests are logged (`LENO_ACCESS_LOG`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogMode {
    /// None.
    Off,
    /// Those that ended with 5xx, that the proxy itself answered or gave up, or that an Audit policy would have refused.
    #[default]
    Errors,
    /// Every one.
    All,
}

/// The text names no mode.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("access log mode {0:?} is not known: write all, errors or off")]
pub struct InvalidMode(String);

impl FromStr for AccessLogMode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        match text {
            "off" => Ok(Self::Off),
            "errors" => Ok(Self::Errors),
            "all" => Ok(Self::All),
            other => Err(InvalidMode(other.to_owned())),
        }
    }
}

/// Chunks that may wait for the writer.
const CHUNKS_WAITING_MAX: usize = 64;
/// A chunk is handed over when it is this long, or after [`FLUSH_AFTER`].
const CHUNK_BYTES: usize = 32 * 1024;
/// How long a line may wait in its worker.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// The writer's end: shared by all workers.
#[derive(Clone, Debug)]
pub struct LogSink(SyncSender<Vec<u8>>);

impl LogSink {
    /// Starts the thread that writes to `output`. It ends when every sink and log is gone.
    pub fn start(mut output: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<Vec<u8>>(CHUNKS_WAITING_MAX);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            while let Ok(chunk) = receiver.recv() {
                if output.write_all(&chunk).and_then(|()| output.flush()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self(sender))
    }
}

/// One worker's access log.
pub struct AccessLog {
    mode: AccessLogMode,
    source: leno_core::names::Name,
    buffer: Rc<RefCell<Vec<u8>>>,
    sink: LogSink,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    direction: &'static str,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Where the reason comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    /// Why there was no further try though a policy asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_retry: Option<&'static str>,
    peer: std::net::SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cipher: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_group: Option<&'static str>,
    bytes_in: u64,
    bytes_out: u64,
    duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_deny: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
}

impl AccessLog {
    /// A worker's log; `None` when nothing is to be logged. `source` is the workload's name.
    pub fn new(mode: AccessLogMode, source: leno_core::names::Name, sink: LogSink) -> Option<Self> {
        (mode != AccessLogMode::Off).then(|| Self { mode, source, buffer: Rc::default(), sink })
    }

    pub(super) fn request(&self, record: &RequestRecord<'_>, dropped: &Counter) {
        let failed = record.reason.is_some() || record.access.would_deny.is_some() || record.status >= 500 || record.status == 0;
        if self.mode == AccessLogMode::Errors && !failed {
            return;
        }
        let line = Line {
            method: record.method,
            authority: record.authority,
            path: record.path,
            status: Some(record.status).filter(|status| *status != 0),
            grpc_status: record.grpc_status,
            tries: Some(record.tried.tries).filter(|tries| *tries > 0),
            no_retry: record.tried.stopped(),
            request_id: record.request_id,
            ..self.line(record.direction.as_str(), record.spoken.as_str(), record.destination, record.access, (record.peer, record.secured))
        };
        let (reason, upstream, bytes_in, bytes_out) = (record.reason, record.upstream, record.bytes_in, record.bytes_out);
        let origin = reason.map(|reason| Origin::of(reason).as_str());
        self.write(&Line { reason, origin, upstream, bytes_in, bytes_out, duration_us: micros(record.duration), ..line }, dropped);
    }

    pub(super) fn tcp(&self, record: &TcpRecord<'_>, dropped: &Counter) {
        if self.mode == AccessLogMode::Errors && record.reason.is_none() && record.access.would_deny.is_none() {
            return;
        }
        let line = self.line(
            record.direction.as_str(),
            super::Spoken::Tcp.as_str(),
            record.destination,
            record.access,
            (record.peer, record.secured),
        );
        let (reason, upstream, bytes_in, bytes_out) = (record.reason, record.upstream, record.bytes_in, record.bytes_out);
        let origin = reason.map(|reason| Origin::of(reason).as_str());
        self.write(&Line { reason, origin, upstream, bytes_in, bytes_out, duration_us: micros(record.duration), ..line }, dropped);
    }

    fn line<'a>(
        &'a self,
        direction: &'static str,
        protocol: &'static str,
        destination: &'a Destination,
        access: Access<'a>,
        (peer, secured): (std::net::SocketAddr, Option<&Secured>),
    ) -> Line<'a> {
        Line {
            time: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            direction,
            source: &self.source,
            destination: destination.service.as_ref().map(ToString::to_string),
            version: destination.version.as_deref(),
            route: destination.route.as_deref(),
            protocol,
            method: "",
            authority: "",
            path: "",
            status: None,
            grpc_status: None,
            reason: None,
            origin: None,
            tries: None,
            no_retry: None,
            peer,
            upstream: None,
            source_identity: secured.map(|secured| secured.source.to_string()),
            destination_identity: secured.map(|secured| secured.destination.to_string()),
            tls_version: secured.map(|secured| secured.agreed.version()),
            tls_cipher: secured.map(|secured| secured.agreed.cipher()),
            tls_group: secured.map(|secured| secured.agreed.group()),
            bytes_in: 0,
            bytes_out: 0,
            duration_us: 0,
            request_id: "",
            policy: access.policy.map(|policy| &**policy),
            would_deny: access.would_deny.map(|policy| &**policy),
        }
    }

    fn write(&self, line: &Line<'_>, dropped: &Counter) {
        let mut buffer = self.buffer.borrow_mut();
        let first = buffer.is_empty();
        let start = buffer.len();
        if serde_json::to_writer(&mut *buffer, line).is_err() {
            buffer.truncate(start);
            dropped.add(1);
            return;
        }
        buffer.push(b'\n');
        if buffer.len() >= CHUNK_BYTES {
            drop(buffer);
            hand_over(&self.buffer, &self.sink, dropped);
        } else if first {
            drop(buffer);
            let (buffer, sink) = (Rc::clone(&self.buffer), self.sink.clone());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(FLUSH_AFTER).await;
                hand_over(&buffer, &sink, &Counter::default());
            });
        }
    }
}

fn hand_over(buffer: &RefCell<Vec<u8>>, sink: &LogSink, dropped: &Counter) {
    let chunk = std::mem::take(&mut *buffer.borrow_mut());
    if chunk.is_empty() {
        return;
    }
    match sink.0.try_send(chunk) {
        Ok(()) => {}
        Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => {
            dropped.add(chunk.iter().filter(|byte| **byte == b'\n').count() as u64);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Registry;
    use crate::telemetry::test_support::{record, somewhere};

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

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn errors_mode_writes_failed_requests_only_and_each_line_is_json() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sink = LogSink::start(Pipe(sender)).unwrap();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let registry = Registry::default();
                let recorder = registry.recorder(AccessLog::new(AccessLogMode::Errors, "web".into(), sink));
                recorder.request(&record(&somewhere("v1"), 200));
                recorder.request(&record(&somewhere("v1"), 503));
                tokio::time::sleep(FLUSH_AFTER * 2).await;
            })
            .await;
        let chunk = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(!String::from_utf8_lossy(&chunk).contains("identity"), "nobody is proven on a plain connection");
        let line: serde_json::Value = serde_json::from_slice(&chunk).expect("one line only");
        assert_eq!((&line["status"], &line["destination"]), (&503.into(), &"shop/payment".into()));
        assert_eq!(line["path"], "/a\"b");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_line_names_both_ends_of_a_mutual_tls_connection_and_what_they_agreed_on() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sink = LogSink::start(Pipe(sender)).unwrap();
        let identity = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}");
        let secured = Secured {
            source: identity("web").parse().unwrap(),
            destination: identity("payment").parse().unwrap(),
            agreed: crate::tls::Agreed {
                version: rustls::ProtocolVersion::TLSv1_3,
                cipher: rustls::CipherSuite::TLS13_AES_256_GCM_SHA384,
                group: rustls::NamedGroup::X25519MLKEM768,
                is_resumed: false,
            },
        };
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let registry = Registry::default();
                let recorder = registry.recorder(AccessLog::new(AccessLogMode::All, "web".into(), sink));
                let destination = somewhere("v1");
                recorder.request(&RequestRecord { secured: Some(&secured), ..record(&destination, 200) });
                tokio::time::sleep(FLUSH_AFTER * 2).await;
            })
            .await;
        let chunk = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&chunk).expect("one line only");
        assert_eq!((&line["source_identity"], &line["destination_identity"]), (&identity("web").into(), &identity("payment").into()));
        let tls = ["tls_version", "tls_cipher", "tls_group"].map(|field| line[field].as_str().unwrap());
        assert_eq!(tls, ["TLSv1_3", "TLS13_AES_256_GCM_SHA384", "X25519MLKEM768"]);
    }
}
