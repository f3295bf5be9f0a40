//! Reports: what people are told.

use super::*;

#[test]
fn mesh_service_in_force_is_reported_with_its_endpoints() {
    let starting = SLICE.replace("10.0.0.2], conditions: {ready: true}", "10.0.0.2], conditions: {ready: false}");
    let translator = translator(&[PAYMENT, VERSIONS, PODS, &starting]);
    let report = translator.report(&key(Kind::MeshService, "payment")).unwrap();
    assert_eq!(outcome(&report), "Accepted=True Accepted; ResolvedRefs=True ResolvedRefs");
    assert_eq!((report.generation, report.service.clone()), (Some(1), Some(service_id("payment"))));
    assert_eq!(report.endpoints, Some(crate::EndpointCounts { ready: 1, total: 2 }));
    assert_eq!(report.versions, [("v1".into(), 1), ("v2".into(), 0)]);
}

#[test]
fn what_a_mesh_service_names_and_is_not_there_is_said() {
    let mesh = |spec: &str| format!("\nkind: MeshService\nmetadata: {{name: payment, namespace: shop}}\nspec: {{{spec}}}\n");
    let external = "\nkind: Service\nmetadata: {name: out, namespace: shop}\nspec: {type: ExternalName, externalName: example.com}\n";
    let cases = [
        ("service: ghost", "ServiceNotFound", "There is no Service shop/ghost. Create it, or name another one in spec.service."),
        ("service: out", "ServiceNotInMesh", "Service shop/out is of type ExternalName"),
        (
            "ports: [{port: 80, protocol: HTTP}, {port: 81, protocol: TCP}]",
            "PortNotFound",
            "has no TCP port 81 (it has 80): correct spec.ports.",
        ),
    ];
    for (spec, reason, words) in cases {
        let translator = translator(&[PAYMENT, external, &mesh(spec)]);
        let report = translator.report(&key(Kind::MeshService, "payment")).unwrap();
        assert_eq!(outcome(&report), format!("Accepted=True Accepted; ResolvedRefs=False {reason}"), "{spec}");
        assert!(report.conditions[1].message.contains(words), "{}", report.conditions[1].message);
    }
}

#[test]
fn younger_mesh_service_of_a_service_is_told_of_the_older() {
    let younger = "
kind: MeshService
metadata: {name: a-second, namespace: shop, creationTimestamp: 2026-01-03T00:00:00Z}
spec: {service: payment, versions: [{name: v9, labels: {x: y}}]}
";
    let mut translator = translator(&[PAYMENT, younger, VERSIONS]);
    let report = translator.report(&key(Kind::MeshService, "a-second")).unwrap();
    assert_eq!(outcome(&report), "Accepted=False Conflicted; ResolvedRefs=True ResolvedRefs");
    assert!(report.conditions[0].message.starts_with("MeshService shop/payment is for Service shop/payment too and comes first"));
    assert_eq!((report.endpoints, report.versions), (None, vec![]));
    let touched = translator.apply(Change::Delete(key(Kind::MeshService, "payment")));
    assert!(touched.reports.contains(&key(Kind::MeshService, "a-second")) && touched.services.contains(&service_id("payment")));
    assert_eq!(
        outcome(&translator.report(&key(Kind::MeshService, "a-second")).unwrap()),
        "Accepted=True Accepted; ResolvedRefs=True ResolvedRefs"
    );
    assert_eq!(translator.report(&key(Kind::MeshService, "payment")), None);
}

#[test]
fn host_that_an_older_mesh_service_has_is_said() {
    let mut translator = translator(&[
        PAYMENT,
        "
kind: Service
metadata: {name: pay, namespace: ops}
spec: {ports: [{port: 80}]}
---
kind: MeshService
metadata: {name: pay, namespace: ops, creationTimestamp: 2026-01-01T00:00:00Z}
spec: {hosts: [pay.example.com]}
---
kind: MeshService
metadata: {name: payment, namespace: shop, creationTimestamp: 2026-01-02T00:00:00Z}
spec: {hosts: [pay.example.com, shop.example.com]}
",
    ]);
    let report = translator.report(&key(Kind::MeshService, "payment")).unwrap();
    assert_eq!(outcome(&report), "Accepted=True Accepted; ResolvedRefs=False HostConflicted");
    assert!(report.conditions[1].message.starts_with("MeshService ops/pay is older and names host pay.example.com too"));
    let touched = translator.apply(Change::Delete(ObjectKey::new(Kind::Service, "ops", "pay")));
    assert!(touched.names && touched.reports.contains(&key(Kind::MeshService, "payment")));
    assert_eq!(
        outcome(&translator.report(&key(Kind::MeshService, "payment")).unwrap()),
        "Accepted=True Accepted; ResolvedRefs=True ResolvedRefs"
    );
}

#[test]
fn mesh_service_that_cannot_be_used_says_everything_that_is_wrong() {
    let translator = translator(&["
kind: MeshService
metadata: {name: payment, namespace: shop, generation: 7}
spec:
  hosts: ['https://pay.example.com', '*.example.com']
  ports: [{port: 80, protocol: HTTP}, {port: 80, protocol: TCP}]
  versions: [{name: v1, labels: {}}, {name: v1, labels: {a: b}}, {name: '', labels: {a: b}}]
"]);
    let report = translator.report(&key(Kind::MeshService, "payment")).unwrap();
    assert_eq!((outcome(&report).as_str(), report.generation), ("Accepted=False Invalid; ResolvedRefs=False Invalid", Some(7)));
    let message = &report.conditions[0].message;
    for words in [
        "spec.hosts[0]",
        "spec.hosts[1]",
        "port 80 is listed twice",
        "spec.versions[0].labels",
        "two versions called v1",
        "spec.versions[2]: a version needs a name",
    ] {
        assert!(message.contains(words), "{words} is not in: {message}");
    }
}

#[test]
fn policy_without_a_target_says_what_to_do() {
    let policy = |target: &str| format!("\nkind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{targetRef: {target}}}\n");
    let meshes = "
kind: MeshService
metadata: {name: ghost, namespace: shop}
spec: {}
---
kind: MeshService
metadata: {name: bad, namespace: shop}
spec: {hosts: ['*']}
---
kind: Service
metadata: {name: out, namespace: shop}
spec: {type: ExternalName, externalName: example.com}
";
    let cases = [
        ("{name: nobody}", "There is no MeshService shop/nobody. Create it, or correct spec.targetRef."),
        (
            "{name: payment}",
            "There is no MeshService shop/payment, but there is a Service of that name: write kind: Service in spec.targetRef.",
        ),
        ("{kind: Service, name: nobody}", "There is no Service shop/nobody. Create it, or correct spec.targetRef."),
        ("{name: ghost}", "There is no Service shop/ghost, which MeshService shop/ghost is for. Create it, or correct the MeshService."),
        ("{name: bad}", "MeshService shop/bad, which spec.targetRef names, is not valid: see its conditions."),
        (
            "{kind: Service, name: out}",
            "Service shop/out is of type ExternalName, which the mesh does not carry. Name another target in spec.targetRef.",
        ),
    ];
    for (target, message) in cases {
        let report = translator(&[PAYMENT, meshes, &policy(target)]).report(&key(Kind::TrafficPolicy, "p")).unwrap();
        assert_eq!(outcome(&report), "Accepted=False TargetNotFound; ResolvedRefs=False TargetNotFound", "{target}");
        assert_eq!((report.conditions[0].message.as_str(), report.service), (message, None), "{target}");
    }
}

#[test]
fn policy_says_which_destinations_are_not_there() {
    let translator = translator(&[
        PAYMENT,
        VERSIONS,
        "
kind: TrafficPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRef: {name: payment}
  routes:
  - {name: a, destinations: [{version: v1}, {version: v3}]}
  - {name: b, destinations: [{service: ledger}, {service: payment, port: 81}]}
",
    ]);
    let report = translator.report(&key(Kind::TrafficPolicy, "p")).unwrap();
    assert_eq!(outcome(&report), "Accepted=True Accepted; ResolvedRefs=False VersionNotFound");
    let message = &report.conditions[1].message;
    for words in [
        "Route a: there is no version v3: the MeshService for Service shop/payment names v1, v2.",
        "Route b: there is no Service shop/ledger.",
        "Route b: Service shop/payment has no TCP port 81 (it has 80).",
    ] {
        assert!(message.contains(words), "{words} is not in: {message}");
    }
}
