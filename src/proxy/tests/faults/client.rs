//! What one caller sees.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::peers::{self, grpc, patient, whole};
use crate::support::Peer;

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Get,
    Post,
    Unary,
    Stream,
}

impl Call {
    pub(crate) const ALL: [Self; 4] = [Self::Get, Self::Post, Self::Unary, Self::Stream];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST with body",
            Self::Unary => "gRPC unary",
            Self::Stream => "gRPC stream",
        }
    }

    /// Calls `address` and says what came: a status, a gRPC status, or how it was cut.
    pub(crate) fn make(self, address: SocketAddr, over_http2: bool) -> String {
        match self {
            Self::Get if !over_http2 => http1(address, "GET / HTTP/1.1\r\nHost: payment\r\n\r\n"),
            Self::Post if !over_http2 => http1(address, "POST / HTTP/1.1\r\nHost: payment\r\nContent-Length: 4\r\n\r\nbody"),
            Self::Get | Self::Post | Self::Unary | Self::Stream => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(patient(self.http2(address)))
            }
        }
    }

    async fn http2(self, address: SocketAddr) -> String {
        let client = peers::dial(address).await;
        let request = match self {
            Self::Get => peers::get("/"),
            Self::Post => peers::post("/"),
            Self::Unary | Self::Stream => grpc(),
        };
        let mut client = client.ready().await.unwrap();
        let (response, mut send) = client.send_request(request, self == Self::Get).unwrap();
        if self != Self::Get {
            // A stream stays open after its first message.
            send.send_data(Bytes::from_static(b"\0\0\0\0\x04body"), self != Self::Stream).unwrap();
        }
        let response = match response.await {
            Ok(response) => response,
            Err(error) => return cut(&error),
        };
        let status = response.status().as_u16();
        match whole(response).await {
            Ok(whole) if self == Self::Get || self == Self::Post => whole.status.as_u16().to_string(),
            Ok(whole) => match whole.grpc_status() {
                ("", _) => format!("{status} without grpc-status"),
                (code, _) => format!("grpc {code}"),
            },
            // Whether the head is seen before the reset is a matter of luck.
            Err(error) => cut(&error),
        }
    }
}

fn cut(error: &h2::Error) -> String {
    match error.reason() {
        Some(reason) if error.is_remote() => format!("cut by {reason:?}"),
        _ => panic!("the connection to the proxy broke: {error}"),
    }
}

fn http1(address: SocketAddr, request: &str) -> String {
    let mut client = Peer::dial(address);
    client.send(request);
    let Some(head) = client.head() else { return "cut".to_owned() };
    let status = head.split(' ').nth(1).unwrap().to_owned();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()).unwrap();
    if client.exactly(length).len() == length { status } else { "cut".to_owned() }
}
