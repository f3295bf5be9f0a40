use std::time::Duration;

use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::tls::testing::{NAME, Pki};

const PATIENCE: Duration = Duration::from_secs(20);

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// Carries what `from` says to `to` in pieces of `piece` bytes, with one byte changed by `change` (at, by), and ends there.
async fn carry(mut from: TcpStream, to: TcpStream, piece: usize, change: Option<(usize, u8)>) {
    let (mut reads, mut writes) = from.split();
    let (mut back, mut forth) = to.into_split();
    let answers = async {
        let copied = tokio::io::copy(&mut back, &mut writes).await;
        // An end may have gone before all was carried.
        writes.shutdown().await.ok().filter(|()| copied.is_ok())
    };
    let questions = async {
        let (mut block, mut carried) = (vec![0; piece], 0);
        while let Ok(count @ 1..) = reads.read(&mut block).await {
            let piece = &mut block[..count];
            let is_there = change.filter(|(at, _)| (carried..carried + count).contains(at));
            if let Some((at, by)) = is_there {
                piece[at - carried] ^= by;
            }
            carried += count;
            if forth.write_all(piece).await.is_err() || is_there.is_some() {
                break;
            }
        }
        forth.shutdown().await.ok()
    };
    tokio::join!(answers, questions);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_handshake_in_any_pieces_ends_well_and_one_that_was_tampered_with_ends(
        piece in 1usize..3000,
        change in prop::option::of((0usize..2500, 1u8..)),
        is_client in any::<bool>(),
        is_old in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime.block_on(async {
            let (pki, buffers) = (Pki::new(), Rc::new(Buffers::default()));
            let ((near, near_far), (far_near, far)) = (connected().await, connected().await);
            let client = UnbufferedClientConnection::new(pki.client(), NAME.try_into().unwrap()).unwrap();
            let server = UnbufferedServerConnection::new(pki.server(if is_old { &TLS12 } else { &TLS13 }, None)).unwrap();
            // What the client says is changed, or what the server does.
            let carried = async {
                if is_client { carry(near_far, far_near, piece, change).await } else { carry(far_near, near_far, piece, change).await }
            };
            let ends = async {
                let client = async { shake(&near, Session::Client(client), None, &buffers).await.map(|shaken| (near, shaken)) };
                let server = async { shake(&far, Session::Server(server), None, &buffers).await.map(|shaken| (far, shaken)) };
                // Each end closes when it has failed, and both when they are done.
                tokio::join!(client, server)
            };
            timeout(PATIENCE, Box::pin(async { tokio::join!(carried, async { let (client, server) = ends.await; (client.is_ok(), server.is_ok()) }).1 })).await
        });
        let (client, server) = ended.expect("nothing hangs");
        prop_assert!(change.is_some() || (client && server), "in any pieces");
    }
}
