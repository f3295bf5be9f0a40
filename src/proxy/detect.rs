//! Detection: what the first bytes of a connection speak.

/// Longest method token that is taken for HTTP: `UPDATEREDIRECTREF` is the longest that is registered with IANA.
const METHOD_MAX: usize = 17;
/// The bytes every HTTP/2 connection with prior knowledge begins with (RFC 9113 section 3.4).
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the bytes seen so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough to say.
    NeedMore,
    /// An HTTP/1 request.
    Http1,
    /// The HTTP/2 preface.
    Http2,
    /// Neither: bytes to be carried as they are.
    Opaque,
}

/// How a request's target can begin (RFC 9112 section 3.2); `CONNECT` has another kind of target.
const TARGETS: [&[u8]; 4] = [b"/", b"http://", b"https://", b"* HTTP/"];

/// Says what `bytes`, the first of a connection, speak. Once it says other than [`Verdict::NeedMore`], more bytes do not
/// change it. At most the first 26 bytes are looked at, so `NeedMore` ends by then.
///
/// A request is known by its method, an upper-case token of at most 17 letters and `-`, followed by a space and the
/// beginning of a target. Text protocols with upper-case commands (`EHLO host`, `GET key`) are no requests by that.
pub fn detect(bytes: &[u8]) -> Verdict {
    let seen = bytes.len().min(HTTP2_PREFACE.len());
    if bytes[..seen] == HTTP2_PREFACE[..seen] {
        return if seen == HTTP2_PREFACE.len() { Verdict::Http2 } else { Verdict::NeedMore };
    }
    let method = bytes.iter().take(METHOD_MAX + 1).take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    if method > METHOD_MAX {
        return Verdict::Opaque;
    }
    match (method, &bytes[method..]) {
        (_, []) => Verdict::NeedMore,
        (0, _) => Verdict::Opaque,
        (_, [b' ', target @ ..]) => detect_target(&bytes[..method], target),
        _ => Verdict::Opaque,
    }
}

fn detect_target(method: &[u8], target: &[u8]) -> Verdict {
    if method == b"CONNECT" {
        return match target.first() {
            None => Verdict::NeedMore,
            Some(byte) if byte.is_ascii_alphanumeric() || *byte == b'[' => Verdict::Http1,
            Some(_) => Verdict::Opaque,
        };
    }
    if TARGETS.iter().any(|beginning| target.starts_with(beginning)) {
        Verdict::Http1
    } else if TARGETS.iter().any(|beginning| beginning.starts_with(target)) {
        Verdict::NeedMore
    } else {
        Verdict::Opaque
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_bytes_tell_http_from_everything_else() {
        let cases: [(&[u8], Verdict); 19] = [
            (b"", Verdict::NeedMore),
            (b"G", Verdict::NeedMore),
            (b"GET ", Verdict::NeedMore),
            (b"GET /", Verdict::Http1),
            (b"M-SEARCH * HTTP/1.1\r\n", Verdict::Http1),
            (b"CONNECT payment:80 HTTP/1.1\r\n", Verdict::Http1),
            (b"PRI * HTTP/2.0\r\n", Verdict::NeedMore),
            (HTTP2_PREFACE, Verdict::Http2),
            (b"PRI * HTTP/1.1\r\n", Verdict::Http1),
            (b"\x16\x03\x01\x02\x00", Verdict::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::Opaque),
            (b"get / HTTP/1.1\r\n", Verdict::Opaque),
            (b"PING\r\n", Verdict::Opaque),
            (b"EHLO host\r\n", Verdict::Opaque),
            (b"GET key\r\n", Verdict::Opaque),
            (b"GET http", Verdict::NeedMore),
            (b"GET http://payment/", Verdict::Http1),
            (b"ABCDEFGHIJKLMNOPQR", Verdict::Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Verdict::Opaque),
        ];
        for (bytes, want) in cases {
            assert_eq!(detect(bytes), want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn a_verdict_never_changes_with_more_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40), upper in "[A-Z -]{0,6}") {
            let whole: Vec<u8> = upper.into_bytes().into_iter().chain(bytes).collect();
            let mut settled = None;
            for end in 0..=whole.len() {
                let verdict = detect(&whole[..end]);
                if let Some(settled) = settled {
                    prop_assert_eq!(verdict, settled);
                } else if verdict != Verdict::NeedMore {
                    settled = Some(verdict);
                }
            }
            prop_assert!(whole.len() < 26 || settled.is_some(), "detection ends");
        }
    }
}
