//! What identity and authorization need, model ↔ wire in both directions: guards, trust, certificates.
//!
//! As in [`crate::decode`], nothing is skipped: a condition that is not understood must not be taken for none.

use std::sync::Arc;

use bytes::Bytes;
use leno_core::authorize::{Action, Authorization, Guard, Issuer, Mode, PathRule, Policy, Posture, Rule, Source};
use leno_core::names::Name;
use leno_core::trust::{Held, Trust};
use leno_core::workload::Egress;
use prost::Message;

use crate::decode::DecodeError;
use crate::wire::leno as wire;

/// The bytes of the mesh's trust.
pub fn encode_trust(trust: &Trust) -> Bytes {
    trust_message(trust).encode_to_vec().into()
}

/// The trust in `bytes`.
///
/// # Errors
/// When they are no Trust.
pub fn decode_trust(bytes: &[u8]) -> Result<Trust, DecodeError> {
    Ok(trust_of(wire::Trust::decode(bytes)?))
}

/// Trust as a message.
pub fn trust_message(trust: &Trust) -> wire::Trust {
    wire::Trust {
        trust_domain: trust.trust_domain.to_string(),
        also: strings(&trust.also),
        roots: trust.roots.iter().map(|root| Bytes::copy_from_slice(root)).collect(),
        issuer: trust.issuer.clone().into(),
    }
}

/// The trust that a message tells of.
pub fn trust_of(message: wire::Trust) -> Trust {
    Trust {
        trust_domain: message.trust_domain.into(),
        also: names(message.also),
        roots: message.roots.iter().map(|root| Arc::from(&root[..])).collect(),
        issuer: message.issuer.into(),
    }
}

/// The bytes of a certificate's description.
pub fn encode_held(held: &Held) -> Bytes {
    let message = wire::Held {
        identity: held.identity.to_string(),
        serial: held.serial.to_string(),
        not_after: held.not_after,
        issuer: held.issuer.clone().into(),
    };
    message.encode_to_vec().into()
}

/// The description in `bytes`.
///
/// # Errors
/// When they are none.
pub fn decode_held(bytes: &[u8]) -> Result<Held, DecodeError> {
    let message = wire::Held::decode(bytes)?;
    Ok(Held {
        identity: message.identity.parse()?,
        serial: message.serial.into(),
        not_after: message.not_after,
        issuer: message.issuer.into(),
    })
}

/// Collects the policies and issuers of a workload's guards, each once, in order of first use.
#[derive(Default)]
pub(crate) struct GuardTables {
    pub(crate) policies: Vec<wire::AuthorizationPolicy>,
    pub(crate) issuers: Vec<wire::Issuer>,
}

impl GuardTables {
    pub(crate) fn guard(&mut self, guard: &Guard) -> wire::Guard {
        let authorization = &guard.authorization;
        wire::Guard {
            mode: mode(guard.mode).into(),
            posture: posture(authorization.posture).into(),
            policies: authorization.policies.iter().map(|it| place(&mut self.policies, policy(it))).collect(),
            issuers: authorization.issuers.iter().map(|it| place(&mut self.issuers, issuer(it))).collect(),
        }
    }
}

/// The index of `item` in `table`, to which it is added if it is new. A workload has few policies.
fn place<T: PartialEq>(table: &mut Vec<T>, item: T) -> u32 {
    let found = table.iter().position(|known| *known == item).unwrap_or_else(|| {
        table.push(item);
        table.len() - 1
    });
    u32::try_from(found).expect("a workload has fewer policies than 2³²")
}

/// The decoded tables, from which guards take what their indices say.
pub(crate) struct Guards {
    policies: Vec<Arc<Policy>>,
    issuers: Vec<Arc<Issuer>>,
}

impl Guards {
    pub(crate) fn new(policies: Vec<wire::AuthorizationPolicy>, issuers: Vec<wire::Issuer>) -> Result<Self, DecodeError> {
        let policies = policies.into_iter().map(|it| policy_of(it).map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Self { policies, issuers: issuers.into_iter().map(|it| Arc::new(issuer_of(it))).collect() })
    }

    /// A guard that is absent is an error: no proxy may take silence for "everybody may pass".
    pub(crate) fn guard(&self, message: Option<wire::Guard>) -> Result<Guard, DecodeError> {
        let message = message.ok_or(DecodeError::Unknown("port without a guard"))?;
        let authorization = Authorization {
            posture: posture_of(message.posture)?,
            policies: taken(&self.policies, &message.policies)?,
            issuers: taken(&self.issuers, &message.issuers)?,
        };
        Ok(Guard { mode: mode_of(message.mode)?, authorization: Arc::new(authorization) })
    }
}

fn taken<T: Clone>(table: &[T], indices: &[u32]) -> Result<Vec<T>, DecodeError> {
    let get = |index: &u32| usize::try_from(*index).ok().and_then(|index| table.get(index).cloned());
    indices.iter().map(|index| get(index).ok_or(DecodeError::Index { index: *index, count: table.len() })).collect()
}

fn policy(policy: &Arc<Policy>) -> wire::AuthorizationPolicy {
    let action = match policy.action {
        Action::Allow => wire::Action::Allow,
        Action::Deny => wire::Action::Deny,
        Action::Audit => wire::Action::Audit,
    };
    wire::AuthorizationPolicy { name: policy.name.to_string(), action: action.into(), rules: policy.rules.iter().map(rule).collect() }
}

fn policy_of(message: wire::AuthorizationPolicy) -> Result<Policy, DecodeError> {
    let action = match known(message.action, "action of a policy")? {
        wire::Action::Allow => Action::Allow,
        wire::Action::Deny => Action::Deny,
        wire::Action::Audit => Action::Audit,
    };
    let rules = message.rules.into_iter().map(rule_of).collect::<Result<_, _>>()?;
    Ok(Policy { name: message.name.into(), action, rules })
}

fn rule(rule: &Rule) -> wire::AuthorizationRule {
    let path = |path: &PathRule| match path {
        PathRule::Exact(path) => wire::path_rule::Kind::Exact(path.to_string()),
        PathRule::Below(path) => wire::path_rule::Kind::Below(path.to_string()),
    };
    let claim = |(name, values): (&Name, &Vec<Name>)| wire::Claim { name: name.to_string(), values: strings(values) };
    wire::AuthorizationRule {
        from: rule.from.iter().map(source).collect(),
        ports: rule.ports.iter().map(|port| u32::from(*port)).collect(),
        methods: strings(&rule.methods),
        paths: rule.paths.iter().map(|it| wire::PathRule { kind: Some(path(it)) }).collect(),
        claims: rule.claims.iter().map(claim).collect(),
    }
}

fn rule_of(message: wire::AuthorizationRule) -> Result<Rule, DecodeError> {
    let path = |path: wire::PathRule| match path.kind {
        Some(wire::path_rule::Kind::Exact(path)) => Ok(PathRule::Exact(path.into())),
        Some(wire::path_rule::Kind::Below(path)) => Ok(PathRule::Below(path.into())),
        None => Err(DecodeError::Unknown("condition on a path")),
    };
    Ok(Rule {
        from: message.from.into_iter().map(source_of).collect::<Result<_, _>>()?,
        ports: message.ports.into_iter().map(crate::decode::port).collect::<Result<_, _>>()?,
        methods: names(message.methods),
        paths: message.paths.into_iter().map(path).collect::<Result<_, _>>()?,
        claims: message.claims.into_iter().map(|claim| (claim.name.into(), names(claim.values))).collect(),
    })
}

fn source(source: &Source) -> wire::Source {
    let text = |name: &Option<Name>| name.as_ref().map(ToString::to_string);
    let kind = match source {
        Source::Peer { trust_domain, namespace, service_account } => wire::source::Kind::Peer(wire::Peer {
            trust_domain: trust_domain.to_string(),
            namespace: text(namespace),
            service_account: text(service_account),
        }),
        Source::Block(block) => wire::source::Kind::Block(block.to_string()),
    };
    wire::Source { kind: Some(kind) }
}

fn source_of(message: wire::Source) -> Result<Source, DecodeError> {
    match message.kind {
        Some(wire::source::Kind::Peer(peer)) => Ok(Source::Peer {
            trust_domain: peer.trust_domain.into(),
            namespace: peer.namespace.map(Name::from),
            service_account: peer.service_account.map(Name::from),
        }),
        Some(wire::source::Kind::Block(block)) => block.parse().map(Source::Block).ok().ok_or(DecodeError::Unknown("address block")),
        None => Err(DecodeError::Unknown("kind of caller")),
    }
}

fn issuer(issuer: &Arc<Issuer>) -> wire::Issuer {
    wire::Issuer {
        issuer: issuer.issuer.to_string(),
        audiences: strings(&issuer.audiences),
        headers: strings(&issuer.headers),
        keys: issuer.keys.to_string(),
    }
}

fn issuer_of(message: wire::Issuer) -> Issuer {
    Issuer {
        issuer: message.issuer.into(),
        audiences: names(message.audiences),
        headers: names(message.headers),
        keys: message.keys.into(),
    }
}

fn mode(mode: Mode) -> wire::Mode {
    match mode {
        Mode::Permissive => wire::Mode::Permissive,
        Mode::Strict => wire::Mode::Strict,
        Mode::Disabled => wire::Mode::Disabled,
    }
}

fn mode_of(mode: i32) -> Result<Mode, DecodeError> {
    Ok(match known(mode, "mode of mutual TLS")? {
        wire::Mode::Permissive => Mode::Permissive,
        wire::Mode::Strict => Mode::Strict,
        wire::Mode::Disabled => Mode::Disabled,
    })
}

fn posture(posture: Posture) -> wire::Posture {
    match posture {
        Posture::Allow => wire::Posture::Allow,
        Posture::Deny => wire::Posture::Deny,
    }
}

fn posture_of(posture: i32) -> Result<Posture, DecodeError> {
    Ok(match known(posture, "posture")? {
        wire::Posture::Allow => Posture::Allow,
        wire::Posture::Deny => Posture::Deny,
    })
}

pub(crate) fn egress(egress: Egress) -> wire::Egress {
    match egress {
        Egress::Allow => wire::Egress::Allow,
        Egress::RegisteredOnly => wire::Egress::RegisteredOnly,
    }
}

pub(crate) fn egress_of(egress: i32) -> Result<Egress, DecodeError> {
    Ok(match known(egress, "mode of egress")? {
        wire::Egress::Allow => Egress::Allow,
        wire::Egress::RegisteredOnly => Egress::RegisteredOnly,
    })
}

fn known<T: TryFrom<i32>>(value: i32, what: &'static str) -> Result<T, DecodeError> {
    T::try_from(value).ok().ok_or(DecodeError::Unknown(what))
}

fn strings(names: &[Name]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn names(strings: Vec<String>) -> Vec<Name> {
    strings.into_iter().map(Name::from).collect()
}
