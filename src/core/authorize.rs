//! Authorization: whether a caller may pass.
//!
//! In: what holds for a port ([`Guard`]) and who asks for what ([`Call`]). Out: a [`Verdict`].
//! Nothing here reads a clock or a socket; tokens have been verified before, only their claims are seen here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::names::{Identity, Name};

/// What holds for connections to one port of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Whether callers must prove who they are.
    pub mode: Mode,
    /// Who may call what.
    pub authorization: Arc<Authorization>,
}

/// Whether connections must be mutually authenticated TLS (`SecurityPolicy.spec.mtls.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Peers of the mesh use it, others may speak plain.
    #[default]
    Permissive,
    /// Plain connections are refused.
    Strict,
    /// Peers of the mesh speak plain too.
    Disabled,
}

/// The rules that hold for a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorization {
    /// What holds where no policy with [`Action::Allow`] is in force.
    pub posture: Posture,
    /// The policies, ordered by name.
    pub policies: Vec<Arc<Policy>>,
    /// Whose tokens are taken.
    pub issuers: Vec<Arc<Issuer>>,
}

/// What happens to callers that no policy speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Posture {
    /// They pass.
    #[default]
    Allow,
    /// They are refused.
    Deny,
}

/// The authorization part of one SecurityPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `namespace/name`.
    pub name: Name,
    /// What its rules do.
    pub action: Action,
    /// A call that matches one of these matches the policy.
    pub rules: Vec<Rule>,
}

/// What the rules of a policy do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// What they match passes; where such a policy is in force, nothing else does.
    #[default]
    Allow,
    /// What they match is refused, whatever else allows it.
    Deny,
    /// As [`Action::Allow`], but what would be refused is only counted and logged.
    Audit,
}

/// Conditions that must all hold; an empty list holds for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Any of these callers.
    pub from: Vec<Source>,
    /// Any of these ports, as the app listens on them.
    pub ports: Vec<u16>,
    /// Any of these methods.
    pub methods: Vec<Name>,
    /// Any of these paths.
    pub paths: Vec<PathRule>,
    /// All of these claims of a verified token; for each, any of its values.
    pub claims: BTreeMap<Name, Vec<Name>>,
}

/// A kind of caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A proven identity; what is `None` may be any.
    Peer {
        /// Its trust domain.
        trust_domain: Name,
        /// Its namespace.
        namespace: Option<Name>,
        /// Its service account.
        service_account: Option<Name>,
    },
    /// An address, proven or not.
    Block(IpNet),
}

/// A condition on the normalised path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRule {
    /// The whole path.
    Exact(Name),
    /// This path and everything below it; kept without the final `/*`, so `/api` for `/api/*` and the empty string for `/*`.
    Below(Name),
}

/// Whose tokens (JWT, RFC 7519) a port takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The `iss` claim.
    pub issuer: Name,
    /// One of these must be in the `aud` claim; empty takes any.
    pub audiences: Vec<Name>,
    /// Header fields that carry the token, lower case; empty means `authorization` with the scheme `Bearer`.
    pub headers: Vec<Name>,
    /// Its keys, a JSON Web Key Set (RFC 7517) as text; empty while they are not known, which refuses every token.
    pub keys: Name,
}

/// Claims of a verified token: name to values. A string is one value; `scope` is split at spaces (RFC 8693 section 4.2); of a list
/// each string is one.
pub type Claims = BTreeMap<Name, Vec<Name>>;

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who the peer has proven to be.
    pub peer: Option<&'a Identity>,
    /// Where the connection comes from.
    pub source: IpAddr,
    /// The app's port.
    pub port: u16,
    /// The request; `None` for a connection whose bytes are not looked at.
    pub request: Option<Request<'a>>,
}

/// What authorization sees of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its normalised path.
    pub path: &'a str,
    /// Claims of its verified token.
    pub claims: Option<&'a Claims>,
}

/// What was decided, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Whether the call may pass.
    pub allowed: bool,
    /// The policy that decided; `None` where the posture did, or no Allow policy matched and several are in force.
    pub policy: Option<&'a Name>,
    /// The place of the rule that matched in that policy.
    pub rule: Option<usize>,
    /// The Audit policy that would refuse the call, if it were an Allow policy.
    pub would_deny: Option<&'a Name>,
}
