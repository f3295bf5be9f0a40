//! Workers before an app whose port has rules.

use std::net::SocketAddr;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use leno_core::authorize::{Action, Authorization, Guard, Issuer, PathRule, Policy, Posture, Rule};
use leno_core::names::{Name, WorkloadId};

use leno_core::service::Protocol;
use leno_core::workload::{InboundPort, Workload};
use leno_proxy::control::Update;
use leno_proxy::listen::Accept;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use crate::support::{Mesh, Setup, payment};

/// The app's port.
pub(crate) const APP_PORT: u16 = 8080;

/// What is told of the workload whose port `APP_PORT` speaks `protocol` and has these rules.
pub(crate) fn guarded(protocol: Protocol, authorization: Authorization) -> Update {
    let guard = Guard { authorization: Arc::new(authorization), ..Guard::default() };
    let inbound = vec![InboundPort { port: APP_PORT, protocol, service: payment(), version: None, guard, concurrency: None }];
    let id = WorkloadId::new("shop", "web-1");
    Update::Workload(Arc::new(Workload { inbound, ..Workload::new(id) }))
}

/// A worker before `app`. It has an identity, so that nothing passes before it knows the rules.
pub(crate) fn before(app: SocketAddr, protocol: Protocol, authorization: Authorization) -> (Mesh, SocketAddr) {
    before_with(Setup::default(), app, protocol, authorization)
}

pub(crate) fn before_with(mut setup: Setup, app: SocketAddr, protocol: Protocol, authorization: Authorization) -> (Mesh, SocketAddr) {
    setup.settings.identity = true;
    let (mesh, address) = setup.start_with(|| Accept::InboundApp { app, port: APP_PORT });
    mesh.tell(guarded(protocol, authorization));
    (mesh, address)
}

pub(crate) fn policies(policies: Vec<(&str, Action, Vec<Rule>)>) -> Authorization {
    let policy = |(name, action, rules): (&str, Action, Vec<Rule>)| Arc::new(Policy { name: name.into(), action, rules });
    Authorization::new(Posture::Allow, policies.into_iter().map(policy).collect(), Vec::new())
}

pub(crate) fn methods(methods: &[&str]) -> Rule {
    Rule { methods: methods.iter().map(|method| Name::from(*method)).collect(), ..Rule::default() }
}

pub(crate) fn paths(paths: &[&str]) -> Rule {
    Rule { paths: paths.iter().map(|path| PathRule::new(path).unwrap()).collect(), ..Rule::default() }
}

/// An issuer that makes its own tokens.
pub(crate) struct TokenMaker(KeyPair);

impl TokenMaker {
    pub(crate) fn new() -> Self {
        Self(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap())
    }

    pub(crate) fn issuer(&self, headers: &[&str]) -> Arc<Issuer> {
        let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
        let (x, y) = self.0.der_bytes()[1..].split_at(32);
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y)}]});
        Arc::new(Issuer {
            issuer: "https://issuer".into(),
            audiences: vec!["payment".into()],
            headers: headers.iter().map(|field| Name::from(*field)).collect(),
            keys: keys.to_string().into(),
        })
    }

    /// A token of this issuer, good for long, with `more` claims.
    pub(crate) fn token(&self, more: &Value) -> String {
        let mut claims = json!({"iss": "https://issuer", "aud": "payment", "exp": 4_000_000_000_u64});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        encode(&Header::new(Algorithm::ES256), &claims, &EncodingKey::from_ec_der(self.0.serialized_der())).unwrap()
    }
}

/// Only callers whose token has the scope `read` pass.
pub(crate) fn only_readers(maker: &TokenMaker, headers: &[&str]) -> Authorization {
    let claims = [("scope".into(), vec!["read".into()])].into();
    let rules = vec![Rule { claims, ..Rule::default() }];
    let policy = Policy { name: "shop/readers".into(), action: Action::Allow, rules };
    Authorization::new(Posture::Allow, vec![Arc::new(policy)], vec![maker.issuer(headers)])
}
