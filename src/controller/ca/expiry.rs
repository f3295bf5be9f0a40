//! When to warn that a certificate of the authority is about to end. Nothing is replaced by itself: see [`super::rotation`].

use jiff::{SignedDuration, Timestamp};

use super::authority::{About, Authority};

/// How long before its end a certificate is warned of, unless a third of its life is shorter.
const BEFORE: SignedDuration = SignedDuration::from_hours(24 * 30);

/// A certificate that is about to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which one, and what to do.
    pub text: String,
    /// When it ends.
    pub until: Timestamp,
}

/// The certificates of `authority` that end soon, as seen at `now`.
pub fn warnings(authority: &Authority, now: Timestamp) -> Vec<Warning> {
    let signer = authority.signer();
    let roots = authority.roots().iter().filter(|root| root.fingerprint != signer.fingerprint);
    let what = |about: &About| if about.fingerprint == signer.fingerprint { "the certificate that signs" } else { "a trusted root" };
    let soon = std::iter::once(signer).chain(roots).filter(|about| is_due(about, now));
    soon.map(|about| Warning { text: text(what(about), about), until: about.not_after }).collect()
}

/// From when on `about` is warned of.
pub fn due_at(about: &About) -> Timestamp {
    let life = about.not_after.duration_since(about.not_before);
    about.not_after - BEFORE.min(life / 3)
}

fn is_due(about: &About, now: Timestamp) -> bool {
    now >= due_at(about)
}

fn text(what: &str, about: &About) -> String {
    let About { subject, serial, not_after, .. } = about;
    format!("{what} ({subject}, serial {serial}) ends at {not_after}: replace it with leno ca rotate, or where it comes from")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::authority::{Domains, ROOT_LIFE, make};
    use crate::ca::secret::Kept;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn loaded(kept: &Kept, domains: &Domains, now: Timestamp) -> Authority {
        Authority::load(kept, domains, now).unwrap()
    }

    #[test]
    fn each_certificate_is_warned_of_once_a_month_before_its_end() {
        let domains = Domains { own: "cluster.local".into(), also: Vec::new() };
        let kept = make(&domains, start()).unwrap();
        let late = start() + ROOT_LIFE - BEFORE;
        let before = late - SignedDuration::from_secs(1);
        assert_eq!(warnings(&loaded(&kept, &domains, before), before), []);
        let told = warnings(&loaded(&kept, &domains, late), late);
        assert_eq!((told.len(), told[0].until), (1, start() + ROOT_LIFE), "the root is what signs: one warning");
        assert!(told[0].text.contains("leno ca rotate") && told[0].text.starts_with("the certificate that signs (O=Leno"), "{told:?}");

        let new = make(&domains, late).unwrap();
        let both = Kept { roots: new.roots.clone() + &kept.roots, ..new };
        let told = warnings(&loaded(&both, &domains, late), late);
        assert_eq!(told.len(), 1);
        assert!(told[0].text.starts_with("a trusted root"), "{told:?}");
    }

    #[test]
    fn a_short_life_is_warned_of_in_its_last_third() {
        let about = |hours: i64| About {
            subject: "CN=x".into(),
            issuer: "CN=y".into(),
            serial: "01".into(),
            fingerprint: "02".into(),
            not_before: start(),
            not_after: start() + SignedDuration::from_hours(hours),
        };
        assert_eq!(due_at(&about(30)), start() + SignedDuration::from_hours(20));
        assert_eq!(due_at(&about(24 * 900)), start() + SignedDuration::from_hours(24 * 870));
    }
}
