//! Traces: which trace a request belongs to, whether its spans are kept, and how the next one is told.
//!
//! A proxy that traces takes part like any other program: what came with a request becomes its span's parent, and what is sent on
//! names the proxy's own span. Whoever began the trace has decided whether it is kept (head-based sampling), and that holds. Where
//! nobody has, the trace's own number decides, so that all who decide by the same share decide alike.
//!
//! Reading order: [`Incoming::read`], [`Span::begin`], [`Outgoing::each_field`]; [`w3c`] and [`b3`] are the forms on the wire, and
//! [`collector`] is where spans go.

pub mod b3;
pub mod collector;
pub mod w3c;

use std::fmt;
use std::str::FromStr;

use crate::percentage::Percentage;
use crate::request::Headers;

/// A form in which trace contexts travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `traceparent` and `tracestate` (W3C Trace Context).
    W3c,
    /// `b3`, or `x-b3-traceid` and those beside it (B3 Propagation).
    B3,
}

/// The forms that are read and written. The first one that says something is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagation(Vec<Format>);

/// The text is no list of forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} says no way in which traces travel: write W3C, B3 or both, separated by a comma")]
pub struct InvalidPropagation(String);

impl Default for Propagation {
    fn default() -> Self {
        Self(vec![Format::W3c])
    }
}

impl Propagation {
    /// Whether this form is read and written.
    pub fn has(&self, format: Format) -> bool {
        self.0.contains(&format)
    }

    /// Whether the field `name` says something in one of these forms.
    pub fn owns(&self, name: &[u8]) -> bool {
        let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
        // Most fields are told by their first letter.
        match name.first() {
            Some(b't' | b'T') => self.has(Format::W3c) && w3c::FIELDS.iter().any(is),
            Some(b'b' | b'B' | b'x' | b'X') => self.has(Format::B3) && b3::FIELDS.iter().any(is),
            Some(_) | None => false,
        }
    }

    /// Every field of these forms.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().flat_map(|format| {
            match format {
                Format::W3c => w3c::FIELDS.as_slice(),
                Format::B3 => b3::FIELDS.as_slice(),
            }
            .iter()
            .copied()
        })
    }
}

impl FromStr for Propagation {
    type Err = InvalidPropagation;

    fn from_str(text: &str) -> Result<Self, InvalidPropagation> {
        let invalid = || InvalidPropagation(text.to_owned());
        let mut formats = Vec::new();
        for word in text.split(',').map(str::trim) {
            let format = match word {
                "W3C" => Format::W3c,
                "B3" => Format::B3,
                _ => return Err(invalid()),
            };
            if formats.contains(&format) {
                return Err(invalid());
            }
            formats.push(format);
        }
        Ok(Self(formats))
    }
}

impl fmt::Display for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, format) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            f.write_str(comma)?;
            f.write_str(match format {
                Format::W3c => "W3C",
                Format::B3 => "B3",
            })?;
        }
        Ok(())
    }
}

/// The number of a trace: 16 bytes, never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// The number of a span: 8 bytes, never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// `None` for the number zero, which is none.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    fn drawn(draws: [u64; 2]) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&draws[0].to_be_bytes());
        bytes[8..].copy_from_slice(&draws[1].max(1).to_be_bytes());
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// Whether it belongs to the share of traces that are kept, by its last 56 bits, as OpenTelemetry's samplers decide: everybody
    /// who keeps a larger share keeps this one too.
    pub fn is_within(&self, share: Percentage) -> bool {
        const BITS: u32 = 56;
        let randomness = self.0[9..].iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        let left_out = u128::from(Percentage::ALL.millionths() - share.millionths());
        u128::from(randomness) >= (left_out << BITS) / u128::from(Percentage::ALL.millionths())
    }
}

impl SpanId {
    /// `None` for the number zero, which is none.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// Whose child the next span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
}

/// What came with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The span before, where one is named.
    pub parent: Option<Parent>,
    /// Whether the trace is kept, where somebody has decided it; B3 can say that without naming a trace.
    pub sampled: Option<bool>,
    /// Whether it is kept whatever a sampler says (B3).
    pub is_debug: bool,
    /// W3C's flag that the trace's number is random.
    pub is_random: bool,
    /// `tracestate`, where it belongs to the trace.
    pub state: Option<Box<str>>,
    /// The form of B3 that the request has.
    pub b3: b3::Form,
}

impl Incoming {
    /// Reads the fields of a request.
    pub fn read(propagation: &Propagation, headers: &dyn Headers) -> Self {
        let mut incoming = Self::default();
        for format in &propagation.0 {
            let says_nothing = incoming.parent.is_none() && incoming.sampled.is_none();
            match format {
                Format::W3c => {
                    let Some(said) = w3c::read(headers) else { continue };
                    if says_nothing {
                        (incoming.parent, incoming.sampled, incoming.is_random) = (Some(said.parent), Some(said.sampled), said.is_random);
                    }
                    // Both forms may be there for one trace: then its state goes on, whichever form was believed.
                    if incoming.parent.is_some_and(|parent| parent.trace == said.parent.trace) {
                        incoming.state = w3c::read_state(headers);
                    }
                }
                Format::B3 => {
                    let (said, form) = b3::read(headers);
                    incoming.b3 = form;
                    if let (true, Some(said)) = (says_nothing, said) {
                        (incoming.parent, incoming.sampled, incoming.is_debug) = (said.parent, said.sampled, said.is_debug);
                    }
                }
            }
        }
        incoming
    }
}

/// The proxy's own span of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace it belongs to.
    pub trace: TraceId,
    /// Its own number.
    pub id: SpanId,
    /// The span that it is a child of; `None` for the first of its trace.
    pub parent: Option<SpanId>,
    /// Whether it is kept.
    pub is_sampled: bool,
    /// `tracestate` of its trace, which goes on as it came.
    pub state: Option<Box<str>>,
    is_debug: bool,
    is_random: bool,
    b3: b3::Form,
}

impl Span {
    /// The span of a request that came with `incoming`.
    ///
    /// * `share`: how many of the traces are kept that nobody has decided about.
    /// * `draws`: uniform over `u64`; the caller owns the random source. The first two name a trace where the request has none.
    pub fn begin(incoming: Incoming, share: Percentage, draws: [u64; 3]) -> Self {
        let trace = incoming.parent.map_or_else(|| TraceId::drawn([draws[0], draws[1]]), |parent| parent.trace);
        Self {
            trace,
            id: SpanId(draws[2].max(1).to_be_bytes()),
            parent: incoming.parent.map(|parent| parent.span),
            is_sampled: incoming.sampled.unwrap_or_else(|| trace.is_within(share)),
            state: incoming.state,
            is_debug: incoming.is_debug,
            is_random: incoming.is_random,
            b3: incoming.b3,
        }
    }

    /// W3C's trace flags.
    pub fn flags(&self) -> u8 {
        let flag = |holds: bool, flag: u8| if holds { flag } else { 0 };
        flag(self.is_sampled, w3c::SAMPLED) | flag(self.is_random, w3c::RANDOM)
    }

    /// What is sent on of it, in these forms.
    pub fn outgoing<'a>(&'a self, propagation: &'a Propagation) -> Outgoing<'a> {
        Outgoing { span: self, propagation }
    }
}

/// A span in the forms in which it goes on with its request.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    span: &'a Span,
    propagation: &'a Propagation,
}

impl Outgoing<'_> {
    /// Whether it says what the field `name` says, so that none which came goes on.
    pub fn owns(&self, name: &[u8]) -> bool {
        self.propagation.owns(name)
    }

    /// Names of the fields that it owns.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.propagation.fields()
    }

    /// Gives `write` every field, by name and value, that tells the next one of the span.
    pub fn each_field(&self, mut write: impl FnMut(&'static str, &[u8])) {
        for format in &self.propagation.0 {
            match format {
                Format::W3c => w3c::write(self.span, &mut write),
                Format::B3 => b3::write(self.span, &mut write),
            }
        }
    }
}

/// Reads `N` bytes of hexadecimal digits. Upper case only where `any_case`.
fn hex<const N: usize>(text: &[u8], any_case: bool) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' if any_case => Some(byte - b'A' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

/// Writes `bytes` as hexadecimal digits, in lower case, at the beginning of `out`.
fn put_hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0x0f)];
    }
}

#[cfg(test)]
mod tests;
