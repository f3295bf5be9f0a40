//! The request target that the kubelet makes of an `httpGet` probe's path.
//!
//! The kubelet is written in Go: it reads the path with [`url.Parse`](https://pkg.go.dev/net/url#Parse) and sends what
//! `URL.RequestURI` gives. What is percent-encoded well stays as it is written; what no request may hold is percent-encoded.

use std::fmt::Write as _;

/// The target of the request that asks for `path`, as declared.
pub(super) fn on_the_wire(path: &str) -> String {
    let readable = !path.bytes().any(|byte| byte.is_ascii_control());
    let (before, _fragment) = path.split_once('#').unwrap_or((path, ""));
    let (wanted, query) = before.split_once('?').map_or((before, None), |(wanted, query)| (wanted, Some(query)));
    // `//host/path` names a host, in whose place the pod's address comes.
    let wanted = wanted.strip_prefix("//").map_or(wanted, |rest| rest.find('/').map_or("", |at| &rest[at..]));
    let mut target = match decoded(wanted).filter(|_| readable) {
        Some(_) if wanted.bytes().all(|byte| byte == b'%' || stays(byte) || b"!'()*[]".contains(&byte)) => wanted.to_owned(),
        Some(bytes) => encoded(&bytes),
        // Not readable as a URL: all of it is the path.
        None => return rooted(encoded(path.as_bytes())),
    };
    target = rooted(target);
    if let Some(query) = query {
        target.push('?');
        target.push_str(&query.replace(' ', "%20"));
    }
    target
}

fn rooted(path: String) -> String {
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// The bytes behind percent-escapes; `None` when one of them is malformed.
fn decoded(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    Some(bytes)
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if stays(byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("text takes everything");
        }
    }
    text
}

/// What Go leaves as it is in a path (`shouldEscape` of `net/url`).
fn stays(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probes_path_becomes_the_target_that_the_kubelet_sends() {
        let cases = [
            ("/healthz", "/healthz"),
            ("", "/"),
            ("healthz", "/healthz"),
            ("/healthz?full=1&x=a,b", "/healthz?full=1&x=a,b"),
            ("/healthz?", "/healthz?"),
            ("/healthz#top", "/healthz"),
            ("/a%2Fb/(c)*", "/a%2Fb/(c)*"),
            ("/two words/\u{e9}", "/two%20words/%C3%A9"),
            ("/mixed%2F \"", "/mixed/%20%22"),
            ("/50%", "/50%25"),
            ("/50%?x", "/50%25%3Fx"),
            ("//other/healthz", "/healthz"),
            ("//other", "/"),
        ];
        for (path, target) in cases {
            assert_eq!(on_the_wire(path), target, "{path:?}");
        }
    }
}
