//! The hello of a TLS client: a verdict never changes with more bytes, comes within the bound, and is the same however the message
//! is cut into records.
#![no_main]

use leno_parsers::hello::{BYTES_MAX, Hello, peek};
use libfuzzer_sys::fuzz_target;

/// Prefixes looked at one by one; beyond them every 97th.
const EVERY_MAX: usize = 400;

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = peek(bytes);
    let mut settled = None;
    for end in (0..=bytes.len()).filter(|end| *end <= EVERY_MAX || end % 97 == 0) {
        let verdict = peek(&bytes[..end]);
        match settled {
            Some(before) => assert_eq!(verdict, before, "the verdict changed with byte {end}"),
            None if verdict != Hello::NeedMore => settled = Some(verdict),
            None => {}
        }
    }
    assert!(settled.is_none_or(|settled| settled == whole), "the verdict changed");
    assert!(bytes.len() < BYTES_MAX || whole != Hello::NeedMore, "no verdict within {BYTES_MAX} bytes");
    if let Some(content) = content(bytes) {
        let again = records(&content, usize::from(*cut) + 1);
        if again.len() < BYTES_MAX {
            assert_eq!(peek(&again), whole, "cut in another way it is something else");
        }
    }
});

/// What the records hold, where the bytes are whole records of a handshake and nothing else.
fn content(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_first_chunk::<5>()?;
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[..2] != [22, 3] || length == 0 || length > 16 * 1024 {
            return None;
        }
        let (part, after) = rest.split_at_checked(length)?;
        content.extend_from_slice(part);
        bytes = after;
    }
    Some(content)
}

fn records(content: &[u8], length: usize) -> Vec<u8> {
    let header = |part: &[u8]| [&[22, 3, 3][..], &u16::try_from(part.len()).unwrap_or_default().to_be_bytes()].concat();
    content.chunks(length).flat_map(|part| [header(part), part.to_vec()].concat()).collect()
}
