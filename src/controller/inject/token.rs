//! The token by which a pod's sidecar proves to the controller which pod it is.
//!
//! A projected volume of the pod: the kubelet asks the API server for a token of the pod's service account that is bound to this
//! very pod and good for Leno alone, and replaces it before it expires. It is there whether or not the pod mounts the tokens of
//! its own, and only the sidecar mounts it.

use json_patch::PatchOperation;
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::add;
use crate::ca::authenticate::review::AUDIENCE;

/// Name of the volume.
pub(super) const VOLUME: &str = "leno-token";
/// Where the sidecar finds it.
pub(super) const FILE: &str = "/var/run/secrets/leno.dev/token";
const FOLDER: &str = "/var/run/secrets/leno.dev";
/// How long a token is good; the kubelet replaces it at 80 % of that.
const SECONDS: u32 = 3600;

/// Adds the volume to the pod.
pub(super) fn volume(spec: &PodSpec) -> PatchOperation {
    let source = json!({"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": SECONDS, "path": "token"}});
    let volume = json!({"name": VOLUME, "projected": {"sources": [source]}});
    match spec.volumes.as_deref() {
        None | Some([]) => add(&["spec", "volumes"], json!([volume])),
        Some(_) => add(&["spec", "volumes", "-"], volume),
    }
}

/// What the sidecar mounts.
pub(super) fn mounts() -> Value {
    json!([{"name": VOLUME, "mountPath": FOLDER, "readOnly": true}])
}
