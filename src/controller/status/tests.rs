//! Tables over [`status_of`].

use leno_core::names::ServiceId;
use leno_translate::EndpointCounts as Counts;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn report(accepted: bool) -> Report {
    let condition = |kind, holds| leno_translate::Condition { kind, holds, reason: "Because", message: "So it is.".into() };
    Report {
        generation: Some(3),
        service: Some(ServiceId::new("shop", "payment")),
        endpoints: Some(Counts { ready: 2, total: 3 }),
        versions: vec![("v1".into(), 2)],
        conditions: vec![condition(ACCEPTED, accepted), condition("ResolvedRefs", true)],
    }
}

fn standing(subscribed: usize, current: usize) -> Standing {
    let current_since = (subscribed == current && current > 0).then(|| at(5));
    Standing { subscribed, current, current_since, ..Standing::default() }
}

fn condition<'s>(status: &'s Status, kind: &str) -> &'s Condition {
    status.conditions().iter().find(|condition| condition.type_ == kind).unwrap()
}

#[test]
fn programmed_says_how_far_the_proxies_are() {
    let refused = Standing { refused: 1, refusal: Some("shop/web-1: no".into()), ..standing(2, 1) };
    let cases = [
        (false, standing(2, 2), "False", "NotAccepted", "see Accepted"),
        (true, standing(0, 0), "True", "NoProxies", "when it does"),
        (true, standing(2, 2), "True", "Programmed", "2"),
        (true, standing(2, 1), "False", "Pending", "1 of 2"),
        (true, refused, "False", "Refused", "shop/web-1: no"),
    ];
    for (accepted, standing, holds, reason, words) in cases {
        let status = status_of(Subject::TrafficPolicy, &report(accepted), Some(&standing), &[], at(9));
        let programmed = condition(&status, PROGRAMMED);
        assert_eq!((programmed.status.as_str(), programmed.reason.as_str()), (holds, reason));
        assert!(programmed.message.contains(words), "{}", programmed.message);
        assert_eq!(programmed.observed_generation, Some(3));
    }
}

#[test]
fn a_mesh_service_tells_its_service_endpoints_versions_and_proxies() {
    let Status::MeshService(status) = status_of(Subject::MeshService, &report(true), Some(&standing(4, 4)), &[], at(9)) else {
        panic!("another kind")
    };
    assert_eq!((status.service.as_deref(), status.observed_generation), (Some("payment"), Some(3)));
    assert_eq!(status.endpoints, Some(EndpointCounts { ready: 2, total: 3 }));
    assert_eq!(status.versions, [VersionStatus { name: "v1".into(), endpoints: 2 }]);
    assert_eq!(status.proxies, Some(ProxyStatus { subscribed: 4, current: 4, since: Some(Time(at(5))) }));
}

#[test]
fn a_condition_that_stays_keeps_its_time_and_one_that_turns_gets_a_new_one() {
    let first = status_of(Subject::TrafficPolicy, &report(true), Some(&standing(2, 1)), &[], at(1));
    let second = status_of(Subject::TrafficPolicy, &report(true), Some(&standing(2, 2)), first.conditions(), at(9));
    assert_eq!(condition(&second, ACCEPTED).last_transition_time, Time(at(1)));
    assert_eq!(condition(&second, PROGRAMMED).last_transition_time, Time(at(9)));
    let third = status_of(Subject::TrafficPolicy, &report(true), Some(&standing(2, 2)), second.conditions(), at(20));
    assert_eq!(third, second, "nothing changed, so nothing is written");
}

#[test]
fn what_is_written_reads_back_equal() {
    let now = at(1) + jiff::SignedDuration::from_millis(123);
    let Status::MeshService(status) = status_of(Subject::MeshService, &report(true), Some(&standing(1, 1)), &[], now) else {
        panic!("another kind")
    };
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<MeshServiceStatus>(&json).unwrap(), *status);
}
