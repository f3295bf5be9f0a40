//! gRPC messages in a byte stream (length-prefixed messages of the gRPC over HTTP/2 protocol): one byte of flags, four of length, the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// Bytes before each message.
pub const PREFIX_BYTES: usize = 5;

/// The stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message is longer than this end takes.
    #[error("a message of {bytes} bytes is announced; the limit is {limit}")]
    TooLong {
        /// What the prefix says.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The message is compressed or the first byte is no flag.
    #[error("flag byte {0} in front of a message: compression was not agreed on")]
    Flags(u8),
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Truncated,
}

/// Cuts messages out of a byte stream that arrives in pieces.
///
/// Holds at most one incomplete message, so at most the limit and the prefix, besides the piece pushed last.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    limit: usize,
}

impl Decoder {
    /// Refuses messages longer than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit }
    }

    /// Takes in a piece of the stream. Call [`Decoder::next`] until it gives `None` before the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole message, or `None` until more has come.
    #[expect(clippy::should_implement_trait, reason = "an iterator's None would mean the end")]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [flags, length @ ..] = *prefix;
        if flags != 0 {
            return Err(FrameError::Flags(flags));
        }
        let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if bytes > self.limit {
            return Err(FrameError::TooLong { bytes, limit: self.limit });
        }
        if self.buffer.len() - PREFIX_BYTES < bytes {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        let message = self.buffer.split_to(bytes).freeze();
        if self.buffer.is_empty() {
            // What came in one burst must not be kept for the life of the stream.
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }

    /// To be called at the end of the stream.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }

    /// Bytes held.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }
}

/// One message with its prefix.
pub fn encode(message: &impl Message) -> Bytes {
    let bytes = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    put_prefix(&mut out, bytes);
    message.encode(&mut out).expect("the buffer grows");
    out.freeze()
}

/// The prefix of a message of `bytes`.
pub(crate) fn put_prefix(out: &mut impl BufMut, bytes: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(bytes).expect("messages are cut far below 4 GiB"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for message in messages {
            put_prefix(&mut out, message.len());
            out.extend_from_slice(message);
        }
        out.to_vec()
    }

    fn read(decoder: &mut Decoder, stream: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut messages = Vec::new();
        for piece in stream.chunks(piece) {
            decoder.push(piece);
            while let Some(message) = decoder.next()? {
                messages.push(message.to_vec());
            }
        }
        decoder.finish().map(|()| messages)
    }

    proptest! {
        /// However the stream is cut, the same messages come out.
        #[test]
        fn messages_come_out_whole_however_the_stream_is_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6), piece in 1usize..50,
        ) {
            prop_assert_eq!(read(&mut Decoder::new(40), &framed(&messages), piece), Ok(messages));
        }

        #[test]
        fn no_more_than_the_limit_is_ever_held(stream in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..20) {
            let mut decoder = Decoder::new(16);
            for piece in stream.chunks(piece) {
                decoder.push(piece);
                loop {
                    match decoder.next() {
                        Ok(Some(message)) => prop_assert!(message.len() <= 16),
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(decoder.buffered() < PREFIX_BYTES + 16);
            }
        }
    }

    #[test]
    fn a_message_one_byte_above_the_limit_is_refused_before_it_is_taken_in() {
        let at = framed(&[vec![7; 16]]);
        assert_eq!(read(&mut Decoder::new(16), &at, 100), Ok(vec![vec![7; 16]]));
        let mut decoder = Decoder::new(16);
        decoder.push(&[0, 0, 0, 0, 17]);
        assert_eq!(decoder.next(), Err(FrameError::TooLong { bytes: 17, limit: 16 }));
    }

    #[test]
    fn compressed_messages_and_cut_streams_are_refused() {
        let mut decoder = Decoder::new(16);
        decoder.push(&[1, 0, 0, 0, 0]);
        assert_eq!(decoder.next(), Err(FrameError::Flags(1)));
        assert_eq!(read(&mut Decoder::new(16), &[0, 0, 0, 0, 2, 9], 100), Err(FrameError::Truncated));
    }
}
