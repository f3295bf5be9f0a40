//! Tables over [`inject`]: a pod in, the patched pod (or the refusal) out.

use serde_json::{Value, json};

use super::*;

fn config() -> Config {
    Config {
        proxy_image: "leno-proxy:1".into(),
        image_pull_policy: Some("IfNotPresent".into()),
        control_address: "leno-controller.leno-system.svc:15110".into(),
        cluster_domain: "cluster.local".into(),
        control_ca: "PEM".into(),
        tracing: None,
        defaults: Settings { cpu_request: Some("10m".into()), log_level: Some("info".into()), ..Settings::default() },
    }
}

fn pod_with(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "app", "image": "app"}]}});
    change(&mut pod);
    pod
}

fn decide(pod: &Value) -> Injection {
    inject(&serde_json::from_value(pod.clone()).unwrap(), &config())
}

fn injected(pod: &Value) -> Value {
    let mut patched = pod.clone();
    match decide(pod) {
        Injection::Patch(patch) => json_patch::patch(&mut patched, &patch).unwrap(),
        other @ (Injection::Unchanged(_) | Injection::Refused(_)) => panic!("{other:?}"),
    }
    patched
}

fn env<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    container["env"].as_array()?.iter().find(|var| var["name"] == name).and_then(|var| var["value"].as_str())
}

fn names(containers: &Value) -> Vec<&str> {
    containers.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect()
}

#[test]
fn the_sidecar_comes_before_the_pods_own_init_containers() {
    let plain = injected(&pod_with(|_| ()));
    assert_eq!(names(&plain["spec"]["initContainers"]), ["leno-init", "leno-proxy"]);
    let own = json!([{"name": "migrate", "image": "app"}, {"name": "warm", "image": "app"}]);
    let more = injected(&pod_with(|pod| pod["spec"]["initContainers"] = own));
    assert_eq!(names(&more["spec"]["initContainers"]), ["leno-init", "leno-proxy", "migrate", "warm"]);
    assert_eq!(names(&more["spec"]["containers"]), ["app"]);
}

#[test]
fn the_sidecar_is_native_probed_and_has_no_rights() {
    let pod = injected(&pod_with(|_| ()));
    let proxy = &pod["spec"]["initContainers"][1];
    assert_eq!(proxy["restartPolicy"], "Always");
    assert_eq!(proxy["startupProbe"]["httpGet"], json!({"path": "/ready", "port": 15120, "scheme": "HTTP"}));
    assert_eq!(proxy["securityContext"]["runAsUser"], 15100);
    assert_eq!(proxy["securityContext"]["runAsNonRoot"], true);
    assert_eq!(proxy["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    let init = &pod["spec"]["initContainers"][0];
    assert_eq!(init["securityContext"]["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    assert_eq!(init["args"], json!(["init"]));
    assert_eq!(env(init, "LENO_PROXY_UID"), Some("15100"));
}

#[test]
fn injecting_twice_changes_nothing() {
    let once = injected(&pod_with(|_| ()));
    assert_eq!(decide(&once), Injection::Unchanged(Unchanged::AlreadyInjected));
    let probed = json!({"httpGet": {"path": "/healthz", "port": 8443, "scheme": "HTTPS"}});
    let once = injected(&pod_with(|pod| pod["spec"]["containers"][0]["livenessProbe"] = probed));
    assert_eq!(decide(&once), Injection::Unchanged(Unchanged::AlreadyInjected));
}

#[test]
fn a_copied_annotation_without_the_sidecar_is_no_injection() {
    let copied = pod_with(|pod| pod["metadata"]["annotations"] = json!({INJECTED: "0.0.1"}));
    assert_eq!(names(&injected(&copied)["spec"]["initContainers"]), ["leno-init", "leno-proxy"]);
}

#[test]
fn disabled_on_the_pod_wins() {
    for place in ["annotations", "labels"] {
        let pod = pod_with(|pod| {
            pod["metadata"]["annotations"] = json!({"leno.dev/inject": "enabled"});
            pod["metadata"][place] = json!({"leno.dev/inject": "disabled"});
        });
        assert_eq!(decide(&pod), Injection::Unchanged(Unchanged::OptedOut), "{place}");
    }
}

#[test]
fn pods_are_traced_as_the_mesh_is_and_may_choose_their_share() {
    let traced = |annotations: Value, tracing: Option<Tracing>| {
        let pod = pod_with(|pod| pod["metadata"]["annotations"] = annotations);
        let defaults = Settings { trace_sampling: Some("5".into()), ..Settings::default() };
        let Injection::Patch(patch) = inject(&serde_json::from_value(pod.clone()).unwrap(), &Config { tracing, defaults, ..config() })
        else {
            panic!("it is injected");
        };
        let mut patched = pod;
        json_patch::patch(&mut patched, &patch).unwrap();
        let proxy = &patched["spec"]["initContainers"][1];
        let names = ["LENO_OTLP_ENDPOINT", "LENO_OTLP_PROTOCOL", "LENO_TRACE_PROPAGATION", "LENO_TRACE_SAMPLING"];
        names.map(|name| env(proxy, name).map(str::to_owned))
    };
    let tracing =
        Tracing { endpoint: "http://otel:4317".parse().unwrap(), protocol: Protocol::Grpc, propagation: "W3C,B3".parse().unwrap() };
    let with = |share: &str| ["http://otel:4317", "grpc", "W3C,B3", share].map(|value| Some(value.to_owned()));
    assert_eq!(traced(json!({}), Some(tracing.clone())), with("5"));
    assert_eq!(traced(json!({"leno.dev/trace-sampling": "100"}), Some(tracing)), with("100"));
    assert_eq!(traced(json!({"leno.dev/trace-sampling": "100"}), None), [const { None }; 4], "nothing to send to");
}

#[test]
fn annotations_set_up_the_sidecar() {
    let pod = injected(&pod_with(|pod| {
        pod["metadata"]["annotations"] = json!({
            "leno.dev/proxy-image": "other:2",
            "leno.dev/proxy-cpu-request": "50m",
            "leno.dev/proxy-cpu-limit": "1.5",
            "leno.dev/proxy-memory-request": "32Mi",
            "leno.dev/proxy-memory-limit": "64Mi",
            "leno.dev/log-level": "debug",
            "leno.dev/access-log": "errors",
            "leno.dev/access-log-sampling": "2.5",
            "leno.dev/access-log-format": "%{method} $(path) %{path}",
            "leno.dev/proxy-workers": "2",
            "leno.dev/drain-seconds": "0",
            "leno.dev/exclude-inbound-ports": "9090",
            "leno.dev/exclude-outbound-ports": "6379, 5432,5432",
            "leno.dev/exclude-outbound-cidrs": "10.1.2.3/8,192.0.2.7",
        });
    }));
    let (init, proxy) = (&pod["spec"]["initContainers"][0], &pod["spec"]["initContainers"][1]);
    let resources = json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "1.5", "memory": "64Mi"}});
    assert_eq!(proxy["resources"], resources);
    assert_eq!((&init["image"], &proxy["image"]), (&json!("other:2"), &json!("other:2")));
    let of_proxy = [
        ("LENO_LOG", "debug"),
        ("LENO_ACCESS_LOG", "errors"),
        ("LENO_ACCESS_LOG_SAMPLING", "2.5"),
        ("LENO_ACCESS_LOG_FORMAT", "%{method} $$(path) %{path}"),
        ("LENO_PROXY_WORKERS", "2"),
        ("LENO_DRAIN_SECONDS", "0"),
    ];
    let of_init = [
        ("LENO_EXCLUDE_INBOUND_PORTS", "9090"),
        ("LENO_EXCLUDE_OUTBOUND_PORTS", "5432,6379"),
        ("LENO_EXCLUDE_OUTBOUND_CIDRS", "10.0.0.0/8,192.0.2.7/32"),
    ];
    for (container, cases) in [(proxy, &of_proxy[..]), (init, &of_init[..])] {
        for (name, value) in cases {
            assert_eq!(env(container, name), Some(*value), "{name}");
        }
    }
    assert_eq!(pod["metadata"]["annotations"]["leno.dev/log-level"], "debug", "annotations that are there stay");
}

#[test]
fn a_bad_annotation_refuses_the_pod_with_its_name_and_what_to_write() {
    let many = (1..=65).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
    let cases = [
        ("leno.dev/inject", "true", "write enabled or disabled"),
        ("leno.dev/proxy-cpu-request", "a lot", "write a Kubernetes quantity such as 100m"),
        ("leno.dev/proxy-memory-limit", "-1", "write a Kubernetes quantity"),
        ("leno.dev/proxy-memory-limit", "64MiB", "write a Kubernetes quantity"),
        ("leno.dev/log-level", "loud", "write error, warn, info, debug or trace"),
        ("leno.dev/access-log", "yes", "write all, errors or off"),
        ("leno.dev/access-log-sampling", "half", "write a number from 0 to 100"),
        ("leno.dev/access-log-format", "%{verb}", "with the names of the access log's fields"),
        ("leno.dev/trace-sampling", "101", "write a number from 0 to 100"),
        ("leno.dev/proxy-image", "two words", "write an image reference"),
        ("leno.dev/proxy-workers", "0", "write a number from 1 to 64"),
        ("leno.dev/drain-seconds", "1h", "write a number of seconds from 0 to 3600"),
        ("leno.dev/exclude-inbound-ports", "80,http", "write at most 64 ports from 1 to 65535"),
        ("leno.dev/exclude-outbound-ports", "0", "write at most 64 ports"),
        ("leno.dev/exclude-outbound-ports", many.as_str(), "write at most 64 ports"),
        ("leno.dev/exclude-outbound-cidrs", "10.0.0.0/33", "write at most 64 networks"),
    ];
    for (name, value, words) in cases {
        let pod = pod_with(|pod| pod["metadata"]["annotations"] = json!({ name: value }));
        let Injection::Refused(refusal) = decide(&pod) else { panic!("{name}={value} was taken") };
        let text = refusal.to_string();
        assert!(text.contains(name) && text.contains(words), "{name}={value}: {text}");
    }
}

#[test]
fn pods_that_cannot_be_in_the_mesh_are_refused_with_a_reason() {
    let cases = [
        ("host_network", json!({"hostNetwork": true}), "annotate the pod with leno.dev/inject: disabled"),
        ("windows", json!({"os": {"name": "windows"}}), "Linux only"),
        ("windows", json!({"nodeSelector": {"kubernetes.io/os": "windows"}}), "Linux only"),
        ("proxy_user", json!({"securityContext": {"runAsUser": 15100}}), "choose another runAsUser"),
        ("proxy_user", json!({"containers": [{"name": "app", "securityContext": {"runAsUser": 15100}}]}), "15100"),
        ("name_taken", json!({"containers": [{"name": "leno-proxy"}]}), "leno-proxy"),
        ("volume_taken", json!({"volumes": [{"name": "leno-token", "emptyDir": {}}]}), "leno-token"),
        ("port_taken", json!({"containers": [{"name": "app", "ports": [{"containerPort": 15106}]}]}), "15106"),
    ];
    for (reason, fields, words) in cases {
        let pod = pod_with(|pod| {
            for (key, value) in fields.as_object().unwrap() {
                pod["spec"][key] = value.clone();
            }
        });
        let Injection::Refused(refusal) = decide(&pod) else { panic!("{fields} was taken") };
        assert_eq!(refusal.reason(), reason, "{fields}");
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
}

#[test]
fn probes_that_the_sidecar_cannot_tell_from_other_traffic_are_asked_by_its_admin_port() {
    let http = json!({"httpGet": {"path": "/live", "port": 8080}});
    let headers = json!([{"name": "Host", "value": "example"}]);
    let app = json!({
        "name": "app",
        "ports": [{"name": "redis", "containerPort": 6379}, {"name": "tls", "containerPort": 8443}],
        "startupProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 7},
        "readinessProbe": {"tcpSocket": {"port": 6380}},
        "livenessProbe": http,
    });
    let secure = json!({
        "name": "secure",
        "ports": [{"name": "tls", "containerPort": 8443}],
        "readinessProbe": {"httpGet": {"path": "/healthz?full=1", "port": "tls", "scheme": "HTTPS", "httpHeaders": headers}},
        "livenessProbe": {"httpGet": {"path": "/a,b", "port": 8081}},
    });
    let excluded = json!({"name": "direct", "livenessProbe": {"tcpSocket": {"port": 9090}}});
    let elsewhere = json!({"name": "far", "livenessProbe": {"tcpSocket": {"port": 1, "host": "192.0.2.1"}}});
    let sidecar = json!([{"name": "cache", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1234}}}]);
    let pod = injected(&pod_with(|pod| {
        pod["metadata"]["annotations"] = json!({"leno.dev/exclude-inbound-ports": "9090"});
        pod["spec"]["containers"] = json!([app, excluded, elsewhere, secure]);
        pod["spec"]["initContainers"] = sidecar;
    }));
    let [app, direct, far, secure] = [0, 1, 2, 3].map(|at| &pod["spec"]["containers"][at]);
    let asks = |port: u16| json!({"path": format!("/probe/tcp/{port}"), "port": 15120, "scheme": "HTTP"});
    assert_eq!(app["startupProbe"], json!({"httpGet": asks(6379), "periodSeconds": 7}));
    assert_eq!(app["readinessProbe"], json!({"httpGet": asks(6380)}));
    assert_eq!(app["livenessProbe"], http);
    assert_eq!(direct["livenessProbe"], excluded["livenessProbe"]);
    assert_eq!(far["livenessProbe"], elsewhere["livenessProbe"]);
    let https = json!({"path": "/probe/https/8443/healthz?full=1", "port": 15120, "scheme": "HTTP", "httpHeaders": headers});
    assert_eq!(secure["readinessProbe"]["httpGet"], https);
    assert_eq!(secure["livenessProbe"]["httpGet"], json!({"path": "/probe/http/8081/a,b", "port": 15120, "scheme": "HTTP"}));
    let asked = env(&pod["spec"]["initContainers"][1], "LENO_ADMIN_PROBES");
    assert_eq!(asked, Some("http/8081/a,b https/8443/healthz?full=1"));
    let cache = &pod["spec"]["initContainers"][2];
    assert_eq!((&cache["name"], &cache["startupProbe"]), (&json!("cache"), &json!({"httpGet": asks(1234)})));
}

#[test]
fn the_sidecar_is_told_which_requests_are_probes_and_none_that_do_not_come_through_it() {
    let app = json!({
        "name": "app",
        "ports": [{"name": "web", "containerPort": 8080}],
        "startupProbe": {"httpGet": {"port": "web"}},
        "readinessProbe": {"httpGet": {"path": "/healthz?full=1", "port": "web", "scheme": "HTTP"}},
        "livenessProbe": {"httpGet": {"path": "/healthz?full=1", "port": 8080}},
    });
    let others = json!({
        "name": "others",
        "startupProbe": {"exec": {"command": ["/bin/true"]}},
        "readinessProbe": {"httpGet": {"path": "/direct", "port": 9090}},
        "livenessProbe": {"httpGet": {"path": "/elsewhere", "port": 8080, "host": "192.0.2.1"}},
    });
    let nameless = json!({"name": "nameless", "livenessProbe": {"httpGet": {"path": "/lost", "port": "web"}}});
    let grpc = json!({"name": "grpc", "livenessProbe": {"grpc": {"port": 9000, "service": "shop"}}});
    let native = json!([{"name": "cache", "restartPolicy": "Always", "readinessProbe": {"httpGet": {"path": "/warm/$(X)", "port": 7}}}]);
    let containers = json!([app, others, nameless, grpc]);
    let pod = injected(&pod_with(|pod| {
        pod["metadata"]["annotations"] = json!({"leno.dev/exclude-inbound-ports": "9090"});
        pod["spec"]["containers"] = containers.clone();
        pod["spec"]["initContainers"] = native.clone();
    }));
    let proxy = &pod["spec"]["initContainers"][1];
    let wanted = "7/warm/$$(X),8080/,8080/healthz?full=1,9000/grpc.health.v1.Health/Check";
    assert_eq!(env(proxy, "LENO_PROBES"), Some(wanted), "and nothing is filled in for $(X)");
    assert_eq!(env(proxy, "LENO_ADMIN_PROBES"), None);
    for (at, container) in containers.as_array().unwrap().iter().enumerate() {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(pod["spec"]["containers"][at][probe], container[probe], "{probe} of {}", container["name"]);
        }
    }
    let quiet = injected(&pod_with(|_| ()));
    assert_eq!(env(&quiet["spec"]["initContainers"][1], "LENO_PROBES"), None);
}

#[test]
fn the_sidecar_alone_gets_a_token_that_is_good_for_leno_alone() {
    let own = json!([{"name": "data", "emptyDir": {}}]);
    for (volumes, at) in [(Value::Null, 0), (json!([]), 0), (own, 1)] {
        let mut pod = pod_with(|_| ());
        if !volumes.is_null() {
            pod["spec"]["volumes"] = volumes;
        }
        let pod = injected(&pod);
        let source = json!({"serviceAccountToken": {"audience": "leno.dev", "expirationSeconds": 3600, "path": "token"}});
        assert_eq!(pod["spec"]["volumes"][at], json!({"name": "leno-token", "projected": {"sources": [source]}}));
        let [init, proxy] = [0, 1].map(|at| &pod["spec"]["initContainers"][at]);
        let mount = json!([{"name": "leno-token", "mountPath": "/var/run/secrets/leno.dev", "readOnly": true}]);
        assert_eq!(proxy["volumeMounts"], mount);
        assert_eq!(env(proxy, "LENO_TOKEN_FILE"), Some("/var/run/secrets/leno.dev/token"));
        assert_eq!(init["volumeMounts"], Value::Null);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], Value::Null);
    }
}

#[test]
fn an_app_goes_on_for_a_moment_after_its_pod_is_told_to_end_unless_it_knows_better() {
    let of = |seconds: u16| json!({"sleep": {"seconds": seconds}});
    let own = json!({"exec": {"command": ["/bye"]}});
    let cases = [
        ("by default", json!({}), json!({}), of(3)),
        ("as the annotation says", json!({}), json!({"leno.dev/stop-delay-seconds": "10"}), of(10)),
        ("not at all", json!({}), json!({"leno.dev/stop-delay-seconds": "0"}), Value::Null),
        ("no time for it", json!({"terminationGracePeriodSeconds": 3}), json!({}), Value::Null),
        ("just time for it", json!({"terminationGracePeriodSeconds": 4}), json!({}), of(3)),
        ("runs to completion", json!({"restartPolicy": "Never"}), json!({}), Value::Null),
        ("has its own", json!({"containers": [{"name": "app", "lifecycle": {"preStop": own}}]}), json!({}), own.clone()),
        ("has another hook", json!({"containers": [{"name": "app", "lifecycle": {"postStart": own}}]}), json!({}), of(3)),
    ];
    for (case, fields, annotations, wanted) in cases {
        let pod = injected(&pod_with(|pod| {
            pod["metadata"]["annotations"] = annotations;
            pod["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        }));
        assert_eq!(pod["spec"]["containers"][0]["lifecycle"]["preStop"], wanted, "{case}");
    }
}

#[test]
fn fields_this_build_does_not_know_stay() {
    let init = json!([{"name": "migrate", "image": "app", "fieldOfTheFuture": 1}]);
    let pod = injected(&pod_with(|pod| {
        pod["spec"]["initContainers"] = init;
        pod["spec"]["fieldOfTheFuture"] = json!({"a": [1]});
    }));
    assert_eq!(pod["spec"]["fieldOfTheFuture"], json!({"a": [1]}));
    assert_eq!(pod["spec"]["initContainers"][2]["fieldOfTheFuture"], 1);
}

#[test]
fn the_workload_is_named_after_what_people_made() {
    let owner = |kind: &str, name: &str| json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}]);
    let cases = [
        ("a Deployment", json!({"ownerReferences": owner("ReplicaSet", "web-6d4c"), "labels": {"pod-template-hash": "6d4c"}}), "web"),
        ("a bare ReplicaSet", json!({"ownerReferences": owner("ReplicaSet", "web-6d4c")}), "web-6d4c"),
        ("a StatefulSet", json!({"ownerReferences": owner("StatefulSet", "db")}), "db"),
        ("a CronJob", json!({"ownerReferences": owner("Job", "backup-29384650")}), "backup"),
        ("a Job", json!({"ownerReferences": owner("Job", "import-2024")}), "import-2024"),
        ("nothing, generated name", json!({"name": null, "generateName": "debug-"}), "debug"),
        ("nothing", json!({"name": "debug"}), "debug"),
    ];
    for (case, metadata, expected) in cases {
        let pod = injected(&pod_with(|pod| pod["metadata"] = metadata));
        assert_eq!(env(&pod["spec"]["initContainers"][1], "LENO_WORKLOAD"), Some(expected), "{case}");
    }
}
