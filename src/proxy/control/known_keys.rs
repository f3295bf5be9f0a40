//! Token keys that the controller has lost: it restarted while the server of the keys (`jwksUri`) is down. What this proxy knows
//! of an issuer's keys stays good until the controller knows better.

use std::collections::BTreeMap;
use std::sync::Arc;

use leno_core::authorize::{Authorization, Guard, Issuer};
use leno_core::names::Name;
use leno_core::workload::Workload;

/// `new`, in which issuers without keys have those that `known` has of them.
pub(super) fn kept(mut new: Arc<Workload>, known: &Workload) -> Arc<Workload> {
    let keys: BTreeMap<&Name, &Name> =
        issuers(known).filter(|issuer| !issuer.keys.is_empty()).map(|issuer| (&issuer.issuer, &issuer.keys)).collect();
    if keys.is_empty() || issuers(&new).all(|issuer| !issuer.keys.is_empty()) {
        return new;
    }
    let workload = Arc::make_mut(&mut new);
    let guards = workload.inbound.iter_mut().map(|port| &mut port.guard);
    for guard in guards.chain([&mut workload.others]) {
        fill(guard, &keys);
    }
    new
}

fn issuers(workload: &Workload) -> impl Iterator<Item = &Arc<Issuer>> {
    let guards = workload.inbound.iter().map(|port| &port.guard).chain([&workload.others]);
    guards.flat_map(|guard| &guard.authorization.issuers)
}

fn fill(guard: &mut Guard, keys: &BTreeMap<&Name, &Name>) {
    if guard.authorization.issuers.iter().all(|issuer| !issuer.keys.is_empty()) {
        return;
    }
    let with_keys = |issuer: &Arc<Issuer>| match keys.get(&issuer.issuer) {
        Some(keys) if issuer.keys.is_empty() => Arc::new(Issuer { keys: Name::clone(keys), ..Issuer::clone(issuer) }),
        Some(_) | None => Arc::clone(issuer),
    };
    let Authorization { posture, policies, issuers } = &*guard.authorization;
    let issuers = issuers.iter().map(with_keys).collect();
    guard.authorization = Arc::new(Authorization { posture: *posture, policies: policies.clone(), issuers });
}

#[cfg(test)]
mod tests {
    use super::*;
    use leno_core::names::WorkloadId;

    fn workload(keys: &[(&str, &str)]) -> Workload {
        let issuer = |(issuer, keys): &(&str, &str)| {
            Arc::new(Issuer { issuer: (*issuer).into(), audiences: Vec::new(), headers: Vec::new(), keys: (*keys).into() })
        };
        let authorization = Authorization { issuers: keys.iter().map(issuer).collect(), ..Authorization::default() };
        let others = Guard { authorization: Arc::new(authorization), ..Guard::default() };
        Workload { others, ..Workload::new(WorkloadId::new("shop", "payment-1")) }
    }

    #[test]
    fn keys_that_the_controller_has_lost_are_kept_and_those_it_knows_are_taken() {
        let known = workload(&[("lost", "k1"), ("changed", "k2"), ("gone", "k3")]);
        let told = workload(&[("lost", ""), ("changed", "k4"), ("new", "")]);
        let want = workload(&[("lost", "k1"), ("changed", "k4"), ("new", "")]);
        assert_eq!(*kept(Arc::new(told), &known), want);
    }
}
