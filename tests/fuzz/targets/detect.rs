//! Protocol detection: a verdict comes within 26 bytes, never changes, and agrees with the parser that it sends bytes to.
#![no_main]

use leno_parsers::detect::{HTTP2_PREFACE, Verdict, detect};
use leno_parsers::http1::head::{self, Head};
use leno_parsers::http1::request::{Form, Request};
use libfuzzer_sys::fuzz_target;

/// Detection may look at this many bytes before it must say something.
const BYTES_MAX: usize = 26;

fuzz_target!(|bytes: &[u8]| {
    let whole = detect(bytes);
    let mut settled = None;
    for end in 0..=bytes.len().min(BYTES_MAX + 1) {
        let verdict = detect(&bytes[..end]);
        match settled {
            Some(before) => assert_eq!(verdict, before, "the verdict changed with byte {end}"),
            None if verdict != Verdict::NeedMore => settled = Some(verdict),
            None => {}
        }
    }
    if bytes.len() >= BYTES_MAX {
        assert_eq!(settled, Some(whole), "no verdict within {BYTES_MAX} bytes");
    }
    assert_eq!(whole == Verdict::Http2, bytes.starts_with(HTTP2_PREFACE));
    if is_plain_request(bytes) {
        assert_eq!(whole, Verdict::Http1, "a request that the parser accepts is not seen as one");
    }
});

/// Whether the bytes begin with a request of the form that detection promises to know.
fn is_plain_request(bytes: &[u8]) -> bool {
    let Ok(Some(length)) = head::find_end(bytes, &mut 0) else { return false };
    let Ok(head) = Head::parse(bytes, 0..length) else { return false };
    let Ok(request) = Request::judge(&head) else { return false };
    let method = request.method.of(bytes);
    let known = method.len() <= 17 && method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
    known && matches!(request.form, Form::Origin | Form::Asterisk)
}
