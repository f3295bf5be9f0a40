//! From facts to lines.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use leno_controller::ca::authority::{Domains, make};
use leno_controller::certificates::renew;

use super::super::Level;
use super::super::facts::{Controller, Serving, Webhook};
use super::*;
use crate::identity::Proxy;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn proxy(pod: &str, left: Option<SignedDuration>) -> Proxy {
    let identity = left.map(|_| "spiffe://cluster.local/ns/shop/sa/web".to_owned());
    Proxy { pod: pod.into(), identity, serial: None, issuer: None, not_after: left.map(|left| now() + left) }
}

fn pod(name: &str, asks: bool, sidecar: Option<&str>) -> PodFacts {
    let namespace = name.split('/').next().unwrap().to_owned();
    PodFacts { name: name.into(), namespace, asks, sidecar: sidecar.map(str::to_owned), runs: sidecar.is_some() }
}

/// A mesh in which all is well.
fn well() -> Facts {
    let version = env!("CARGO_PKG_VERSION");
    let material = renew(None, &Policy::new(vec!["leno-controller".into()]), now()).unwrap();
    let webhook = Webhook { bundles: vec![material.ca_bundle.clone(); 2], excluded: BTreeSet::from(["kube-system".to_owned()]) };
    let domains = Domains { own: "cluster.local".into(), also: Vec::new() };
    let proxies = vec![proxy("shop/web", Some(hours(23))), proxy("shop/db", Some(hours(12)))];
    let pods = vec![pod("shop/web", true, Some(version)), pod("shop/db", true, Some(version)), pod("shop/plain", false, None)];
    Facts {
        namespace: "leno-system".into(),
        server: "v1.33.1".into(),
        kinds: ["MeshService", "TrafficPolicy"].map(|kind| (kind.to_owned(), Ok(KindState::Same))).into(),
        controller: Ok(Some(Controller { wanted: 2, ready: 2, version: version.into(), life: hours(24) })),
        webhook: Ok(Some(webhook)),
        endpoints: Ok(2),
        serving: Ok(Some(Serving { certificate: material.certificate, bundle: material.ca_bundle })),
        authority: Ok(Some(make(&domains, now()).unwrap())),
        identities: Ok(Identities { trust_domain: "cluster.local".into(), proxies, ..Identities::default() }),
        pods: Ok(pods),
    }
}

fn lines(facts: &Facts, now: Timestamp) -> Vec<String> {
    findings(facts, now).iter().map(ToString::to_string).collect()
}

#[test]
fn a_mesh_in_which_all_is_well_has_a_line_for_each_thing() {
    let wanted = [
        "✓ Kubernetes API       v1.33.1 answers",
        "✓ kinds                MeshService, TrafficPolicy are there, as this program knows them",
        &format!("✓ controller           2 of 2 replicas are ready, version {}", env!("CARGO_PKG_VERSION")),
        "✓ webhook              the API server trusts it and reaches it at 2 endpoints",
        "✓ serving certificate  ends in 30d, its CA in 3650d",
        "✓ authority            O=Leno, CN=cluster.local root 2026-01-01 ends in 3650d",
        "✓ identities           2 proxies hold a certificate, the first ends in 12h 0m",
        "✓ sidecars             2 pods have one, and none asks for one in vain",
    ];
    assert_eq!(lines(&well(), now()), wanted);
}

/// Something that is wrong, how that is judged, and the words of the line that says so.
type Case = (&'static str, fn(&mut Facts), Level, &'static str);

#[test]
fn what_is_wrong_has_a_line_that_says_what_to_do() {
    let cases: [Case; 18] = [
        ("kind missing", |it| it.kinds[1].1 = Ok(KindState::Missing), Level::Broken, "does not know TrafficPolicy: install Leno"),
        ("kind other", |it| it.kinds[0].1 = Ok(KindState::Other), Level::Warning, "MeshService is of another version"),
        ("no controller", |it| it.controller = Ok(None), Level::Broken, "no Deployment leno-system/leno-controller"),
        ("one replica", |it| controller_mut(it).ready = 1, Level::Warning, "1 of 2 replicas are ready: see kubectl"),
        ("no replica", |it| controller_mut(it).ready = 0, Level::Broken, "none of 2 replicas is ready"),
        ("other version", |it| controller_mut(it).version = "9.9.9".into(), Level::Warning, "it is version 9.9.9"),
        ("no webhook", |it| it.webhook = Ok(None), Level::Broken, "no MutatingWebhookConfiguration leno-injector"),
        ("no bundle", |it| webhook_mut(it).bundles[1].clear(), Level::Broken, "no certificate to trust the controller by"),
        ("other bundle", |it| webhook_mut(it).bundles[0] = "other".into(), Level::Broken, "trusts another certificate"),
        ("no endpoint", |it| it.endpoints = Ok(0), Level::Broken, "leads to no ready endpoint"),
        ("no Secret", |it| it.serving = Ok(None), Level::Broken, "no Secret leno-controller-tls"),
        ("no authority", |it| it.authority = Ok(None), Level::Broken, "no Secret leno-ca"),
        ("not yours to read", |it| it.authority = Err("you may not read it".into()), Level::Warning, "cannot be told: you may not read it"),
        ("no certificate", |it| proxies_mut(it)[0] = proxy("shop/web", None), Level::Broken, "without a certificate: 1 pod (shop/web)"),
        ("ended", |it| proxies_mut(it)[0] = proxy("shop/web", Some(hours(-1))), Level::Broken, "that has ended: 1 pod (shop/web)"),
        ("late", |it| proxies_mut(it)[0] = proxy("shop/web", Some(hours(2))), Level::Warning, "should have been renewed: 1 pod"),
        ("absent", |it| drop(proxies_mut(it).pop()), Level::Warning, "connected to no replica of the controller: 1 pod (shop/db)"),
        (
            "no sidecar",
            |it| it.pods.as_mut().unwrap().extend(["a", "b", "c", "d"].map(|name| pod(&format!("shop/{name}"), true, None))),
            Level::Warning,
            "4 pods (shop/a, shop/b, shop/c, …): they were there before they asked, restart them (kubectl -n shop rollout",
        ),
    ];
    for (name, change, level, words) in cases {
        let mut facts = well();
        change(&mut facts);
        let found = findings(&facts, now());
        let worst = found.iter().max_by_key(|finding| finding.level).unwrap();
        assert_eq!(worst.level, level, "{name}: {worst}");
        assert!(found.iter().any(|it| it.level == level && it.to_string().contains(words)), "{name}: {:?}", lines(&facts, now()));
    }
}

fn controller_mut(facts: &mut Facts) -> &mut Controller {
    facts.controller.as_mut().unwrap().as_mut().unwrap()
}

fn webhook_mut(facts: &mut Facts) -> &mut Webhook {
    facts.webhook.as_mut().unwrap().as_mut().unwrap()
}

fn proxies_mut(facts: &mut Facts) -> &mut Vec<Proxy> {
    &mut facts.identities.as_mut().unwrap().proxies
}

#[test]
fn certificates_are_warned_of_before_they_end_and_broken_after() {
    let days = |days: i64| now() + hours(24 * days);
    let cases = [
        (days(19), "✓ serving certificate"),
        (days(21), "! serving certificate  ends in 9d, its CA in 3629d: the controller should have renewed it"),
        (days(30), "✗ serving certificate  it expired 0s ago; its CA: 3620d: a running controller renews it"),
        (days(3600), "✓ authority "),
        (days(3620), "! authority            O=Leno, CN=cluster.local root 2026-01-01 ends in 30d: leno ca rotate"),
        (days(3650), "✗ authority            what the Secret leno-ca holds cannot be used: the certificate"),
    ];
    for (at, line) in cases {
        let lines = lines(&well(), at);
        assert!(lines.iter().any(|it| it.starts_with(line)), "{at}: {line}\n{lines:#?}");
    }
}

#[test]
fn sidecars_of_another_version_and_excluded_namespaces_are_told_apart() {
    let mut facts = well();
    facts.pods.as_mut().unwrap().extend([pod("kube-system/dns", true, None), pod("shop/old", true, Some("0.0.1"))]);
    let lines = lines(&facts, now());
    assert!(lines.iter().any(|it| it.starts_with("✓ sidecars             3 pods have one")), "{lines:#?}");
    assert!(lines.iter().any(|it| it.starts_with("! sidecars             of another version than the controller: 1 pod (shop/old)")));
}
