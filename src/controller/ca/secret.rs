//! What the Secret `leno-ca` holds, as text and as the Kubernetes object.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;

/// Name of the Secret, in the controller's namespace.
pub const NAME: &str = "leno-ca";
/// The annotation that says which step of a rotation is under way.
pub const ROTATION: &str = "leno.dev/rotation";
/// The label by which a Secret that Leno made is told from one that was brought: only the former is ever written again.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const LENO: &str = "leno";

/// The keys of the Secret: those of cert-manager, and what comes next during a rotation.
pub mod key {
    /// The certificate that signs, then those that lead from it to a root.
    pub const CERTIFICATE: &str = "tls.crt";
    /// Its key.
    pub const KEY: &str = "tls.key";
    /// Every root that is trusted.
    pub const ROOTS: &str = "ca.crt";
    /// The certificate that will sign.
    pub const NEXT_CERTIFICATE: &str = "next.crt";
    /// Its key.
    pub const NEXT_KEY: &str = "next.key";
}

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and what leads from it to a root.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A step of a rotation that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The new root is trusted beside the old one; nothing is signed by it yet.
    Distribute,
    /// The new certificate signs; the old root is still trusted.
    Issue,
    /// Only the new root is trusted.
    Retire,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Distribute => "distribute",
            Self::Issue => "issue",
            Self::Retire => "retire",
        })
    }
}

/// The annotation says something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {ROTATION}: {0:?} is no step of a rotation: it is distribute, issue or retire")]
pub struct InvalidStep(pub String);

impl FromStr for Step {
    type Err = InvalidStep;

    fn from_str(text: &str) -> Result<Self, InvalidStep> {
        match text {
            "distribute" => Ok(Self::Distribute),
            "issue" => Ok(Self::Issue),
            "retire" => Ok(Self::Retire),
            other => Err(InvalidStep(other.to_owned())),
        }
    }
}

/// All that the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What signs.
    pub signing: Pair,
    /// Every trusted root, PEM; empty when the Secret does not say.
    pub roots: String,
    /// What will sign, while a rotation is under way.
    pub next: Option<Pair>,
    /// How far the rotation is.
    pub step: Option<Step>,
    /// Whether Leno made it, so that Leno may write it.
    pub own: bool,
}

impl Kept {
    /// What `secret` holds. What is missing is empty, and found by who uses it.
    ///
    /// # Errors
    /// When its annotation names no step: going on would be a guess.
    pub fn of(secret: &Secret) -> Result<Self, InvalidStep> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
            bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
        };
        let next = Pair { certificate: text(key::NEXT_CERTIFICATE), key: text(key::NEXT_KEY) };
        let step = secret.metadata.annotations.as_ref().and_then(|it| it.get(ROTATION));
        Ok(Self {
            signing: Pair { certificate: text(key::CERTIFICATE), key: text(key::KEY) },
            roots: text(key::ROOTS),
            next: (!next.certificate.is_empty()).then_some(next),
            step: step.map(|step| step.parse()).transpose()?,
            own: secret.metadata.labels.as_ref().and_then(|it| it.get(MANAGED_BY)).is_some_and(|by| by == LENO),
        })
    }

    /// A new Secret with this, labelled as Leno's.
    pub fn to_new_secret(&self) -> Secret {
        let labels = BTreeMap::from([(MANAGED_BY.into(), LENO.into()), ("app.kubernetes.io/name".into(), "leno-controller".into())]);
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
        self.written_into(Secret { metadata, type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() })
    }

    /// `secret` with this in it. Whatever else it holds stays, as does its version: who replaces it replaces what was read.
    pub fn written_into(&self, mut secret: Secret) -> Secret {
        let data = secret.data.get_or_insert_default();
        let next = self.next.as_ref();
        let pairs = [
            (key::CERTIFICATE, Some(&self.signing.certificate)),
            (key::KEY, Some(&self.signing.key)),
            (key::ROOTS, Some(&self.roots)),
            (key::NEXT_CERTIFICATE, next.map(|pair| &pair.certificate)),
            (key::NEXT_KEY, next.map(|pair| &pair.key)),
        ];
        for (key, text) in pairs {
            match text {
                Some(text) => drop(data.insert(key.to_owned(), ByteString(text.clone().into_bytes()))),
                None => drop(data.remove(key)),
            }
        }
        let annotations = secret.metadata.annotations.get_or_insert_default();
        match self.step {
            Some(step) => drop(annotations.insert(ROTATION.to_owned(), step.to_string())),
            None => drop(annotations.remove(ROTATION)),
        }
        secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(step: Option<Step>) -> Kept {
        let pair = |name: &str| Pair { certificate: format!("{name} certificate"), key: format!("{name} key") };
        Kept { signing: pair("old"), roots: "roots".into(), next: step.map(|_| pair("new")), step, own: true }
    }

    #[test]
    fn what_the_secret_holds_reads_back_at_every_step() {
        for step in [None, Some(Step::Distribute), Some(Step::Issue), Some(Step::Retire)] {
            assert_eq!(Kept::of(&kept(step).to_new_secret()), Ok(kept(step)));
        }
    }

    #[test]
    fn writing_leaves_alone_what_is_not_lenos_and_takes_away_what_has_ended() {
        let mut secret = kept(Some(Step::Issue)).to_new_secret();
        secret.metadata.resource_version = Some("7".into());
        secret.data.as_mut().unwrap().insert("note".into(), ByteString(b"mine".to_vec()));
        let secret = kept(None).written_into(secret);
        assert_eq!(secret.metadata.resource_version.as_deref(), Some("7"));
        let data = secret.data.as_ref().unwrap();
        assert_eq!(data.keys().collect::<Vec<_>>(), ["ca.crt", "note", "tls.crt", "tls.key"]);
        assert_eq!(Kept::of(&secret), Ok(kept(None)));
    }

    #[test]
    fn a_step_that_is_none_is_an_error_and_a_secret_of_others_is_not_lenos() {
        let mut secret = kept(None).to_new_secret();
        secret.metadata.labels = None;
        assert!(!Kept::of(&secret).unwrap().own);
        secret.metadata.annotations = Some([(ROTATION.to_owned(), "halfway".to_owned())].into());
        assert_eq!(Kept::of(&secret), Err(InvalidStep("halfway".into())));
    }
}
