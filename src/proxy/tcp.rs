//! Opaque connections: bytes both ways, each direction closed on its own, buffers only while bytes are there.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::buffers::{Buffer, Buffers};
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
}

/// Carries bytes between `client` and `server` until both directions are closed or one is broken.
///
/// `from_client` and `from_server` are bytes that were read before. A break on one side becomes a reset on both, so that
/// nobody takes a cut stream for a whole one. There is no idle time: connections that rest for hours are normal.
pub async fn tunnel(client: &Io, from_client: Option<Buffer>, server: &Io, from_server: Option<Buffer>, buffers: &Rc<Buffers>) -> Carried {
    let (bytes_in, bytes_out) = (Cell::new(0), Cell::new(0));
    let cut = {
        let mut up = pin!(flow(client, server, from_client, buffers, &bytes_in));
        let mut down = pin!(flow(server, client, from_server, buffers, &bytes_out));
        let (mut up_ended, mut down_ended) = (false, false);
        poll_fn(|cx| {
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
        })
        .await
    };
    if cut.is_some() {
        client.abort_on_close();
        server.abort_on_close();
    }
    Carried { bytes_in: bytes_in.get(), bytes_out: bytes_out.get(), cut }
}

/// Carries one direction to its end.
async fn flow(from: &Io, to: &Io, first: Option<Buffer>, buffers: &Rc<Buffers>, count: &Cell<u64>) -> io::Result<()> {
    if let Some(first) = first.filter(|first| !first.is_empty()) {
        to.write_all(first.filled()).await?;
        count.set(count.get() + first.len() as u64);
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
                    count.set(count.get() + read as u64);
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
