//! Little apps, each in threads of the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Calls `serve` with every connection to a free loopback port.
fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Answers every request with `answer`, after `delay`; keeps connections open.
pub(crate) fn http(answer: &'static str, delay: Duration) -> SocketAddr {
    listen(move |mut stream| {
        let _nagle = stream.set_nodelay(true);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while head(&mut reader).is_some() {
            std::thread::sleep(delay);
            if write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).is_err() {
                return;
            }
        }
    })
}

/// Switches to another protocol when asked to, and then sends back what it gets.
pub(crate) fn upgrading() -> SocketAddr {
    listen(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let Some(head) = head(&mut reader) else { return };
        let asked = head.to_ascii_lowercase().contains("upgrade: websocket");
        let status = if asked { "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket" } else { "400 No" };
        write!(stream, "HTTP/1.1 {status}\r\n\r\n").unwrap();
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            stream.write_all(&bytes[..count]).unwrap();
        }
    })
}

/// Speaks first, then sends back each line.
pub(crate) fn greeting() -> SocketAddr {
    listen(|mut stream| {
        stream.write_all(b"hello, who is there?\n").unwrap();
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            writeln!(stream, "hello {line}").unwrap();
        }
    })
}

/// A loopback address at which nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The head of the next request, without body; `None` at the end.
fn head(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}
