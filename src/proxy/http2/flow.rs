//! One direction of an exchange: data and trailers from one stream to another, at the pace of the receiver.

use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use smallvec::SmallVec;
use tokio::time::{Instant, Sleep, sleep};

use super::head::strip;
use super::upstream::{Lease, Waiting, Who};
use crate::idle::Idle;
use crate::mirror::Copies;

/// What has been sent is kept up to this much, so that it can be sent again elsewhere.
const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// A body on its way. A plain state machine, so that it can go on after its receiver was exchanged.
pub(super) struct Flow {
    from: RecvStream,
    /// What was read and is to be sent next.
    next: Option<Bytes>,
    trailers: Option<HeaderMap>,
    /// Whether all of it was read.
    is_read: bool,
    is_done: bool,
    /// Read, and not yet given back to the sender's window.
    owed: usize,
    /// How long the receiver may leave what was read waiting, where it must not for ever.
    patience: Option<Patience>,
    /// Ends while the receiver's window is shut; kept from one time to the next.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set while it is shut.
    waiting: Option<Waiting>,
    replay: Replay,
    /// Who gets a copy of what is read.
    copies: Option<Copies>,
    /// Body bytes read so far.
    pub(super) bytes: u64,
    /// `grpc-status` of the trailers.
    pub(super) grpc_status: Option<u16>,
    /// Who is to know when something comes or goes.
    pub(super) idle: Option<Rc<Idle>>,
}

/// What was sent already.
enum Replay {
    /// Is not kept.
    No,
    /// Is kept: all of it, in order, and how much of it the present receiver has.
    Kept { sent: SmallVec<[Bytes; 1]>, bytes: usize, place: usize },
}

/// How a receiver is waited for whose window is shut.
pub(super) struct Patience {
    /// Whose window it is.
    pub(super) who: Who,
    /// The connection whose own window is held meanwhile.
    pub(super) lease: Lease,
    /// For how long.
    pub(super) limit: Duration,
}

/// Why a flow stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The sender broke off.
    Sender(h2::Error),
    /// The receiver takes no more.
    Receiver(h2::Error),
    /// The receiver neither takes more nor gives up.
    Stalled,
    /// Nothing came or went for too long.
    Idle,
}

impl Flow {
    /// A body that can be sent again while it is short.
    pub(super) fn replayable(from: RecvStream) -> Self {
        Self::new(from, Replay::Kept { sent: SmallVec::new(), bytes: 0, place: 0 })
    }

    /// A body that is sent once, to a receiver that is waited for with `patience`.
    pub(super) fn once(from: RecvStream, patience: Patience) -> Self {
        Self { patience: Some(patience), ..Self::new(from, Replay::No) }
    }

    fn new(from: RecvStream, replay: Replay) -> Self {
        let is_read = from.is_end_stream();
        Self {
            from,
            next: None,
            trailers: None,
            is_read,
            is_done: false,
            owed: 0,
            patience: None,
            stalled: None,
            waiting: None,
            replay,
            copies: None,
            bytes: 0,
            grpc_status: None,
            idle: None,
        }
    }

    /// Whether nothing follows the head.
    pub(super) fn is_empty(&self) -> bool {
        self.is_read && self.bytes == 0 && self.trailers.is_none()
    }

    /// Everything that is read is handed to `copies` as well.
    pub(super) fn begin_copies(&mut self, copies: Option<Copies>) {
        let Some(mut copies) = copies else { return };
        if self.is_read {
            copies.whole(None);
        }
        self.copies = Some(copies);
    }

    /// Hands what was just read to the copies.
    fn copy(&mut self) {
        let Some(copies) = &mut self.copies else { return };
        if let Some(piece) = &self.next {
            copies.piece(piece);
        }
        if self.is_read {
            copies.whole(self.trailers.as_ref());
        }
    }

    /// Whether the receiver has all of it.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Nothing needs to be sent: the head said it all.
    pub(super) fn skip(&mut self) {
        self.is_done = true;
    }

    /// Whether all of it can be sent to another receiver.
    pub(super) fn can_replay(&self) -> bool {
        matches!(self.replay, Replay::Kept { .. })
    }

    /// Everything is to be sent once more, to another receiver.
    pub(super) fn rewind(&mut self) {
        debug_assert!(self.can_replay(), "only what was kept can be sent again");
        if let Replay::Kept { place, .. } = &mut self.replay {
            *place = 0;
            self.is_done = false;
        }
    }

    /// Something has come or gone.
    fn touch(&self) {
        if let Some(idle) = &self.idle {
            idle.touch();
        }
    }

    /// Carries what is there to `to`. Reads only when everything read before was taken.
    pub(super) fn poll(&mut self, to: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        while !self.is_done {
            if self.has_more_to_send() {
                ready!(self.poll_send(to, cx))?;
            } else if self.is_read {
                self.end(to).map_err(Stopped::Receiver)?;
            } else if self.poll_read(cx).map_err(Stopped::Sender)?.is_pending() {
                // Nothing to send: only a reset can come from the receiver.
                return match to.poll_reset(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Ok(reason)) => Poll::Ready(Err(Stopped::Receiver(reason.into()))),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(Stopped::Receiver(error))),
                };
            }
        }
        Poll::Ready(Ok(()))
    }

    /// It is not to be sent again: what was kept for that is let go.
    pub(super) fn settle(&mut self) {
        if matches!(&self.replay, Replay::Kept { sent, place, .. } if *place == sent.len()) {
            self.replay = Replay::No;
        }
    }

    fn has_more_to_send(&self) -> bool {
        self.next.is_some() || matches!(&self.replay, Replay::Kept { sent, place, .. } if *place < sent.len())
    }

    /// Sends one piece, as soon as the receiver's window has room.
    fn poll_send(&mut self, to: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        let replayed = match &self.replay {
            Replay::Kept { sent, place, .. } => sent.get(*place),
            Replay::No => None,
        };
        let Some(piece) = replayed.or(self.next.as_ref()) else { return Poll::Ready(Ok(())) };
        debug_assert!(!piece.is_empty(), "empty pieces are not kept");
        to.reserve_capacity(piece.len());
        while to.capacity() == 0 {
            match to.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Stopped::Receiver(error))),
                Poll::Ready(None) => return Poll::Ready(Err(Stopped::Receiver(reset_of(to, cx)))),
                Poll::Pending => {
                    ready!(self.poll_stalled(cx));
                    return Poll::Ready(Err(Stopped::Stalled));
                }
            }
        }
        self.waiting = None;
        let piece = self.take_piece();
        self.is_done = self.is_read && self.trailers.is_none() && !self.has_more_to_send();
        to.send_data(piece, self.is_done).map_err(Stopped::Receiver)?;
        self.touch();
        self.give_back();
        Poll::Ready(Ok(()))
    }

    /// Whether the receiver's window has been shut for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Patience { who, lease, limit }) = &self.patience else { return Poll::Pending };
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(sleep(*limit)));
        if self.waiting.is_none() {
            self.waiting = Some(lease.wait(*who, self.from.flow_control().clone()));
            sleep.as_mut().reset(Instant::now() + *limit);
        }
        sleep.as_mut().poll(cx)
    }

    /// The piece to be sent now; it is kept where there is room.
    fn take_piece(&mut self) -> Bytes {
        match &mut self.replay {
            Replay::No => self.next.take().unwrap_or_default(),
            Replay::Kept { sent, place, .. } if *place < sent.len() => {
                *place += 1;
                sent[*place - 1].clone()
            }
            Replay::Kept { sent, bytes, place } => {
                let piece = self.next.take().unwrap_or_default();
                *bytes += piece.len();
                if *bytes <= REPLAY_BYTES_MAX {
                    sent.push(piece.clone());
                    *place += 1;
                } else {
                    self.replay = Replay::No;
                }
                piece
            }
        }
    }

    /// The sender may send as much again as was taken.
    fn give_back(&mut self) {
        let owed = mem::take(&mut self.owed);
        if owed > 0 && self.from.flow_control().release_capacity(owed).is_err() {
            tracing::debug!("the sender is gone while its last bytes are sent");
        }
    }

    /// Ends the receiver's stream after the last piece.
    fn end(&mut self, to: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
        self.is_done = true;
        match (&self.trailers, &self.replay) {
            (Some(trailers), Replay::Kept { .. }) => to.send_trailers(trailers.clone()),
            (Some(_), Replay::No) => to.send_trailers(self.trailers.take().unwrap_or_default()),
            (None, _) => to.send_data(Bytes::new(), true),
        }
    }

    /// Reads one piece, or the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        match ready!(self.from.poll_data(cx)) {
            Some(piece) => {
                let piece = piece?;
                self.bytes += piece.len() as u64;
                self.touch();
                self.owed += piece.len();
                self.is_read = self.from.is_end_stream();
                // An empty frame says nothing, and servers count them as an attack.
                self.next = Some(piece).filter(|piece| !piece.is_empty());
            }
            None => {
                if let Some(mut trailers) = ready!(self.from.poll_trailers(cx))? {
                    self.grpc_status = super::head::grpc_status(&trailers);
                    strip(&mut trailers);
                    self.trailers = Some(trailers);
                }
                self.is_read = true;
            }
        }
        self.copy();
        Poll::Ready(Ok(()))
    }
}

/// Why a stream takes nothing any more.
fn reset_of(to: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> h2::Error {
    match to.poll_reset(cx) {
        Poll::Ready(Ok(reason)) => reason.into(),
        Poll::Ready(Err(error)) => error,
        Poll::Pending => h2::Reason::INTERNAL_ERROR.into(),
    }
}
