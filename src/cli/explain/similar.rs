//! Services whose names are like one that does not exist.

use leno_api::check::distance;
use leno_core::names::ServiceId;

/// Most names that are listed.
const LISTED_MAX: usize = 5;
/// Letters that may differ in a name that was probably meant.
const DISTANCE_MAX: usize = 2;

/// The services most like `host`, nearest first; names that are not like it at all are left out.
pub(super) fn similar<'s>(host: &str, services: impl Iterator<Item = &'s ServiceId>) -> Vec<&'s ServiceId> {
    let wanted = host.split('.').next().unwrap_or(host).to_ascii_lowercase();
    let near = services.filter_map(|id| {
        let name = id.name.to_ascii_lowercase();
        let within = !wanted.is_empty() && (name.contains(&wanted) || wanted.contains(&name));
        let distance = distance(&wanted, &name);
        (within || distance <= DISTANCE_MAX).then_some((distance, id))
    });
    let mut near: Vec<_> = near.collect();
    near.sort();
    near.into_iter().take(LISTED_MAX).map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_probably_meant_come_nearest_first() {
        let services = ["shop/payment", "shop/payments-db", "ops/payment", "shop/web"].map(|id| id.parse::<ServiceId>().unwrap());
        let found = |host| similar(host, services.iter()).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("paymnt.shop"), ["ops/payment", "shop/payment"]);
        assert_eq!(found("payment"), ["ops/payment", "shop/payment", "shop/payments-db"]);
        assert!(found("zebra").is_empty());
    }
}
