//! What a pod belongs to, by the name that people gave it.

use k8s_openapi::api::core::v1::Pod;

/// The name of the Deployment, StatefulSet, DaemonSet, Job or CronJob that made the pod; the pod's own name if nothing did.
///
/// It becomes a metric label, so the parts that Kubernetes makes up are cut off.
pub(super) fn name(pod: &Pod) -> String {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else { return own_name(pod) };
    let stem = match owner.kind.as_str() {
        "ReplicaSet" => deployment(pod, &owner.name),
        "Job" => cron_job(&owner.name),
        _ => None,
    };
    stem.unwrap_or(&owner.name).to_owned()
}

/// `web` of ReplicaSet `web-6d4cf56db6`, which a Deployment made.
fn deployment<'a>(pod: &Pod, replica_set: &'a str) -> Option<&'a str> {
    let hash = pod.metadata.labels.as_ref()?.get("pod-template-hash")?;
    replica_set.strip_suffix(hash.as_str())?.strip_suffix('-')
}

/// `backup` of Job `backup-29384650`, which a CronJob made: it appends the minutes since 1970.
fn cron_job(job: &str) -> Option<&str> {
    let (stem, minutes) = job.rsplit_once('-')?;
    (minutes.len() == 8 && minutes.bytes().all(|byte| byte.is_ascii_digit())).then_some(stem)
}

fn own_name(pod: &Pod) -> String {
    let generated = pod.metadata.generate_name.as_deref().map(|name| name.trim_end_matches('-'));
    pod.metadata.name.as_deref().or(generated).unwrap_or("pod").to_owned()
}
