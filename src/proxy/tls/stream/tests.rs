use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::tls::testing::{Pki, suites};
use crate::tls::{Carries, Originator};

type Served = StreamOwned<ServerConnection, std::net::TcpStream>;

const PATIENCE: Duration = Duration::from_secs(20);

/// Serves one connection as rustls does by itself.
fn serve<T: Send + 'static>(
    config: Arc<ServerConfig>,
    then: impl FnOnce(Served) -> T + Send + 'static,
) -> (std::net::SocketAddr, JoinHandle<T>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut served = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
        while served.conn.is_handshaking() {
            served.conn.complete_io(&mut served.sock).unwrap();
        }
        then(served)
    });
    (address, served)
}

async fn dial(address: std::net::SocketAddr, pki: &Pki, originator: &Originator) -> TlsStream {
    let tcp = TcpStream::connect(address).await.unwrap();
    TlsStream::originate(tcp, &pki.origination(), Carries::Bytes, originator, &Rc::new(Buffers::default())).await.unwrap()
}

async fn read(stream: &TlsStream, into: &mut [u8]) -> io::Result<usize> {
    let reading = poll_fn(|cx| {
        loop {
            match stream.try_read(into) {
                Err(error) if is_not_yet(&error) => ready!(stream.poll_readable(cx))?,
                read => return Poll::Ready(read),
            }
        }
    });
    timeout(PATIENCE, reading).await.expect("read in time")
}

async fn read_all(stream: &TlsStream) -> io::Result<Vec<u8>> {
    let (mut all, mut block) = (Vec::new(), vec![0; 10_000]);
    loop {
        match read(stream, &mut block).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&block[..count]),
        }
    }
}

async fn write(stream: &TlsStream, mut from: &[u8]) {
    while !from.is_empty() {
        let written = poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(from)])).await.unwrap();
        from = &from[written..];
    }
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Beside it, a resting connection keeps what makes its keys.
#[test]
fn a_resting_connection_is_small() {
    assert!(size_of::<TlsStream>() <= 1536, "{}", size_of::<TlsStream>());
}

#[tokio::test]
async fn with_every_cipher_much_goes_both_ways_and_the_end_is_said() {
    let pki = Pki::new();
    for (version, suite) in suites() {
        let (address, served) = serve(pki.server(version, Some(suite)), |mut served| {
            let mut all = vec![0; 1_000_003];
            served.read_exact(&mut all).unwrap();
            served.write_all(&all).unwrap();
            served.conn.send_close_notify();
            served.flush().unwrap();
            let end = served.read(&mut [0]).unwrap();
            (all, end)
        });
        let stream = dial(address, &pki, &Originator::default()).await;
        assert_eq!(stream.agreed().cipher, suite.suite());
        let sent = pattern(1_000_003);
        write(&stream, &sent).await;
        assert_eq!(read_all(&stream).await.unwrap(), sent, "{suite:?}");
        poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
        assert_eq!(served.join().unwrap(), (sent, 0));
        let state = stream.state.borrow();
        assert!(state.raw.is_none() && state.out.is_none(), "a connection that rests holds no block");
    }
}

#[tokio::test]
async fn what_comes_with_the_last_of_the_handshake_is_read() {
    let pki = Pki::new();
    for version in [&TLS12, &TLS13] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = pki.server(version, None);
        let served = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            tcp.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut session = ServerConnection::new(config).unwrap();
            // What is written waits in the session, and leaves with the handshake's last bytes.
            session.writer().write_all(b"the server speaks first").unwrap();
            while session.is_handshaking() || session.wants_write() {
                while session.wants_write() {
                    let mut all = Vec::new();
                    while session.wants_write() {
                        session.write_tls(&mut all).unwrap();
                    }
                    tcp.write_all(&all).unwrap();
                }
                if session.is_handshaking() {
                    session.read_tls(&mut tcp).unwrap();
                    session.process_new_packets().unwrap();
                }
            }
            tcp
        });
        let stream = dial(address, &pki, &Originator::default()).await;
        let mut block = [0; 100];
        let count = read(&stream, &mut block).await.unwrap();
        assert_eq!(&block[..count], b"the server speaks first", "{version:?}");
        drop(served.join().unwrap());
    }
}

#[tokio::test]
async fn a_peer_that_renews_its_keys_is_followed_and_gets_new_ones() {
    let pki = Pki::new();
    let (address, served) = serve(pki.server(&TLS13, None), |mut served| {
        for round in 0u8..5 {
            served.conn.refresh_traffic_keys().unwrap();
            served.write_all(&[round; 3]).unwrap();
            let mut block = [0; 3];
            served.read_exact(&mut block).unwrap();
            assert_eq!(block, [round; 3]);
        }
    });
    let stream = dial(address, &pki, &Originator::default()).await;
    for round in 0..5 {
        let mut block = [0; 3];
        assert_eq!(read(&stream, &mut block).await.unwrap(), 3);
        assert_eq!(block, [round; 3]);
        write(&stream, &block).await;
    }
    served.join().unwrap();
}

#[tokio::test]
async fn a_session_is_resumed_by_the_ticket_that_came_after_the_handshake() {
    let pki = Pki::new();
    let (config, originator) = (pki.server(&TLS13, None), Originator::default());
    for is_resumed in [false, true] {
        let (address, served) = serve(Arc::clone(&config), |mut served| served.write_all(b"x").unwrap());
        let stream = dial(address, &pki, &originator).await;
        assert_eq!(stream.agreed().is_resumed, is_resumed);
        assert_eq!(read(&stream, &mut [0]).await.unwrap(), 1);
        served.join().unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_was_cut_is_an_error_after_what_was_read() {
    let pki = Pki::new();
    let (address, served) = serve(pki.server(&TLS13, None), |mut served| {
        served.write_all(b"half").unwrap();
        // One more record, of which the end does not come.
        served.conn.writer().write_all(b"never whole").unwrap();
        let mut record = Vec::new();
        served.conn.write_tls(&mut record).unwrap();
        served.sock.write_all(&record[..record.len() - 1]).unwrap();
    });
    let stream = dial(address, &pki, &Originator::default()).await;
    let mut block = [0; 100];
    assert_eq!(read(&stream, &mut block).await.unwrap(), 4);
    served.join().unwrap();
    assert_eq!(read(&stream, &mut block).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_peer_that_sends_garbage_is_told_once_and_what_came_before_is_read() {
    let pki = Pki::new();
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[23, 3, 3, 0, 30, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    ] {
        let garbage = garbage.to_vec();
        let (address, served) = serve(pki.server(&TLS13, None), move |mut served| {
            served.conn.writer().write_all(b"good").unwrap();
            let mut all = Vec::new();
            while served.conn.wants_write() {
                served.conn.write_tls(&mut all).unwrap();
            }
            all.extend_from_slice(&garbage);
            served.sock.write_all(&all).unwrap();
            let told = served.read(&mut [0]).unwrap_err();
            let told = told.get_ref().unwrap().to_string();
            (told, served.sock.read(&mut [0]).unwrap())
        });
        let stream = dial(address, &pki, &Originator::default()).await;
        let mut block = [0; 100];
        assert_eq!(read(&stream, &mut block).await.unwrap(), 4);
        for _ in 0..2 {
            assert_eq!(read(&stream, &mut block).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let written = poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(b"more")])).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(stream);
        let (told, more) = served.join().unwrap();
        assert!(told.contains("received fatal alert"), "{told}");
        assert_eq!(more, 0, "told once");
    }
}

#[tokio::test]
async fn a_peer_that_reads_nothing_holds_back_who_writes_and_gets_everything_in_the_end() {
    let pki = Pki::new();
    let (go, told) = mpsc::channel();
    let (address, served) = serve(pki.server(&TLS13, None), move |mut served| {
        told.recv().unwrap();
        let mut all = Vec::new();
        served.read_to_end(&mut all).unwrap();
        all
    });
    let stream = dial(address, &pki, &Originator::default()).await;
    let (sent, mut taken) = (pattern(64 * 1024 * 1024), 0);
    while let Poll::Ready(count) = poll_fn(|cx| Poll::Ready(stream.poll_write(cx, &[IoSlice::new(&sent[taken..])]))).await {
        taken += count.unwrap();
        assert!(taken < sent.len(), "it is held back");
    }
    assert_eq!(stream.state.borrow().out.as_ref().unwrap().block().len(), LARGE_BLOCK, "no more is kept than a block holds");
    go.send(()).unwrap();
    write(&stream, &sent[taken..]).await;
    poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
    assert!(served.join().unwrap() == sent, "all of it, in order");
    assert!(stream.state.borrow().out.is_none());
}
