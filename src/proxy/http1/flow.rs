//! One direction of an exchange: a body on its way from one connection to another, with what goes before it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::body::Body;
use super::chunked::BadChunk;
use crate::buffers::{BLOCK, Buffer, Buffers};
use crate::idle::Idle;
use crate::io::Io;
use crate::mirror::Copies;
use crate::soon::within;

/// What has been sent is kept up to this much, so that it can be sent again elsewhere.
pub const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// A body on its way. Dropping [`Flow::run`] and calling it again goes on where it stopped.
pub struct Flow {
    /// What is still to come.
    pub body: Body,
    /// What was read and not yet taken in.
    pub inbox: Buffer,
    /// What is to be written; while `kept`, also what has been.
    pub out: Buffer,
    /// How much of `out` has been written.
    pub sent: usize,
    /// Whether `out` still holds everything, from the head on.
    pub kept: bool,
    /// Who must not hold this up.
    pub patience: Patience,
    is_large: bool,
    /// Who gets a copy of what is read.
    pub copies: Option<Copies>,
    /// Whether anything of it was written.
    is_begun: bool,
    /// Who is to know when something comes or goes.
    pub idle: Option<Rc<Idle>>,
}

/// How long a flow waits for the client; for the other side there is no limit here.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// For ever.
    Endless,
    /// So long for the sender's next bytes.
    WithSender(Duration),
    /// So long for the receiver to take some.
    WithReceiver(Duration),
}

/// Why a flow stopped.
#[derive(Debug)]
pub enum Stopped {
    /// The sender broke off.
    Sender(io::Error),
    /// The sender's framing is broken.
    Malformed(BadChunk),
    /// The receiver takes no more.
    Receiver(io::Error),
    /// The client neither goes on nor goes away.
    Stalled,
    /// Nothing came or went for too long.
    Idle,
}

impl Flow {
    /// `out` has the head already; what `inbox` has of the body is taken in by the first run.
    pub fn new(body: Body, inbox: Buffer, out: Buffer, kept: bool, patience: Patience) -> Self {
        Self { body, inbox, out, sent: 0, kept, patience, is_large: false, is_begun: false, copies: None, idle: None }
    }

    /// Whether nothing of it has been written yet.
    pub fn is_unsent(&self) -> bool {
        !self.is_begun
    }

    /// Whether all of it can be written to another receiver.
    pub fn can_replay(&self) -> bool {
        self.kept || !self.is_begun
    }

    /// Something has come or gone.
    fn touch(&self) {
        if let Some(idle) = &self.idle {
            idle.touch();
        }
    }

    /// Whether everything has been written.
    pub fn is_done(&self) -> bool {
        self.body.is_done() && self.sent == self.out.len()
    }

    /// Takes in what was read together with the head, so that both are written at once.
    pub fn take_in(&mut self) -> Result<(), BadChunk> {
        self.body.transfer(&mut self.inbox, &mut self.out)?;
        self.kept &= self.out.len() <= REPLAY_BYTES_MAX;
        Ok(())
    }

    /// Everything is to be written once more, to another receiver.
    pub fn rewind(&mut self) {
        debug_assert!(self.can_replay(), "only what was kept can be sent again");
        self.sent = 0;
    }

    /// Carries the body to its end. Reads only when everything read before is written.
    pub async fn run(&mut self, from: &Io, to: &Io, buffers: &Rc<Buffers>) -> Result<(), Stopped> {
        loop {
            while self.sent < self.out.len() {
                self.sent += self.patience.written(to.write(&self.out.filled()[self.sent..])).await?;
                self.is_begun = true;
                self.touch();
            }
            self.patience.written(to.flush()).await?;
            if !self.kept {
                self.out.clear();
                self.sent = 0;
            }
            if self.body.is_done() {
                return Ok(());
            }
            let had = self.out.len();
            match self.body.as_it_is() {
                Some(left) if self.inbox.is_empty() => self.read_as_it_is(left, from, buffers).await?,
                Some(_) | None => {
                    if self.inbox.is_empty() {
                        let read = self.patience.read(from.read(self.inbox.spare())).await?;
                        self.inbox.fill(read);
                        self.touch();
                        self.check_end(read)?;
                    }
                    self.body.transfer(&mut self.inbox, &mut self.out).map_err(Stopped::Malformed)?;
                }
            }
            self.copy(had);
            self.kept &= self.out.len() <= REPLAY_BYTES_MAX;
        }
    }

    /// Hands what was read since `out` was `had` bytes long to the copies.
    fn copy(&mut self, had: usize) {
        let Some(copies) = &mut self.copies else { return };
        copies.body(self.out.filled().get(had..).unwrap_or_default());
        if self.body.is_done() {
            copies.whole(None);
        }
    }

    /// Everything that is there so far is handed to `copies`, and what is read from now on.
    pub fn begin_copies(&mut self, copies: Option<Copies>) {
        let Some(mut copies) = copies else { return };
        copies.head(self.out.filled(), self.body.bytes);
        if self.body.is_done() {
            copies.whole(None);
        }
        self.copies = Some(copies);
    }

    /// Reads straight into the buffer that is written from.
    async fn read_as_it_is(&mut self, left: u64, from: &Io, buffers: &Rc<Buffers>) -> Result<(), Stopped> {
        if !self.kept && !self.is_large && left > BLOCK as u64 {
            self.out = buffers.take_large();
            self.is_large = true;
        }
        let room = self.out.spare();
        let room = match usize::try_from(left) {
            Ok(left) if left < room.len() => &mut room[..left],
            Ok(_) | Err(_) => room,
        };
        let read = self.patience.read(from.read(room)).await?;
        self.out.fill(read);
        self.touch();
        self.body.went_past(read);
        self.check_end(read)
    }

    fn check_end(&mut self, read: usize) -> Result<(), Stopped> {
        if read == 0 && !self.body.end_of_input() {
            return Err(Stopped::Sender(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}

impl Patience {
    async fn read<T>(self, read: impl Future<Output = io::Result<T>>) -> Result<T, Stopped> {
        match self {
            Self::WithSender(limit) => within(limit, read).await.ok_or(Stopped::Stalled)?.map_err(Stopped::Sender),
            Self::Endless | Self::WithReceiver(_) => read.await.map_err(Stopped::Sender),
        }
    }

    async fn written<T>(self, write: impl Future<Output = io::Result<T>>) -> Result<T, Stopped> {
        match self {
            Self::WithReceiver(limit) => within(limit, write).await.ok_or(Stopped::Stalled)?.map_err(Stopped::Receiver),
            Self::Endless | Self::WithSender(_) => write.await.map_err(Stopped::Receiver),
        }
    }
}

/// How the request's way up stands, while something else goes on beside it.
#[derive(Debug, Default)]
pub struct Upload {
    /// The server takes no more of it; what it answers is still wanted.
    pub refused: bool,
}

/// Runs `main` with the request's body going up beside it. Ends when `main` does, or when the client breaks off.
///
/// Both stay where their owner has pinned them: what an `async` function is given it keeps twice.
pub async fn beside<T>(
    client: &Io,
    upload: &mut Upload,
    mut flow: Pin<&mut impl Future<Output = Result<(), Stopped>>>,
    mut main: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Stopped> {
    let mut dead = pin!(client.dead());
    let mut going_up = !upload.refused;
    poll_fn(|cx| {
        if going_up && let Poll::Ready(result) = flow.as_mut().poll(cx) {
            going_up = false;
            match result {
                Ok(()) => {}
                Err(Stopped::Receiver(error)) => {
                    tracing::debug!(%error, "the server takes no more of the request");
                    upload.refused = true;
                }
                Err(stopped @ (Stopped::Sender(_) | Stopped::Malformed(_) | Stopped::Stalled | Stopped::Idle)) => {
                    return Poll::Ready(Err(stopped));
                }
            }
        }
        if let Poll::Ready(done) = main.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        dead.as_mut().poll(cx).map(|error| Err(Stopped::Sender(error)))
    })
    .await
}
