//! What is not a plain HTTP/1.1 request.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::apps;
use crate::client::Client;
use crate::harness::{Mesh, service, workload};

fn protocol(service: &str, protocol: &str) -> String {
    format!(
        "---\napiVersion: leno.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: {service}, namespace: shop}}\nspec:\n  ports: [{{port: 80, protocol: {protocol}}}]\n"
    )
}

#[test]
fn a_websocket_is_carried_after_the_upgrade() {
    let mesh = Mesh::up(&[service("chat"), workload("chat-1", "chat", "v1", apps::upgrading())].concat());
    let mut client = Client::to(mesh.service("shop/chat", 80));
    client.send("GET /ws HTTP/1.1\r\nhost: chat\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
    for number in 0..100 {
        client.send(&format!("frame {number}\n"));
        assert_eq!(client.line(), format!("frame {number}\n"));
    }
}

#[test]
fn a_server_may_speak_first_on_a_port_declared_tcp() {
    let mesh =
        Mesh::up(&[service("greeter"), protocol("greeter", "TCP"), workload("greeter-1", "greeter", "v1", apps::greeting())].concat());
    let mut client = Client::to(mesh.service("shop/greeter", 80));
    assert_eq!(client.line(), "hello, who is there?\n");
    client.send("leno\n");
    assert_eq!(client.line(), "hello leno\n");
}

/// The demo's own app, which speaks HTTP/2 too.
const HTTP2_APP: &str = "---\napiVersion: leno.dev/v1alpha1\nkind: Workload\nmetadata: {name: rpc-1, namespace: shop, labels: {app: rpc}}\nspec:\n  address: ADDRESS\n  ports: [{name: http, port: PORT}]\n  command: [leno, demo-app, --answer, called]\n";

#[test]
fn http2_with_prior_knowledge_is_carried_many_requests_at_a_time() {
    let app = apps::nobody();
    let workload = HTTP2_APP.replace("ADDRESS", &app.ip().to_string()).replace("PORT", &app.port().to_string());
    for declared in ["HTTP2", "HTTP"] {
        let mesh = Mesh::up(&[service("rpc"), protocol("rpc", declared), workload.clone()].concat());
        mesh.until("the app listens", |_| std::net::TcpStream::connect(app).is_ok());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answers = runtime.block_on(call(mesh.service("shop/rpc", 80), 50));
        assert_eq!(answers, vec![(200, "called".to_owned()); 50], "{declared}");
    }
}

/// Sends `count` requests at once on one HTTP/2 connection.
async fn call(address: SocketAddr, count: usize) -> Vec<(u16, String)> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let one = |number: usize| {
        let mut sender = sender.clone();
        async move {
            let request = http::Request::post(format!("http://rpc/{number}")).body(Full::new(Bytes::from_static(b"request"))).unwrap();
            let response = sender.send_request(request).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8_lossy(&body).trim().to_owned())
        }
    };
    futures_util::future::join_all((0..count).map(one)).await
}
