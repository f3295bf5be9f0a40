//! Opaque connections: bytes both ways, each direction closed on its own, buffers only while bytes are there.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::buffers::{Buffer, Buffers};
use crate::idle::{Idle, within};
use crate::io::Io;

/// How a tunnel ended.
#[derive(Debug)]
pub struct Carried {
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Why it was cut, if it was.
    pub cut: Option<io::Error>,
    /// Whether nothing came or went for too long.
    pub is_idle: bool,
}

impl Carried {
    /// Metric label and log field: why it was cut, if it was.
    pub fn reason(&self) -> Option<&'static str> {
        match &self.cut {
            _ if self.is_idle => Some("idle-timeout"),
            Some(_) => Some("cut"),
            None => None,
        }
    }
}

/// Carries bytes between `client` and `server` until both directions are closed or one is broken.
///
/// `from_client` and `from_server` are bytes that were read before. A break on one side becomes a reset on both, so that
/// nobody takes a cut stream for a whole one. There is no idle time unless `idle` says so: connections that rest for hours are
/// normal.
pub async fn tunnel(
    client: &Io,
    from_client: Option<Buffer>,
    server: &Io,
    from_server: Option<Buffer>,
    buffers: &Rc<Buffers>,
    idle: Option<&Rc<Idle>>,
) -> Carried {
    let (bytes_in, bytes_out) = (Cell::new(0), Cell::new(0));
    let moved = |count: &Cell<u64>, bytes: usize| {
        count.set(count.get() + bytes as u64);
        if let Some(idle) = idle {
            idle.touch();
        }
    };
    let cut = {
        let mut up = pin!(flow(client, server, from_client, buffers, |bytes| moved(&bytes_in, bytes)));
        let mut down = pin!(flow(server, client, from_server, buffers, |bytes| moved(&bytes_out, bytes)));
        let (mut up_ended, mut down_ended) = (false, false);
        let both = poll_fn(|cx| {
            for (ended, flow) in
                [(&mut up_ended, up.as_mut() as std::pin::Pin<&mut dyn Future<Output = _>>), (&mut down_ended, down.as_mut())]
            {
                if !*ended && let Poll::Ready(result) = flow.poll(cx) {
                    *ended = true;
                    if let Err(error) = result {
                        return Poll::Ready(Some(error));
                    }
                }
            }
            if up_ended && down_ended { Poll::Ready(None) } else { Poll::Pending }
        });
        within(idle, both).await
    };
    let is_idle = cut.is_none();
    let cut = cut.flatten();
    if cut.is_some() || is_idle {
        client.abort_on_close();
        server.abort_on_close();
    }
    Carried { bytes_in: bytes_in.get(), bytes_out: bytes_out.get(), cut, is_idle }
}

/// Carries one direction to its end.
async fn flow(from: &Io, to: &Io, first: Option<Buffer>, buffers: &Rc<Buffers>, moved: impl Fn(usize)) -> io::Result<()> {
    if let Some(first) = first.filter(|first| !first.is_empty()) {
        to.write_all(first.filled()).await?;
        moved(first.len());
    }
    loop {
        from.readable().await?;
        let mut block = buffers.take_large();
        loop {
            match from.try_read(block.spare()) {
                Ok(0) => return closed(to.finish().await),
                Ok(read) => {
                    block.fill(read);
                    to.write_all(block.filled()).await?;
                    moved(read);
                    block.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A side that is already gone needs no closing.
fn closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}
