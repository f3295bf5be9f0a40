//! The two containers that are added, as JSON.

use std::fmt::Display;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use super::{ADMIN_PORT, Config, INIT_CONTAINER, PROXY_CONTAINER, PROXY_UID, Settings, token, workload};

/// The ports that the sidecar listens on: outbound, inbound, admin.
pub(super) const PORTS: [i32; 3] = [15101, 15106, ADMIN_PORT as i32];

/// How long the sidecar may take to start before it is restarted, in seconds. It waits for nothing but its own listeners.
const STARTUP_SECONDS: u32 = 60;

/// The init container that writes the redirect rules. It is root with one capability, and ends before the app starts.
pub(super) fn init(settings: &Settings, config: &Config) -> Value {
    let mut env = vec![var("LENO_PROXY_UID", PROXY_UID)];
    let lists = [
        ("LENO_EXCLUDE_INBOUND_PORTS", joined(&settings.exclude_inbound_ports)),
        ("LENO_EXCLUDE_OUTBOUND_PORTS", joined(&settings.exclude_outbound_ports)),
        ("LENO_EXCLUDE_OUTBOUND_CIDRS", joined(&settings.exclude_outbound_cidrs)),
    ];
    env.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| var(name, list)));
    let mut container = base(INIT_CONTAINER, "init", &env, settings, config);
    container["securityContext"] = json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    container
}

/// The sidecar. It has a readiness probe, so a pod whose sidecar cannot carry traffic gets none; it has no liveness probe,
/// because a restart breaks every open connection of the pod and mends nothing that readiness does not already contain.
///
/// `probes` are variables that say which of the pod's probes it is to let pass, or to ask; empty ones are left out.
pub(super) fn proxy(pod: &Pod, settings: &Settings, config: &Config, probes: &[(&str, String)]) -> Value {
    let mut env = proxy_env(pod, settings, config);
    env.extend(probes.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| var(name, list)));
    let mut container = base(PROXY_CONTAINER, "run", &env, settings, config);
    container["volumeMounts"] = token::mounts();
    let ready = json!({"path": "/ready", "port": ADMIN_PORT, "scheme": "HTTP"});
    container["restartPolicy"] = "Always".into();
    container["ports"] = json!([{"name": "leno-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}]);
    container["startupProbe"] = json!({"httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": STARTUP_SECONDS});
    container["readinessProbe"] = json!({"httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 3});
    container["securityContext"] = json!({
        "runAsUser": PROXY_UID,
        "runAsGroup": PROXY_UID,
        "runAsNonRoot": true,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    container
}

fn proxy_env(pod: &Pod, settings: &Settings, config: &Config) -> Vec<Value> {
    let mut env = vec![
        field("LENO_POD_NAME", "metadata.name"),
        field("LENO_POD_NAMESPACE", "metadata.namespace"),
        field("LENO_POD_IP", "status.podIP"),
        field("LENO_POD_IPS", "status.podIPs"),
        var("LENO_WORKLOAD", workload::name(pod)),
        var("LENO_CLUSTER_DOMAIN", &config.cluster_domain),
        var("LENO_CONTROL_ADDRESS", &config.control_address),
        var("LENO_CONTROL_CA", &config.control_ca),
        var("LENO_TOKEN_FILE", token::FILE),
    ];
    let texts = [
        ("LENO_LOG", &settings.log_level),
        ("LENO_ACCESS_LOG", &settings.access_log),
        ("LENO_ACCESS_LOG_SAMPLING", &settings.access_log_sampling),
        ("LENO_ACCESS_LOG_FORMAT", &settings.access_log_format),
    ];
    env.extend(texts.into_iter().filter_map(|(name, value)| Some(var(name, value.as_ref()?))));
    if let Some(tracing) = &config.tracing {
        env.push(var("LENO_OTLP_ENDPOINT", &tracing.endpoint));
        env.push(var("LENO_OTLP_PROTOCOL", tracing.protocol.as_str()));
        env.push(var("LENO_TRACE_PROPAGATION", &tracing.propagation));
        env.extend(settings.trace_sampling.iter().map(|share| var("LENO_TRACE_SAMPLING", share)));
    }
    let numbers = [("LENO_PROXY_WORKERS", settings.workers), ("LENO_DRAIN_SECONDS", settings.drain_seconds)];
    env.extend(numbers.into_iter().filter_map(|(name, value)| Some(var(name, value?))));
    env
}

fn base(name: &str, command: &str, env: &[Value], settings: &Settings, config: &Config) -> Value {
    let mut container = json!({
        "name": name,
        "image": settings.image.as_ref().unwrap_or(&config.proxy_image),
        "args": [command],
        "env": env,
        "resources": resources(settings),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if let Some(policy) = &config.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    container
}

fn resources(settings: &Settings) -> Value {
    let quantities = |pairs: [(&str, &Option<String>); 2]| -> Map<String, Value> {
        pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?.into()))).collect()
    };
    let requests = quantities([("cpu", &settings.cpu_request), ("memory", &settings.memory_request)]);
    let limits = quantities([("cpu", &settings.cpu_limit), ("memory", &settings.memory_limit)]);
    let lists = [("requests", requests), ("limits", limits)];
    Value::Object(lists.into_iter().filter(|(_, map)| !map.is_empty()).map(|(key, map)| (key.into(), map.into())).collect())
}

/// A variable with just this value: Kubernetes would put another variable's value in the place of `$(NAME)`.
fn var(name: &str, value: impl Display) -> Value {
    json!({"name": name, "value": value.to_string().replace("$(", "$$(")})
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

fn joined<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
