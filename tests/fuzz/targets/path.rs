//! Paths: the normal form is one, means what was sent, and no server reads a denied path where the rule does not match.
//!
//! The first line is a rule's path, the rest a request's. Servers are modelled here once more, naively: decode, split, drop
//! parameters or not, resolve.
#![no_main]

use leno_core::authorize::PathRule;
use leno_core::path::normalise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (rule, raw) = text.split_once('\n').unwrap_or(("/admin/*", text));
    let Ok(normal) = normalise(raw) else { return };
    let path = normal.as_str();
    let again = normalise(path).expect("a normal path is not refused");
    assert!(again.as_str() == path && !again.is_changed(), "normalising twice changes {path}");
    if path == "*" {
        return;
    }
    check_form(path);
    assert_eq!(meant(raw), served(path, Parameters::Kept), "{raw} is another resource than {path}");
    if let Ok(rule) = PathRule::new(rule) {
        check_rule(&rule, path);
    }
});

/// What RFC 3986 and the merging of slashes promise of the normal form.
fn check_form(path: &str) {
    assert!(path.starts_with('/') && path.is_ascii() && !path.contains("//"), "{path}");
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{path}");
    for (place, _) in path.match_indices('%') {
        let digits = &path[place + 1..place + 3];
        let value = u8::from_str_radix(digits, 16).expect("an escape has two digits");
        assert_eq!(digits, digits.to_ascii_uppercase(), "{path}");
        assert!(!value.is_ascii_alphanumeric() && !b"-._~/\\".contains(&value) && !value.is_ascii_control(), "{path}");
    }
}

/// What a server makes of parameters.
#[derive(Clone, Copy, Debug)]
enum Parameters {
    Kept,
    DroppedThenDecoded,
    DecodedThenDropped,
}

/// The resource that a server serves for `path`, segment by segment.
fn served(path: &str, parameters: Parameters) -> Vec<Vec<u8>> {
    let mut resource: Vec<Vec<u8>> = Vec::new();
    for segment in path.split('/') {
        let cut = |segment: &[u8]| segment.split(|byte| *byte == b';').next().unwrap_or_default().to_vec();
        let segment = match parameters {
            Parameters::Kept => decoded(segment.as_bytes()),
            Parameters::DroppedThenDecoded => decoded(&cut(segment.as_bytes())),
            Parameters::DecodedThenDropped => cut(&decoded(segment.as_bytes())),
        };
        match &segment[..] {
            b"" | b"." => {}
            b".." => drop(resource.pop()),
            _ => resource.push(segment),
        }
    }
    resource
}

/// The resource that a path as sent means: dot segments are resolved first (RFC 3986 section 5.2.4), empty segments dropped then.
fn meant(raw: &str) -> Vec<Vec<u8>> {
    let mut resource: Vec<Vec<u8>> = Vec::new();
    for segment in raw.split('/').skip(1).map(|segment| decoded(segment.as_bytes())) {
        match &segment[..] {
            b"." => {}
            b".." => drop(resource.pop()),
            _ => resource.push(segment),
        }
    }
    resource.retain(|segment| !segment.is_empty());
    resource
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut place = 0;
    while place < text.len() {
        let escape = text.get(place + 1..place + 3).filter(|_| text[place] == b'%');
        let value = escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(value.unwrap_or(text[place]));
        place += if value.is_some() { 3 } else { 1 };
    }
    out
}

fn check_rule(rule: &PathRule, path: &str) {
    let (wanted, is_prefix) = match rule {
        PathRule::Exact(wanted) => (served(wanted, Parameters::Kept), false),
        PathRule::Below(wanted) => (served(wanted, Parameters::Kept), true),
    };
    let all = [Parameters::Kept, Parameters::DroppedThenDecoded, Parameters::DecodedThenDropped];
    let serves = |parameters: &Parameters| {
        let resource = served(path, *parameters);
        if is_prefix { resource.starts_with(&wanted) } else { resource == wanted }
    };
    assert_eq!(rule.may_match(path), all.iter().any(serves), "{rule:?} may match {path}");
    if rule.surely_matches(path) {
        assert!(all.iter().all(serves), "{rule:?} surely matches {path}, and some server serves something else");
    }
}
