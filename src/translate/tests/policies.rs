//! Policies: what of them becomes routes.

use std::time::Duration;

use leno_core::route::{RouteTable, Target};

use super::*;

/// The routes of payment under a policy with this `spec`.
fn routes(spec: &str, more: &[&str]) -> RouteTable {
    let mut translator = translator(&[PAYMENT, VERSIONS]);
    for manifest in more {
        apply(&mut translator, manifest);
    }
    apply(
        &mut translator,
        &format!(
            "
kind: TrafficPolicy
metadata: {{name: p, namespace: shop}}
spec: {{targetRef: {{name: payment}}, {spec}}}
"
        ),
    );
    service(&translator, "payment").routes
}

/// What the first route's destinations are.
fn targets(destinations: &str, more: &[&str]) -> Vec<String> {
    let routes = routes(&format!("routes: [{{name: all, destinations: [{destinations}]}}]"), more);
    let target = |target: &Target| match target {
        Target::Version(version) => format!("version {version}"),
        Target::Service { service, port } => format!("{service} {port:?}"),
        Target::Missing(what) => format!("missing: {what}"),
    };
    routes.rules()[0].destinations.iter().map(|it| format!("{} x{}", target(&it.target), it.weight.get())).collect()
}

#[test]
fn timeouts_names_and_destinations_become_routes() {
    let routes = routes(
        "timeout: 15s, routes: [
            {name: quick, timeout: 300ms, matches: [{path: {prefix: /api}, method: GET, headers: [{name: X-User, value: premium}]}],
             destinations: [{version: v1, weight: 90}, {version: v2, weight: 10}]},
            {name: '', matches: [{query: [{name: Beta, present: true}]}]}]",
        &[],
    );
    assert_eq!(routes.policy().map(|name| &**name), Some("shop/p"));
    assert_eq!(routes.timeout(), Some(Duration::from_secs(15)));
    let names: Vec<_> = routes.rules().iter().map(|rule| (&*rule.name, rule.timeout, rule.destinations.len())).collect();
    assert_eq!(names, [("quick", Some(Duration::from_millis(300)), 2), ("route-1", None, 0)]);
    assert_eq!(&*routes.rules()[0].matches[0].headers[0].name, "x-user", "header names are lower case");
    assert_eq!(&*routes.rules()[1].matches[0].query[0].name, "Beta", "query names are as they are");
}

#[test]
fn destinations_are_held_against_what_exists() {
    const LEDGER: &str = "
kind: Service
metadata: {name: ledger, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80}, {port: 81}]}
";
    const ELSEWHERE: &str = "
kind: Service
metadata: {name: ledger, namespace: shop}
spec: {type: ExternalName, externalName: ledger.example.com, ports: [{port: 80}]}
";
    const OTHER_PORT: &str = "
kind: Service
metadata: {name: ledger, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{port: 81}]}
";
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("{version: v2, weight: 3}", &[], &["version v2 x3"]),
        ("{version: v1}, {version: v9, weight: 0}", &[], &["version v1 x1", "missing: version v9 x0"]),
        ("{service: ledger}", &[LEDGER], &["shop/ledger None x1"]),
        ("{service: ledger, port: 81}", &[LEDGER], &["shop/ledger Some(81) x1"]),
        ("{service: ledger, port: 82}", &[LEDGER], &["missing: service ledger:82 x1"]),
        ("{service: ledger}", &[OTHER_PORT], &["missing: service ledger x1"]),
        ("{service: ledger}", &[], &["missing: service ledger x1"]),
        ("{service: ledger}", &[ELSEWHERE], &["missing: service ledger x1"]),
        ("{service: payment}", &[], &["shop/payment None x1"]),
    ];
    for (destinations, more, want) in cases {
        assert_eq!(targets(destinations, more), want, "{destinations}");
    }
}

#[test]
fn service_that_a_policy_sends_to_is_watched() {
    let mut translator = translator(&[
        PAYMENT,
        "
kind: TrafficPolicy
metadata: {name: p, namespace: shop}
spec: {targetRef: {kind: Service, name: payment}, routes: [{name: all, destinations: [{service: ledger}]}]}
",
    ]);
    let ledger = PAYMENT.replace("name: payment", "name: ledger").replace("10.96.0.5", "10.96.0.9");
    let touched = apply(&mut translator, &ledger);
    assert!(touched.services.contains(&service_id("payment")) && touched.reports.contains(&key(Kind::TrafficPolicy, "p")));
    assert_eq!(service(&translator, "payment").routes.other_services().count(), 1);
    let touched = translator.apply(Change::Delete(key(Kind::Service, "ledger")));
    assert!(touched.services.contains(&service_id("payment")));
    assert_eq!(service(&translator, "payment").routes.other_services().count(), 0);
}

#[test]
fn the_older_of_two_policies_holds_whole() {
    let policy = |name: &str, made: &str, target: &str, timeout: &str| {
        format!(
            "
kind: TrafficPolicy
metadata: {{name: {name}, namespace: shop, creationTimestamp: {made}}}
spec: {{targetRef: {target}, timeout: {timeout}}}
"
        )
    };
    let old = policy("z-old", "2026-01-01T00:00:00Z", "{kind: Service, name: payment}", "1s");
    let young = policy("a-young", "2026-01-02T00:00:00Z", "{name: payment}", "2s");
    let twin = policy("b-twin", "2026-01-01T00:00:00Z", "{name: payment}", "3s");
    let holds = |translator: &Translator| service(translator, "payment").routes.policy().unwrap().to_string();
    for order in [[&old, &young], [&young, &old]] {
        let mut translator = translator(&[PAYMENT, VERSIONS, order[0], order[1]]);
        assert_eq!(holds(&translator), "shop/z-old");
        apply(&mut translator, &twin);
        assert_eq!(holds(&translator), "shop/b-twin", "of equal age, the first by name");
        translator.apply(Change::Delete(key(Kind::TrafficPolicy, "b-twin")));
        let touched = translator.apply(Change::Delete(key(Kind::TrafficPolicy, "z-old")));
        assert_eq!(holds(&translator), "shop/a-young");
        assert!(touched.reports.contains(&key(Kind::TrafficPolicy, "a-young")), "it is in force now");
    }
}

#[test]
fn last_good_version_of_a_policy_stays_in_force() {
    let policy = |generation: u32, regex: &str| {
        format!(
            "
kind: TrafficPolicy
metadata: {{name: p, namespace: shop, generation: {generation}}}
spec: {{targetRef: {{name: payment}}, routes: [{{name: r, matches: [{{path: {{regex: '{regex}'}}}}]}}]}}
"
        )
    };
    let mut translator = translator(&[PAYMENT, VERSIONS, &policy(1, "/a.*")]);
    let good = service(&translator, "payment").routes;
    let touched = apply(&mut translator, &policy(2, "/a("));
    assert_eq!(service(&translator, "payment").routes, good);
    assert!(!touched.services.contains(&service_id("payment")));
    let message = |translator: &Translator| translator.report(&key(Kind::TrafficPolicy, "p")).unwrap().conditions[0].message.clone();
    assert!(message(&translator).ends_with("Until this is corrected, generation 1 stays in force."), "{}", message(&translator));

    let unreadable =
        Change::Unreadable { key: key(Kind::TrafficPolicy, "p"), generation: Some(3), error: "spec.routes: is a text.".into() };
    translator.apply(unreadable);
    assert_eq!(service(&translator, "payment").routes, good);
    assert!(message(&translator).starts_with("spec.routes: is a text. Until"));

    apply(&mut translator, &policy(4, "/b"));
    assert_ne!(service(&translator, "payment").routes, good);
}

#[test]
fn everything_wrong_with_a_policy_is_said_at_once() {
    let translator = translator(&["
kind: TrafficPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRef: {name: payment}
  timeout: soon
  routes:
  - name: a
    timeout: 5 minutes
    matches:
    - {path: {exact: /x, prefix: /y}, headers: [{name: a, regex: '('}, {name: b}], query: [{name: '', value: x}]}
    - {path: {prefix: api}}
    destinations: [{}, {version: v1, service: s}, {version: v1, port: 80}, {version: v1, weight: 1000001}]
  - name: a
"]);
    let report = translator.report(&key(Kind::TrafficPolicy, "p")).unwrap();
    assert_eq!(outcome(&report), "Accepted=False Invalid; ResolvedRefs=False Invalid");
    let message = &report.conditions[0].message;
    let wanted = [
        "spec.timeout: \"soon\" is not a duration",
        "spec.routes[0].timeout: \"5 minutes\"",
        "spec.routes[0].matches[0].path: write exactly one of",
        "spec.routes[0].matches[0].headers[0].regex: regular expression \"(\" is not valid",
        "spec.routes[0].matches[0].headers[1]: write exactly one of",
        "spec.routes[0].matches[0].query[0].name: write the name",
        "spec.routes[0].matches[1].path.prefix: \"api\" is not a path",
        "spec.routes[0].destinations[0]: write exactly one of",
        "spec.routes[0].destinations[1]: write exactly one of",
        "spec.routes[0].destinations[2].port: a port goes with service",
        "spec.routes[0].destinations[3].weight: weight 1000001",
        "spec.routes[1].name: there are two routes called a",
        "Until this is corrected, the object is not in force.",
    ];
    for words in wanted {
        assert!(message.contains(words), "{words} is not in: {message}");
    }
}

#[test]
fn mirrors_are_looked_for_as_destinations_are_and_what_is_missing_says_that_no_copies_are_sent() {
    let mut translator = translator(&[
        PAYMENT,
        "
kind: TrafficPolicy
metadata: {name: p, namespace: shop}
spec: {targetRef: {kind: Service, name: payment}, routes: [{name: all, mirror: [{service: ledger, percentage: 2.5}, {version: v9}]}]}
",
    ]);
    let mirrors = |translator: &Translator| {
        let service = service(translator, "payment");
        let mirrors = service.routes.rules()[0].mirrors.iter();
        mirrors.map(|mirror| format!("{:?} {}", mirror.target, mirror.percentage)).collect::<Vec<_>>()
    };
    assert_eq!(mirrors(&translator), [r#"Missing("service ledger") 2.5 %"#, r#"Missing("version v9") 100 %"#]);
    let report = translator.report(&key(Kind::TrafficPolicy, "p")).unwrap();
    let said: Vec<_> = report.conditions.iter().map(|condition| condition.message.as_str()).collect();
    assert!(
        said.join("\n")
            .contains("Route all: there is no Service shop/ledger. Create it, or name another one. Until then no copies are sent")
    );
    let ledger = PAYMENT.replace("name: payment", "name: ledger").replace("10.96.0.5", "10.96.0.9");
    let touched = apply(&mut translator, &ledger);
    assert!(touched.services.contains(&service_id("payment")), "the mirror is there now");
    assert!(mirrors(&translator)[0].starts_with("Service"), "{:?}", mirrors(&translator));
}
