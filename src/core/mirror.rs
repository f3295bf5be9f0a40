//! Mirroring: which requests are also sent, as a copy, to somebody else.
//!
//! Each mirror of a rule has a draw of its own, so two mirrors of 50 % are not the same half. What becomes of a copy is no concern of
//! the request it was made of.

use crate::names::ServiceId;
use crate::percentage::Percentage;
use crate::route::{Backend, Rule, Target};

/// Mirrors that one rule may have.
pub const MIRRORS_MAX: usize = 4;

/// Who else gets copies of a rule's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Who gets them.
    pub target: Target,
    /// Of how many requests.
    pub percentage: Percentage,
}

impl Rule {
    /// Who gets a copy of this request, which is for `port` of `own`.
    ///
    /// * `draw`: called once for each mirror; uniform over `u64`.
    pub fn mirrored<'t>(&'t self, own: &'t ServiceId, port: u16, mut draw: impl FnMut() -> u64) -> impl Iterator<Item = Backend<'t>> {
        let drawn = self.mirrors.iter().filter(move |mirror| mirror.percentage.holds(draw()));
        drawn.map(move |mirror| mirror.target.backend(own, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mirror_is_drawn_for_on_its_own() {
        let mirror = |version: &str, percent| Mirror {
            target: Target::Version(version.into()),
            percentage: Percentage::from_percent(percent).unwrap(),
        };
        let rule = Rule { mirrors: vec![mirror("a", 100.0), mirror("b", 0.0), mirror("c", 50.0)], ..Rule::default() };
        let own = ServiceId::new("shop", "payment");
        let versions = |draws: [u64; 3]| {
            let mut draws = draws.into_iter();
            let backends = rule.mirrored(&own, 80, || draws.next().unwrap());
            let name = |backend| match backend {
                Backend::Endpoints { version: Some(version), port: 80, .. } => version.to_string(),
                Backend::Endpoints { .. } | Backend::Missing(_) | Backend::NoWeight => panic!("{backend:?}"),
            };
            backends.map(name).collect::<Vec<_>>()
        };
        assert_eq!(versions([999_999, 0, 499_999]), ["a", "c"]);
        assert_eq!(versions([0, 999_999, 500_000]), ["a"]);
    }
}
