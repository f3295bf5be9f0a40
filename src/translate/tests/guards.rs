//! SecurityPolicies: what holds for which port of which workload, and what is said about them.

use leno_core::authorize::{Action, Mode, Posture, Source};
use leno_core::workload::Workload;

use super::*;

/// A SecurityPolicy called `name`.
fn policy(name: &str, spec: &str) -> String {
    format!("\nkind: SecurityPolicy\nmetadata: {{name: {name}, namespace: shop, generation: 1}}\nspec: {{{spec}}}\n")
}

/// A second service of the same pods, at another port.
const ADMIN: &str = "
kind: Service
metadata: {name: admin, namespace: shop}
spec: {selector: {app: payment}, ports: [{name: admin, port: 90, targetPort: 9090}]}
---
kind: EndpointSlice
metadata: {name: admin-x, namespace: shop, labels: {kubernetes.io/service-name: admin}}
ports: [{name: admin, port: 9090, protocol: TCP}]
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: payment-1}}]
";

/// The two pods, with proxies.
fn injected() -> String {
    PODS.replace("labels:", "annotations: {leno.dev/injected: ''}, labels:")
}

fn mesh(policies: &[String]) -> Translator {
    let mut translator = translator(&[PAYMENT, VERSIONS, SLICE, ADMIN, &injected()]);
    for policy in policies {
        apply(&mut translator, policy);
    }
    translator
}

fn workload(translator: &Translator, name: &str) -> Workload {
    translator.workload(&workload_id(name)).unwrap()
}

/// The policies that hold at a port, by name.
fn names(workload: &Workload, port: u16) -> Vec<String> {
    workload.guard(port).authorization.policies.iter().map(|policy| policy.name.to_string()).collect()
}

#[test]
fn policies_hold_for_the_ports_of_a_service_for_selected_pods_or_for_a_namespace() {
    let rules = "authorization: [{from: [{namespace: ops}]}]";
    let translator = mesh(&[
        policy("c-all", rules),
        policy("b-v2", &format!("selector: {{matchLabels: {{version: v2}}}}, {rules}")),
        policy("a-service", &format!("targetRef: {{name: payment}}, {rules}")),
        policy("d-silent", "mtls: {mode: Strict}"),
    ]);
    let first = workload(&translator, "payment-1");
    assert_eq!(names(&first, 8080), ["shop/a-service", "shop/c-all"]);
    assert_eq!(names(&first, 9090), ["shop/c-all"]);
    assert_eq!(names(&first, 1234), ["shop/c-all"], "a port that no service leads to");
    let second = workload(&translator, "payment-2");
    assert_eq!(names(&second, 8080), ["shop/a-service", "shop/b-v2", "shop/c-all"]);
    assert_eq!(names(&second, 1234), ["shop/b-v2", "shop/c-all"]);
    assert_eq!(second.guard(8080).mode, Mode::Strict);
}

#[test]
fn ports_of_a_service_become_those_that_the_app_listens_on_and_rules_keep_their_places() {
    let spec = "targetRef: {name: payment}, action: Deny, authorization: [{ports: [9090]}, {ports: [80, 81]}, {}]";
    let translator = mesh(&[policy("p", spec)]);
    let workload = workload(&translator, "payment-1");
    let policy = &workload.guard(8080).authorization.policies[0];
    let ports: Vec<&[u16]> = policy.rules.iter().map(|rule| &*rule.ports).collect();
    assert_eq!((policy.action, &*policy.name, ports), (Action::Deny, "shop/p", vec![&[1][..], &[8080], &[]]));
    let report = translator.report(&key(Kind::SecurityPolicy, "p")).unwrap();
    assert_eq!(outcome(&report), "Accepted=True Accepted; ResolvedRefs=False PortNotFound");
    assert!(report.conditions[1].message.contains("spec.authorization[0].ports: Service shop/payment has no TCP port 9090 (it has 80)"));
}

#[test]
fn names_of_callers_are_of_the_own_namespace_and_trust_domain_unless_they_say_more() {
    let from = "[{serviceAccount: web}, {serviceAccount: ops/cron}, {namespace: ops}, {trustDomain: other}, {ipBlock: 10.1.2.3/8}, {ipBlock: '::1'}]";
    let translator = mesh(&[policy("p", &format!("authorization: [{{from: {from}}}]"))]);
    let workload = workload(&translator, "payment-1");
    let peer = |domain: &str, namespace: Option<&str>, account: Option<&str>| Source::Peer {
        trust_domain: domain.into(),
        namespace: namespace.map(Into::into),
        service_account: account.map(Into::into),
    };
    let expected = [
        peer("cluster.local", Some("shop"), Some("web")),
        peer("cluster.local", Some("ops"), Some("cron")),
        peer("cluster.local", Some("ops"), None),
        peer("other", None, None),
        Source::Block("10.0.0.0/8".parse().unwrap()),
        Source::Block("::1/128".parse().unwrap()),
    ];
    assert_eq!(workload.guard(8080).authorization.policies[0].rules[0].from, expected);
}

#[test]
fn the_nearest_and_then_the_strictest_mode_holds() {
    let service = |name: &str, mode: &str| policy(name, &format!("targetRef: {{name: payment}}, mtls: {{mode: {mode}}}"));
    let pods = |name: &str, mode: &str| policy(name, &format!("selector: {{matchLabels: {{version: v1}}}}, mtls: {{mode: {mode}}}"));
    let all = |name: &str, mode: &str| policy(name, &format!("mtls: {{mode: {mode}}}"));
    let cases = [
        ("none", vec![], [Mode::Permissive; 3]),
        ("namespace", vec![all("a", "Strict")], [Mode::Strict; 3]),
        ("two of the namespace", vec![all("a", "Disabled"), all("b", "Permissive")], [Mode::Permissive; 3]),
        ("service before namespace", vec![all("a", "Strict"), service("b", "Disabled")], [Mode::Disabled, Mode::Strict, Mode::Strict]),
        (
            "pods before namespace",
            vec![all("a", "Strict"), pods("b", "Permissive")],
            [Mode::Permissive, Mode::Permissive, Mode::Permissive],
        ),
        ("service and pods", vec![service("a", "Disabled"), pods("b", "Strict")], [Mode::Strict; 3]),
    ];
    for (name, policies, expected) in cases {
        let workload = workload(&mesh(&policies), "payment-1");
        assert_eq!([8080, 9090, 1234].map(|port| workload.guard(port).mode), expected, "{name}");
    }
    let mut defaults = Defaults::new("cluster.local");
    (defaults.mode, defaults.posture) = (Mode::Strict, Posture::Deny);
    let mut translator = Translator::new(defaults);
    apply(&mut translator, &injected());
    let guard = workload(&translator, "payment-1").others;
    assert_eq!((guard.mode, guard.authorization.posture), (Mode::Strict, Posture::Deny));
}

#[test]
fn callers_speak_plain_text_to_a_port_whose_mode_is_disabled_whatever_service_they_mean() {
    let both = ADMIN
        .replace("9090", "8080")
        .replace("name: admin, port: 8080", "name: http, port: 8080")
        .replace("{name: admin, port: 90", "{name: http, port: 90");
    let mut translator = translator(&[PAYMENT, SLICE, &both, &injected()]);
    let proven = |translator: &Translator| {
        let of = |service: &str, port| translator.endpoints(&endpoints_id(service, port)).unwrap().endpoints[0].identity.is_some();
        (of("payment", 80), of("admin", 90))
    };
    assert_eq!(proven(&translator), (true, true));
    let touched = apply(&mut translator, &policy("p", "targetRef: {kind: Service, name: payment}, mtls: {mode: Disabled}"));
    assert_eq!(proven(&translator), (false, false));
    assert_eq!(touched.endpoints, [endpoints_id("payment", 80), endpoints_id("admin", 90)].into());
    assert_eq!(touched.workloads, [workload_id("payment-1"), workload_id("payment-2")].into());
    let touched =
        apply(&mut translator, &policy("p", "targetRef: {kind: Service, name: payment}, mtls: {mode: Disabled}, authorization: [{}]"));
    assert!(touched.endpoints.is_empty(), "who may call is nothing to callers");
}

#[test]
fn a_policy_touches_what_it_is_for_and_nothing_else() {
    let mut translator = mesh(&[]);
    let touched = apply(&mut translator, &policy("p", "selector: {matchLabels: {version: v2}}, authorization: [{}]"));
    let expected =
        Touched { workloads: [workload_id("payment-2")].into(), reports: [key(Kind::SecurityPolicy, "p")].into(), ..Touched::default() };
    assert_eq!(touched, expected);
}

#[test]
fn a_bad_version_leaves_the_last_good_one_in_force() {
    let mut translator = mesh(&[policy("p", "authorization: [{methods: [GET]}]"), policy("q", "mtls: {mode: Strict}")]);
    apply(&mut translator, &policy("p", "authorization: [{paths: ['/a%2Fb']}]"));
    let workload = workload(&translator, "payment-1");
    assert_eq!(&*workload.guard(8080).authorization.policies[0].rules[0].methods[0], "GET");
    assert_eq!(workload.guard(8080).mode, Mode::Strict, "the other policy holds too");
    let report = translator.report(&key(Kind::SecurityPolicy, "p")).unwrap();
    assert_eq!(outcome(&report), "Accepted=False Invalid; ResolvedRefs=True ResolvedRefs");
    assert!(report.conditions[0].message.contains("spec.authorization[0].paths[0]: path \"/a%2Fb\""), "{}", report.conditions[0].message);
    assert!(report.conditions[0].message.ends_with("generation 1 stays in force."), "{}", report.conditions[0].message);
}

#[test]
fn what_a_policy_names_and_is_not_there_is_said() {
    let cases = [
        (
            "targetRef: {name: ghost}, authorization: [{}]",
            "Accepted=False TargetNotFound; ResolvedRefs=False TargetNotFound",
            "There is no MeshService shop/ghost",
        ),
        (
            "targetRef: {name: admin}, authorization: [{}]",
            "Accepted=False TargetNotFound; ResolvedRefs=False TargetNotFound",
            "write kind: Service in spec.targetRef",
        ),
        (
            "selector: {matchLabels: {app: ghost}}, mtls: {mode: Strict}",
            "Accepted=True Accepted; ResolvedRefs=False NothingSelected",
            "No pod of namespace shop has the labels",
        ),
        ("authorization: [{claims: {scope: [a]}}]", "Accepted=True Accepted; ResolvedRefs=False IssuerNotFound", "Add jwt."),
        (
            "jwt: [{issuer: a, jwksUri: 'https://a.example/keys'}]",
            "Accepted=True Accepted; ResolvedRefs=False KeysNotFetched",
            "have not been fetched yet",
        ),
        ("authorization: [{}], action: Audit", "Accepted=True Accepted; ResolvedRefs=True ResolvedRefs", "exists"),
    ];
    for (spec, expected, words) in cases {
        let report = mesh(&[policy("p", spec)]).report(&key(Kind::SecurityPolicy, "p")).unwrap();
        assert_eq!(outcome(&report), expected, "{spec}");
        assert!(report.conditions[1].message.contains(words), "{}", report.conditions[1].message);
    }
}

#[test]
fn fetched_keys_reach_the_workloads_and_stay_when_fetching_fails() {
    let spec = "jwt: [{issuer: a, jwksUri: 'https://a.example/keys', audiences: [pay], fromHeaders: [X-Token]}]";
    let mut translator = mesh(&[policy("p", spec)]);
    let uri: leno_core::names::Name = "https://a.example/keys".into();
    assert_eq!((translator.key_uris(), translator.has_tried_keys()), ([uri.clone()].into(), false));
    let keys = |translator: &Translator| workload(translator, "payment-1").others.authorization.issuers[0].keys.to_string();
    let touched = translator.set_keys(&uri, Err("connection refused".into()));
    assert!(touched.reports.contains(&key(Kind::SecurityPolicy, "p")) && translator.has_tried_keys());
    assert_eq!(keys(&translator), "");
    let touched = translator.set_keys(&uri, Ok("set".into()));
    assert_eq!(touched.workloads, [workload_id("payment-1"), workload_id("payment-2")].into());
    translator.set_keys(&uri, Err("connection refused".into()));
    assert_eq!(keys(&translator), "set");
    let issuer = &workload(&translator, "payment-1").others.authorization.issuers[0];
    assert_eq!((&*issuer.audiences[0], &*issuer.headers[0]), ("pay", "x-token"));
    assert!(translator.set_keys(&uri, Err("connection refused".into())).is_empty(), "no news");
    apply(&mut translator, &policy("p", "mtls: {mode: Strict}"));
    assert!(translator.key_uris().is_empty() && translator.set_keys(&uri, Ok("set".into())).is_empty());
}
