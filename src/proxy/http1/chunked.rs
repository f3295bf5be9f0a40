//! The chunked coding (RFC 9112 section 7.1): a strict decoder that takes bytes as they come.
//!
//! Chunk extensions are checked for form and dropped, trailer fields are checked and kept. What the proxy sends on is
//! framed anew, so the next recipient never sees a framing that another one could read differently.

use super::head::{FIELDS_MAX, Known, is_token, is_value};

/// Bytes a chunk-size line may have, extensions included.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// Digits of a chunk size: 60 bits are beyond any body.
const SIZE_DIGITS_MAX: u8 = 15;
/// Bytes all trailer lines may have, those that are not passed on included: below the 16 KiB that many servers take.
const TRAILER_BYTES_MAX: usize = 15 * 1024;

/// The chunked framing is broken; what follows on the connection means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunked framing is malformed")]
pub struct BadChunk;

/// Where a decoder is.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// Bytes of the extension or of all trailer lines so far.
    line_bytes: usize,
    /// Trailer lines so far.
    trailer_lines: usize,
    /// Trailer field lines, each with its CR LF, without those that may not be passed on.
    trailers: Vec<u8>,
    /// Where the trailer line that is being read begins.
    line_start: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLineFeed { value: u64 },
    Data { left: u64 },
    DataReturn,
    DataLineFeed,
    Trailer,
    TrailerLineFeed,
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { value: 0, digits: 0 }
    }
}

/// What a step of decoding found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'i> {
    /// These bytes are content.
    Data(&'i [u8]),
    /// All input is used and more is needed.
    More,
    /// The body is complete.
    End,
}

impl Decoder {
    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer field lines that may be passed on, each with its CR LF.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Decodes up to the next piece. Returns how many bytes of `input` are used by it and all before it.
    pub fn step<'i>(&mut self, input: &'i [u8]) -> Result<(usize, Piece<'i>), BadChunk> {
        let mut used = 0;
        loop {
            match self.state {
                State::Done => return Ok((used, Piece::End)),
                State::Data { left } => {
                    let there = &input[used..];
                    if there.is_empty() {
                        return Ok((used, Piece::More));
                    }
                    let take = usize::try_from(left).map_or(there.len(), |left| left.min(there.len()));
                    let left = left - take as u64;
                    self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
                    return Ok((used + take, Piece::Data(&there[..take])));
                }
                State::Size { .. }
                | State::Extension { .. }
                | State::SizeLineFeed { .. }
                | State::DataReturn
                | State::DataLineFeed
                | State::Trailer
                | State::TrailerLineFeed => {
                    let Some(byte) = input.get(used) else { return Ok((used, Piece::More)) };
                    self.state = self.advance(*byte)?;
                    used += 1;
                }
            }
        }
    }

    /// One byte of framing.
    fn advance(&mut self, byte: u8) -> Result<State, BadChunk> {
        match (self.state, byte) {
            (State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < SIZE_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Ok(State::Size { value: value * 16 + digit, digits: digits + 1 })
            }
            (State::Size { value, digits: 1.. }, b';') => {
                self.line_bytes = 0;
                Ok(State::Extension { value })
            }
            (State::Size { value, digits: 1.. } | State::Extension { value }, b'\r') => Ok(State::SizeLineFeed { value }),
            (State::Extension { value }, byte) if is_value(byte) && self.line_bytes < SIZE_LINE_BYTES_MAX => {
                self.line_bytes += 1;
                Ok(State::Extension { value })
            }
            (State::SizeLineFeed { value: 0 }, b'\n') => {
                self.line_bytes = 0;
                Ok(State::Trailer)
            }
            (State::SizeLineFeed { value }, b'\n') => Ok(State::Data { left: value }),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::default()),
            (State::Trailer, b'\r') => Ok(State::TrailerLineFeed),
            (State::Trailer, byte) if is_value(byte) && self.line_bytes < TRAILER_BYTES_MAX => {
                self.line_bytes += 1;
                self.trailers.push(byte);
                Ok(State::Trailer)
            }
            (State::TrailerLineFeed, b'\n') => self.end_trailer_line(),
            (
                State::Size { .. }
                | State::Extension { .. }
                | State::SizeLineFeed { .. }
                | State::Data { .. }
                | State::DataReturn
                | State::DataLineFeed
                | State::Trailer
                | State::TrailerLineFeed
                | State::Done,
                _,
            ) => Err(BadChunk),
        }
    }

    fn end_trailer_line(&mut self) -> Result<State, BadChunk> {
        let line = &self.trailers[self.line_start..];
        if line.is_empty() {
            return Ok(State::Done);
        }
        let colon = line.iter().position(|byte| !is_token(*byte)).ok_or(BadChunk)?;
        if colon == 0 || line[colon] != b':' {
            return Err(BadChunk);
        }
        // The bounds count lines that are dropped as well, or an endless row of them would never meet them.
        self.line_bytes += b"\r\n".len();
        self.trailer_lines += 1;
        if self.trailer_lines > FIELDS_MAX {
            return Err(BadChunk);
        }
        if may_trail(&line[..colon]) {
            self.trailers.extend_from_slice(b"\r\n");
        } else {
            self.trailers.truncate(self.line_start);
        }
        self.line_start = self.trailers.len();
        Ok(State::Trailer)
    }
}

/// Fields that frame or route must not come after the body (RFC 9110 section 6.5.1).
fn may_trail(name: &[u8]) -> bool {
    match Known::of(name) {
        Known::Connection
        | Known::ContentLength
        | Known::Host
        | Known::Http2Settings
        | Known::KeepAlive
        | Known::Leno
        | Known::ProxyAuth
        | Known::ProxyConnection
        | Known::Te
        | Known::TransferEncoding
        | Known::Upgrade
        | Known::ForwardedFor
        | Known::ForwardedProto
        | Known::RequestId => false,
        Known::No => !name.eq_ignore_ascii_case(b"trailer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Decoded = Result<(Vec<u8>, Vec<u8>, usize, bool), BadChunk>;

    /// Content, trailers, bytes used and whether it is complete, with the input split at `cuts`.
    fn decode(input: &[u8], cuts: &[usize]) -> Decoded {
        let mut decoder = Decoder::default();
        let (mut content, mut used, mut start) = (Vec::new(), 0, 0);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).chain([input.len()]).collect();
        cuts.sort_unstable();
        for cut in cuts {
            let mut part = &input[start..cut];
            start = cut;
            loop {
                let (step, piece) = decoder.step(part)?;
                used += step;
                part = &part[step..];
                match piece {
                    Piece::Data(data) => content.extend_from_slice(data),
                    Piece::More => break,
                    Piece::End => return Ok((content, decoder.trailers().to_vec(), used, true)),
                }
            }
        }
        Ok((content, decoder.trailers().to_vec(), used, false))
    }

    #[test]
    fn well_formed_bodies_are_decoded_to_their_last_byte() {
        let cases: [(&str, &str, &str); 6] = [
            ("0\r\n\r\n", "", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
            ("5;a=b;c=\"d\"\r\nhello\r\n00\r\n\r\n", "hello", ""),
            ("A\r\n0123456789\r\n1\r\n!\r\n0\r\n\r\n", "0123456789!", ""),
            ("1\r\nx\r\n0\r\nGrpc-Status: 0\r\nX-Sum: 1\r\n\r\n", "x", "Grpc-Status: 0\r\nX-Sum: 1\r\n"),
            ("1\r\nx\r\n0\r\nContent-Length: 3\r\nA: 1\r\nx-leno-y: z\r\n\r\n", "x", "A: 1\r\n"),
        ];
        for (input, content, trailers) in cases {
            let want = Ok((content.as_bytes().to_vec(), trailers.as_bytes().to_vec(), input.len(), true));
            assert_eq!(decode(input.as_bytes(), &[]), want, "{input:?}");
        }
    }

    #[test]
    fn as_many_trailers_are_taken_as_fields_of_a_head() {
        let trailers = "a: b\r\n".repeat(FIELDS_MAX);
        let input = format!("0\r\n{trailers}\r\n");
        assert_eq!(decode(input.as_bytes(), &[]), Ok((Vec::new(), trailers.into_bytes(), input.len(), true)));
    }

    #[test]
    fn malformed_framing_is_refused() {
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(300));
        let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        let many_dropped = format!("0\r\n{}\r\n", "host: b\r\n".repeat(FIELDS_MAX + 1));
        let large = format!("0\r\n{}\r\n", format!("a: {}\r\n", "b".repeat(200)).repeat(FIELDS_MAX));
        let large_dropped = format!("0\r\n{}\r\n", format!("host: {}\r\n", "b".repeat(200)).repeat(FIELDS_MAX));
        let cases = [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\nx",
            "0x1\r\nx",
            " 1\r\nx",
            "1 \r\nx",
            "1\nx\r\n",
            "1\rx",
            ";a\r\n",
            "5\r\nhelloX",
            "5\r\nhello\rX",
            "5\r\nhello\n",
            "1111111111111111\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\na\r\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\n\n",
            "0\r\na: \0\r\n",
            "1;\nx\r\n",
            "1;\0\r\nx",
            &long,
            &many,
            &many_dropped,
            &large,
            &large_dropped,
        ];
        for case in cases {
            assert_eq!(decode(case.as_bytes(), &[]), Err(BadChunk), "{case:?}");
        }
    }

    proptest! {
        #[test]
        fn split_anywhere_gives_the_same_result(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            noise in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cuts in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend(format!("{:x}\r\n", chunk.len()).bytes());
                input.extend(chunk);
                input.extend(b"\r\n");
            }
            input.extend(b"0\r\nA: b\r\n\r\n");
            if let Some((place, byte)) = noise {
                let place = place.index(input.len());
                input[place] = byte;
            } else {
                prop_assert_eq!(decode(&input, &[]).unwrap().0, chunks.concat());
            }
            prop_assert_eq!(decode(&input, &cuts), decode(&input, &[]));
        }
    }
}
