//! Endpoints: who may be given requests, and what their changes touch.

use std::fmt::Write as _;

use super::*;

/// A slice of `endpoints`, given as (address, conditions).
fn slice(name: &str, endpoints: &[(&str, &str)]) -> String {
    let mut yaml = format!(
        "
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: payment}}}}
ports: [{{name: http, port: 8080, protocol: TCP}}, {{name: http, port: 8080, protocol: UDP}}]
endpoints:
"
    );
    for (address, conditions) in endpoints {
        writeln!(yaml, "- {{addresses: ['{address}'], conditions: {{{conditions}}}}}").unwrap();
    }
    yaml
}

#[test]
fn only_endpoints_that_may_be_picked_are_listed() {
    let ready = "ready: true, serving: true, terminating: false";
    let starting = "ready: false, serving: false, terminating: false";
    let draining = "ready: false, serving: true, terminating: true";
    let ending = "ready: false, serving: false, terminating: true";
    let published = "ready: true, serving: false, terminating: true"; // publishNotReadyAddresses
    type Given = [(&'static str, &'static str)];
    let cases: [(&str, &Given, &[&str]); 8] = [
        ("nobody", &[], &[]),
        ("conditions not said mean ready", &[("10.0.0.1", "")], &["10.0.0.1"]),
        ("ready ones only", &[("10.0.0.1", ready), ("10.0.0.2", starting), ("10.0.0.3", draining), ("10.0.0.4", ending)], &["10.0.0.1"]),
        ("those that drain, when none is ready", &[("10.0.0.2", starting), ("10.0.0.3", draining), ("10.0.0.4", ending)], &["10.0.0.3"]),
        ("nobody may", &[("10.0.0.2", starting), ("10.0.0.4", ending)], &[]),
        ("published before it is ready", &[("10.0.0.2", published), ("10.0.0.3", draining)], &["10.0.0.2"]),
        ("ordered by address", &[("10.0.0.10", ready), ("10.0.0.9", ready)], &["10.0.0.9", "10.0.0.10"]),
        ("listed twice", &[("10.0.0.1", ready), ("10.0.0.1", ready)], &["10.0.0.1"]),
    ];
    for (name, endpoints, want) in cases {
        let translator = translator(&[PAYMENT, &slice("payment-x", endpoints)]);
        let want: Vec<String> = want.iter().map(|address| format!("{address}:8080  ")).collect();
        assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 80))), want, "case: {name}");
    }
}

#[test]
fn slices_of_one_service_are_merged() {
    let translator = translator(&[
        PAYMENT,
        &slice("payment-b", &[("10.0.0.1", "ready: false"), ("10.0.0.3", "")]),
        &slice("payment-a", &[("10.0.0.1", ""), ("10.0.0.2", "")]),
    ]);
    assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 80))), ["10.0.0.1:8080  ", "10.0.0.2:8080  ", "10.0.0.3:8080  "]);
}

#[test]
fn each_service_port_leads_to_the_slice_port_of_its_name() {
    let translator = translator(&["
kind: Service
metadata: {name: payment, namespace: shop}
spec: {ports: [{name: http, port: 80}, {name: admin, port: 81}, {name: gone, port: 82}]}
---
kind: EndpointSlice
metadata: {name: a, namespace: shop, labels: {kubernetes.io/service-name: payment}}
ports: [{name: http, port: 8080}, {name: admin, port: 9000}]
endpoints: [{addresses: [10.0.0.1]}]
---
kind: EndpointSlice
metadata: {name: b, namespace: shop, labels: {kubernetes.io/service-name: payment}}
ports: [{name: http, port: 8090}, {name: admin}]
endpoints: [{addresses: [10.0.0.2]}]
"]);
    assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 80))), ["10.0.0.1:8080  ", "10.0.0.2:8090  "]);
    assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 81))), ["10.0.0.1:9000  "]);
    assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 82))), [""; 0]);
    assert_eq!(translator.endpoints(&endpoints_id("payment", 83)), None);
}

#[test]
fn pod_of_both_families_is_one_endpoint_in_the_family_of_the_first_cluster_ip() {
    let slices = "
kind: EndpointSlice
metadata: {name: four, namespace: shop, labels: {kubernetes.io/service-name: payment}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a}}, {addresses: [10.0.0.9]}]
---
kind: EndpointSlice
metadata: {name: six, namespace: shop, labels: {kubernetes.io/service-name: payment}}
addressType: IPv6
ports: [{port: 8080}]
endpoints: [{addresses: ['fd00::1'], targetRef: {kind: Pod, name: a}}, {addresses: ['fd00::2'], targetRef: {kind: Pod, name: b}}]
---
kind: EndpointSlice
metadata: {name: names, namespace: shop, labels: {kubernetes.io/service-name: payment}}
addressType: FQDN
ports: [{port: 8080}]
endpoints: [{addresses: [pay.example.com]}]
";
    let cases = [
        ("clusterIPs: [10.96.0.5, 'fd00::5']", vec!["10.0.0.1:8080 a ", "10.0.0.9:8080  ", "[fd00::2]:8080 b "]),
        ("clusterIPs: ['fd00::5', 10.96.0.5]", vec!["10.0.0.9:8080  ", "[fd00::1]:8080 a ", "[fd00::2]:8080 b "]),
        ("clusterIP: None", vec!["10.0.0.1:8080 a ", "10.0.0.9:8080  ", "[fd00::2]:8080 b "]),
    ];
    for (ips, want) in cases {
        let service = format!(
            "
kind: Service
metadata: {{name: payment, namespace: shop}}
spec: {{{ips}, ports: [{{port: 80}}]}}
"
        );
        let translator = translator(&[&service, slices]);
        assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 80))), want, "{ips}");
    }
}

#[test]
fn endpoint_has_every_version_whose_labels_its_pod_has() {
    let mut translator = translator(&[PAYMENT, SLICE, VERSIONS]);
    let of = |translator: &Translator| lines(translator.endpoints(&endpoints_id("payment", 80)));
    assert_eq!(of(&translator), ["10.0.0.1:8080 payment-1 ", "10.0.0.2:8080 payment-2 "], "the pods are not known yet");
    let touched = apply(&mut translator, PODS);
    assert_eq!(of(&translator), ["10.0.0.1:8080 payment-1 v1", "10.0.0.2:8080 payment-2 v2"]);
    assert!(touched.endpoints.contains(&endpoints_id("payment", 80)) && touched.services.is_empty());
    apply(
        &mut translator,
        "
kind: MeshService
metadata: {name: payment, namespace: shop}
spec:
  versions:
  - {name: all, labels: {app: payment}}
  - {name: v2, labels: {app: payment, version: v2}}
",
    );
    assert_eq!(of(&translator), ["10.0.0.1:8080 payment-1 all", "10.0.0.2:8080 payment-2 all,v2"]);
}

#[test]
fn endpoint_churn_touches_the_services_endpoints_and_the_workloads_that_came_or_went_only() {
    let mut translator = translator(&[PAYMENT, VERSIONS, PODS, SLICE]);
    let touched = apply(&mut translator, &SLICE.replace("payment-2", "payment-3"));
    let want = Touched {
        endpoints: [endpoints_id("payment", 80)].into(),
        workloads: [workload_id("payment-2"), workload_id("payment-3")].into(),
        reports: [key(Kind::MeshService, "payment")].into(),
        ..Touched::default()
    };
    assert_eq!(touched, want);
    let unready =
        SLICE.replace("payment-2", "payment-3").replace("10.0.0.1], conditions: {ready: true}", "10.0.0.1], conditions: {ready: false}");
    let touched = apply(&mut translator, &unready);
    assert_eq!(touched, Touched { workloads: [].into(), ..want });
    assert!(apply(&mut translator, &unready).is_empty(), "the same again");
}

#[test]
fn slice_that_moves_to_another_service_leaves_the_first() {
    let mut translator = translator(&[
        PAYMENT,
        SLICE,
        "
kind: Service
metadata: {name: other, namespace: shop}
spec: {ports: [{name: http, port: 1}]}
",
    ]);
    let touched = apply(&mut translator, &SLICE.replace("service-name: payment", "service-name: other"));
    assert_eq!(touched.endpoints, [endpoints_id("other", 1), endpoints_id("payment", 80)].into());
    assert!(lines(translator.endpoints(&endpoints_id("payment", 80))).is_empty());
    assert_eq!(lines(translator.endpoints(&endpoints_id("other", 1))).len(), 2);
    let touched = translator.apply(Change::Delete(key(Kind::EndpointSlice, "payment-x")));
    assert_eq!(touched.endpoints, [endpoints_id("other", 1)].into());
    assert_eq!(translator.workload(&workload_id("payment-1")), None, "nobody knows the pod");
}

#[test]
fn whole_list_deletes_what_is_absent_and_touches_nothing_that_is_equal() {
    let mut translator = translator(&[PAYMENT, SLICE, PODS, VERSIONS]);
    let listed =
        |yaml: &str| serde_yaml::Deserializer::from_str(yaml).map(|it| change(Value::deserialize(it).unwrap())).collect::<Vec<_>>();
    assert!(translator.replace(Kind::Pod, listed(PODS)).is_empty());
    assert!(translator.replace(Kind::EndpointSlice, listed(SLICE)).is_empty());
    assert!(translator.replace(Kind::MeshService, listed(VERSIONS)).is_empty());
    assert!(translator.replace(Kind::Service, listed(PAYMENT)).is_empty());
    let mut pods = listed(PODS);
    pods.truncate(1);
    let touched = translator.replace(Kind::Pod, pods);
    assert_eq!(touched.workloads, [workload_id("payment-2")].into());
    assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 80))), ["10.0.0.1:8080 payment-1 v1", "10.0.0.2:8080 payment-2 "]);
    let unreadable = Change::Unreadable { key: key(Kind::MeshService, "payment"), generation: Some(2), error: "no".into() };
    translator.replace(Kind::MeshService, vec![unreadable]);
    assert!(lines(translator.endpoints(&endpoints_id("payment", 80)))[0].ends_with("v1"), "what cannot be read is there all the same");
    let touched = translator.replace(Kind::Service, Vec::new());
    assert!(touched.names && touched.services.contains(&service_id("payment")) && touched.endpoints.contains(&endpoints_id("payment", 80)));
}

/// The endpoints as `address identity`, the identity being `-` where plain text is spoken.
fn identities(translator: &Translator) -> Vec<String> {
    let endpoints = translator.endpoints(&endpoints_id("payment", 80)).unwrap().endpoints;
    let identity = |it: &leno_core::endpoints::Endpoint| it.identity.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    endpoints.iter().map(|it| format!("{} {}", it.address, identity(it))).collect()
}

#[test]
fn endpoint_with_a_proxy_must_prove_the_service_account_of_its_pod() {
    let mut translator = translator(&[PAYMENT, SLICE]);
    let pod = |annotations: &str, spec: &str| {
        format!(
            "kind: Pod\nmetadata: {{name: payment-1, namespace: shop, labels: {{app: payment}}, annotations: {{{annotations}}}}}\nspec: {{{spec}}}\n"
        )
    };
    let mut first = |yaml: &str| {
        let touched = apply(&mut translator, yaml);
        (identities(&translator)[0].clone(), touched.endpoints.len(), translator.identity(&workload_id("payment-1")))
    };
    let pay: leno_core::names::Identity = "spiffe://cluster.local/ns/shop/sa/pay".parse().unwrap();
    let cases = [
        ("leno.dev/injected: '0.1.0'", "serviceAccountName: pay", "10.0.0.1:8080 spiffe://cluster.local/ns/shop/sa/pay", 1),
        ("leno.dev/injected: '0.2.0'", "serviceAccountName: pay", "10.0.0.1:8080 spiffe://cluster.local/ns/shop/sa/pay", 0),
        ("leno.dev/injected: '', leno.dev/exclude-inbound-ports: '8080'", "serviceAccountName: pay", "10.0.0.1:8080 -", 1),
        (
            "leno.dev/injected: '', leno.dev/exclude-inbound-ports: '90, 91'",
            "serviceAccountName: pay",
            "10.0.0.1:8080 spiffe://cluster.local/ns/shop/sa/pay",
            1,
        ),
        ("leno.dev/injected: ''", "serviceAccountName: pay, hostNetwork: true", "10.0.0.1:8080 -", 1),
        ("", "serviceAccountName: pay", "10.0.0.1:8080 -", 0),
    ];
    for (annotations, spec, line, touched) in cases {
        assert_eq!(first(&pod(annotations, spec)), (line.to_owned(), touched, Some(pay.clone())), "{annotations} {spec}");
    }
    let touched = translator.apply(Change::Delete(key(Kind::Pod, "payment-1")));
    assert_eq!((touched.endpoints.len(), translator.identity(&workload_id("payment-1"))), (0, None));
}

#[test]
fn workload_of_a_folder_is_known_by_its_service_account_too() {
    let workload = "
kind: Workload
metadata: {name: payment-1, namespace: shop, labels: {app: payment}, annotations: {leno.dev/injected: ''}}
spec: {ports: [{port: 8080}], serviceAccount: pay}
";
    let mut translator = translator(&[PAYMENT, workload]);
    assert_eq!(identities(&translator), ["127.0.0.1:8080 spiffe://cluster.local/ns/shop/sa/pay"]);
    apply(&mut translator, &workload.replace(", serviceAccount: pay", ""));
    assert_eq!(identities(&translator), ["127.0.0.1:8080 spiffe://cluster.local/ns/shop/sa/default"]);
}

/// Slices and pods come by two watches: a slice that is ahead must not have its pod called in plain text.
#[test]
fn in_a_cluster_an_endpoint_is_held_back_until_its_pod_is_seen() {
    let mut translator = Translator::new(Defaults { holds_unknown_pods: true, ..Defaults::new("cluster.local") });
    let slice = "
kind: EndpointSlice
metadata: {name: payment-x, namespace: shop, labels: {kubernetes.io/service-name: payment}}
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: ['10.0.0.1'], targetRef: {kind: Pod, name: payment-1}}
- {addresses: ['10.0.0.2']}
";
    apply(&mut translator, PAYMENT);
    apply(&mut translator, slice);
    let id = endpoints_id("payment", 80);
    assert_eq!(lines(translator.endpoints(&id)), ["10.0.0.2:8080  "]);
    let touched = apply(&mut translator, "{kind: Pod, metadata: {name: payment-1, namespace: shop}}");
    assert!(touched.endpoints.contains(&id), "a pod without a sidecar changes nothing but that it is known");
    assert_eq!(lines(translator.endpoints(&id)), ["10.0.0.1:8080 payment-1 ", "10.0.0.2:8080  "]);
    translator.apply(Change::Delete(key(Kind::Pod, "payment-1")));
    assert_eq!(lines(translator.endpoints(&id)), ["10.0.0.2:8080  "]);
}

#[test]
fn an_endpoint_has_the_weight_that_its_pod_says() {
    let mut translator = translator(&[PAYMENT, VERSIONS, SLICE, PODS]);
    let weights = |translator: &Translator| -> Vec<u16> {
        translator.endpoints(&endpoints_id("payment", 80)).unwrap().endpoints.iter().map(|it| it.weight.get()).collect()
    };
    let resolved = |translator: &Translator| {
        let report = translator.report(&key(Kind::MeshService, "payment")).unwrap();
        (report.conditions[1].reason, report.conditions[1].message.clone())
    };
    assert_eq!(weights(&translator), [100, 100]);
    let weighted =
        |weight: &str| PODS.replace("name: payment-1,", &format!("name: payment-1, annotations: {{leno.dev/weight: '{weight}'}},"));
    let touched = apply(&mut translator, &weighted("30"));
    assert!(touched.endpoints.contains(&endpoints_id("payment", 80)));
    assert_eq!(weights(&translator), [30, 100]);
    let touched = apply(&mut translator, &weighted("many"));
    assert!(touched.reports.contains(&key(Kind::MeshService, "payment")));
    assert_eq!(weights(&translator), [100, 100]);
    let (reason, message) = resolved(&translator);
    assert_eq!(reason, "InvalidWeight");
    assert!(message.contains("of pod payment-1 is no whole number from 0 to 1000"), "{message}");
    apply(&mut translator, &weighted("0"));
    assert_eq!((weights(&translator), resolved(&translator).0), (vec![0, 100], "ResolvedRefs"));
}

#[test]
fn zones_travel_with_endpoints_that_are_chosen_by_them_and_each_workload_knows_its_own() {
    let zoned = "
kind: EndpointSlice
metadata: {name: payment-x, namespace: shop, labels: {kubernetes.io/service-name: payment}}
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: payment-1}, nodeName: node-a, zone: a}
- {addresses: [10.0.0.2], targetRef: {kind: Pod, name: payment-2}, nodeName: node-b, zone: b}
";
    let web = |more: &str| {
        format!("\nkind: Pod\nmetadata: {{name: web, namespace: front, labels: {{app: web{more}}}}}\nspec: {{nodeName: node-b}}\n")
    };
    let mut translator = translator(&[PAYMENT, zoned, PODS, &web("")]);
    let zones = |translator: &Translator| -> Vec<Option<String>> {
        let endpoints = translator.endpoints(&endpoints_id("payment", 80)).unwrap().endpoints;
        endpoints.iter().map(|it| it.zone.as_ref().map(ToString::to_string)).collect()
    };
    let own = |translator: &Translator, id: &WorkloadId| translator.workload(id).unwrap().zone.map(|zone| zone.to_string());
    let web_id = WorkloadId::new("front", "web");
    assert_eq!(zones(&translator), [None, None], "nobody asks for them");
    assert_eq!(own(&translator, &workload_id("payment-1")).as_deref(), Some("a"), "a slice says it of the pod");
    assert_eq!(own(&translator, &web_id).as_deref(), Some("b"), "a slice says it of the pod's node");
    let prefers = "\nkind: MeshService\nmetadata: {name: payment, namespace: shop}\nspec: {loadBalancer: {locality: PreferZone}}\n";
    assert!(apply(&mut translator, prefers).endpoints.contains(&endpoints_id("payment", 80)));
    assert_eq!(zones(&translator), [Some("a".into()), Some("b".into())]);
    let touched = apply(&mut translator, &zoned.replace("zone: b", "zone: c"));
    assert!(touched.workloads.contains(&web_id) && touched.workloads.contains(&workload_id("payment-2")), "{touched:?}");
    assert_eq!((own(&translator, &web_id).as_deref(), own(&translator, &workload_id("payment-2")).as_deref()), (Some("c"), Some("c")));
    apply(&mut translator, &web(", topology.kubernetes.io/zone: d"));
    assert_eq!(own(&translator, &web_id).as_deref(), Some("d"), "the pod's own label comes first");
    translator.apply(Change::Delete(key(Kind::EndpointSlice, "payment-x")));
    assert_eq!(own(&translator, &workload_id("payment-1")), None);
}

#[test]
fn a_workload_has_its_own_weight_whatever_a_pod_of_its_name_says() {
    let pod = "\nkind: Pod\nmetadata: {name: payment-1, namespace: shop, annotations: {leno.dev/weight: many}}\n";
    let workload = "
kind: Workload
metadata: {name: payment-1, namespace: shop, labels: {app: payment}}
spec: {address: 10.0.0.9, weight: 7, ports: [{port: 8080}]}
";
    let mesh = "\nkind: MeshService\nmetadata: {name: payment, namespace: shop}\nspec: {}\n";
    let translator = translator(&[PAYMENT, mesh, pod, workload]);
    let endpoints = translator.endpoints(&endpoints_id("payment", 80)).unwrap().endpoints;
    assert_eq!(endpoints.iter().map(|it| it.weight.get()).collect::<Vec<_>>(), [7]);
    let report = translator.report(&key(Kind::MeshService, "payment")).unwrap();
    assert_eq!(outcome(&report), "Accepted=True Accepted; ResolvedRefs=True ResolvedRefs");
}
