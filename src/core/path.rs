//! Paths: one spelling for each, so that what is judged is what is served.
//!
//! In: the path of a request as sent. Out: its normal form (RFC 3986 section 6.2.2), or a refusal where servers could read it
//! differently. What is forwarded is the normal form, so the app sees what the rules were judged by.
//!
//! Two things stay that servers read differently, because honest clients send them: `;parameters` of segments, and escapes of
//! reserved characters (`%3D` for `=`). [`PathRule::surely_matches`] holds under every reading, [`PathRule::may_match`] under any.
//!
//! Reading order: [`normalise`], [`PathRule::new`], [`PathRule::may_match`], [`Reading`].

use std::borrow::Cow;

use crate::authorize::PathRule;

/// A path in normal form: escapes in upper case, unreserved characters decoded, what a URI may not hold encoded, dot segments
/// removed, adjacent slashes merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normal<'a>(Cow<'a, str>);

impl Normal<'_> {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it was sent in another spelling.
    pub fn is_changed(&self) -> bool {
        matches!(self.0, Cow::Owned(_))
    }
}

/// Why a path has no normal form that every server would agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with /")]
    NotAbsolute,
    /// It holds the `?` of a query or the `#` of a fragment.
    #[error("the path holds ? or #, which end it; write %3F or %23")]
    NotPath,
    /// `%2F` or `%5C`: a slash to some servers, a character to others.
    #[error("the path holds an encoded slash or backslash")]
    EncodedSlash,
    /// `\`: a slash to some servers.
    #[error("the path holds a backslash")]
    Backslash,
    /// A control character or a space, encoded (but for the space) or not.
    #[error("the path holds a control character or a space")]
    Control,
    /// `%` is not followed by two hexadecimal digits.
    #[error("the path holds a % that is not followed by two hexadecimal digits")]
    BadEscape,
    /// `.` or `..` with parameters: a dot segment to servers that drop parameters first.
    #[error("the path holds a dot segment with parameters")]
    DotParameters,
    /// UTF-8 of more bytes than needed, which hides ASCII from all but careless servers.
    #[error("the path holds an overlong UTF-8 sequence")]
    Overlong,
}

/// The normal form of `raw`, a request's path without its query. `*` (of `OPTIONS *`) is its own.
pub fn normalise(raw: &str) -> Result<Normal<'_>, PathError> {
    if raw == "*" {
        return Ok(Normal(Cow::Borrowed(raw)));
    }
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_surely_normal(raw.as_bytes()) {
        return Ok(Normal(Cow::Borrowed(raw)));
    }
    let text = remove_dot_segments(&canonical(raw.as_bytes())?)?;
    if text == raw { Ok(Normal(Cow::Borrowed(raw))) } else { Ok(Normal(Cow::Owned(text))) }
}

/// Whether nothing stands in the path that normalising would look at: the usual case, told in one pass.
fn is_surely_normal(raw: &[u8]) -> bool {
    let pairs = raw.windows(2).all(|pair| pair[0] != b'/' || !matches!(pair[1], b'/' | b'.'));
    pairs && raw.iter().all(|byte| *byte == b'/' || is_unreserved(*byte))
}

/// Every escape in its one form: unreserved characters are decoded, what a path may not hold is encoded.
fn canonical(raw: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(raw.len() + 8);
    let mut before = 0;
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let (value, escaped) = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => {
                rest = tail;
                (hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low).ok_or(PathError::BadEscape)?, true)
            }
            (b'%', _) => return Err(PathError::BadEscape),
            (byte, _) => (*byte, false),
        };
        check(before, value, escaped)?;
        before = value;
        if is_unreserved(value) || (!escaped && is_reserved(value)) {
            out.push(char::from(value));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(value >> 4)]));
            out.push(char::from(HEX[usize::from(value & 0x0f)]));
        }
    }
    Ok(out)
}

/// Refuses a character that servers read differently. `before` is the one before it.
fn check(before: u8, value: u8, escaped: bool) -> Result<(), PathError> {
    match value {
        b'/' | b'\\' if escaped => Err(PathError::EncodedSlash),
        b'\\' => Err(PathError::Backslash),
        b'?' | b'#' if !escaped => Err(PathError::NotPath),
        0..=0x1f | 0x7f => Err(PathError::Control),
        b' ' if !escaped => Err(PathError::Control),
        0xc0 | 0xc1 => Err(PathError::Overlong),
        0x80..=0x9f if before == 0xe0 => Err(PathError::Overlong),
        0x80..=0x8f if before == 0xf0 => Err(PathError::Overlong),
        _ => Ok(()),
    }
}

/// RFC 3986 section 5.2.4, and then adjacent slashes are merged.
fn remove_dot_segments(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.truncate(out.rfind('/').unwrap_or(0));
                }
                if is_last {
                    out.push('/');
                }
            }
            _ if is_dots_with_parameters(segment) => return Err(PathError::DotParameters),
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    let mut before = ' ';
    out.retain(|character| std::mem::replace(&mut before, character) != '/' || character != '/');
    Ok(out)
}

/// Whether a server that drops parameters first sees a dot segment: `..;x`, also with the semicolon encoded.
fn is_dots_with_parameters(segment: &str) -> bool {
    let rest = segment.trim_start_matches('.');
    matches!(segment.len() - rest.len(), 1 | 2) && (rest.starts_with(';') || rest.starts_with("%3B"))
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// What else a path may hold as it is (RFC 3986 section 3.3).
fn is_reserved(byte: u8) -> bool {
    b"!$&'()*+,;=:@/".contains(&byte)
}

/// The text of a path condition cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathRule {
    /// It has no normal form.
    #[error("path {path:?} cannot be matched: {source}")]
    Path {
        /// The condition as written.
        path: String,
        /// Why.
        source: PathError,
    },
    /// A star elsewhere than at the end.
    #[error("path {0:?} has a * that is not its last segment: write /prefix/* for everything below /prefix, or %2A for the character")]
    Star(String),
    /// It names parameters.
    #[error("path {0:?} names parameters: leave out what begins with ;, a path is matched with and without them")]
    Parameters(String),
}

impl PathRule {
    /// The condition that `text` writes: a path, or a path and `/*` for it and everything below it. Any spelling of a path will do.
    pub fn new(text: &str) -> Result<Self, InvalidPathRule> {
        let (path, is_prefix) = match text.strip_suffix("/*") {
            Some(prefix) => (format!("{prefix}/"), true),
            None => (text.to_owned(), false),
        };
        if path.contains('*') {
            return Err(InvalidPathRule::Star(text.to_owned()));
        }
        let normal = normalise(&path).map_err(|source| InvalidPathRule::Path { path: text.to_owned(), source })?;
        if normal.as_str().contains(';') || normal.as_str().contains("%3B") {
            return Err(InvalidPathRule::Parameters(text.to_owned()));
        }
        let normal = normal.as_str();
        Ok(if is_prefix { Self::Below(normal.strip_suffix('/').unwrap_or(normal).into()) } else { Self::Exact(normal.into()) })
    }

    /// Whether every server takes `path`, which is normal, for one that this condition names.
    pub fn surely_matches(&self, path: &str) -> bool {
        if let Some(text) = self.plain_beside(path) {
            return self.matches_plain(text, path, FinalSlash::Counts);
        }
        self.surely_matches_as_read(path)
    }

    fn surely_matches_as_read(&self, path: &str) -> bool {
        Parameters::readings(path).iter().all(|parameters| self.matches(path, *parameters, FinalSlash::Counts))
    }

    /// Whether some server could take `path`, which is normal, for one that this condition names. A final slash does not tell
    /// paths apart here.
    pub fn may_match(&self, path: &str) -> bool {
        if let Some(text) = self.plain_beside(path) {
            return self.matches_plain(text, path, FinalSlash::Ignored);
        }
        self.may_match_as_read(path)
    }

    fn may_match_as_read(&self, path: &str) -> bool {
        Parameters::readings(path).iter().any(|parameters| self.matches(path, *parameters, FinalSlash::Ignored))
    }

    /// The condition's text, where every server reads it and `path` byte by byte: the usual case, told in one pass over each.
    fn plain_beside(&self, path: &str) -> Option<&str> {
        let (Self::Exact(text) | Self::Below(text)) = self;
        (is_plain(path.as_bytes()) && is_plain(text.as_bytes())).then_some(text)
    }

    /// What [`PathRule::matches`] says where there is one reading, of the bytes as they are.
    fn matches_plain(&self, text: &str, path: &str, slash: FinalSlash) -> bool {
        match (self, slash) {
            (Self::Exact(_), FinalSlash::Counts) => path == text,
            (Self::Exact(_), FinalSlash::Ignored) => {
                matches!(path.strip_prefix(text.strip_suffix('/').unwrap_or(text)), Some("" | "/"))
            }
            (Self::Below(_), _) => text.is_empty() || path.strip_prefix(text).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    fn matches(&self, path: &str, parameters: Parameters, slash: FinalSlash) -> bool {
        let mut path = Reading::new(path, parameters);
        match (self, slash) {
            (Self::Exact(wanted), FinalSlash::Counts) => path.skips(wanted) && path.next().is_none(),
            (Self::Exact(wanted), FinalSlash::Ignored) => {
                path.skips(wanted.strip_suffix('/').unwrap_or(wanted)) && matches!((path.next(), path.next()), (None | Some(b'/'), None))
            }
            (Self::Below(above), _) => above.is_empty() || (path.skips(above) && matches!(path.next(), None | Some(b'/'))),
        }
    }
}

/// Whether nothing stands in the text that some server decodes, drops or merges. Without early exits, so that it is done on many bytes
/// at once.
fn is_plain(text: &[u8]) -> bool {
    let read = text.iter().fold(false, |found, byte| found | (*byte == b'%') | (*byte == b';'));
    let merged = text.iter().zip(text.iter().skip(1)).fold(false, |found, (one, next)| found | ((*one == b'/') & (*next == b'/')));
    !read && !merged
}

/// Whether `/a` and `/a/` are two paths.
#[derive(Clone, Copy)]
enum FinalSlash {
    Counts,
    Ignored,
}

/// What a server makes of the parameters of a segment, which begin with a semicolon.
#[derive(Clone, Copy)]
enum Parameters {
    /// It takes them as part of the name.
    Kept,
    /// It drops them, and decodes the rest then.
    Dropped,
    /// It decodes first, and drops them then.
    DroppedDecoded,
}

impl Parameters {
    /// The ways in which `path` can be read.
    fn readings(path: &str) -> &'static [Self] {
        if path.contains(';') || path.contains("%3B") { &[Self::Kept, Self::Dropped, Self::DroppedDecoded] } else { &[Self::Kept] }
    }
}

/// The bytes of a path as one kind of server sees them: decoded once.
struct Reading<'a> {
    rest: &'a [u8],
    parameters: Parameters,
    last: u8,
}

impl<'a> Reading<'a> {
    fn new(path: &'a str, parameters: Parameters) -> Self {
        Self { rest: path.as_bytes(), parameters, last: 0 }
    }

    /// Whether it goes on with `wanted`, which it then has gone past.
    fn skips(&mut self, wanted: &str) -> bool {
        Reading::new(wanted, Parameters::Kept).all(|byte| self.next() == Some(byte))
    }

    /// The next byte, and whether it was escaped.
    fn decoded(&mut self) -> Option<(u8, bool)> {
        if let [b'%', high, low, rest @ ..] = self.rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            self.rest = rest;
            return Some((high * 16 + low, true));
        }
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some((*byte, false))
    }
}

impl Iterator for Reading<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        loop {
            let (byte, escaped) = self.decoded()?;
            let begins_parameters = match self.parameters {
                Parameters::Kept => false,
                Parameters::Dropped => byte == b';' && !escaped,
                Parameters::DroppedDecoded => byte == b';',
            };
            if begins_parameters {
                let end = self.rest.iter().position(|byte| *byte == b'/').unwrap_or(self.rest.len());
                self.rest = &self.rest[end..];
                continue;
            }
            // A segment that was all parameters leaves two slashes, which are merged again.
            if byte != b'/' || self.last != b'/' {
                self.last = byte;
                return Some(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests;
