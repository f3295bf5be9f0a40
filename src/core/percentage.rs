//! Percentages of requests: an independent draw for each.

use std::fmt;
use std::str::FromStr;

/// A share of requests, `0..=100` percent in steps of a ten-thousandth.
///
/// Each request is drawn for on its own, so a share says nothing about which requests it will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percentage(u32);

/// The number is no percentage.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is no percentage: write a number from 0 to 100, such as 5 or 0.1")]
pub struct InvalidPercentage(pub f64);

/// A whole in millionths.
const WHOLE: u32 = 1_000_000;

impl Percentage {
    /// No request.
    pub const NONE: Self = Self(0);
    /// One request in a hundred.
    pub const ONE: Self = Self(WHOLE / 100);
    /// Every request.
    pub const ALL: Self = Self(WHOLE);

    /// `percent` of 100, rounded to a ten-thousandth of a percent.
    pub fn from_percent(percent: f64) -> Result<Self, InvalidPercentage> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(InvalidPercentage(percent));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
        let millionths = (percent * 10_000.0).round() as u32;
        Ok(Self(millionths))
    }

    /// `millionths` of the whole, at most a million.
    pub fn from_millionths(millionths: u32) -> Result<Self, InvalidPercentage> {
        if millionths <= WHOLE { Ok(Self(millionths)) } else { Err(InvalidPercentage(f64::from(millionths) / 10_000.0)) }
    }

    /// Millionths of the whole.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// Of a hundred.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Whether the request with this draw belongs to the share.
    ///
    /// * `draw`: uniform over `u64`; the caller owns the random source. The bias of the remainder is below 2⁻⁴³.
    pub fn holds(self, draw: u64) -> bool {
        draw % u64::from(WHOLE) < u64::from(self.0)
    }
}

impl FromStr for Percentage {
    type Err = InvalidPercentage;

    /// A number, such as `5` or `0.1`, without a sign for the percent.
    fn from_str(text: &str) -> Result<Self, InvalidPercentage> {
        Self::from_percent(text.parse().unwrap_or(f64::NAN))
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_share_owns_exactly_its_part_of_the_draws() {
        for percent in [0.0, 0.0001, 0.5, 5.0, 33.3333, 100.0] {
            let share = Percentage::from_percent(percent).unwrap();
            let held = (0..u64::from(WHOLE)).filter(|draw| share.holds(*draw)).count();
            assert_eq!(u32::try_from(held).unwrap(), share.millionths(), "{percent}");
        }
    }

    #[test]
    fn what_is_no_percentage_is_refused() {
        for percent in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert!(Percentage::from_percent(percent).is_err(), "{percent}");
        }
        for text in ["", "5 %", "all", "-1", "100.5", "nan", "inf"] {
            assert!(text.parse::<Percentage>().is_err(), "{text}");
        }
        assert_eq!("0.25".parse(), Percentage::from_percent(0.25));
        assert!(Percentage::from_millionths(WHOLE + 1).is_err());
        assert_eq!(Percentage::from_percent(0.5).unwrap().to_string(), "0.5 %");
    }

    proptest! {
        #[test]
        fn millionths_come_back(millionths in 0u32..=WHOLE) {
            prop_assert_eq!(Percentage::from_millionths(millionths).unwrap().millionths(), millionths);
        }
    }
}
