//! Bodies in motion: from the buffer they were read into to the buffer they are written from.

use std::io::Write;

use super::chunked::{BadChunk, Decoder, Piece};
use super::request::Framing;
use crate::buffers::Buffer;

/// What of a body is still to come, and how it goes on.
#[derive(Debug)]
pub struct Body {
    state: State,
    /// Whether a chunked body goes on without its framing.
    plain: bool,
    /// Content bytes so far.
    pub bytes: u64,
}

#[derive(Debug)]
enum State {
    Done,
    Length(u64),
    Chunked(Box<Decoder>),
    Close,
}

impl Body {
    /// A body delimited by `framing`. With `plain`, a chunked one goes on without its framing.
    pub fn new(framing: Framing, plain: Plain) -> Self {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Box::default()),
            Framing::Close => State::Close,
        };
        Self { state, plain: plain == Plain::Yes, bytes: 0 }
    }

    /// Whether all of it has been taken in.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How many bytes are still to come, where they go on exactly as they are: they need not be looked at.
    pub fn as_it_is(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Close => Some(u64::MAX),
            State::Done | State::Chunked(_) => None,
        }
    }

    /// `count` bytes went on as they are, past [`Body::transfer`].
    pub fn went_past(&mut self, count: usize) {
        self.bytes += count as u64;
        if let State::Length(left) = &mut self.state {
            *left -= (count as u64).min(*left);
            if *left == 0 {
                self.state = State::Done;
            }
        }
    }

    /// The sender has closed its direction. Whether the body is complete by that.
    pub fn end_of_input(&mut self) -> bool {
        match self.state {
            State::Done | State::Close => {
                self.state = State::Done;
                true
            }
            State::Length(_) | State::Chunked(_) => false,
        }
    }

    /// Moves all that `inbox` has of the body to `out`, framed anew where it is chunked.
    pub fn transfer(&mut self, inbox: &mut Buffer, out: &mut Buffer) -> Result<(), BadChunk> {
        if let Some(left) = self.as_it_is() {
            let take = usize::try_from(left).map_or(inbox.len(), |left| left.min(inbox.len()));
            out.append(&inbox.filled()[..take]);
            inbox.consume(take);
            self.went_past(take);
            return Ok(());
        }
        let State::Chunked(decoder) = &mut self.state else { return Ok(()) };
        loop {
            let (used, piece) = decoder.step(inbox.filled())?;
            match piece {
                Piece::Data(data) => {
                    self.bytes += data.len() as u64;
                    if self.plain {
                        out.append(data);
                    } else {
                        append_chunk(out, data);
                    }
                    inbox.consume(used);
                }
                Piece::More => {
                    inbox.consume(used);
                    return Ok(());
                }
                Piece::End => {
                    inbox.consume(used);
                    if !self.plain {
                        out.append(b"0\r\n");
                        out.append(decoder.trailers());
                        out.append(b"\r\n");
                    }
                    self.state = State::Done;
                    return Ok(());
                }
            }
        }
    }
}

/// Whether a chunked body loses its framing on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// It goes on without.
    Yes,
    /// It is framed anew.
    No,
}

fn append_chunk(out: &mut Buffer, data: &[u8]) {
    let mut size = [0; 18];
    let mut room = &mut size[..];
    // 16 digits and CR LF are the most a 64-bit length takes.
    let wrote = write!(room, "{:x}\r\n", data.len());
    debug_assert!(wrote.is_ok(), "a length fits");
    let unused = room.len();
    out.append(&size[..size.len() - unused]);
    out.append(data);
    out.append(b"\r\n");
}
