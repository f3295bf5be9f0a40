//! The head of an HTTP/1 message: its lines, by place, checked strictly (RFC 9112).
//!
//! Nothing is copied and no map is made: a [`Head`] says where the lines and fields are in the bytes it was read from.
//! What RFC 9112 lets a lenient recipient accept (bare LF, folded lines, space before a colon) is refused, because two
//! recipients that differ in leniency are what request smuggling is made of.
//!
//! Reading order: [`find_end`], [`Head::parse`], [`HeadError`].

use std::borrow::Cow;
use std::ops::Range;

use leno_core::request::{Headers, join};
use smallvec::SmallVec;

/// Fields a head may have that an app sends.
pub const FIELDS_MAX: usize = 100;
/// Fields that a head has room for without an allocation: as many as browsers send.
const FIELDS_USUAL: usize = 24;
/// Bytes a head may have that an app sends.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Room, beyond an app's limits, for the fields that another proxy has added on the way.
pub const FIELDS_ADDED_MAX: usize = 12;
/// The same in bytes.
pub const BYTES_ADDED_MAX: usize = 1024;
/// Bytes a first line may have.
pub const FIRST_LINE_BYTES_MAX: usize = 16 * 1024;

/// Why a head is refused. The names are the reasons in metrics and logs: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A line ends with LF alone, or a CR stands elsewhere than before LF.
    #[error("a line does not end with CR LF")]
    BadLineEnd,
    /// The first line is not of the form that RFC 9112 gives it.
    #[error("the first line is malformed")]
    BadFirstLine,
    /// The target is of no valid form for the method.
    #[error("the request target is invalid")]
    BadTarget,
    /// A field line is malformed: its name, the space before its colon, or folding.
    #[error("a header field line is malformed")]
    BadFieldLine,
    /// A field value holds a control character.
    #[error("a header field value holds a control character")]
    BadFieldValue,
    /// There is no `Host`, or more than one, or an invalid one, or one that differs from the target's.
    #[error("the Host header field is missing, repeated, invalid or contradicts the target")]
    BadHost,
    /// The length of the body is not certain: `Content-Length` and `Transfer-Encoding` contradict or are malformed.
    #[error("the length of the body is not certain")]
    BadFraming,
    /// `Connection` names a field that framing or routing needs, or has bytes above ASCII.
    #[error("Connection names a field that is not its own to name, or has bytes above ASCII")]
    BadConnection,
    /// A transfer coding other than chunked.
    #[error("the only transfer coding that is understood is chunked")]
    UnknownCoding,
    /// The first line is too long.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Too many fields or too many bytes.
    #[error("the header is too large")]
    TooLarge,
    /// A version other than 1.0 and 1.1.
    #[error("the HTTP version is not supported")]
    BadVersion,
    /// It did not arrive in time.
    #[error("the header did not arrive in time")]
    TooSlow,
}

impl HeadError {
    /// Status of the answer to a request with such a head.
    pub fn status(self) -> u16 {
        match self {
            Self::TooSlow => 408,
            Self::TargetTooLong => 414,
            Self::TooLarge => 431,
            Self::UnknownCoding => 501,
            Self::BadVersion => 505,
            Self::BadLineEnd
            | Self::BadFirstLine
            | Self::BadTarget
            | Self::BadFieldLine
            | Self::BadFieldValue
            | Self::BadHost
            | Self::BadFraming
            | Self::BadConnection => 400,
        }
    }

    /// Metric label and log field.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadLineEnd => "bad-line-end",
            Self::BadFirstLine => "bad-first-line",
            Self::BadTarget => "bad-target",
            Self::BadFieldLine => "bad-field-line",
            Self::BadFieldValue => "bad-field-value",
            Self::BadHost => "bad-host",
            Self::BadFraming => "bad-framing",
            Self::BadConnection => "bad-connection",
            Self::UnknownCoding => "unknown-coding",
            Self::TargetTooLong => "target-too-long",
            Self::TooLarge => "head-too-large",
            Self::BadVersion => "bad-version",
            Self::TooSlow => "head-too-slow",
        }
    }
}

/// A place in the bytes a head was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The place `range`. Heads are far below 4 GiB.
    pub fn new(range: Range<usize>) -> Self {
        let place = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Self { start: place(range.start), end: place(range.end) }
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// The bytes there.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start()..self.end()).unwrap_or_default()
    }

    /// The bytes there as text; empty where they are not ASCII, which parsed heads never are in such places.
    pub fn text(self, bytes: &[u8]) -> &str {
        std::str::from_utf8(self.of(bytes)).unwrap_or_default()
    }
}

/// One field.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field {
    /// Its name; the line begins with it.
    pub name: Span,
    /// Its value, without the white space around it.
    pub value: Span,
    /// Which of the fields the proxy knows it is.
    pub known: Known,
}

/// The fields that the proxy itself reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// None of them.
    #[default]
    No,
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Host`.
    Host,
    /// `HTTP2-Settings`.
    Http2Settings,
    /// `Keep-Alive`.
    KeepAlive,
    /// Any `x-leno-…`.
    Leno,
    /// `Proxy-Authorization` or `Proxy-Authenticate`.
    ProxyAuth,
    /// `Proxy-Connection`.
    ProxyConnection,
    /// `TE`.
    Te,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Upgrade`.
    Upgrade,
    /// `x-forwarded-for`.
    ForwardedFor,
    /// `x-forwarded-proto`.
    ForwardedProto,
    /// `x-request-id`.
    RequestId,
}

/// Prefix of the fields that proxies of the mesh say things to each other with. Never passed on.
const LENO_PREFIX: &[u8] = b"x-leno-";

impl Known {
    /// Which one `name` is.
    pub fn of(name: &[u8]) -> Self {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is(b"te") => Self::Te,
            4 if is(b"host") => Self::Host,
            7 if is(b"upgrade") => Self::Upgrade,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::KeepAlive,
            12 if is(b"x-request-id") => Self::RequestId,
            14 if is(b"content-length") => Self::ContentLength,
            14 if is(b"http2-settings") => Self::Http2Settings,
            15 if is(b"x-forwarded-for") => Self::ForwardedFor,
            16 if is(b"proxy-connection") => Self::ProxyConnection,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            17 if is(b"x-forwarded-proto") => Self::ForwardedProto,
            18 if is(b"proxy-authenticate") => Self::ProxyAuth,
            19 if is(b"proxy-authorization") => Self::ProxyAuth,
            8.. if name[..LENO_PREFIX.len()].eq_ignore_ascii_case(LENO_PREFIX) => Self::Leno,
            _ => Self::No,
        }
    }
}

/// Where the lines of one head are. Lives on the stack while the head is being judged and patched.
pub struct Head<'b> {
    /// The bytes it was read from.
    pub bytes: &'b [u8],
    /// The first line, without its end.
    pub first: Span,
    /// Where the empty line begins that ends it.
    pub end: usize,
    fields: SmallVec<[Field; FIELDS_USUAL]>,
}

/// Where the head in `bytes` ends: how many bytes it has with the empty line; `None` when it is not whole yet.
///
/// `scanned` is where an earlier call stopped (0 at first), so that a head that comes byte by byte is read once.
pub fn find_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, HeadError> {
    while let Some(offset) = memchr::memchr(b'\n', &bytes[*scanned..]) {
        let line_feed = *scanned + offset;
        if line_feed == 0 || bytes[line_feed - 1] != b'\r' {
            return Err(HeadError::BadLineEnd);
        }
        let line_end = line_feed - 1;
        if line_end == 0 || bytes[line_end - 1] == b'\n' {
            return if line_feed < HEAD_BYTES_MAX + BYTES_ADDED_MAX { Ok(Some(line_feed + 1)) } else { Err(HeadError::TooLarge) };
        }
        *scanned = line_feed + 1;
    }
    if *scanned == 0 && bytes.len() > FIRST_LINE_BYTES_MAX {
        return Err(HeadError::TargetTooLong);
    }
    if bytes.len() >= HEAD_BYTES_MAX + BYTES_ADDED_MAX {
        return Err(HeadError::TooLarge);
    }
    Ok(None)
}

impl<'b> Head<'b> {
    /// Reads the head at `range` of `bytes`, which [`find_end`] has found to be whole. Checks every line's form.
    pub fn parse(bytes: &'b [u8], range: Range<usize>) -> Result<Self, HeadError> {
        let end = range.end - 2;
        let line_end = |from: usize| memchr::memchr(b'\n', &bytes[from..end]).map_or(end, |offset| from + offset + 1);
        let next = line_end(range.start);
        if next - range.start > FIRST_LINE_BYTES_MAX {
            return Err(HeadError::TargetTooLong);
        }
        let first = Span::new(range.start..next.saturating_sub(2).max(range.start));
        let mut head = Head { bytes, first, end, fields: SmallVec::new() };
        let mut start = next;
        while start < end {
            let next = line_end(start);
            if head.fields.len() == FIELDS_MAX + FIELDS_ADDED_MAX {
                return Err(HeadError::TooLarge);
            }
            head.fields.push(parse_field(bytes, start..next - 2)?);
            start = next;
        }
        Ok(head)
    }

    /// Refuses what is larger than an app may send. What comes from another proxy has more room, so that a head which the
    /// first proxy of a path takes is not refused by the next for what the first has added.
    pub fn within_app_limits(&self) -> Result<(), HeadError> {
        let bytes = self.end + 2 - self.first.start();
        if self.fields.len() > FIELDS_MAX || bytes > HEAD_BYTES_MAX { Err(HeadError::TooLarge) } else { Ok(()) }
    }

    /// The fields, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The value of `field`.
    pub fn value(&self, field: &Field) -> &'b [u8] {
        field.value.of(self.bytes)
    }

    /// The fields of one kind.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &Field> {
        self.fields().iter().filter(move |field| field.known == known)
    }

    /// The elements of a comma-separated list field, over all its lines, without empty ones.
    pub fn list(&self, known: Known) -> impl Iterator<Item = &'b [u8]> {
        self.all(known).flat_map(|field| self.value(field).split(|byte| *byte == b',')).map(trim).filter(|item| !item.is_empty())
    }

    /// Where the line of the field at `index` ends: where the next one begins.
    pub fn line_end(&self, index: usize) -> usize {
        self.fields().get(index + 1).map_or(self.end, |next| next.name.start())
    }
}

impl Headers for Head<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let wanted = |field: &&Field| field.name.of(self.bytes).eq_ignore_ascii_case(name.as_bytes());
        join(self.fields().iter().filter(wanted).map(|field| self.value(field)))
    }

    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.fields().iter().for_each(|field| visit(field.name.of(self.bytes), self.value(field)));
    }
}

/// Reads one field line (RFC 9112 section 5).
fn parse_field(bytes: &[u8], line: Range<usize>) -> Result<Field, HeadError> {
    let text = &bytes[line.clone()];
    let colon = text.iter().position(|byte| !is_token(*byte)).ok_or(HeadError::BadFieldLine)?;
    if colon == 0 || text[colon] != b':' {
        return Err(HeadError::BadFieldLine);
    }
    let value = &text[colon + 1..];
    // Every byte is looked at, because that is done with many at once.
    if !value.iter().fold(true, |good, byte| good & is_value(*byte)) {
        let first = value.iter().find(|byte| !is_value(**byte));
        return Err(if first == Some(&b'\r') { HeadError::BadLineEnd } else { HeadError::BadFieldValue });
    }
    let left = value.iter().take_while(|byte| is_blank(**byte)).count();
    let right = value.iter().rev().take_while(|byte| is_blank(**byte)).count().min(value.len() - left);
    let start = line.start + colon + 1;
    Ok(Field {
        name: Span::new(line.start..line.start + colon),
        value: Span::new(start + left..start + value.len() - right),
        known: Known::of(&text[..colon]),
    })
}

/// Without the white space around it.
pub fn trim(text: &[u8]) -> &[u8] {
    let left = text.iter().take_while(|byte| is_blank(**byte)).count();
    let right = text.iter().rev().take_while(|byte| is_blank(**byte)).count().min(text.len() - left);
    &text[left..text.len() - right]
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `tchar` of RFC 9110 section 5.6.2.
pub fn is_token(byte: u8) -> bool {
    TOKENS[usize::from(byte)]
}

const TOKENS: [bool; 256] = {
    let (mut tokens, mut byte) = ([false; 256], 0u8);
    loop {
        tokens[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        if byte == u8::MAX {
            break tokens;
        }
        byte += 1;
    }
};

/// What a field value may hold (RFC 9110 section 5.5): visible characters, space, tab and bytes above ASCII.
pub fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The length that `Content-Length` states: exactly one line of digits only (RFC 9110 section 8.6).
pub fn content_length(head: &Head<'_>) -> Result<Option<u64>, HeadError> {
    let mut lines = head.all(Known::ContentLength);
    let Some(line) = lines.next() else { return Ok(None) };
    let digits = head.value(line);
    let plain = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
    if lines.next().is_some() || !plain {
        return Err(HeadError::BadFraming);
    }
    Ok(Some(digits.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'))))
}

/// Whether the body is chunked: `Transfer-Encoding` is there, once, and is exactly `chunked`.
pub fn is_chunked(head: &Head<'_>) -> Result<bool, HeadError> {
    let mut lines = head.all(Known::TransferEncoding);
    let Some(line) = lines.next() else { return Ok(false) };
    let coding = head.value(line);
    if lines.next().is_some() {
        return Err(HeadError::BadFraming);
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(true);
    }
    // Some other coding before a final chunked is well-formed, only not understood.
    let mut codings = coding.split(|byte| *byte == b',').map(trim);
    let well_formed = codings.clone().all(|coding| !coding.is_empty() && coding.iter().all(|byte| is_token(*byte)));
    let chunked = codings.clone().filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
    let ends = codings.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    Err(if well_formed && ends && chunked == 1 { HeadError::UnknownCoding } else { HeadError::BadFraming })
}
