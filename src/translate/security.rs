//! What a SecurityPolicy means, before its ports are looked for.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use leno_api as api;
use leno_api::k8s::Labels;
use leno_api::security_policy as spec;
use leno_api::traffic_policy::TargetKind;
use leno_core::authorize::{Action, Mode, PathRule, Policy, Rule, Source};
use leno_core::names::Name;
use leno_core::workload::Egress;

use crate::fields;
use crate::jwks;
use crate::policy::TargetRef;

/// A good SecurityPolicy.
#[derive(Debug, PartialEq)]
pub(crate) struct Security {
    /// What it is for.
    pub(crate) scope: Scope,
    /// Whether callers must prove who they are, if it says so.
    pub(crate) mode: Option<Mode>,
    /// Where the pods may connect to outside the cluster, if it says so.
    pub(crate) egress: Option<Egress>,
    /// Whose tokens are taken.
    pub(crate) issuers: Vec<IssuerSpec>,
    /// Its rules, with their ports as written; `None` where it has no say in who may call.
    pub(crate) policy: Option<Arc<Policy>>,
    /// The fields that it writes, in words.
    pub(crate) fields: Name,
}

/// What a SecurityPolicy is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scope {
    /// Every pod of its namespace.
    Namespace,
    /// Pods that have these labels.
    Selector(Labels),
    /// The ports to which a service leads. Its rules mean the service's ports.
    Service(TargetRef),
}

/// An issuer of tokens, before its keys are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IssuerSpec {
    pub(crate) issuer: Name,
    pub(crate) audiences: Vec<Name>,
    pub(crate) headers: Vec<Name>,
    pub(crate) keys: KeysSpec,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeysSpec {
    /// In the policy.
    Given(Name),
    /// To be fetched from this URL.
    Fetched(Name),
}

impl Security {
    /// Whether a rule asks for claims of tokens.
    pub(crate) fn asks_for_claims(&self) -> bool {
        self.policy.iter().flat_map(|policy| &policy.rules).any(|rule| !rule.claims.is_empty())
    }

    /// Where keys are to be fetched.
    pub(crate) fn key_uris(&self) -> impl Iterator<Item = &Name> {
        self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            KeysSpec::Given(_) => None,
            KeysSpec::Fetched(uri) => Some(uri),
        })
    }
}

/// Reads the SecurityPolicy `name` of `namespace`; otherwise everything that is wrong with it. Names of callers are of
/// `trust_domain` where the policy names none.
pub(crate) fn read(spec: &api::SecurityPolicySpec, namespace: &Name, name: &str, trust_domain: &Name) -> Result<Security, Vec<String>> {
    let mut reader = Reader { problems: Vec::new(), namespace, trust_domain };
    let scope = reader.scope(spec);
    let mode = spec.mtls.as_ref().map(|mtls| match mtls.mode {
        spec::Mode::Strict => Mode::Strict,
        spec::Mode::Permissive => Mode::Permissive,
        spec::Mode::Disabled => Mode::Disabled,
    });
    let egress = spec.egress.as_ref().map(|egress| match egress.mode {
        spec::EgressMode::Allow => Egress::Allow,
        spec::EgressMode::RegisteredOnly => Egress::RegisteredOnly,
    });
    if egress.is_some() && spec.target_ref.is_some() {
        reader.problem("spec.egress", "write it in a policy without targetRef: it is said for pods or the whole namespace.");
    }
    let action = match spec.action {
        spec::Action::Allow => Action::Allow,
        spec::Action::Deny => Action::Deny,
        spec::Action::Audit => Action::Audit,
    };
    let issuers = spec.jwt.iter().enumerate().filter_map(|(index, jwt)| reader.issuer(&format!("spec.jwt[{index}]"), jwt)).collect();
    let rules: Vec<Rule> =
        spec.authorization.iter().enumerate().map(|(index, rule)| reader.rule(&format!("spec.authorization[{index}]"), rule)).collect();
    let fields = fields::said(&serde_json::to_value(spec).unwrap_or_default());
    let policy = Policy { name: format!("{namespace}/{name}").into(), action, rules };
    let policy = (!spec.authorization.is_empty()).then(|| Arc::new(policy));
    if reader.problems.is_empty() { Ok(Security { scope, mode, egress, issuers, policy, fields }) } else { Err(reader.problems) }
}

/// Reads on after a problem, so that a person learns all of them at once.
struct Reader<'a> {
    problems: Vec<String>,
    namespace: &'a Name,
    trust_domain: &'a Name,
}

impl Reader<'_> {
    fn problem(&mut self, path: &str, message: &str) {
        self.problems.push(format!("{path}: {message}"));
    }

    fn scope(&mut self, spec: &api::SecurityPolicySpec) -> Scope {
        match (&spec.target_ref, &spec.selector) {
            (None, None) => Scope::Namespace,
            (None, Some(selector)) => {
                if selector.match_labels.is_empty() {
                    self.problem(
                        "spec.selector.matchLabels",
                        "name at least one label, or leave selector out to mean the whole namespace.",
                    );
                }
                Scope::Selector(selector.match_labels.iter().collect())
            }
            (Some(target), other) => {
                if other.is_some() {
                    self.problem("spec", "write targetRef or selector, not both.");
                }
                if target.name.is_empty() {
                    self.problem("spec.targetRef.name", "name the MeshService or Service that the policy is for.");
                }
                let name = target.name.as_str().into();
                Scope::Service(match target.kind {
                    TargetKind::MeshService => TargetRef::MeshService(name),
                    TargetKind::Service => TargetRef::Service(name),
                })
            }
        }
    }

    fn issuer(&mut self, path: &str, spec: &spec::Jwt) -> Option<IssuerSpec> {
        if spec.issuer.is_empty() {
            self.problem(&format!("{path}.issuer"), "write what the tokens' iss claim is.");
        }
        let keys = match (&spec.jwks, &spec.jwks_uri) {
            (Some(keys), None) => {
                if let Err(error) = jwks::check(keys) {
                    self.problem(&format!("{path}.jwks"), &format!("{error}."));
                }
                KeysSpec::Given(keys.as_str().into())
            }
            (None, Some(uri)) => KeysSpec::Fetched(uri.as_str().into()),
            (_, _) => {
                self.problem(path, "write exactly one of jwks and jwksUri.");
                return None;
            }
        };
        let audiences = spec.audiences.iter().map(|audience| audience.as_str().into()).collect();
        let headers = spec.from_headers.iter().map(|header| header.to_ascii_lowercase().into()).collect();
        Some(IssuerSpec { issuer: spec.issuer.as_str().into(), audiences, headers, keys })
    }

    fn rule(&mut self, path: &str, spec: &spec::Rule) -> Rule {
        let from = spec.from.iter().enumerate();
        let from = from.filter_map(|(index, source)| self.source(&format!("{path}.from[{index}]"), source)).collect();
        let mut paths = Vec::with_capacity(spec.paths.len());
        for (index, text) in spec.paths.iter().enumerate() {
            match PathRule::new(text) {
                Ok(rule) => paths.push(rule),
                Err(error) => self.problem(&format!("{path}.paths[{index}]"), &format!("{error}.")),
            }
        }
        let names = |names: &[String]| names.iter().map(|name| Name::from(name.as_str())).collect::<Vec<_>>();
        Rule {
            from,
            ports: spec.ports.clone(),
            methods: names(&spec.methods),
            paths,
            claims: spec.claims.iter().map(|(name, values)| (name.as_str().into(), names(values))).collect(),
        }
    }

    fn source(&mut self, path: &str, spec: &spec::Source) -> Option<Source> {
        let peer = |trust_domain: &Name, namespace: Option<&str>, account: Option<&str>| Source::Peer {
            trust_domain: trust_domain.clone(),
            namespace: namespace.map(Name::from),
            service_account: account.map(Name::from),
        };
        match (&spec.service_account, &spec.namespace, &spec.trust_domain, &spec.ip_block) {
            (Some(account), None, None, None) => {
                let (namespace, name) = account.split_once('/').unwrap_or((self.namespace, account));
                Some(peer(self.trust_domain, Some(namespace), Some(name)))
            }
            (None, Some(namespace), None, None) => Some(peer(self.trust_domain, Some(namespace), None)),
            (None, None, Some(domain), None) => Some(peer(&domain.as_str().into(), None, None)),
            (None, None, None, Some(block)) => {
                let parsed = block.parse::<IpNet>().ok().or_else(|| block.parse::<IpAddr>().ok().map(IpNet::from));
                if parsed.is_none() {
                    self.problem(&format!("{path}.ipBlock"), &format!("{block:?} is neither a network such as 10.0.0.0/8 nor an address."));
                }
                parsed.map(|block| Source::Block(block.trunc()))
            }
            (_, _, _, _) => {
                self.problem(path, "write exactly one of serviceAccount, namespace, trustDomain and ipBlock.");
                None
            }
        }
    }
}
