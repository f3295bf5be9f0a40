//! B3 Propagation: the field `b3`, or one field for each part. Read in both forms, written in the one that the request has.

use super::{Parent, Span, SpanId, TraceId, hex, put_hex};
use crate::request::Headers;

/// The fields of both forms.
pub const FIELDS: [&str; 6] = [SINGLE, TRACE, SPAN, PARENT, SAMPLED, FLAGS];

const SINGLE: &str = "b3";
const TRACE: &str = "x-b3-traceid";
const SPAN: &str = "x-b3-spanid";
const PARENT: &str = "x-b3-parentspanid";
const SAMPLED: &str = "x-b3-sampled";
const FLAGS: &str = "x-b3-flags";

/// One field or many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `b3`.
    Single,
    /// `x-b3-…`. Also for requests that have neither.
    #[default]
    Multi,
}

/// What the fields say. A decision may come without a trace.
#[derive(Default)]
pub(super) struct Said {
    pub(super) parent: Option<Parent>,
    pub(super) sampled: Option<bool>,
    pub(super) is_debug: bool,
}

impl Said {
    fn decision(sampled: Option<bool>, is_debug: bool) -> Self {
        Self { parent: None, sampled, is_debug }
    }
}

/// What the request says, and the form it has. `b3` is believed before the others, as the specification has it.
pub(super) fn read(headers: &dyn Headers) -> (Option<Said>, Form) {
    match headers.get(SINGLE) {
        Some(value) => match single(&value) {
            Some(said) => (Some(said), Form::Single),
            None => (multi(headers), Form::Single),
        },
        None => (multi(headers), Form::Multi),
    }
}

fn single(value: &[u8]) -> Option<Said> {
    let mut parts = value.split(|byte| *byte == b'-');
    let first = parts.next()?;
    if first.len() == 1 {
        let (sampled, is_debug) = state(first)?;
        return parts.next().is_none().then(|| Said::decision(Some(sampled), is_debug));
    }
    let parent = parent(first, parts.next()?)?;
    let decision = parts.next().map(state);
    let grandparent = parts.next().map(|part| hex::<8>(part, true));
    if decision == Some(None) || grandparent == Some(None) || parts.next().is_some() {
        return None;
    }
    let decision = decision.flatten();
    Some(Said {
        parent: Some(parent),
        sampled: decision.map(|(sampled, _)| sampled),
        is_debug: decision.is_some_and(|(_, is_debug)| is_debug),
    })
}

fn state(text: &[u8]) -> Option<(bool, bool)> {
    match text {
        b"0" => Some((false, false)),
        b"1" => Some((true, false)),
        b"d" => Some((true, true)),
        _ => None,
    }
}

fn multi(headers: &dyn Headers) -> Option<Said> {
    let is_debug = headers.get(FLAGS).is_some_and(|flags| *flags == *b"1");
    let sampled = match headers.get(SAMPLED).as_deref() {
        _ if is_debug => Some(true),
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        Some(_) | None => None,
    };
    let parent = match (headers.get(TRACE), headers.get(SPAN)) {
        (Some(trace), Some(span)) => parent(&trace, &span),
        (_, _) => None,
    };
    (parent.is_some() || sampled.is_some()).then_some(Said { parent, sampled, is_debug })
}

/// A trace's number may have half of its bytes: the others are zero then.
fn parent(trace: &[u8], span: &[u8]) -> Option<Parent> {
    let trace = match hex::<8>(trace, true) {
        Some(half) => {
            let mut whole = [0; 16];
            whole[8..].copy_from_slice(&half);
            whole
        }
        None => hex(trace, true)?,
    };
    Some(Parent { trace: TraceId::new(trace)?, span: SpanId::new(hex(span, true)?)? })
}

pub(super) fn write(span: &Span, write: &mut impl FnMut(&'static str, &[u8])) {
    match span.b3 {
        Form::Single => write_single(span, write),
        Form::Multi => write_multi(span, write),
    }
}

fn write_single(span: &Span, write: &mut impl FnMut(&'static str, &[u8])) {
    let mut value = *b"00000000000000000000000000000000-0000000000000000-0-0000000000000000";
    put_hex(&mut value, &span.trace.bytes());
    put_hex(&mut value[33..], &span.id.bytes());
    value[50] = match (span.is_debug, span.is_sampled) {
        (true, _) => b'd',
        (false, true) => b'1',
        (false, false) => b'0',
    };
    match span.parent {
        Some(parent) => {
            put_hex(&mut value[52..], &parent.bytes());
            write(SINGLE, &value);
        }
        None => write(SINGLE, &value[..51]),
    }
}

fn write_multi(span: &Span, write: &mut impl FnMut(&'static str, &[u8])) {
    let mut trace = [0; 32];
    put_hex(&mut trace, &span.trace.bytes());
    write(TRACE, &trace);
    let mut id = [0; 16];
    put_hex(&mut id, &span.id.bytes());
    write(SPAN, &id);
    if let Some(parent) = span.parent {
        put_hex(&mut id, &parent.bytes());
        write(PARENT, &id);
    }
    match (span.is_debug, span.is_sampled) {
        (true, _) => write(FLAGS, b"1"),
        (false, true) => write(SAMPLED, b"1"),
        (false, false) => write(SAMPLED, b"0"),
    }
}
