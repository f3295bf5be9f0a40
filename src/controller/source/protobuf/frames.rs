//! Cuts a watch's bytes into events and writes each as a line.

use bytes::{Buf as _, Bytes, BytesMut};

use super::transcode::{Broken, event_line};

/// Bytes in front of each event: its length.
const PREFIX_BYTES: usize = 4;
/// The longest event; etcd takes no object above 1.5 MiB by default.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What has come of an event that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Takes in a piece and gives the lines of the events that are whole with it.
    pub(super) fn lines(&mut self, piece: &[u8]) -> Result<Bytes, Broken> {
        self.buffer.extend_from_slice(piece);
        let mut lines = Vec::new();
        while let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() {
            let bytes = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
            if bytes > EVENT_BYTES_MAX {
                return Err(Broken::TooLong(bytes));
            }
            let Some(event) = self.buffer.get(PREFIX_BYTES..PREFIX_BYTES + bytes) else { break };
            event_line(event, &mut lines)?;
            self.buffer.advance(PREFIX_BYTES + bytes);
        }
        if self.buffer.is_empty() {
            // What came in one burst must not be kept for the life of the watch.
            self.buffer = BytesMut::new();
        }
        Ok(lines.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_too_long_is_refused_before_it_is_taken_in() {
        let too_long = u32::try_from(EVENT_BYTES_MAX + 1).unwrap().to_be_bytes();
        assert_eq!(Frames::default().lines(&too_long), Err(Broken::TooLong(EVENT_BYTES_MAX + 1)));
        assert_eq!(Frames::default().lines(&too_long[..3]), Ok(Bytes::new()), "its length is not known yet");
    }
}
