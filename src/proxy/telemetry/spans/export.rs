//! Sending: spans in batches, as they come; pauses that grow where the collector does not take them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout_at};

use super::attributes::Resource;
use super::counts::Counts;
use super::finished::Finished;
use super::otlp::ExportTraceServiceRequest;

/// Spans of one request to the collector: far below the 4 MiB that gRPC servers take.
pub(super) const BATCH_MAX: usize = 512;
/// How long the first span of a batch waits for others.
pub(super) const GATHER: Duration = Duration::from_secs(1);
/// How often a batch is sent, at most.
pub(super) const TRIES_MAX: u32 = 5;
/// The first pause after a failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Who takes spans.
pub(super) trait Export {
    /// Why they are not taken.
    type Error: ExportError;

    /// Sends them; gives how many were rejected.
    fn export(&mut self, spans: &ExportTraceServiceRequest) -> impl Future<Output = Result<u64, Self::Error>> + Send;
}

/// Why spans were not taken.
pub(super) trait ExportError: Error {
    /// Whether the same spans may be taken later.
    fn may_pass(&self) -> bool;
}

/// What sends the spans of one proxy.
pub(super) struct Exporter<C> {
    pub(super) collector: C,
    pub(super) resource: Resource,
    pub(super) counts: Arc<Counts>,
}

impl<C: Export> Exporter<C> {
    /// Sends what comes until nobody is left that could send more, and nothing is left.
    pub(super) async fn run(mut self, mut queue: Receiver<Finished>) {
        let mut pause = PAUSE_MIN;
        let mut batch = Vec::new();
        while gather(&mut queue, &mut batch).await {
            pause = self.send(&batch, pause, &queue).await;
            batch.clear();
        }
    }

    /// Sends a batch, or gives it up. Takes and gives the pause after the next failure.
    async fn send(&mut self, batch: &[Finished], mut pause: Duration, queue: &Receiver<Finished>) -> Duration {
        let request = self.resource.request(batch);
        for tries in 1.. {
            let error = match self.collector.export(&request).await {
                Ok(rejected) => {
                    self.counts.exported(batch.len(), rejected);
                    return PAUSE_MIN;
                }
                Err(error) => error,
            };
            if !error.may_pass() {
                tracing::warn!(%error, spans = batch.len(), "the collector refuses spans");
                self.counts.rejected(batch.len());
                return PAUSE_MIN;
            }
            tracing::warn!(%error, spans = batch.len(), "spans cannot be sent to the collector");
            // At the end nobody waits for a collector that comes back.
            if tries == TRIES_MAX || queue.is_closed() {
                break;
            }
            // Half of it is random, so that a collector that comes back is not met by all proxies at once.
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.counts.failed(batch.len());
        pause
    }
}

/// Waits for spans and those that come shortly after; `false` when there will be none any more.
async fn gather(queue: &mut Receiver<Finished>, batch: &mut Vec<Finished>) -> bool {
    if queue.recv_many(batch, BATCH_MAX).await == 0 {
        return false;
    }
    let end = Instant::now() + GATHER;
    while batch.len() < BATCH_MAX {
        let room = BATCH_MAX - batch.len();
        match timeout_at(end, queue.recv_many(batch, room)).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    true
}
