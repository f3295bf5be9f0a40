//! Lets an app go on for a moment after its pod is told to end.
//!
//! Kubernetes tells the app to end at the moment at which it begins to tell everybody that the pod is no endpoint any more. An app
//! that stops listening at once resets what arrives until the last caller knows, and a request of which nobody can tell whether
//! the app had it is not safe to send again. A `preStop` sleep closes that gap: the app ends when the callers have turned away.

use json_patch::PatchOperation;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::json;

use super::add;

/// How long, in seconds, where nothing else is said.
pub(super) const DELAY_DEFAULT: u16 = 3;
/// What Kubernetes gives a pod that does not say how long it may take to end.
const GRACE_DEFAULT: i64 = 30;

/// The changes to the pod's app containers. Those that say what comes before their end know best, pods that run to completion
/// serve nobody, and a pod without the time for it ends as it always did.
pub(super) fn delayed(spec: &PodSpec, delay: u16) -> Vec<PatchOperation> {
    let grace = spec.termination_grace_period_seconds.unwrap_or(GRACE_DEFAULT);
    let serves = spec.restart_policy.as_deref().is_none_or(|policy| policy == "Always");
    if delay == 0 || !serves || grace <= i64::from(delay) {
        return Vec::new();
    }
    let containers = spec.containers.iter().enumerate();
    containers.filter_map(|(at, container)| sleep(container, &at.to_string(), delay)).collect()
}

fn sleep(container: &Container, at: &str, delay: u16) -> Option<PatchOperation> {
    let pre_stop = json!({"sleep": {"seconds": delay}});
    match &container.lifecycle {
        None => Some(add(&["spec", "containers", at, "lifecycle"], json!({"preStop": pre_stop}))),
        Some(lifecycle) if lifecycle.pre_stop.is_none() => Some(add(&["spec", "containers", at, "lifecycle", "preStop"], pre_stop)),
        Some(_) => None,
    }
}
