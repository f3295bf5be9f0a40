//! A connection to the controller: TCP, TLS, HTTP/2.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use hyper::body::Body;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;

use super::ControllerAddress;

/// A dead peer is found out within these two.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP or TLS failed.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// HTTP/2 failed.
    #[error("HTTP/2 failed: {0}")]
    Http(#[from] hyper::Error),
}

/// Connects with `tls`. The connection lives as long as what is given, or as long as the controller wants.
pub(crate) async fn connect<B>(controller: &ControllerAddress, tls: &Arc<ClientConfig>) -> Result<SendRequest<B>, ConnectError>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(&controller.address).await?;
    stream.set_nodelay(true)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(controller.name.clone(), stream).await?;
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "control connection ended");
        }
    });
    Ok(sender)
}

/// The head of a gRPC request for `path`.
pub(crate) fn grpc(controller: &ControllerAddress, path: &str) -> http::request::Builder {
    Request::post(format!("https://{}{path}", controller.address))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
}
