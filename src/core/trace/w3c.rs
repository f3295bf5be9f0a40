//! W3C Trace Context, level 1 (and level 2's flag that a trace's number is random): `traceparent` and `tracestate`.

use super::{Parent, Span, SpanId, TraceId, hex, put_hex};
use crate::request::Headers;

/// The fields of this form.
pub const FIELDS: [&str; 2] = [TRACEPARENT, TRACESTATE];

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The trace is kept.
pub(super) const SAMPLED: u8 = 1;
/// The number of the trace is random (level 2).
pub(super) const RANDOM: u8 = 2;

/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Bytes of a `tracestate` that go on; everybody must take as many (section 3.3.1.5).
pub const STATE_BYTES_MAX: usize = 512;
/// Members of a `tracestate` (section 3.3.1.1).
const MEMBERS_MAX: usize = 32;

/// What a `traceparent` says.
pub(super) struct Said {
    pub(super) parent: Parent,
    pub(super) sampled: bool,
    pub(super) is_random: bool,
}

/// What the request's `traceparent` says; `None` where it is not there, more than once, or not valid (section 3.2).
pub(super) fn read(headers: &dyn Headers) -> Option<Said> {
    let value = headers.get(TRACEPARENT)?;
    let text = value.get(..LENGTH)?;
    let [version] = hex::<1>(&text[..2], false)?;
    let is_long_enough = match version {
        0 => value.len() == LENGTH,
        // Never to be used.
        0xff => false,
        // Of later versions the beginning is as of this one.
        _ => matches!(value.get(LENGTH), None | Some(b'-')),
    };
    let has_dashes = [2, 35, 52].iter().all(|place| text[*place] == b'-');
    if !is_long_enough || !has_dashes {
        return None;
    }
    let parent = Parent { trace: TraceId::new(hex(&text[3..35], false)?)?, span: SpanId::new(hex(&text[36..52], false)?)? };
    let [flags] = hex::<1>(&text[53..], false)?;
    Some(Said { parent, sampled: flags & SAMPLED != 0, is_random: flags & RANDOM != 0 })
}

/// The request's `tracestate`, its lines joined, without empty members at the ends; `None` where it is not there, too long or not valid
/// (section 3.3).
pub(super) fn read_state(headers: &dyn Headers) -> Option<Box<str>> {
    let value = headers.get(TRACESTATE)?;
    // Empty lines leave separators at the ends.
    let text = std::str::from_utf8(&value).ok()?.trim_matches([' ', '\t', ',']);
    let mut keys = Vec::new();
    for member in text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty()) {
        let (key, value) = member.split_once('=')?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == MEMBERS_MAX {
            return None;
        }
        keys.push(key);
    }
    (!keys.is_empty() && text.len() <= STATE_BYTES_MAX).then(|| text.into())
}

fn is_key(key: &str) -> bool {
    let (first, rest) = key.as_bytes().split_first().unwrap_or((&0, &[]));
    let follows = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= 256 && matches!(first, b'a'..=b'z' | b'0'..=b'9') && rest.iter().all(follows)
}

fn is_value(value: &str) -> bool {
    let fits = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    !value.is_empty() && value.len() <= 256 && value.as_bytes().iter().all(fits)
}

pub(super) fn write(span: &Span, write: &mut impl FnMut(&'static str, &[u8])) {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    put_hex(&mut value[3..35], &span.trace.bytes());
    put_hex(&mut value[36..52], &span.id.bytes());
    put_hex(&mut value[53..], &[span.flags()]);
    write(TRACEPARENT, &value);
    if let Some(state) = &span.state {
        write(TRACESTATE, state.as_bytes());
    }
}
