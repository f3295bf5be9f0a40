//! The chunked coding: what is accepted means the same to a second, naive decoder, and what is sent on means the same again.
//!
//! The first byte says where the input is split; the rest is the body as it arrives.
#![no_main]

use std::rc::Rc;

use leno_parsers::buffers::{Buffer, Buffers};
use leno_parsers::http1::body::{Body, Plain};
use leno_parsers::http1::chunked::{BadChunk, Decoder, Piece};
use leno_parsers::http1::request::Framing;
use libfuzzer_sys::fuzz_target;

/// What a decoder made of an input.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    content: Vec<u8>,
    trailers: Vec<u8>,
    used: usize,
    is_whole: bool,
}

fuzz_target!(|input: &[u8]| {
    let Some((step, body)) = input.split_first() else { return };
    let whole = decode(body, body.len().max(1));
    let split = decode(body, usize::from(*step).max(1));
    assert_eq!(split.is_ok(), whole.is_ok(), "split reads are judged otherwise");
    let Ok(whole) = whole else { return };
    assert_eq!(split.as_ref(), Ok(&whole));
    if !whole.is_whole {
        return;
    }
    let (content, used) = naive(body).expect("a second decoder reads what the first accepts");
    assert_eq!((&content, used), (&whole.content, whole.used));
    check_sent_on(body, usize::from(*step).max(1), &whole);
});

fn decode(input: &[u8], step: usize) -> Result<Decoded, BadChunk> {
    let mut decoder = Decoder::default();
    let mut decoded = Decoded { content: Vec::new(), trailers: Vec::new(), used: 0, is_whole: false };
    for mut part in input.chunks(step) {
        loop {
            let (used, piece) = decoder.step(part)?;
            decoded.used += used;
            part = &part[used..];
            match piece {
                Piece::Data(data) => decoded.content.extend_from_slice(data),
                Piece::More => break,
                Piece::End => {
                    decoded.trailers = decoder.trailers().to_vec();
                    decoded.is_whole = true;
                    return Ok(decoded);
                }
            }
        }
        assert!(part.is_empty(), "input is left over, yet more is wanted");
    }
    Ok(decoded)
}

/// Content and length of a whole body, line by line as RFC 9112 section 7.1 draws it.
fn naive(mut rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let total = rest.len();
    let mut content = Vec::new();
    loop {
        let line = take_line(&mut rest)?;
        let digits = line.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        content.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
    while !take_line(&mut rest)?.is_empty() {}
    Some((content, total - rest.len()))
}

fn take_line<'i>(rest: &mut &'i [u8]) -> Option<&'i [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}

/// What goes on has the same content and trailers, no extension, and nothing of what follows the body.
fn check_sent_on(body: &[u8], step: usize, whole: &Decoded) {
    let sent = transfer(body, step, Plain::No);
    let again = decode(&sent, sent.len()).expect("what is sent on is well-formed");
    assert!(again.is_whole && again.used == sent.len(), "what is sent on ends where it should");
    assert_eq!((&again.content, &again.trailers), (&whole.content, &whole.trailers));
    assert_eq!(naive(&sent).map(|(content, _)| content).as_ref(), Some(&whole.content));
    assert_eq!(transfer(body, step, Plain::Yes), whole.content, "without its framing, a body is its content");
}

fn transfer(input: &[u8], step: usize, plain: Plain) -> Vec<u8> {
    let buffers = Rc::new(Buffers::default());
    let (mut inbox, mut out): (Buffer, Buffer) = (buffers.take(), buffers.take());
    let mut body = Body::new(Framing::Chunked, plain);
    for part in input.chunks(step) {
        inbox.append(part);
        body.transfer(&mut inbox, &mut out).expect("it was decoded before");
        if body.is_done() {
            break;
        }
        assert!(inbox.is_empty(), "a body that goes on leaves nothing unread");
    }
    out.filled().to_vec()
}
