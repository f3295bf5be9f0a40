//! Durations as people write them: `300ms`, `1.5s`, `1h30m`.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::rules;

/// A span of time as it was written. Any text decodes, so that an odd object never stops a list; [`Duration::parse`] reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub String);

/// The text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Not made of numbers with units.
    #[error("{0:?} is not a duration: write numbers with the units ms, s, m or h, such as 300ms, 1.5s or 1h30m")]
    Shape(String),
    /// Fractions of a millisecond.
    #[error("{0:?} is more exact than Leno's clock: write whole milliseconds, and at most three decimals for s, m and h")]
    Precision(String),
    /// Nothing at all.
    #[error("{0:?} is no time at all: write at least 1ms, or leave the field out")]
    Zero(String),
    /// More than the schema takes.
    #[error("{0:?} is too long: write at most four numbers of at most five digits each, such as 99999h")]
    Length(String),
}

/// Most numbers one duration may have (`1h30m` has two).
const PARTS_MAX: usize = 4;
/// Most digits a number may have before its decimal point.
const DIGITS_MAX: usize = 5;
/// Most digits a number may have after its decimal point.
const DECIMALS_MAX: usize = 3;

impl Duration {
    /// The time meant.
    ///
    /// # Errors
    /// When the text is not a duration, in words for who wrote it.
    pub fn parse(&self) -> Result<std::time::Duration, InvalidDuration> {
        let text = self.0.as_str();
        let mut rest = text;
        let (mut millis, mut parts) = (0_u64, 0);
        while !rest.is_empty() {
            let (part, after) = part_of(rest, text)?;
            (millis, rest, parts) = (millis + part, after, parts + 1);
        }
        match (parts, millis) {
            (0, _) => Err(InvalidDuration::Shape(text.to_owned())),
            (parts, _) if parts > PARTS_MAX => Err(InvalidDuration::Length(text.to_owned())),
            (_, 0) => Err(InvalidDuration::Zero(text.to_owned())),
            (_, millis) => Ok(std::time::Duration::from_millis(millis)),
        }
    }
}

/// The milliseconds of the first number and unit of `rest`, and what follows them. `whole` is for the error.
fn part_of<'t>(rest: &'t str, whole: &str) -> Result<(u64, &'t str), InvalidDuration> {
    let shape = || InvalidDuration::Shape(whole.to_owned());
    let (digits, after) = split_digits(rest);
    let (decimals, after) = match after.strip_prefix('.') {
        None => ("", after),
        Some(after) => match split_digits(after) {
            ("", _) => return Err(shape()),
            split => split,
        },
    };
    if digits.is_empty() {
        return Err(shape());
    }
    let (unit_millis, after) = unit_of(after).ok_or_else(shape)?;
    if decimals.len() > DECIMALS_MAX || (unit_millis == 1 && !decimals.is_empty()) {
        return Err(InvalidDuration::Precision(whole.to_owned()));
    }
    if digits.len() > DIGITS_MAX {
        return Err(InvalidDuration::Length(whole.to_owned()));
    }
    // At most 8 digits, so neither the parse nor the products can overflow.
    let thousandths: u64 = format!("{digits}{decimals:0<DECIMALS_MAX$}").parse().map_err(|_error: std::num::ParseIntError| shape())?;
    Ok((thousandths * unit_millis / 1000, after))
}

/// The leading ASCII digits, and the rest.
fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// How many milliseconds the leading unit has, and what follows it.
fn unit_of(text: &str) -> Option<(u64, &str)> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    units.into_iter().find_map(|(unit, millis)| text.strip_prefix(unit).map(|after| (millis, after)))
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Duration {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let duration = Self(text.to_owned());
        duration.parse().map(|_time| duration)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 40,
            "x-kubernetes-validations": rules::list(&[&rules::DURATION]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_whole_milliseconds() {
        let cases = [
            ("1ms", 1),
            ("300ms", 300),
            ("10s", 10_000),
            ("1.5s", 1500),
            ("0.001s", 1),
            ("5m", 300_000),
            ("0.5m", 30_000),
            ("1h30m", 5_400_000),
            ("1h1m1s1ms", 3_661_001),
            ("0s1ms", 1),
            ("99999h99999h99999h99999h", 4 * 99_999 * 3_600_000),
        ];
        for (text, millis) in cases {
            assert_eq!(Duration::from(text).parse(), Ok(std::time::Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_in_words() {
        let cases = [
            ("", "is not a duration"),
            ("10", "is not a duration"),
            ("s", "is not a duration"),
            (".5s", "is not a duration"),
            ("1.s", "is not a duration"),
            ("-1s", "is not a duration"),
            ("1 s", "is not a duration"),
            ("1s ", "is not a duration"),
            ("5d", "is not a duration"),
            ("10S", "is not a duration"),
            ("1us", "is not a duration"),
            ("٣s", "is not a duration"),
            ("1.5ms", "whole milliseconds"),
            ("0.0005s", "at most three decimals"),
            ("0s", "at least 1ms"),
            ("0h0m0.000s", "at least 1ms"),
            ("100000h", "at most five digits"),
            ("1s1s1s1s1s", "at most four numbers"),
        ];
        for (text, words) in cases {
            let error = Duration::from(text).parse().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
