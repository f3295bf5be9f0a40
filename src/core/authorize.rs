//! Authorization: whether a caller may pass.
//!
//! In: what holds for a port ([`Guard`]) and who asks for what ([`Call`]). Out: a [`Verdict`].
//! Nothing here reads a clock or a socket; tokens have been verified before, only their claims are seen here.
//!
//! Where a condition can be read in more than one way, what refuses ([`Action::Deny`]) takes the widest reading and what
//! lets pass the narrowest: paths ([`crate::path`]), the case of methods, conditions on requests where none is seen.
//!
//! Reading order: [`authorize`], [`Rule::check`], [`Trace`].

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
    /// Claims of its verified tokens. A rule's claims must all be found in one of them.
    pub claims: &'a [Claims],
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
    /// The Audit policy that would refuse the call, if it were an Allow policy; `None` where it is refused anyway.
    pub would_deny: Option<&'a Name>,
}

/// The condition of a rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch<'a> {
    /// The caller is none of these.
    From(&'a [Source]),
    /// The port is another.
    Port(&'a [u16]),
    /// The method is another.
    Method(&'a [Name]),
    /// The path is another.
    Path(&'a [PathRule]),
    /// No verified token has one of these values in the claim, together with the rule's other claims.
    Claim(&'a Name, &'a [Name]),
    /// The rule speaks of requests, and this is a connection whose bytes are not looked at.
    NoRequest,
}

/// Watches a verdict being made. The proxy passes [`Silent`], `leno explain` a recorder.
pub trait Trace<'a> {
    /// The rule at `index` of `policy` was judged.
    fn judged(&mut self, policy: &'a Policy, index: usize, outcome: Result<(), Mismatch<'a>>);
}

/// Watches nothing, at no cost.
pub struct Silent;

impl Trace<'_> for Silent {
    fn judged(&mut self, _: &Policy, _: usize, _: Result<(), Mismatch<'_>>) {}
}

/// Says whether a call may pass: Deny policies first, then Allow policies, then the posture. Audit policies only add what
/// they would have said.
///
/// * `trace`: is told of every rule judged: those of Deny policies, of Allow policies and of Audit policies, each up to the first
///   that matches.
pub fn authorize<'a>(authorization: &'a Authorization, call: &Call<'_>, trace: &mut impl Trace<'a>) -> Verdict<'a> {
    if let Some((policy, rule)) = authorization.find(Action::Deny, call, trace) {
        return Verdict { allowed: false, policy: Some(&policy.name), rule: Some(rule), would_deny: None };
    }
    let mut allowing = authorization.of(Action::Allow);
    let found = authorization.find(Action::Allow, call, trace);
    let (allowed, policy, rule) = match (found, allowing.next(), allowing.next()) {
        (Some((policy, rule)), ..) => (true, Some(&policy.name), Some(rule)),
        (None, None, _) => (authorization.posture == Posture::Allow, None, None),
        (None, Some(only), None) => (false, Some(&only.name), None),
        (None, Some(_), Some(_)) => (false, None, None),
    };
    let audited = allowed && found.is_none() && authorization.find(Action::Audit, call, trace).is_none();
    let would_deny = authorization.of(Action::Audit).next().filter(|_| audited).map(|policy| &policy.name);
    Verdict { allowed, policy, rule, would_deny }
}

impl Authorization {
    /// The policies in the order of their names, so that the same policies give the same verdict however they were listed.
    pub fn new(posture: Posture, mut policies: Vec<Arc<Policy>>, issuers: Vec<Arc<Issuer>>) -> Self {
        policies.sort_by(|one, other| one.name.cmp(&other.name));
        Self { posture, policies, issuers }
    }

    /// Whether every call passes, whatever it brings: nothing is to be judged.
    pub fn is_open(&self) -> bool {
        self.posture == Posture::Allow && self.policies.is_empty() && self.issuers.is_empty()
    }

    /// Whether any rule speaks of paths: then paths are normalised before they are judged and sent on.
    pub fn looks_at_paths(&self) -> bool {
        self.policies.iter().flat_map(|policy| &policy.rules).any(|rule| !rule.paths.is_empty())
    }

    fn of(&self, action: Action) -> impl Iterator<Item = &Policy> {
        self.policies.iter().map(|policy| &**policy).filter(move |policy| policy.action == action)
    }

    /// The first rule of an `action` that matches.
    fn find<'a>(&'a self, action: Action, call: &Call<'_>, trace: &mut impl Trace<'a>) -> Option<(&'a Policy, usize)> {
        self.of(action).find_map(|policy| {
            let judge = |(index, rule): (usize, &'a Rule)| {
                let outcome = rule.check(action, call);
                trace.judged(policy, index, outcome);
                outcome.ok().map(|()| (policy, index))
            };
            policy.rules.iter().enumerate().find_map(judge)
        })
    }
}

impl Rule {
    /// Whether every condition holds for `call`; otherwise the first that does not. `action` is the policy's.
    pub fn check(&self, action: Action, call: &Call<'_>) -> Result<(), Mismatch<'_>> {
        if !self.from.is_empty() && !self.from.iter().any(|source| source.matches(call)) {
            return Err(Mismatch::From(&self.from));
        }
        if !self.ports.is_empty() && !self.ports.contains(&call.port) {
            return Err(Mismatch::Port(&self.ports));
        }
        match (&call.request, action) {
            (Some(request), _) => self.check_request(action, request),
            (None, Action::Deny) => Ok(()),
            (None, Action::Allow | Action::Audit) if self.speaks_of_requests() => Err(Mismatch::NoRequest),
            (None, Action::Allow | Action::Audit) => Ok(()),
        }
    }

    /// Whether a condition can hold for requests only.
    fn speaks_of_requests(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty() || !self.claims.is_empty()
    }

    fn check_request(&self, action: Action, request: &Request<'_>) -> Result<(), Mismatch<'_>> {
        let refuses = action == Action::Deny;
        // Methods are case-sensitive (RFC 9110 section 9.1), but not every server takes them so.
        let method = |method: &Name| if refuses { method.eq_ignore_ascii_case(request.method) } else { **method == *request.method };
        if !self.methods.is_empty() && !self.methods.iter().any(method) {
            return Err(Mismatch::Method(&self.methods));
        }
        let path = |rule: &PathRule| if refuses { rule.may_match(request.path) } else { rule.surely_matches(request.path) };
        if !self.paths.is_empty() && !self.paths.iter().any(path) {
            return Err(Mismatch::Path(&self.paths));
        }
        let lacking = |claims: &Claims| self.claims.iter().find(|(name, values)| !has_claim(claims, name, values));
        match (self.claims.first_key_value(), request.claims) {
            (None, _) => Ok(()),
            (Some((name, values)), []) => Err(Mismatch::Claim(name, values)),
            (Some(_), tokens) if tokens.iter().any(|claims| lacking(claims).is_none()) => Ok(()),
            (Some(first), [token, ..]) => {
                let (name, values) = lacking(token).unwrap_or(first);
                Err(Mismatch::Claim(name, values))
            }
        }
    }
}

/// Whether the claim has one of `values`; an empty list takes any value, but the claim must be there.
fn has_claim(claims: &Claims, name: &Name, values: &[Name]) -> bool {
    claims.get(name).is_some_and(|have| values.is_empty() || have.iter().any(|value| values.contains(value)))
}

impl Source {
    /// Whether the caller is of this kind.
    fn matches(&self, call: &Call<'_>) -> bool {
        match self {
            Self::Block(block) => block.contains(&call.source.to_canonical()),
            Self::Peer { trust_domain, namespace, service_account } => call.peer.is_some_and(|peer| {
                *trust_domain == peer.trust_domain
                    && namespace.as_ref().is_none_or(|namespace| *namespace == peer.namespace)
                    && service_account.as_ref().is_none_or(|account| *account == peer.service_account)
            }),
        }
    }
}

#[cfg(test)]
mod tests;
