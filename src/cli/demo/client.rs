//! Asks services of the mesh by name, through the sidecar beside the process.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Where the sidecar takes what its app asks of others; `leno up` sets it.
const OUTBOUND: &str = "LENO_OUTBOUND";

/// A client with one connection to the sidecar.
#[derive(Debug)]
pub struct Client {
    outbound: SocketAddr,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    /// A client that finds its sidecar in the environment.
    ///
    /// # Errors
    /// When the process was not started by `leno up`.
    pub fn from_env() -> anyhow::Result<Self> {
        let outbound = std::env::var(OUTBOUND).with_context(|| format!("{OUTBOUND} is not set: this command is started by `leno up`"))?;
        let outbound = outbound.parse().with_context(|| format!("{OUTBOUND}={outbound:?} is no address:port"))?;
        Ok(Self { outbound, connection: None })
    }

    /// The answer to GET `url`, with the status and the whole body.
    ///
    /// # Errors
    /// When the sidecar cannot be reached.
    pub async fn get(&mut self, url: &Uri, field: Option<(&str, &str)>) -> anyhow::Result<(StatusCode, String)> {
        let host = url.authority().context("the URL names no host")?.as_str();
        let mut request = Request::builder().method(Method::GET).uri(url).header(header::HOST, host);
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        let response = self.connection().await?.send_request(request.body(Empty::new())?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
    }

    /// The connection, a new one if the last has ended.
    async fn connection(&mut self) -> anyhow::Result<&mut SendRequest<Empty<Bytes>>> {
        let usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(self.outbound).await.with_context(|| format!("no sidecar at {}", self.outbound))?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(async move {
                // Its end is seen by the next request.
                let _ended = connection.await;
            });
            self.connection = Some(sender);
        }
        self.connection.as_mut().context("a connection was just made")
    }
}
