//! Asks the controller to sign: one gRPC call over a connection of its own, with the workload's token.
//!
//! The connection shows no certificate: whoever has lost trust in the old one must still be able to get a new one.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use leno_xds::frame::{self, Decoder, FrameError};
use leno_xds::wire::leno::{SigningRequest, SigningResponse};
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::control::ControllerAddress;
use crate::control::connect::{ConnectError, connect, grpc};

/// How long one attempt may take, from connecting to the answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest token that is sent: far above those of Kubernetes, far below what HTTP/2 peers take in a header.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;
/// The longest answer that is read: several certificates and several roots.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// What a workload shows to be given a certificate.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// A file, read for each request: Kubernetes renews projected tokens in place.
    File(PathBuf),
    /// The token itself.
    Text(String),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text"),
        }
    }
}

/// Why no certificate was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The token's file cannot be read.
    #[error("the workload's token cannot be read from {path:?}: {source}; LENO_TOKEN_FILE names the file, the injector mounts it")]
    TokenUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds nothing that can be sent.
    #[error(
        "the workload's token is empty, longer than {TOKEN_BYTES_MAX} bytes or no line of text; LENO_TOKEN_FILE must name a file with a token"
    )]
    TokenUnusable,
    /// The controller cannot be reached.
    #[error("the controller cannot be asked for a certificate: {0}; is leno-controller running, and LENO_CONTROL_ADDRESS right?")]
    Connect(#[from] ConnectError),
    /// It takes too long.
    #[error("the controller did not answer within {ATTEMPT_TIMEOUT:?}; is leno-controller running, and LENO_CONTROL_ADDRESS right?")]
    Timeout,
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// HTTP/2 failed in between.
    #[error("the controller's answer broke off: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its answer is none.
    #[error("the controller's answer cannot be read: {0}")]
    Frame(#[from] FrameError),
    /// Its answer is none.
    #[error("the controller's answer cannot be read: {0}")]
    Message(#[from] prost::DecodeError),
}

/// What the controller said instead of signing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the controller signs no certificate (HTTP {http}, grpc-status {grpc:?}): {message:?}; {advice}", advice = self.advice())]
pub struct Refusal {
    /// The HTTP status.
    pub http: u16,
    /// The status of gRPC; `None` when it said none.
    pub grpc: Option<u8>,
    /// Its words.
    pub message: String,
}

impl Refusal {
    fn advice(&self) -> &'static str {
        match self.grpc {
            Some(16) => "the token must be a service account token of this cluster with the audience leno.dev that has not expired",
            Some(7) => "certificates are for the pod the token was made for, as long as it exists: recreate the pod",
            Some(3) => "proxy and controller differ in what a request is: bring both to the same version",
            Some(8) => "too many requests at once; the proxy asks again by itself",
            Some(14) => "the controller cannot sign at the moment; its log says why, and the proxy asks again by itself",
            _ => "is LENO_CONTROL_ADDRESS the address of a leno-controller of this version?",
        }
    }

    fn of(http: u16, fields: &HeaderMap) -> Self {
        let text = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let message = text("grpc-message").unwrap_or_default().to_owned();
        Self { http, grpc: text("grpc-status").and_then(|status| status.parse().ok()), message }
    }
}

impl SignError {
    /// The label in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TokenUnreadable { .. } | Self::TokenUnusable => "token-unreadable",
            Self::Connect(_) | Self::Timeout | Self::Body(_) => "unreachable",
            Self::Refused(Refusal { grpc: Some(16), .. }) => "token-refused",
            Self::Refused(Refusal { grpc: Some(7), .. }) => "not-allowed",
            Self::Refused(Refusal { grpc: Some(8), .. }) => "rate-limited",
            Self::Refused(Refusal { grpc: Some(14), .. }) => "not-now",
            Self::Refused(_) => "refused",
            Self::Frame(_) | Self::Message(_) => "bad-answer",
        }
    }
}

/// Who signs.
pub trait Signer {
    /// Signs the request `csr`, DER.
    fn sign(&self, csr: &[u8]) -> impl Future<Output = Result<SigningResponse, SignError>> + Send;
}

/// The controller.
pub struct Controller {
    /// Where it is.
    pub address: ControllerAddress,
    /// What the workload shows it.
    pub token: Token,
}

impl Signer for Controller {
    async fn sign(&self, csr: &[u8]) -> Result<SigningResponse, SignError> {
        let bearer = self.token.bearer().await?;
        let asked = timeout(ATTEMPT_TIMEOUT, self.ask(bearer, SigningRequest { csr: Bytes::copy_from_slice(csr) }));
        asked.await.map_err(|_elapsed| SignError::Timeout)?
    }
}

impl Controller {
    async fn ask(&self, bearer: HeaderValue, request: SigningRequest) -> Result<SigningResponse, SignError> {
        let mut sender = connect(&self.address, &self.address.tls).await?;
        let request = grpc(&self.address, leno_xds::SIGN_PATH)
            .header(header::AUTHORIZATION, bearer)
            .body(Full::new(frame::encode(&request)))
            .expect("the parts are constants, a checked token and an address that was connected to");
        let response = sender.send_request(request).await.map_err(ConnectError::from)?;
        read(response).await
    }
}

/// The message in a response, or why there is none.
async fn read(response: Response<Incoming>) -> Result<SigningResponse, SignError> {
    let (head, body) = response.into_parts();
    let http = head.status.as_u16();
    if http != 200 || head.headers.contains_key("grpc-status") {
        return Err(Refusal::of(http, &head.headers).into());
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(SignError::Body)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    if trailers.get("grpc-status").is_none_or(|status| status != "0") {
        return Err(Refusal::of(http, &trailers).into());
    }
    let mut decoder = Decoder::new(ANSWER_BYTES_MAX);
    decoder.push(&body.to_bytes());
    Ok(SigningResponse::decode(decoder.next()?.ok_or(FrameError::Truncated)?)?)
}

impl Token {
    /// The value of the `authorization` field, marked as not to be shown.
    async fn bearer(&self) -> Result<HeaderValue, SignError> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::File(path) => read_token(path).await.map_err(|source| SignError::TokenUnreadable { path: path.clone(), source })?,
        };
        let token = text.trim();
        let length = u64::try_from(token.len()).unwrap_or(u64::MAX);
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_invalid| SignError::TokenUnusable)?;
        value.set_sensitive(true);
        if token.is_empty() || length > TOKEN_BYTES_MAX { Err(SignError::TokenUnusable) } else { Ok(value) }
    }
}

/// At most one byte more than a token may have.
async fn read_token(path: &std::path::Path) -> std::io::Result<String> {
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text).await?;
    Ok(text)
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("address", &self.address.address).field("token", &self.token).finish()
    }
}

#[cfg(test)]
mod tests;
