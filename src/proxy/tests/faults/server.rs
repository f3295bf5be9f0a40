//! A server that does one wrong thing to every request, over HTTP/1 or HTTP/2 as it is spoken to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use socket2::SockRef;

use crate::support::{PATIENCE, nowhere};

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    ConnectRefused,
    ConnectHang,
    ResetBeforeHead,
    ResetInHead,
    ResetInBody,
    SlowHead,
    SlowBody,
    Unavailable,
    TooMany,
    WrongLength,
    Garbage,
    HalfClose,
    GoAway,
    RstStream,
    TrailersOnly,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::ConnectRefused,
        Self::ConnectHang,
        Self::ResetBeforeHead,
        Self::ResetInHead,
        Self::ResetInBody,
        Self::SlowHead,
        Self::SlowBody,
        Self::Unavailable,
        Self::TooMany,
        Self::WrongLength,
        Self::Garbage,
        Self::HalfClose,
        Self::GoAway,
        Self::RstStream,
        Self::TrailersOnly,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect refused",
            Self::ConnectHang => "connect hang",
            Self::ResetBeforeHead => "reset before head",
            Self::ResetInHead => "reset in head",
            Self::ResetInBody => "reset in body",
            Self::SlowHead => "slow head",
            Self::SlowBody => "slow body",
            Self::Unavailable => "503",
            Self::TooMany => "429, Retry-After: 1",
            Self::WrongLength => "wrong length",
            Self::Garbage => "garbage",
            Self::HalfClose => "half-close",
            Self::GoAway => "GOAWAY",
            Self::RstStream => "RST_STREAM",
            Self::TrailersOnly => "trailers-only error",
        }
    }

    /// Whether only HTTP/2 can fail like this, so that GET and POST are sent over it too.
    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::GoAway | Self::RstStream | Self::TrailersOnly)
    }

    /// What is sent in HTTP/1 after a request, and how the connection goes on.
    fn http1(self) -> (&'static str, Then) {
        match self {
            Self::ConnectRefused | Self::ConnectHang | Self::GoAway | Self::RstStream | Self::TrailersOnly => ("", Then::Hold),
            Self::ResetBeforeHead => ("", Then::Reset),
            Self::ResetInHead => ("HTTP/1.1 200 OK\r\nContent-Le", Then::Reset),
            Self::ResetInBody => ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour", Then::Reset),
            Self::SlowHead => ("", Then::Hold),
            Self::SlowBody => ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour", Then::Hold),
            Self::Unavailable => ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", Then::Next),
            Self::TooMany => ("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy", Then::Next),
            Self::WrongLength => ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour", Then::Close),
            Self::Garbage => ("\u{16}\u{3}\u{1} this is no HTTP\r\n\r\n", Then::Hold),
            Self::HalfClose => ("", Then::HalfClose),
        }
    }

    /// What is sent in HTTP/2 on stream `id` after a request.
    fn http2(self, id: u32) -> (Vec<u8>, Then) {
        let ok = || frame(HEADERS, END_HEADERS, id, &head("200", &[]));
        match self {
            Self::ConnectRefused | Self::ConnectHang | Self::SlowHead => (Vec::new(), Then::Hold),
            Self::ResetBeforeHead => (Vec::new(), Then::Reset),
            Self::ResetInHead => (frame(HEADERS, 0, id, &head("200", &[])), Then::Reset),
            Self::ResetInBody => ([ok(), frame(DATA, 0, id, b"four")].concat(), Then::Reset),
            Self::SlowBody => ([ok(), frame(DATA, 0, id, b"four")].concat(), Then::Hold),
            Self::Unavailable => (frame(HEADERS, END_HEADERS | END_STREAM, id, &head("503", &[])), Then::Next),
            Self::TooMany => (frame(HEADERS, END_HEADERS | END_STREAM, id, &head("429", &[("retry-after", "1")])), Then::Next),
            Self::WrongLength => {
                let head = frame(HEADERS, END_HEADERS, id, &head("200", &[("content-length", "10")]));
                ([head, frame(DATA, END_STREAM, id, b"four")].concat(), Then::Next)
            }
            Self::Garbage => (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Then::Hold),
            Self::HalfClose => (Vec::new(), Then::HalfClose),
            Self::GoAway => (frame(GOAWAY, 0, 0, &[0; 8]), Then::Hold),
            Self::RstStream => (frame(RST_STREAM, 0, id, &[0, 0, 0, 2]), Then::Next),
            Self::TrailersOnly => {
                let fields = [("content-type", "application/grpc"), ("grpc-status", "14")];
                (frame(HEADERS, END_HEADERS | END_STREAM, id, &head("200", &fields)), Then::Next)
            }
        }
    }
}

/// How the connection goes on.
enum Then {
    /// It takes the next request.
    Next,
    /// It stays open, and nothing comes any more.
    Hold,
    /// It is reset.
    Reset,
    /// It is closed in both directions.
    Close,
    /// It is closed in one direction, and read on.
    HalfClose,
}

/// The server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    open: Arc<AtomicUsize>,
    /// What fills the queue of a listener that accepts nothing.
    _hanging: Vec<TcpStream>,
    _listener: Option<TcpListener>,
}

impl Server {
    pub(crate) fn start(fault: Fault) -> Self {
        let open: Arc<AtomicUsize> = Arc::default();
        if fault == Fault::ConnectRefused {
            return Self { address: nowhere(), open, _hanging: Vec::new(), _listener: None };
        }
        if fault == Fault::ConnectHang {
            return Self::hanging();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counted = Arc::clone(&open);
        thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (stream, counted) = (stream.unwrap(), Arc::clone(&counted));
                thread::spawn(move || {
                    serve(stream, fault);
                    counted.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open, _hanging: Vec::new(), _listener: None }
    }

    /// A listener whose queue is full, so that a further connection gets no answer.
    fn hanging() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let mut hanging = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200)) {
            hanging.push(stream);
        }
        Self { address, open: Arc::default(), _hanging: hanging, _listener: Some(listener) }
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, fault: Fault) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut read = Vec::new();
    // The first bytes tell HTTP/2 from the rest.
    while read.len() < PREFACE.len() && !read.ends_with(b"\r\n\r\n") {
        if !more(&mut stream, &mut read) {
            return;
        }
    }
    if read.starts_with(PREFACE) {
        read.drain(..PREFACE.len());
        if stream.write_all(&frame(SETTINGS, 0, 0, &[])).is_ok() {
            http2(stream, read, fault);
        }
    } else {
        http1(stream, read, fault);
    }
}

fn http1(mut stream: TcpStream, mut read: Vec<u8>, fault: Fault) {
    loop {
        let Some(head) = read.windows(4).position(|window| window == b"\r\n\r\n") else {
            if !more(&mut stream, &mut read) {
                return;
            }
            continue;
        };
        let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
        let length = text.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        if read.len() < head + 4 + length {
            if !more(&mut stream, &mut read) {
                return;
            }
            continue;
        }
        read.drain(..head + 4 + length);
        let (bytes, then) = fault.http1();
        if stream.write_all(bytes.as_bytes()).is_err() || !goes_on(&mut stream, &then) {
            return;
        }
    }
}

/// Acts on each request once it has ended, or has sent its first message.
fn http2(mut stream: TcpStream, mut read: Vec<u8>, fault: Fault) {
    let mut acted = 0;
    loop {
        if read.len() < 9 || read.len() < 9 + length_of(&read) {
            if !more(&mut stream, &mut read) {
                return;
            }
            continue;
        }
        let whole: Vec<u8> = read.drain(..9 + length_of(&read)).collect();
        let (kind, flags) = (whole[3], whole[4]);
        let id = u32::from_be_bytes([whole[5], whole[6], whole[7], whole[8]]);
        let answer = match kind {
            SETTINGS if flags == 0 => frame(SETTINGS, 1, 0, &[]),
            PING if flags == 0 => frame(PING, 1, 0, &whole[9..]),
            DATA | HEADERS if id > acted && (kind == DATA || flags & END_STREAM != 0) => {
                acted = id;
                let (bytes, then) = fault.http2(id);
                // One stream that holds does not keep others from coming.
                if stream.write_all(&bytes).is_err() || !(matches!(then, Then::Hold) || goes_on(&mut stream, &then)) {
                    return;
                }
                continue;
            }
            _ => continue,
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Whether the connection takes another request; otherwise it has been ended, or its peer has.
fn goes_on(stream: &mut TcpStream, then: &Then) -> bool {
    match then {
        Then::Next => return true,
        Then::Reset => SockRef::from(&*stream).set_linger(Some(std::time::Duration::ZERO)).unwrap(),
        Then::Close => {}
        Then::HalfClose => {
            stream.shutdown(Shutdown::Write).unwrap();
            while more(stream, &mut Vec::new()) {}
        }
        Then::Hold => while more(stream, &mut Vec::new()) {},
    }
    false
}

fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> bool {
    let mut block = [0; 16 * 1024];
    match stream.read(&mut block) {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            read.extend_from_slice(&block[..count]);
            true
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn length_of(read: &[u8]) -> usize {
    usize::from(read[0]) << 16 | usize::from(read[1]) << 8 | usize::from(read[2])
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A block of fields that needs no table (RFC 7541 section 6.2.2).
fn head(status: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":status", status)].iter().chain(fields) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}
