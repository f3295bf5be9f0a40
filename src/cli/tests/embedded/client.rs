//! An HTTP/1.1 client that shows exactly what comes back.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::harness::PATIENCE;

/// One kept-alive connection.
pub(crate) struct Client(BufReader<TcpStream>);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends `GET target` with further header lines (each ending in CRLF); gives the answer.
    pub(crate) fn get(&mut self, target: &str, fields: &str) -> Answer {
        self.ask("GET", target, fields)
    }

    /// The same with another method.
    pub(crate) fn ask(&mut self, method: &str, target: &str, fields: &str) -> Answer {
        let host = target.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or("payment");
        write!(self.0.get_mut(), "{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n").unwrap();
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status in {head:?}"));
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|it| it.trim().to_owned()));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, body: String::from_utf8(body).unwrap().trim().to_owned() }
    }

    /// The head of what comes next.
    pub(crate) fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.0.read_line(&mut head).unwrap(), 0, "the connection ended within a head: {head:?}");
        }
        head
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &str) {
        self.0.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// The next line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }
}

/// One request on a connection of its own.
pub(crate) fn get(address: SocketAddr, target: &str, fields: &str) -> Answer {
    Client::to(address).get(target, fields)
}
