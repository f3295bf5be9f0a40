//! A connection as `h2` reads and writes it: what `h2` writes in one go leaves in one go.
//!
//! `h2` flushes after each frame that is not small, which would be a system call, and a TLS record, for each of them. Here they are
//! put together; whoever drives the connection calls [`Gather::poll_driven`] with what a turn of it came to, so that the frames of all
//! streams that had something to say share system calls and records. Long frames are not copied, but written behind what waits.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffers::{Buffer, Buffers, LARGE_BLOCK};
use crate::io::Io;

/// From this length on a system call more costs less than the copy.
const LONG: usize = 8 * 1024;

/// One end is `h2`'s, the other its driver's.
#[derive(Clone)]
pub(crate) struct Gather(Rc<RefCell<State>>);

struct State {
    io: Io,
    /// What was written and has not been handed on.
    out: Option<Buffer>,
    buffers: Rc<Buffers>,
    is_driven: bool,
}

/// The connection, for whom it is not kept open.
pub(crate) struct Watched(Weak<RefCell<State>>);

impl Watched {
    /// Whether it is open, as the kernel knows it now; costs a system call.
    pub(crate) fn is_open(&self) -> bool {
        self.0.upgrade().is_some_and(|state| state.borrow().io.is_open())
    }
}

impl Gather {
    /// A connection of which everything is written at once, until it is driven.
    pub(crate) fn new(io: Io, buffers: &Rc<Buffers>) -> Self {
        Self(Rc::new(RefCell::new(State { io, out: None, buffers: Rc::clone(buffers), is_driven: false })))
    }

    /// From now on what is written waits for [`Gather::poll_driven`].
    pub(crate) fn driven(&self) {
        self.0.borrow_mut().is_driven = true;
    }

    /// For looking at the connection as long as it is driven.
    pub(crate) fn watched(&self) -> Watched {
        Watched(Rc::downgrade(&self.0))
    }

    /// What a turn of the connection came to. Where that is nothing yet, what it has written is handed to the kernel.
    ///
    /// # Errors
    /// When the kernel takes nothing any more.
    pub(crate) fn poll_driven<T>(&self, turn: Poll<T>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match turn {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => match self.0.borrow_mut().poll_send(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl State {
    /// Takes at least one byte.
    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum();
        if !self.is_driven || length >= LONG {
            ready!(self.poll_hand_on(cx))?;
            return self.io.poll_write_parts(cx, parts);
        }
        if self.out.as_ref().is_some_and(|out| out.room() < length && out.block().len() >= LARGE_BLOCK) {
            ready!(self.poll_hand_on(cx))?;
        }
        let out = match self.out.take() {
            None => self.buffers.take(),
            Some(out) if out.room() < length => {
                let mut large = self.buffers.take_large();
                large.append(out.filled());
                large
            }
            Some(out) => out,
        };
        let out = self.out.insert(out);
        parts.iter().for_each(|part| out.append(part));
        Poll::Ready(Ok(length))
    }

    /// Hands what waits to the connection.
    fn poll_hand_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(out) = self.out.as_mut().filter(|out| !out.is_empty()) {
            match ready!(self.io.poll_write(cx, out.filled()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => out.consume(written),
            }
        }
        self.out = None;
        Poll::Ready(Ok(()))
    }

    /// Hands everything to the kernel.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_on(cx))?;
        self.io.poll_flush(cx)
    }
}

impl AsyncRead for Gather {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gather {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if state.is_driven { Poll::Ready(Ok(())) } else { state.poll_send(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        ready!(state.poll_send(cx))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (Gather, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (io, accepted) = tokio::join!(Io::dial(listener.local_addr().unwrap()), listener.accept());
        (Gather::new(io.unwrap(), &Rc::default()), accepted.unwrap().0)
    }

    /// What has arrived by now, and nothing more.
    fn arrived(stream: &TcpStream) -> usize {
        stream.try_read(&mut [0; 256 * 1024]).unwrap_or_default()
    }

    /// One turn in which nothing came.
    async fn turn(gather: &Gather) -> Poll<io::Result<()>> {
        poll_fn(|cx| Poll::Ready(gather.poll_driven(Poll::<()>::Pending, cx))).await
    }

    #[tokio::test]
    async fn what_is_written_in_a_turn_leaves_at_its_end_in_one_go() {
        let (mut gather, peer) = pair().await;
        gather.driven();
        for _ in 0..100 {
            gather.write_all(b"a frame").await.unwrap();
            gather.flush().await.unwrap();
        }
        assert_eq!(arrived(&peer), 0);
        assert!(turn(&gather).await.is_pending());
        peer.readable().await.unwrap();
        assert_eq!(arrived(&peer), 700);
        assert!(gather.0.borrow().out.is_none(), "at rest it holds no block");
    }

    #[tokio::test]
    async fn nothing_waits_before_somebody_drives_it_and_all_of_it_is_sent_before_the_end() {
        let (mut gather, mut peer) = pair().await;
        gather.write_all(b"at once").await.unwrap();
        let mut read = [0; 7];
        peer.read_exact(&mut read).await.unwrap();
        gather.driven();
        gather.write_all(b"last").await.unwrap();
        gather.shutdown().await.unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&read, &rest[..]), (b"at once", &b"last"[..]));
    }

    #[tokio::test]
    async fn short_and_long_pieces_arrive_in_order_however_slowly_they_are_read() {
        let (mut gather, mut peer) = pair().await;
        gather.driven();
        let all: Vec<u8> = (0..8 * 1024 * 1024).map(|place: usize| u8::try_from(place % 251).unwrap()).collect();
        let mut whole = Vec::new();
        let write = async {
            let lengths = [1, 300, LONG - 1, LONG, 40_000, 9].into_iter().cycle();
            let mut left = &all[..];
            for length in lengths {
                let (piece, rest) = left.split_at(length.min(left.len()));
                gather.write_all(piece).await.unwrap();
                left = rest;
                if left.is_empty() {
                    return gather.shutdown().await.unwrap();
                }
            }
        };
        let (_, read) = tokio::join!(write, peer.read_to_end(&mut whole));
        read.unwrap();
        assert!(whole == all);
    }

    #[tokio::test]
    async fn who_takes_nothing_any_more_is_told_of() {
        let (mut gather, peer) = pair().await;
        gather.driven();
        drop(peer);
        let mut turns = 0;
        loop {
            gather.write_all(b"a frame").await.unwrap();
            if let Poll::Ready(told) = turn(&gather).await {
                assert!(told.is_err());
                return;
            }
            turns += 1;
            assert!(turns < 100_000, "it is never told");
            tokio::task::yield_now().await;
        }
    }
}
