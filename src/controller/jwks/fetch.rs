//! Fetching one key set: one GET, bounded in time and size, without redirects.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use leno_core::names::Name;
use leno_translate::jwks::{InvalidKeys, check};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a server may take for all of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest key set; those of large issuers have about 10 KiB.
const BYTES_MAX: usize = 256 * 1024;

/// Why there is no key set. The server's own words are left out: they would reach people who may not ask that server.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The URL cannot be used.
    #[error("the URL cannot be used: write https://HOST/PATH, or http:// for a server inside the cluster")]
    Url,
    /// Nothing answers there.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// No trust in the server.
    #[error("TLS failed: {0}")]
    Tls(#[source] std::io::Error),
    /// No HTTP.
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer within {} seconds", PATIENCE.as_secs())]
    Timeout,
    /// Another answer than 200.
    #[error("the server answered {0}{hint}", hint = if .0.is_redirection() { "; redirects are not followed, write the final URL" } else { "" })]
    Status(StatusCode),
    /// The body is too large, or breaks off.
    #[error("the answer has more than {} KiB or broke off", BYTES_MAX / 1024)]
    Body,
    /// No key set.
    #[error("{0}")]
    Keys(#[from] InvalidKeys),
}

/// Fetches key sets.
#[derive(Debug, Default)]
pub(super) struct Fetcher {
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Fetcher {
    /// The key set at `uri`, as text.
    pub(super) async fn fetch(&self, uri: &str) -> Result<Name, FetchError> {
        tokio::time::timeout(PATIENCE, self.ask(uri)).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn ask(&self, uri: &str) -> Result<Name, FetchError> {
        let uri: Uri = uri.parse().ok().ok_or(FetchError::Url)?;
        let host = uri.host().ok_or(FetchError::Url)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let default_port = match uri.scheme_str() {
            Some("https") => 443,
            Some("http") => 80,
            Some(_) | None => return Err(FetchError::Url),
        };
        let stream = TcpStream::connect((&*bare, uri.port_u16().unwrap_or(default_port))).await.map_err(FetchError::Connect)?;
        if default_port == 80 {
            return get(stream, &uri).await;
        }
        let name = ServerName::try_from(bare).ok().ok_or(FetchError::Url)?;
        let stream = TlsConnector::from(self.tls()).connect(name, stream).await.map_err(FetchError::Tls)?;
        get(stream, &uri).await
    }

    /// Servers are verified by the public certificate authorities.
    fn tls(&self) -> Arc<ClientConfig> {
        let build = || {
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            Arc::new(config.expect("the provider has the default versions").with_root_certificates(roots).with_no_client_auth())
        };
        Arc::clone(self.tls.get_or_init(build))
    }
}

async fn get(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, uri: &Uri) -> Result<Name, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, "leno-controller")
        .body(Empty::<Bytes>::new())
        .ok()
        .ok_or(FetchError::Url)?;
    let answer = read(sender.send_request(request).await).await;
    connection.abort();
    answer
}

async fn read(response: hyper::Result<hyper::Response<hyper::body::Incoming>>) -> Result<Name, FetchError> {
    let response = response?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), BYTES_MAX).collect().await.ok().ok_or(FetchError::Body)?.to_bytes();
    let text = std::str::from_utf8(&body).ok().ok_or(InvalidKeys::Shape)?;
    check(text)?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}]}"#;

    /// A server that gives one answer to one request; without an answer it stays silent.
    async fn server(answer: Option<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/keys?set=1", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            assert!(head.starts_with("GET /keys?set=1 HTTP/1.1\r\n") && head.contains("host: 127.0.0.1:"), "{head}");
            match answer {
                Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                None => std::future::pending().await,
            }
        });
        uri
    }

    fn ok(body: &str) -> Option<String> {
        Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    }

    #[tokio::test]
    async fn a_key_set_is_fetched_and_what_is_none_is_refused_in_words() {
        let huge = format!("{{\"keys\": [{}]}}", " ".repeat(BYTES_MAX));
        let moved = "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
        let cases = [
            ("good", ok(KEYS), Ok(KEYS)),
            ("garbage", ok("<html>"), Err("it is not a JSON Web Key Set")),
            ("no keys", ok("{\"keys\": []}"), Err("it has no public key")),
            ("huge", ok(&huge), Err("the answer has more than 256 KiB or broke off")),
            (
                "broken off",
                Some("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".into()),
                Err("the answer has more than 256 KiB or broke off"),
            ),
            ("moved", Some(moved.into()), Err("redirects are not followed")),
            (
                "error",
                Some("HTTP/1.1 500 Secret\r\ncontent-length: 6\r\n\r\nsecret".into()),
                Err("the server answered 500 Internal Server Error"),
            ),
            ("no HTTP", Some("SSH-2.0-x\r\n".into()), Err("the connection failed")),
        ];
        for (name, answer, expected) in cases {
            let uri = server(answer).await;
            match (Fetcher::default().fetch(&uri).await, expected) {
                (Ok(keys), Ok(expected)) => assert_eq!(&*keys, expected, "{name}"),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{name}: {error}"),
                (got, expected) => panic!("{name}: {got:?}, not {expected:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_given_up() {
        let uri = server(None).await;
        assert!(matches!(Fetcher::default().fetch(&uri).await, Err(FetchError::Timeout)));
    }

    #[tokio::test]
    async fn a_server_that_is_down_and_one_without_tls_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let down = Fetcher::default().fetch(&format!("http://{address}/")).await;
        assert!(matches!(down, Err(FetchError::Connect(_))), "{down:?}");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        });
        let plain = Fetcher::default().fetch(&format!("https://{address}/")).await;
        assert!(matches!(plain, Err(FetchError::Tls(_))), "{plain:?}");
        for bad in ["ftp://a/", "nonsense", "https:///"] {
            assert!(matches!(Fetcher::default().fetch(bad).await, Err(FetchError::Url)), "{bad}");
        }
    }
}
