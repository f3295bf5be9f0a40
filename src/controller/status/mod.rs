//! Status: what the controller says about an object to who wrote it.
//!
//! [`status_of`] is pure: from the translator's report, the proxies' receipts and the status that is there, it gives the status
//! that should be. [`writer`] writes it where it differs; only the leader does. [`receipts`] are counted at every replica, so
//! the leader reads those of its [`peers`]; [`actual`] is what the watches show of each object's status.

pub mod actual;
pub mod desk;
pub mod peers;
pub mod receipts;
pub mod writer;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use leno_api::mesh_service::{EndpointCounts, MeshServiceStatus, VersionStatus};
use leno_api::security_policy::SecurityPolicyStatus;
use leno_api::status::{ACCEPTED, PROGRAMMED, ProxyStatus};
use leno_api::traffic_policy::TrafficPolicyStatus;
use leno_translate::Report;

use self::receipts::Standing;

/// The status of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// A MeshService's.
    MeshService(Box<MeshServiceStatus>),
    /// A TrafficPolicy's.
    TrafficPolicy(Box<TrafficPolicyStatus>),
    /// A SecurityPolicy's.
    SecurityPolicy(Box<SecurityPolicyStatus>),
}

impl Status {
    /// Its conditions.
    pub fn conditions(&self) -> &[Condition] {
        match self {
            Self::MeshService(status) => &status.conditions,
            Self::TrafficPolicy(status) => &status.conditions,
            Self::SecurityPolicy(status) => &status.conditions,
        }
    }
}

/// The kinds that have a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// MeshService.
    MeshService,
    /// TrafficPolicy.
    TrafficPolicy,
    /// SecurityPolicy.
    SecurityPolicy,
}

/// The status that an object should have at `now`.
///
/// * `report`: what translating it gave.
/// * `standing`: how far the proxies are with its service; `None` when it belongs to none.
/// * `before`: the conditions it has; one whose status stays keeps its transition time.
pub fn status_of(subject: Subject, report: &Report, standing: Option<&Standing>, before: &[Condition], now: Timestamp) -> Status {
    let proxies = standing.map(proxies);
    let conditions = conditions(subject, report, standing, before, now);
    match subject {
        Subject::TrafficPolicy => {
            Status::TrafficPolicy(Box::new(TrafficPolicyStatus { observed_generation: report.generation, proxies, conditions }))
        }
        Subject::SecurityPolicy => {
            Status::SecurityPolicy(Box::new(SecurityPolicyStatus { observed_generation: report.generation, proxies, conditions }))
        }
        Subject::MeshService => Status::MeshService(Box::new(MeshServiceStatus {
            observed_generation: report.generation,
            service: report.service.as_ref().map(|service| service.name.to_string()),
            endpoints: report.endpoints.map(|counts| EndpointCounts { ready: count(counts.ready), total: count(counts.total) }),
            versions: report
                .versions
                .iter()
                .map(|(name, endpoints)| VersionStatus { name: name.to_string(), endpoints: count(*endpoints) })
                .collect(),
            proxies,
            conditions,
        })),
    }
}

fn proxies(standing: &Standing) -> ProxyStatus {
    ProxyStatus {
        subscribed: count(standing.subscribed),
        current: count(standing.current),
        since: standing.current_since.map(|since| Time(whole_seconds(since))),
    }
}

/// Kubernetes keeps whole seconds: anything finer would differ from what is read back.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn conditions(subject: Subject, report: &Report, standing: Option<&Standing>, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    let accepted = report.condition(ACCEPTED).is_some_and(|condition| condition.holds);
    let (programmed, reason, message) = programmed(subject, accepted, standing);
    let told = report.conditions.iter().map(|it| (it.kind, it.holds, it.reason, it.message.clone()));
    told.chain([(PROGRAMMED, programmed, reason, message)])
        .map(|(kind, holds, reason, message)| {
            let status = if holds { "True" } else { "False" };
            let kept = before.iter().find(|it| it.type_ == kind && it.status == status);
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                observed_generation: report.generation,
                last_transition_time: kept.map_or(Time(whole_seconds(now)), |it| it.last_transition_time.clone()),
            }
        })
        .collect()
}

/// Whether every proxy concerned runs the object, a word for it, and a sentence.
fn programmed(subject: Subject, accepted: bool, standing: Option<&Standing>) -> (bool, &'static str, String) {
    let Some(standing) = standing.filter(|_| accepted) else {
        return (false, "NotAccepted", "The object is not in force, see Accepted.".to_owned());
    };
    let Standing { subscribed, current, refused, .. } = standing;
    let (none, that) = match subject {
        Subject::MeshService | Subject::TrafficPolicy => {
            ("No proxy uses the service yet; each gets this configuration when it does.", "use the service")
        }
        Subject::SecurityPolicy => {
            ("No pod that the policy is for has a connected proxy, so nothing enforces it yet. Inject the pods.", "enforce the policy")
        }
    };
    match (*subscribed, *current) {
        (0, _) => (true, "NoProxies", none.to_owned()),
        (subscribed, current) if subscribed == current => {
            (true, "Programmed", format!("All proxies that {that} run this configuration: {subscribed}."))
        }
        _ if *refused > 0 => {
            let example = standing.refusal.as_deref().unwrap_or("see the proxies' logs");
            (false, "Refused", format!("{refused} of {subscribed} proxies refused this configuration: {example}."))
        }
        _ => (false, "Pending", format!("{current} of {subscribed} proxies that {that} run this configuration.")),
    }
}

#[cfg(test)]
mod tests;
