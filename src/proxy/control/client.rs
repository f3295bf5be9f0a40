//! The control thread's main task: keeps the stream to the controller open and passes on what it brings.
//!
//! gRPC over HTTP/2 over TLS, with the proxy's certificate where it has an identity: then the stream waits for the first one. A lost
//! stream is opened again after a pause that grows with each failure; what is held serves in the
//! meantime, and the next stream resumes where the last ended.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use leno_core::names::WorkloadId;
use leno_xds::client::{ClientError, Event, MESSAGE_BYTES_MAX};
use leno_xds::frame::{Decoder, FrameError};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert as _;
use rustls_pki_types::ServerName;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::{ConnectError, connect, grpc};
use super::held::{Held, Told};
use super::{Ask, Update};
use crate::admin::Readiness;
use crate::identity::keeper::{Granted, Heard};
use crate::identity::presented::Presented;

/// How long the controller may take to accept a connection and finish the handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause after a lost stream; each failure doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A stream that lasted this long was a good one: the next pause is the first again.
const STREAM_GOOD_AFTER: Duration = Duration::from_secs(10);
/// The gRPC status of a caller who has not shown who it is.
const UNAUTHENTICATED: &str = "16";

/// Where the controller is and how it proves to be the one.
#[derive(Clone)]
pub struct ControllerAddress {
    /// `host:port`, looked up anew for each connection.
    pub address: String,
    /// The name its certificate must carry.
    pub name: ServerName<'static>,
    /// The roots that may have signed it.
    pub tls: Arc<ClientConfig>,
}

/// The control thread's ends of all channels.
pub struct Control {
    /// Whose proxy this is.
    pub own: WorkloadId,
    /// Where the controller is.
    pub controller: ControllerAddress,
    /// What each worker is told.
    pub updates: Vec<UnboundedSender<Update>>,
    /// What each worker asks.
    pub asks: Vec<UnboundedReceiver<Ask>>,
    /// Set once the controller has said what this proxy is.
    pub readiness: watch::Sender<Readiness>,
    /// Whether the stream is up.
    pub connected: watch::Sender<bool>,
    /// How it comes by certificates; `None` for a proxy without an identity.
    pub identity: Option<IdentityEnds>,
}

/// The control stream's ends of what it and the keeper of the certificate say to each other.
pub struct IdentityEnds {
    /// To the keeper.
    pub heard: UnboundedSender<Heard>,
    /// From the keeper.
    pub granted: UnboundedReceiver<Granted>,
    /// The certificate that the stream shows.
    pub presented: Arc<Presented>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no connection within {CONNECT_TIMEOUT:?}")]
    Timeout,
    #[error("the controller accepts connections and closes them without an answer; its log says why: {0}")]
    Unanswered(#[source] hyper::Error),
    #[error("HTTP/2 failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the controller answered {status}, grpc-status {grpc:?}: {message:?}")]
    Refused { status: u16, grpc: Option<String>, message: Option<String> },
    #[error("the controller's messages cannot be read: {0}")]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Protocol(#[from] ClientError),
    #[error("the controller ended the stream")]
    Ended,
}

impl StreamError {
    /// Whether the certificate that was shown may be why.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Unanswered(_) => true,
            Self::Refused { grpc, .. } => grpc.as_deref() == Some(UNAUTHENTICATED),
            Self::Connect(_) | Self::Timeout | Self::Http(_) | Self::Frame(_) | Self::Protocol(_) | Self::Ended => false,
        }
    }
}

type Requests = UnboundedSender<Result<Frame<Bytes>, std::convert::Infallible>>;

impl Control {
    /// Runs until every worker is gone.
    pub async fn run(mut self) {
        let mut held = Held::new(&self.own, self.updates.len());
        let mut pause = PAUSE_MIN;
        loop {
            if self.certified(&mut held).await.is_none() {
                return;
            }
            let began = Instant::now();
            let Err(error) = self.stream(&mut held).await else { return };
            held.subscriptions.disconnected();
            self.set_connected(false);
            self.say(if error.is_refusal() { Heard::Refused } else { Heard::Down });
            if began.elapsed() > STREAM_GOOD_AFTER {
                pause = PAUSE_MIN;
            }
            tracing::warn!(%error, controller = self.controller.address, retry_in = ?pause, "control stream lost; serving what is known");
            // Half of the pause is random, so that a restarted controller is not met by all proxies at once.
            let wait = tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0));
            if self.while_asked(&mut held, wait).await.is_none() {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One stream, from connecting to its end. `Ok` when the workers are gone.
    async fn stream(&mut self, held: &mut Held) -> Result<(), StreamError> {
        let controller = self.controller.clone();
        let opening = timeout(CONNECT_TIMEOUT, open(&controller));
        let Some(opened) = self.while_asked(held, opening).await else { return Ok(()) };
        let (requests, head) = opened.map_err(|_elapsed| StreamError::Timeout)??;
        held.subscriptions.connected();
        flush(held, &requests)?;
        let Some(response) = self.while_asked(held, head).await else { return Ok(()) };
        let response = response.map_err(StreamError::Unanswered)?;
        refused(&response)?;
        self.set_connected(true);
        self.say(Heard::Up);
        let mut reading = Reading { body: response.into_body(), decoder: Decoder::new(MESSAGE_BYTES_MAX) };
        loop {
            flush(held, &requests)?;
            let answer_by = held.subscriptions.answer_by();
            let message = tokio::select! {
                message = reading.next() => message?,
                () = sleep_until(answer_by.map_or_else(Instant::now, Instant::from_std)), if answer_by.is_some() => continue,
                word = self.next_word() => {
                    let Some(word) = word else { return Ok(()) };
                    self.hear(held, word);
                    continue;
                }
            };
            for event in held.subscriptions.receive(message, Instant::now().into_std())? {
                if let Event::Trust(trust) = &event {
                    self.say(Heard::Trust(Arc::clone(trust)));
                }
                let told = held.take(event);
                self.tell(told);
            }
            self.look_ready(held);
        }
    }

    /// Waits until there is a certificate to show, where the proxy has an identity. `None` when the workers are gone.
    async fn certified(&mut self, held: &mut Held) -> Option<()> {
        while self.identity.as_ref().is_some_and(|identity| !identity.presented.has_certs()) {
            let word = self.next_word().await?;
            self.hear(held, word);
        }
        Some(())
    }

    fn hear(&mut self, held: &mut Held, word: Word) {
        match word {
            Word::Ask(worker, ask) => self.tell(held.ask(worker, ask)),
            Word::Granted(Granted { credentials, trust }) => {
                self.tell(trust.and_then(|trust| held.adopt(trust)));
                held.subscriptions.holds_certificate(credentials.held.clone());
                held.certified = true;
                self.tell([Told::All(Update::Credentials(credentials))]);
                self.look_ready(held);
            }
        }
    }

    /// The proxy is ready once it knows what it is and, where it has an identity, can prove it.
    fn look_ready(&self, held: &Held) {
        if held.knows_itself() && (self.identity.is_none() || held.certified) {
            self.readiness
                .send_if_modified(|state| *state == Readiness::Waiting && std::mem::replace(state, Readiness::Ready) != Readiness::Ready);
        }
    }

    /// Tells the keeper of the certificate.
    fn say(&self, heard: Heard) {
        if let Some(identity) = &self.identity
            && identity.heard.send(heard).is_err()
        {
            tracing::error!("the task that renews the certificate has ended");
        }
    }

    /// What `work` gives, while asks are noted; `None` when the workers are gone.
    async fn while_asked<T>(&mut self, held: &mut Held, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                word = self.next_word() => {
                    let word = word?;
                    self.hear(held, word);
                }
            }
        }
    }

    fn set_connected(&self, up: bool) {
        let changed = self.connected.send_if_modified(|state| std::mem::replace(state, up) != up);
        if changed {
            self.tell([Told::All(Update::Connected(up))]);
            tracing::info!(up, "control stream");
        }
    }

    /// A worker that has ended is not told any more.
    fn tell(&self, told: impl IntoIterator<Item = Told>) {
        for told in told {
            match told {
                Told::All(update) => self.updates.iter().for_each(|worker| drop(worker.send(update.clone()))),
                Told::One(worker, update) => drop(self.updates[worker].send(update)),
            }
        }
    }
}

/// What the task is told by others in this process.
enum Word {
    Ask(usize, Ask),
    Granted(Granted),
}

impl Control {
    /// The next ask of any worker, or a certificate; `None` when all workers have ended.
    async fn next_word(&mut self) -> Option<Word> {
        poll_fn(|cx| {
            if let Some(identity) = &mut self.identity
                && let Poll::Ready(Some(granted)) = identity.granted.poll_recv(cx)
            {
                return Poll::Ready(Some(Word::Granted(granted)));
            }
            let mut open = false;
            for (worker, receiver) in self.asks.iter_mut().enumerate() {
                match receiver.poll_recv(cx) {
                    Poll::Ready(Some(ask)) => return Poll::Ready(Some(Word::Ask(worker, ask))),
                    Poll::Ready(None) => {}
                    Poll::Pending => open = true,
                }
            }
            if open { Poll::Pending } else { Poll::Ready(None) }
        })
        .await
    }
}

/// The controller's side of the stream.
struct Reading {
    body: Incoming,
    decoder: Decoder,
}

impl Reading {
    /// The next message. Safe to drop between polls: nothing read is lost.
    async fn next(&mut self) -> Result<Bytes, StreamError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            let frame = self.body.frame().await.ok_or(StreamError::Ended)??;
            if let Some(data) = frame.data_ref() {
                self.decoder.push(data);
            } else if let Some(trailers) = frame.trailers_ref() {
                return Err(status_error(200, trailers));
            }
        }
    }
}

/// Writes everything there is to say now, in one piece: the controller then reads it at once.
fn flush(held: &mut Held, requests: &Requests) -> Result<(), StreamError> {
    let (now, mut piece) = (Instant::now().into_std(), BytesMut::new());
    while let Some(message) = held.subscriptions.next_request(now) {
        piece.extend_from_slice(&message);
    }
    if piece.is_empty() {
        return Ok(());
    }
    requests.send(Ok(Frame::data(piece.freeze()))).map_err(|_closed| StreamError::Ended)
}

/// An error where the response's head says that there will be no stream.
fn refused(response: &Response<Incoming>) -> Result<(), StreamError> {
    let status = response.status().as_u16();
    if status != 200 || response.headers().contains_key("grpc-status") {
        return Err(status_error(status, response.headers()));
    }
    Ok(())
}

fn status_error(status: u16, headers: &http::HeaderMap) -> StreamError {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).map(str::to_owned);
    StreamError::Refused { status, grpc: text("grpc-status"), message: text("grpc-message") }
}

/// Connects and sends the request's head; gives where to write and what the response will be.
async fn open(
    controller: &ControllerAddress,
) -> Result<(Requests, impl Future<Output = hyper::Result<Response<Incoming>>> + use<>), StreamError> {
    let mut sender = connect(controller, &controller.tls).await.map_err(|error| match error {
        ConnectError::Http(error) => StreamError::Unanswered(error),
        ConnectError::Connect(_) => error.into(),
    })?;
    let (requests, mut receiver) = unbounded_channel();
    let body = StreamBody::new(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    let request = grpc(controller, leno_xds::METHOD_PATH).body(body).expect("the parts are constants and an address that was connected to");
    Ok((requests, sender.send_request(request)))
}
