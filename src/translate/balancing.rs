//! What a MeshService says of how endpoints are chosen.

use std::sync::Arc;
use std::time::Duration;

use leno_api::load_balancer as api;
use leno_api::rules::Rule;
use leno_api::rules::balancing::{COOKIE_NAME, COOKIE_PATH, ONE_AFFINITY, SESSION_HEADER, may_name_sessions};
use leno_core::balance::affinity::{Affinity, SessionCookie};
use leno_core::balance::key::HashKey;
use leno_core::balance::{Algorithm, Balancing};
use leno_core::names::{Name, ServiceId};

/// Reads what `spec` says of the service `id`; `None` when that is the default. What is wrong is added to `problems`.
pub(crate) fn read(spec: Option<&api::LoadBalancer>, id: &ServiceId, problems: &mut Vec<String>) -> Option<Arc<Balancing>> {
    let spec = spec?;
    let affinity = spec.session_affinity.as_ref().and_then(|spec| affinity(spec, id, problems));
    let prefers_zone = spec.locality == Some(api::Locality::PreferZone);
    let balancing = Balancing { algorithm: algorithm(spec, problems), slow_start: slow_start(spec, problems), prefers_zone, affinity };
    if spec.consistent_hash.is_some() && (spec.slow_start.is_some() || prefers_zone || spec.session_affinity.is_some()) {
        let fields = "slowStart, locality and sessionAffinity";
        problems.push(format!("spec.loadBalancer: leave {fields} out where algorithm is ConsistentHash: the request alone decides."));
    }
    (balancing != Balancing::default()).then(|| Arc::new(balancing))
}

fn affinity(spec: &api::SessionAffinity, id: &ServiceId, problems: &mut Vec<String>) -> Option<Affinity> {
    match (&spec.cookie, &spec.header) {
        (Some(cookie), None) => Some(Affinity::Cookie(SessionCookie {
            name: cookie
                .name
                .as_deref()
                .filter(|name| is_good(&COOKIE_NAME, "name", name, problems))
                .map_or_else(|| SessionCookie::name_for(id), Name::from),
            ttl: duration("sessionAffinity.cookie.ttl", cookie.ttl.as_ref(), problems),
            path: cookie.path.as_deref().filter(|path| is_good(&COOKIE_PATH, "path", path, problems)).unwrap_or("/").into(),
        })),
        (None, Some(header)) if may_name_sessions(header) => Some(Affinity::Header(header.to_ascii_lowercase().into())),
        (None, Some(header)) => {
            problems.push(format!("spec.loadBalancer.sessionAffinity.header: {header:?}: {}.", SESSION_HEADER.message));
            None
        }
        (Some(_), Some(_)) | (None, None) => {
            problems.push(format!("spec.loadBalancer: {}.", ONE_AFFINITY.message));
            None
        }
    }
}

/// Whether `text`, which is said of a cookie, is as `rule` has it.
fn is_good(rule: &Rule, field: &str, text: &str, problems: &mut Vec<String>) -> bool {
    let is_good = rule.holds(&text.into());
    if !is_good {
        problems.push(format!("spec.loadBalancer.sessionAffinity.cookie.{field}: {text:?}: {}.", rule.message));
    }
    is_good
}

fn slow_start(spec: &api::LoadBalancer, problems: &mut Vec<String>) -> Option<Duration> {
    duration("slowStart", spec.slow_start.as_ref(), problems)
}

fn duration(field: &str, duration: Option<&leno_api::Duration>, problems: &mut Vec<String>) -> Option<Duration> {
    match duration?.parse() {
        Ok(duration) => Some(duration),
        Err(error) => {
            problems.push(format!("spec.loadBalancer.{field}: {error}."));
            None
        }
    }
}

fn algorithm(spec: &api::LoadBalancer, problems: &mut Vec<String>) -> Algorithm {
    let hashes = spec.algorithm == api::Algorithm::ConsistentHash;
    if hashes != spec.consistent_hash.is_some() {
        problems.push("spec.loadBalancer: write consistentHash together with algorithm: ConsistentHash, or neither.".to_owned());
    }
    let key = spec.consistent_hash.as_ref().and_then(|spec| hash_key(spec, problems));
    match spec.algorithm {
        api::Algorithm::LeastRequest => Algorithm::LeastRequest,
        api::Algorithm::RoundRobin => Algorithm::RoundRobin,
        api::Algorithm::Random => Algorithm::Random,
        api::Algorithm::WeightedRandom => Algorithm::WeightedRandom,
        api::Algorithm::PeakEwma => Algorithm::PeakEwma,
        // Without a key there is a problem, and nothing of this is used.
        api::Algorithm::ConsistentHash => key.map_or(Algorithm::LeastRequest, Algorithm::ConsistentHash),
    }
}

fn hash_key(spec: &api::ConsistentHash, problems: &mut Vec<String>) -> Option<HashKey> {
    let header = spec.header.as_ref().map(|name| HashKey::Header(name.to_ascii_lowercase().into()));
    let cookie = spec.cookie.as_ref().map(|name| HashKey::Cookie(name.as_str().into()));
    let query = spec.query.as_ref().map(|name| HashKey::Query(name.as_str().into()));
    let source = spec.source_ip.filter(|is_set| *is_set).map(|_| HashKey::SourceIp);
    let mut keys = [header, cookie, query, source].into_iter().flatten();
    match (keys.next(), keys.next()) {
        (Some(HashKey::Header(name) | HashKey::Cookie(name) | HashKey::Query(name)), None) if name.is_empty() => {
            problems.push("spec.loadBalancer.consistentHash: a name is empty: write what of the request is meant.".to_owned());
            None
        }
        (Some(key), None) => Some(key),
        (_, _) => {
            problems.push("spec.loadBalancer.consistentHash: write exactly one of header, cookie, query and sourceIp: true.".to_owned());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_json(spec: serde_json::Value) -> (Option<Arc<Balancing>>, Vec<String>) {
        let mut problems = Vec::new();
        let balancing = read(Some(&serde_json::from_value(spec).unwrap()), &ServiceId::new("shop", "payment"), &mut problems);
        (balancing, problems)
    }

    #[test]
    fn what_is_not_said_is_the_default_and_takes_nothing() {
        assert_eq!(read(None, &ServiceId::new("shop", "payment"), &mut Vec::new()), None);
        assert_eq!(read_json(json!({})), (None, Vec::new()));
        let ewma = Balancing { algorithm: Algorithm::PeakEwma, ..Balancing::default() };
        assert_eq!(read_json(json!({"algorithm": "PeakEwma", "locality": "Anywhere"})), (Some(Arc::new(ewma)), Vec::new()));
        let said = read_json(json!({"slowStart": "30s", "locality": "PreferZone"}));
        let slowly = Balancing { slow_start: Some(Duration::from_secs(30)), prefers_zone: true, ..Balancing::default() };
        assert_eq!(said, (Some(Arc::new(slowly)), Vec::new()));
    }

    #[test]
    fn sessions_are_told_apart_by_a_cookie_of_the_service_or_a_header() {
        let affinity = |spec| read_json(json!({"sessionAffinity": spec})).0.unwrap().affinity.clone().unwrap();
        let name = SessionCookie::name_for(&ServiceId::new("shop", "payment"));
        assert_eq!(affinity(json!({"cookie": {}})), Affinity::Cookie(SessionCookie { name, ttl: None, path: "/".into() }));
        let cookie = SessionCookie { name: "sid".into(), ttl: Some(Duration::from_secs(3600)), path: "/a".into() };
        assert_eq!(affinity(json!({"cookie": {"name": "sid", "ttl": "1h", "path": "/a"}})), Affinity::Cookie(cookie));
        assert_eq!(affinity(json!({"header": "X-Session"})), Affinity::Header("x-session".into()));
    }

    #[test]
    fn each_kind_of_key_is_read() {
        let cases = [
            (json!({"header": "X-User"}), HashKey::Header("x-user".into())),
            (json!({"cookie": "Session"}), HashKey::Cookie("Session".into())),
            (json!({"query": "User"}), HashKey::Query("User".into())),
            (json!({"sourceIp": true}), HashKey::SourceIp),
        ];
        for (spec, key) in cases {
            let (balancing, problems) = read_json(json!({"algorithm": "ConsistentHash", "consistentHash": spec}));
            assert_eq!(balancing.unwrap().algorithm, Algorithm::ConsistentHash(key));
            assert!(problems.is_empty());
        }
    }

    #[test]
    fn what_the_schema_would_refuse_is_told_in_words() {
        let cases = [
            (json!({"algorithm": "ConsistentHash"}), "write consistentHash together with algorithm: ConsistentHash"),
            (json!({"consistentHash": {"header": "x"}}), "write consistentHash together with algorithm: ConsistentHash"),
            (json!({"algorithm": "ConsistentHash", "consistentHash": {}}), "exactly one of header, cookie, query and sourceIp"),
            (json!({"algorithm": "ConsistentHash", "consistentHash": {"sourceIp": false}}), "exactly one of"),
            (json!({"algorithm": "ConsistentHash", "consistentHash": {"header": "a", "query": "b"}}), "exactly one of"),
            (json!({"algorithm": "ConsistentHash", "consistentHash": {"header": ""}}), "a name is empty"),
            (json!({"slowStart": "soon"}), "spec.loadBalancer.slowStart: \"soon\" is not a duration"),
            (
                json!({"algorithm": "ConsistentHash", "consistentHash": {"header": "a"}, "slowStart": "1s"}),
                "leave slowStart, locality and sessionAffinity out",
            ),
            (json!({"sessionAffinity": {}}), "exactly one of cookie and header"),
            (json!({"sessionAffinity": {"header": "Cookie"}}), "write a header of your own"),
            (json!({"sessionAffinity": {"cookie": {"ttl": "soon"}}}), "spec.loadBalancer.sessionAffinity.cookie.ttl"),
            (json!({"sessionAffinity": {"cookie": {"path": "a;b"}}}), "begin the cookie's path with /"),
            (json!({"sessionAffinity": {"cookie": {"name": "a b"}}}), "write a cookie's name"),
        ];
        for (spec, words) in cases {
            let problems = read_json(spec).1;
            assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
        }
    }
}
