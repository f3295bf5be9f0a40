//! What is kept of Kubernetes' own objects, and what an odd one does.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its input fails")]

use std::net::IpAddr;

use kube::Resource;
use kube::core::ObjectList;
use leno_api::k8s::{ContainerPort, EndpointSlice, Phase, Pod, ReferenceGrant, ReferenceGrantBeta, Service, TargetPort, Watched};
use serde_json::{Value, json};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(value: Value) -> Pod {
    serde_json::from_value::<Watched<Pod>>(value).unwrap().object
}

fn service(value: Value) -> Service {
    serde_json::from_value::<Watched<Service>>(value).unwrap().object
}

fn slice(value: Value) -> EndpointSlice {
    serde_json::from_value::<Watched<EndpointSlice>>(value).unwrap().object
}

/// A pod as an API server gives it, with much that the mesh does not need.
fn whole_pod(index: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("payment-7d9c5b6f4d-{index:05}"), "namespace": "shop", "uid": format!("6f1d8a52-0000-4000-8000-{index:012}"),
            "resourceVersion": "123456", "creationTimestamp": "2026-01-01T00:00:00Z", "generateName": "payment-7d9c5b6f4d-",
            "labels": {"app": "payment", "pod-template-hash": "7d9c5b6f4d", "version": "v1"},
            "annotations": {"leno.dev/inject": "enabled", "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(4000)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "payment-7d9c5b6f4d", "uid": "1", "controller": true}],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {"f:phase": {}}}}],
        },
        "spec": {
            "serviceAccountName": "payment", "nodeName": "node-1",
            "initContainers": [
                {"name": "setup", "image": "i", "ports": [{"containerPort": 1}]},
                {"name": "leno-proxy", "restartPolicy": "Always", "image": "i", "ports": [{"name": "leno-admin", "containerPort": 15120}]},
            ],
            "containers": [{"name": "app", "image": "i", "env": [{"name": "A", "value": "b"}], "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}], "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

#[test]
fn a_pod_keeps_what_routing_and_identity_need() {
    let watched: Watched<Pod> = serde_json::from_value(whole_pod(7)).unwrap();
    assert_eq!(watched.metadata.name.as_deref(), Some("payment-7d9c5b6f4d-00007"));
    assert_eq!(watched.metadata.resource_version.as_deref(), Some("123456"));
    assert!(watched.metadata.managed_fields.is_none() && watched.metadata.annotations.is_none() && watched.metadata.labels.is_none());
    let pod = watched.object;
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.service_account), ("shop", "payment-7d9c5b6f4d-00007", "payment"));
    assert_eq!(pod.labels.get("version"), Some("v1"));
    assert_eq!(pod.annotations.iter().collect::<Vec<_>>(), [("leno.dev/inject", "enabled")]);
    assert_eq!(pod.owner.as_ref().map(|owner| (&*owner.kind, &*owner.name)), Some(("ReplicaSet", "payment-7d9c5b6f4d")));
    assert_eq!(*pod.ips, [ip("10.0.0.7"), ip("fd00::7")]);
    assert_eq!((pod.phase, pod.deleting, pod.host_network), (Phase::Running, false, false));
    let port = |name: &str, port| ContainerPort { name: Some(name.into()), port };
    assert_eq!(*pod.ports, [port("http", 8080), port("leno-admin", 15120)], "a finished init container has no port");
}

#[test]
fn a_pod_that_says_nothing_has_defaults() {
    let pod = pod(json!({"metadata": {"name": "a"}, "spec": null}));
    assert_eq!((&*pod.namespace, &*pod.service_account, pod.phase), ("default", "default", Phase::Unknown));
    assert!(pod.ips.is_empty() && pod.ports.is_empty() && pod.labels.is_empty() && pod.owner.is_none());
}

#[test]
fn odd_values_are_left_out_and_the_rest_is_kept() {
    let odd = json!({
        "metadata": {"name": "a", "labels": null, "annotations": null, "ownerReferences": null, "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"hostNetwork": true, "containers": [{"ports": null}, {"ports": [{"containerPort": 0}, {"containerPort": 70000}, {"containerPort": 80}]}]},
        "status": {"phase": "Dreaming", "podIP": "10.0.0.1", "podIPs": null},
    });
    let pod = pod(odd);
    assert_eq!((pod.phase, pod.deleting, pod.host_network), (Phase::Unknown, true, true));
    assert_eq!((&*pod.ips, &*pod.ports), (&[ip("10.0.0.1")][..], &[ContainerPort { name: None, port: 80 }][..]));
}

#[test]
fn one_odd_object_does_not_fail_a_list() {
    let list = json!({
        "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "9"},
        "items": [whole_pod(1), {"metadata": {"name": "odd"}, "spec": null, "status": {"podIPs": [{}, {"ip": "nonsense"}]}}, {}, whole_pod(2)],
    });
    let pods: ObjectList<Watched<Pod>> = serde_json::from_value(list).unwrap();
    assert_eq!(pods.items.len(), 4);
}

#[test]
fn a_service_keeps_its_addresses_and_ports() {
    let service = service(json!({
        "metadata": {"name": "payment", "namespace": "shop", "generation": 3},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"], "selector": {"app": "payment"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
                {"name": "by-name", "port": 81, "targetPort": "web"},
                {"name": "same", "port": 82},
            ],
        },
    }));
    assert_eq!(*service.cluster_ips, [ip("10.96.0.9"), ip("fd00:96::9")]);
    assert_eq!((service.generation, service.headless, &*service.kind), (Some(3), false, "ClusterIP"));
    assert_eq!(service.selector.get("app"), Some("payment"));
    let targets: Vec<_> = service.ports.iter().map(|port| port.target_port.clone()).collect();
    assert_eq!(targets, [TargetPort::Number(8080), TargetPort::Name("web".into()), TargetPort::Number(82)]);
    assert_eq!(service.ports[0].app_protocol.as_deref(), Some("kubernetes.io/h2c"));
    assert_eq!(&*service.ports[1].protocol, "TCP");
}

#[test]
fn a_headless_service_has_no_address_and_an_external_one_has_a_name() {
    let headless = service(
        json!({"metadata": {"name": "db"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"], "publishNotReadyAddresses": true}}),
    );
    assert!(headless.headless && headless.cluster_ips.is_empty() && headless.publish_not_ready_addresses);
    let external = service(json!({"metadata": {"name": "db"}, "spec": {"type": "ExternalName", "externalName": "db.example.com"}}));
    assert_eq!((external.external_name.as_deref(), external.headless), (Some("db.example.com"), false));
}

#[test]
fn a_slice_keeps_its_endpoints_and_unsaid_conditions_have_their_defaults() {
    let slice = slice(json!({
        "metadata": {"name": "payment-abc", "namespace": "shop", "labels": {"kubernetes.io/service-name": "payment"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {}, "targetRef": {"kind": "Pod", "name": "payment-1"}, "nodeName": "node-1", "zone": "a"},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}, "targetRef": {"kind": "Node", "name": "n"}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
            {"addresses": ["db.example.com"]},
            {"addresses": null},
        ],
        "ports": [{"name": "", "port": 8080}, {"name": "grpc", "port": null, "protocol": "TCP", "appProtocol": "grpc"}],
    }));
    assert_eq!(slice.service.as_deref(), Some("payment"));
    let seen: Vec<_> = slice.endpoints.iter().map(|it| (it.address, it.ready, it.serving, it.terminating, it.pod.as_deref())).collect();
    assert_eq!(
        seen,
        [
            (ip("10.0.0.1"), true, true, false, Some("payment-1")),
            (ip("10.0.0.2"), false, true, true, None),
            (ip("10.0.0.3"), false, false, false, None),
        ]
    );
    assert_eq!((slice.ports[0].name.as_deref(), slice.ports[0].port), (None, Some(8080)));
    assert_eq!((slice.ports[1].name.as_deref(), slice.ports[1].port), (Some("grpc"), None));
}

#[test]
fn a_slice_whose_lists_are_null_is_empty() {
    let slice = slice(json!({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": null, "ports": null}));
    assert!(slice.endpoints.is_empty() && slice.ports.is_empty() && slice.service.is_none());
}

#[test]
fn a_reference_grant_keeps_what_it_says_and_an_odd_one_allows_nothing() {
    let grant = |value: Value| serde_json::from_value::<Watched<ReferenceGrant>>(value).unwrap().object;
    let whole = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": {"name": "shop", "namespace": "books"},
        "spec": {
            "from": [{"group": "leno.dev", "kind": "TrafficPolicy", "namespace": "shop"}],
            "to": [{"group": "", "kind": "Service"}, {"group": "leno.dev", "kind": "MeshService", "name": "ledger"}],
        },
    });
    let kept = grant(whole.clone());
    let from: Vec<_> = kept.from.iter().map(|it| (&*it.group, &*it.kind, &*it.namespace)).collect();
    let to: Vec<_> = kept.to.iter().map(|it| (&*it.group, &*it.kind, it.name.as_deref())).collect();
    assert_eq!((&*kept.namespace, &*kept.name), ("books", "shop"));
    assert_eq!(from, [("leno.dev", "TrafficPolicy", "shop")]);
    assert_eq!(to, [("", "Service", None), ("leno.dev", "MeshService", Some("ledger"))]);
    assert_eq!(serde_json::from_value::<Watched<ReferenceGrantBeta>>(whole).unwrap().object.0, kept);
    for odd in [json!({"from": null, "to": null}), json!(null), json!({})] {
        let kept = grant(json!({"metadata": {"name": "g", "namespace": "books"}, "spec": odd}));
        assert!(kept.from.is_empty() && kept.to.is_empty());
    }
}

#[test]
fn watched_kinds_have_the_urls_of_kubernetes() {
    assert_eq!(Watched::<Pod>::url_path(&(), None), "/api/v1/pods");
    assert_eq!(Watched::<Service>::url_path(&(), Some("shop")), "/api/v1/namespaces/shop/services");
    assert_eq!(Watched::<ReferenceGrant>::url_path(&(), None), "/apis/gateway.networking.k8s.io/v1/referencegrants");
    assert_eq!(Watched::<ReferenceGrantBeta>::url_path(&(), None), "/apis/gateway.networking.k8s.io/v1beta1/referencegrants");
    assert_eq!(Watched::<EndpointSlice>::url_path(&(), None), "/apis/discovery.k8s.io/v1/endpointslices");
}

/// Resident memory of this process, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[cfg(target_os = "linux")]
fn twenty_thousand_pods_take_less_than_a_kibibyte_each() {
    let texts: Vec<String> = (0..100).map(|index| whole_pod(index).to_string()).collect();
    let before = resident();
    let pods: Vec<Pod> =
        (0..20_000).map(|index| serde_json::from_str::<Watched<Pod>>(&texts[index % texts.len()]).unwrap().object).collect();
    let each = resident().saturating_sub(before) / pods.len();
    assert!(each < 1024, "{each} bytes a pod");
}
