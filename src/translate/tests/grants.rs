//! Destinations in other namespaces: who may name what, and that it holds from the moment it is said.

use leno_core::route::Target;

use super::*;

const LEDGER: &str = "
kind: Service
metadata: {name: ledger, namespace: books}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80}, {port: 81}]}
";

const POLICY: &str = "
kind: TrafficPolicy
metadata: {name: p, namespace: shop}
spec: {targetRef: {kind: Service, name: payment}, routes: [{name: all, destinations: [{service: ledger, namespace: books}]}]}
";

const MESH: &str = "
kind: MeshService
metadata: {name: main, namespace: books}
spec: {service: ledger}
";

const OUTSIDE: &str = "
kind: MeshService
metadata: {name: ledger, namespace: books}
spec: {external: {addresses: [192.0.2.1], ports: [80]}}
";

const SERVICE: &str = "{group: '', kind: Service}";

fn grant(namespace: &str, from: &str, to: &str) -> String {
    format!(
        "kind: ReferenceGrant\nmetadata: {{name: g, namespace: {namespace}}}\n\
         spec: {{from: [{{group: leno.dev, kind: TrafficPolicy, namespace: {from}}}], to: [{to}]}}\n"
    )
}

/// Where the one route of payment leads.
fn target(translator: &Translator) -> String {
    match &service(translator, "payment").routes.rules()[0].destinations[0].target {
        Target::Service { service, port } => format!("{service} {port:?}"),
        Target::Missing(what) => format!("missing: {what}"),
        Target::Version(version) => format!("version {version}"),
    }
}

fn outcome_of_policy(translator: &Translator) -> String {
    outcome(&translator.report(&key(Kind::TrafficPolicy, "p")).unwrap())
}

#[test]
fn a_namespace_is_asked_whether_policies_of_another_may_name_its_services() {
    const NOT: &str = "missing: service books/ledger that namespace shop may name";
    let cases: [(&str, &[&str], &str); 11] = [
        ("no grant", &[LEDGER], NOT),
        ("no grant and no service: the same, so that nothing is learnt of it", &[], NOT),
        ("for all its services", &[LEDGER, &grant("books", "shop", SERVICE)], "books/ledger None"),
        ("for this one", &[LEDGER, &grant("books", "shop", "{group: '', kind: Service, name: ledger}")], "books/ledger None"),
        ("for another one", &[LEDGER, &grant("books", "shop", "{group: '', kind: Service, name: other}")], NOT),
        ("to another namespace", &[LEDGER, &grant("books", "ops", SERVICE)], NOT),
        ("in another namespace, the caller's own", &[LEDGER, &grant("shop", "shop", SERVICE)], NOT),
        (
            "for its MeshService",
            &[LEDGER, MESH, &grant("books", "shop", "{group: leno.dev, kind: MeshService, name: main}")],
            "books/ledger None",
        ),
        ("for MeshServices, of which it has none", &[LEDGER, &grant("books", "shop", "{group: leno.dev, kind: MeshService}")], NOT),
        ("for Services, while it is outside", &[OUTSIDE, &grant("books", "shop", SERVICE)], NOT),
        (
            "for MeshServices, as it is outside",
            &[OUTSIDE, &grant("books", "shop", "{group: leno.dev, kind: MeshService}")],
            "books/ledger None",
        ),
    ];
    for (name, objects, want) in cases {
        let mut manifests = vec![PAYMENT, POLICY];
        manifests.extend(objects);
        let translator = translator(&manifests);
        assert_eq!(target(&translator), want, "{name}");
        let permitted = if want == NOT { "ResolvedRefs=False RefNotPermitted" } else { "ResolvedRefs=True ResolvedRefs" };
        assert_eq!(outcome_of_policy(&translator), format!("Accepted=True Accepted; {permitted}"), "{name}");
    }
    let allowed_but_absent = translator(&[PAYMENT, POLICY, &grant("books", "shop", SERVICE)]);
    assert_eq!(target(&allowed_but_absent), "missing: service books/ledger");
    assert_eq!(outcome_of_policy(&allowed_but_absent), "Accepted=True Accepted; ResolvedRefs=False ServiceNotFound");
}

#[test]
fn the_report_says_which_grant_to_write() {
    let mut translator = translator(&[PAYMENT, LEDGER, POLICY]);
    let report = translator.report(&key(Kind::TrafficPolicy, "p")).unwrap();
    let message = &report.condition("ResolvedRefs").unwrap().message;
    assert!(message.starts_with("Route all: service books/ledger is in another namespace, which does not allow it."), "{message}");
    let (from, to) = message.split_once("spec.from [").and_then(|(_, rest)| rest.split_once("] and spec.to [")).unwrap();
    let to = to.split_once(']').unwrap().0;
    // What is said is what helps.
    apply(
        &mut translator,
        &format!("kind: ReferenceGrant\nmetadata: {{name: g, namespace: books}}\nspec: {{from: [{from}], to: [{to}]}}\n"),
    );
    assert_eq!(target(&translator), "books/ledger None");
}

#[test]
fn the_own_namespace_needs_no_grant() {
    let own = POLICY.replace("namespace: books", "namespace: shop");
    let ledger = LEDGER.replace("namespace: books", "namespace: shop");
    assert_eq!(target(&translator(&[PAYMENT, &own, &ledger])), "shop/ledger None");
}

#[test]
fn a_mirror_to_another_namespace_is_asked_for_too() {
    let mirror = POLICY.replace("destinations:", "mirror:");
    let mut translator = translator(&[PAYMENT, LEDGER, &mirror]);
    let is_there = |translator: &Translator| {
        let routes = service(translator, "payment").routes;
        matches!(routes.rules()[0].mirrors[0].target, Target::Service { .. })
    };
    assert!(!is_there(&translator));
    assert_eq!(outcome_of_policy(&translator), "Accepted=True Accepted; ResolvedRefs=False RefNotPermitted");
    let touched = apply(&mut translator, &grant("books", "shop", SERVICE));
    assert!(is_there(&translator) && touched.services.contains(&service_id("payment")));
}

#[test]
fn grants_services_and_meshes_that_come_and_go_touch_the_policies_that_name_them_and_no_other() {
    let mut translator =
        translator(&[PAYMENT, POLICY, "kind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {ports: [{port: 80}]}\n"]);
    let touches_payment = |touched: &Touched| {
        let reports = touched.reports.contains(&key(Kind::TrafficPolicy, "p"));
        assert!(!touched.services.contains(&service_id("cart")));
        assert_eq!(reports, touched.services.contains(&service_id("payment")));
        reports
    };
    assert!(touches_payment(&apply(&mut translator, LEDGER)));
    assert!(!touches_payment(&apply(&mut translator, &LEDGER.replace("name: ledger", "name: diary"))), "nobody names it");
    assert!(!touches_payment(&apply(&mut translator, MESH)), "nobody is allowed to name MeshServices");
    assert!(touches_payment(&apply(&mut translator, &grant("books", "shop", "{group: leno.dev, kind: MeshService}"))));
    assert_eq!(target(&translator), "books/ledger None");
    assert!(!touches_payment(&apply(&mut translator, &grant("ops", "shop", SERVICE))), "nobody names anything there");
    assert!(touches_payment(&translator.apply(Change::Delete(ObjectKey::new(Kind::MeshService, "books", "main")))));
    assert!(target(&translator).starts_with("missing"));
    assert!(touches_payment(&apply(&mut translator, &grant("books", "shop", SERVICE))));
    assert_eq!(target(&translator), "books/ledger None");
    assert!(apply(&mut translator, &grant("books", "shop", SERVICE)).is_empty(), "it says nothing new");
    assert!(touches_payment(&translator.apply(Change::Delete(ObjectKey::new(Kind::ReferenceGrant, "books", "g")))));
    assert!(target(&translator).starts_with("missing"));
}

#[test]
fn a_version_has_no_namespace() {
    let translator = translator(&[PAYMENT, VERSIONS, &POLICY.replace("service: ledger", "version: v1")]);
    let report = translator.report(&key(Kind::TrafficPolicy, "p")).unwrap();
    assert!(report.condition("Accepted").unwrap().message.contains("destinations[0].namespace: a namespace goes with service"));
}
