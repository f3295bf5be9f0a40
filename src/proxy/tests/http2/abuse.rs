//! Peers that make work for nothing, or hold things up: each is bounded, told why, and counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::Response;

use crate::peers::{Server, ask, dial, eventually, get, patient, setup};
use crate::support::{Mesh, PATIENCE};

const SHORT: Duration = Duration::from_millis(200);
const ENHANCE_YOUR_CALM: u32 = 11;
/// GET http://payment/ by the static table, and `:authority` as a literal.
const GET: &[u8] = b"\x82\x86\x84\x41\x07payment";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn begin(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat()).unwrap();
    stream
}

/// Reads to the connection's end: the code of its GOAWAY.
fn ended(stream: &mut TcpStream) -> Option<u32> {
    let (mut code, mut head) = (None, [0; 9]);
    while stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        if head[3] == 7 {
            code = payload[4..8].try_into().ok().map(u32::from_be_bytes);
        }
    }
    code
}

fn counts(mesh: &Mesh, reason: &str) -> bool {
    let label = format!("reason=\"{reason}\"");
    mesh.metrics().lines().any(|line| line.starts_with("leno_errors_total{") && line.contains(&label) && line.ends_with(" 1"))
}

async fn quick() -> Server {
    Server::start(|(_request, mut respond)| async move {
        respond.send_response(Response::new(()), true).unwrap();
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_the_connection_with_enhance_your_calm_and_others_go_on() {
    let app = quick().await;
    let cases: [(&str, Vec<u8>); 5] = [
        ("pings", frame(6, 0, 0, &[0; 8])),
        ("settings", frame(4, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("windows", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("priorities", frame(2, 0, 3, &[0; 5])),
        ("unknown", frame(0xbe, 0, 0, &[])),
    ];
    for (name, flood) in cases {
        let (mesh, address) = setup(&[&app]).start();
        let other = dial(address).await;
        let mut client = begin(address);
        let many = flood.repeat(1000);
        let mut reader = client.try_clone().unwrap();
        let read = tokio::task::spawn_blocking(move || ended(&mut reader));
        for _ in 0..100 {
            if client.write_all(&many).is_err() {
                break;
            }
        }
        let code = patient(read).await.unwrap();
        assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{name}: {code:?}");
        eventually("it is counted", || counts(&mesh, "http2-flood")).await;
        assert_eq!(ask(&other, get("/"), b"").await.unwrap().status, 200, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_block_that_does_not_end_is_given_up_in_time() {
    let app = quick().await;
    let mut setup = setup(&[&app]);
    setup.settings.head_timeout = SHORT;
    let (mesh, address) = setup.start();
    let mut client = begin(address);
    client.write_all(&frame(1, 1, 1, GET)).unwrap(); // no END_HEADERS
    let mut resting = begin(address);
    let code = patient(tokio::task::spawn_blocking(move || ended(&mut client))).await.unwrap();
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    eventually("it is counted", || counts(&mesh, "head-too-slow")).await;
    assert_eq!(app.requests(), 0);
    // A connection that only rests stays.
    resting.write_all(&frame(1, 5, 1, GET)).unwrap();
    let mut some = [0; 9];
    resting.read_exact(&mut some).unwrap();
    eventually("it is served", || app.requests() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_opens_its_window_is_given_up_in_time() {
    let app = Server::start(|(_request, mut respond)| async move {
        let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
        drop(crate::peers::send_all(&mut send, vec![0; 4 * 1024 * 1024].into()).await);
    })
    .await;
    let mut setup = setup(&[&app]);
    setup.settings.stall_timeout = SHORT;
    let (mesh, address) = setup.start();
    let mut client = begin(address);
    client.write_all(&frame(1, 5, 1, GET)).unwrap(); // 64 KiB pass, and then none
    eventually("it is counted", || counts(&mesh, "client-too-slow")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_one_client_leaves_unread_do_not_hold_up_another() {
    let app = Server::start(|(request, mut respond)| async move {
        let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
        let length = if request.uri().path() == "/large" { 8 * 1024 * 1024 } else { 100_000 };
        if crate::peers::send_all(&mut send, vec![0; length].into()).await.is_ok() {
            drop(send.send_data(bytes::Bytes::new(), true));
        }
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let greedy = dial(address).await;
    let mut unread = Vec::new();
    for _ in 0..100 {
        let mut greedy = patient(greedy.clone().ready()).await.unwrap();
        let (response, _) = greedy.send_request(get("/large"), true).unwrap();
        unread.push(patient(response).await.unwrap());
    }
    let other = dial(address).await;
    for _ in 0..20 {
        assert_eq!(ask(&other, get("/small"), b"").await.unwrap().body.len(), 100_000);
    }
    drop(unread);
}
