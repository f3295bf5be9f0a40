//! Arbitrary models, for the laws.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use leno_core::authorize::{Action, Authorization, Guard, Issuer, Mode, PathRule, Policy, Posture, Rule as Condition, Source};
use leno_core::balance::affinity::{Affinity, SessionCookie};
use leno_core::balance::key::HashKey;
use leno_core::balance::weighing::EndpointWeight;
use leno_core::balance::{Algorithm, Balancing};
use leno_core::breaker::CircuitBreaker;
use leno_core::concurrency::AdaptiveConcurrency;
use leno_core::cors::Cors;
use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId, Origination};
use leno_core::fault::{Abort, AbortStatus, Delay, Fault};
use leno_core::filters::{FieldChanges, Filters, PathChange, Redirect, Rewrite, Scheme};
use leno_core::health::{HealthCheck, HttpProbe, Probe};
use leno_core::limits::Limits;
use leno_core::matching::{FieldMatch, Match, PathMatch, Pattern, ValueMatch};
use leno_core::mirror::Mirror;
use leno_core::names::{Identity, Name, ServiceId, WorkloadId};
use leno_core::outlier::{OutlierDetection, SuccessRate};
use leno_core::percentage::Percentage;
use leno_core::rate_limit::{RateKey, RateLimit};
use leno_core::resilience::Resilience;
use leno_core::retry::{Backoff, Reason, Retry};
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::service::{Protocol, Service, ServicePort};
use leno_core::trust::{Held, Trust};
use leno_core::weight::Weight;
use leno_core::workload::{Egress, InboundPort, Workload};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn service() -> impl Strategy<Value = Service> {
    let port = (any::<u16>(), protocol()).prop_map(|(port, protocol)| ServicePort { port, protocol });
    (service_id(), vec(any::<IpAddr>(), 0..3), vec(text(), 0..3), vec(port, 0..4), routes(), any::<bool>())
        .prop_map(|(id, vips, hosts, ports, routes, outside)| Service { id, vips, hosts, ports, routes, outside })
}

pub(crate) fn endpoints() -> impl Strategy<Value = Endpoints> {
    let weight = prop_oneof![Just(EndpointWeight::USUAL), (0u32..=1000).prop_map(|weight| EndpointWeight::new(weight).unwrap())];
    let (identity, zone) = (option::of(identity().prop_map(Arc::new)), option::of(version()));
    let endpoint = (any::<SocketAddr>(), text(), vec(version(), 0..3), identity, weight, zone);
    let endpoint = endpoint.prop_map(|(address, workload, versions, identity, weight, zone)| Endpoint {
        address,
        workload,
        versions,
        identity,
        weight,
        zone,
    });
    let id = (service_id(), any::<u16>()).prop_map(|(service, port)| EndpointsId::new(service, port));
    let roots = vec(vec(any::<u8>(), 0..40).prop_map(Arc::from), 0..3);
    let origination = (text(), roots).prop_map(|(server_name, roots)| Arc::new(Origination { server_name, roots }));
    let resilience = option::of(resilience().prop_map(Arc::new));
    let balancing = option::of(balancing().prop_map(Arc::new));
    (id, vec(endpoint, 0..20), option::of(origination), resilience, balancing)
        .prop_map(|(id, endpoints, origination, resilience, balancing)| Endpoints { id, endpoints, origination, resilience, balancing })
}

fn resilience() -> impl Strategy<Value = Resilience> {
    let time = any::<Duration>;
    let rate = any::<(u32, u32, u32)>().prop_map(|(min_requests, min_endpoints, deviation_percent)| SuccessRate {
        min_requests,
        min_endpoints,
        deviation_percent,
    });
    let outliers = (any::<(u32, u32)>(), time(), time(), time(), 0u8..=100, option::of(rate));
    let outliers = outliers.prop_map(|(counts, interval, base, most, percent, success_rate)| OutlierDetection {
        consecutive_errors: counts.0,
        consecutive_gateway_errors: counts.1,
        interval,
        base_ejection_time: base,
        max_ejection_time: most,
        max_ejection_percent: percent,
        success_rate,
    });
    let breaker = (any::<(u32, u32, u32)>(), time()).prop_map(|(numbers, open_for)| CircuitBreaker {
        failure_threshold: numbers.0,
        success_threshold: numbers.1,
        open_for,
        half_open_requests: numbers.2,
    });
    let number = || option::of(any::<u32>());
    let limits = (number(), number(), number(), number(), option::of(time()), option::of(time()));
    let limits = limits.prop_map(|(connections, pending, requests, retries, connect_timeout, idle_timeout)| Limits {
        connections,
        pending,
        requests,
        retries,
        connect_timeout,
        idle_timeout,
    });
    let all = (option::of(health_check()), option::of(outliers), option::of(breaker), limits, 0u8..=100);
    all.prop_map(|(health_check, outliers, breaker, limits, panic_percent)| Resilience {
        health_check,
        outliers,
        breaker,
        limits,
        panic_percent,
    })
}

fn health_check() -> impl Strategy<Value = HealthCheck> {
    let http = (text(), text(), option::of(any::<u16>()), any::<bool>(), vec(any::<u16>(), 0..3))
        .prop_map(|(path, host, port, is_http2, expected)| Probe::Http(HttpProbe { path, host, port, is_http2, expected }));
    let probe = prop_oneof![http, text().prop_map(|service| Probe::Grpc { service }), Just(Probe::Tcp)];
    (probe, any::<Duration>(), any::<Duration>(), any::<u32>(), any::<u32>()).prop_map(
        |(probe, interval, timeout, unhealthy_threshold, healthy_threshold)| HealthCheck {
            probe,
            interval,
            timeout,
            unhealthy_threshold,
            healthy_threshold,
        },
    )
}

pub(crate) fn workload() -> impl Strategy<Value = Workload> {
    let concurrency = any::<(u32, u32, u32)>().prop_map(|(min_limit, max_limit, tolerance_percent)| AdaptiveConcurrency {
        min_limit,
        max_limit,
        tolerance_percent,
    });
    let inbound = (any::<u16>(), protocol(), service_id(), option::of(version()), guard(), option::of(concurrency));
    let inbound = inbound.prop_map(|(port, protocol, service, version, guard, concurrency)| InboundPort {
        port,
        protocol,
        service,
        version,
        guard,
        concurrency,
    });
    let egress = prop::sample::select(vec![Egress::Allow, Egress::RegisteredOnly]);
    let outside = (egress, vec(any::<u16>(), 0..3), vec(network(), 0..2), option::of(text()));
    (service_id(), vec(inbound, 0..4), guard(), outside).prop_map(|(id, inbound, others, (egress, outside_ports, inside, zone))| Workload {
        id: WorkloadId::new(id.namespace, id.name),
        inbound,
        others,
        egress,
        outside_ports,
        inside,
        zone,
    })
}

pub(crate) fn trust() -> impl Strategy<Value = Trust> {
    let bytes = || vec(any::<u8>(), 0..40);
    (text(), vec(text(), 0..2), vec(bytes().prop_map(Arc::from), 0..3), bytes()).prop_map(|(trust_domain, also, roots, issuer)| Trust {
        trust_domain,
        also,
        roots,
        issuer,
    })
}

pub(crate) fn held() -> impl Strategy<Value = Held> {
    (identity(), text(), any::<i64>(), vec(any::<u8>(), 0..40)).prop_map(|(identity, serial, not_after, issuer)| Held {
        identity,
        serial,
        not_after,
        issuer,
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    let part = || "[a-z][a-z0-9-]{0,3}".prop_map(Name::from);
    (part(), part(), part()).prop_map(|(trust_domain, namespace, service_account)| Identity { trust_domain, namespace, service_account })
}

fn guard() -> impl Strategy<Value = Guard> {
    let mode = prop::sample::select(vec![Mode::Permissive, Mode::Strict, Mode::Disabled]);
    let posture = prop::sample::select(vec![Posture::Allow, Posture::Deny]);
    let policies = vec(policy().prop_map(Arc::new), 0..3);
    (mode, posture, policies, vec(issuer().prop_map(Arc::new), 0..2)).prop_map(|(mode, posture, policies, issuers)| Guard {
        mode,
        authorization: Arc::new(Authorization { posture, policies, issuers }),
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let action = prop::sample::select(vec![Action::Allow, Action::Deny, Action::Audit]);
    (version(), action, vec(condition(), 0..2)).prop_map(|(name, action, rules)| Policy { name, action, rules })
}

fn condition() -> impl Strategy<Value = Condition> {
    let peer = (text(), option::of(text()), option::of(text()));
    let peer = peer.prop_map(|(trust_domain, namespace, service_account)| Source::Peer { trust_domain, namespace, service_account });
    let block = network().prop_map(Source::Block);
    let path = prop_oneof![text().prop_map(PathRule::Exact), text().prop_map(PathRule::Below)];
    let claims = prop::collection::btree_map(text(), vec(text(), 0..2), 0..2);
    (vec(prop_oneof![peer, block], 0..2), vec(any::<u16>(), 0..2), vec(text(), 0..2), vec(path, 0..2), claims)
        .prop_map(|(from, ports, methods, paths, claims)| Condition { from, ports, methods, paths, claims })
}

fn network() -> impl Strategy<Value = ipnet::IpNet> {
    (any::<IpAddr>(), 0u8..=32).prop_map(|(ip, bits)| ipnet::IpNet::new(ip, bits).unwrap())
}

fn issuer() -> impl Strategy<Value = Issuer> {
    (version(), vec(text(), 0..2), vec(text(), 0..2), text()).prop_map(|(issuer, audiences, headers, keys)| Issuer {
        issuer,
        audiences,
        headers,
        keys,
    })
}

fn service_id() -> impl Strategy<Value = ServiceId> {
    ("[a-z][a-z0-9-]{0,8}", "[a-z][a-z0-9-]{0,8}").prop_map(|(namespace, name)| ServiceId::new(namespace, name))
}

fn text() -> impl Strategy<Value = Name> {
    any::<String>().prop_map(Name::from)
}

/// Few names, so that tables share them.
fn version() -> impl Strategy<Value = Name> {
    "v[1-4]".prop_map(Name::from)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    use Protocol::{Detect, Grpc, Http, Http2, Tcp, Tls};
    prop::sample::select(vec![Detect, Http, Http2, Grpc, Tls, Tcp])
}

fn balancing() -> impl Strategy<Value = Balancing> {
    let cookie = (text(), option::of(any::<Duration>()), text()).prop_map(|(name, ttl, path)| SessionCookie { name, ttl, path });
    let affinity = option::of(prop_oneof![cookie.prop_map(Affinity::Cookie), text().prop_map(Affinity::Header)]);
    (algorithm(), option::of(any::<Duration>()), any::<bool>(), affinity)
        .prop_map(|(algorithm, slow_start, prefers_zone, affinity)| Balancing { algorithm, slow_start, prefers_zone, affinity })
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    use Algorithm::{LeastRequest, PeakEwma, Random, RoundRobin, WeightedRandom};
    let key = prop_oneof![
        text().prop_map(HashKey::Header),
        text().prop_map(HashKey::Cookie),
        text().prop_map(HashKey::Query),
        Just(HashKey::SourceIp),
    ];
    let plain = prop::sample::select(vec![LeastRequest, RoundRobin, Random, WeightedRandom, PeakEwma]);
    prop_oneof![plain, key.prop_map(Algorithm::ConsistentHash)]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    "[a-z]{1,4}(\\.\\*|\\[0-9\\]\\+)?".prop_map(|source| Pattern::new(&source).unwrap())
}

fn field() -> impl Strategy<Value = FieldMatch> {
    let value = prop_oneof![
        text().prop_map(ValueMatch::Exact),
        pattern().prop_map(ValueMatch::Regex),
        any::<bool>().prop_map(ValueMatch::Present),
    ];
    (text(), value).prop_map(|(name, value)| FieldMatch { name, value })
}

fn conditions() -> impl Strategy<Value = Match> {
    let path = prop_oneof![text().prop_map(PathMatch::Exact), text().prop_map(PathMatch::Prefix), pattern().prop_map(PathMatch::Regex),];
    (option::of(path), option::of(text()), vec(field(), 0..3), vec(field(), 0..3)).prop_map(|(path, method, headers, query)| Match {
        path,
        method,
        headers,
        query,
    })
}

fn destination() -> impl Strategy<Value = Destination> {
    let target = prop_oneof![
        version().prop_map(Target::Version),
        (service_id(), option::of(any::<u16>())).prop_map(|(service, port)| Target::Service { service, port }),
        text().prop_map(Target::Missing),
    ];
    (target, 0u32..=1_000_000).prop_map(|(target, weight)| Destination { target, weight: Weight::new(weight).unwrap() })
}

fn mirror() -> impl Strategy<Value = Mirror> {
    (destination(), 0u32..=1_000_000).prop_map(|(destination, millionths)| Mirror {
        target: destination.target,
        percentage: Percentage::from_millionths(millionths).unwrap(),
    })
}

fn retry() -> impl Strategy<Value = Arc<Retry>> {
    let named: Vec<Reason> = Reason::ALL.into_iter().filter(|it| !matches!(it, Reason::Stale | Reason::Unprocessed)).collect();
    let on = vec(select(named), 0..12).prop_map(|on| on.into_iter().collect());
    let times = (option::of(any::<Duration>()), any::<Duration>(), any::<Duration>());
    (0..=Retry::ATTEMPTS_MAX, on, vec(text(), 0..3), times).prop_map(|(attempts, on, methods, (per_try_timeout, base, max))| {
        Arc::new(Retry { attempts, per_try_timeout, on, methods, backoff: Backoff { base, max } })
    })
}

fn rate_limit() -> impl Strategy<Value = RateLimit> {
    let key = prop_oneof![Just(RateKey::Route), Just(RateKey::Source), text().prop_map(RateKey::Header)];
    (any::<u32>(), any::<Duration>(), any::<u32>(), key).prop_map(|(requests, per, burst, key)| RateLimit { requests, per, burst, key })
}

fn rule() -> impl Strategy<Value = Rule> {
    let filters = option::of(filters().prop_map(Arc::new));
    let times = (option::of(any::<Duration>()), option::of(any::<Duration>()));
    let base = (text(), vec(conditions(), 0..3), vec(destination(), 0..3), times);
    (base, (vec(mirror(), 0..2), option::of(rate_limit())), filters, option::of(retry())).prop_map(
        |((name, matches, destinations, (timeout, idle_timeout)), (mirrors, rate_limit), filters, retry)| Rule {
            name,
            matches,
            destinations,
            timeout,
            mirrors,
            rate_limit,
            filters,
            idle_timeout,
            retry,
        },
    )
}

fn filters() -> impl Strategy<Value = Filters> {
    let path = || option::of(prop_oneof![text().prop_map(PathChange::Prefix), text().prop_map(PathChange::Full)]);
    let rewrite = (path(), option::of(text())).prop_map(|(path, host)| Rewrite { path, host });
    let scheme = option::of(prop::sample::select(vec![Scheme::Http, Scheme::Https]));
    let redirect = (scheme, option::of(text()), option::of(any::<u16>()), path(), any::<u16>());
    let redirect = redirect.prop_map(|(scheme, host, port, path, status)| Redirect { scheme, host, port, path, status });
    (field_changes(), field_changes(), option::of(rewrite), option::of(redirect), option::of(fault()), option::of(cors()))
        .prop_map(|(request, response, rewrite, redirect, fault, cors)| Filters { request, response, rewrite, redirect, fault, cors })
}

fn cors() -> impl Strategy<Value = Cors> {
    let names = || vec(text(), 0..2);
    (names(), names(), names(), names(), option::of(any::<Duration>()), any::<bool>()).prop_map(
        |(origins, methods, headers, expose, max_age, credentials)| Cors { origins, methods, headers, expose, max_age, credentials },
    )
}

fn fault() -> impl Strategy<Value = Fault> {
    let share = || (0u32..=1_000_000).prop_map(|millionths| Percentage::from_millionths(millionths).unwrap());
    let delay = (any::<Duration>(), share()).prop_map(|(duration, percentage)| Delay { duration, percentage });
    let status = prop_oneof![any::<u16>().prop_map(AbortStatus::Http), any::<u16>().prop_map(AbortStatus::Grpc)];
    let abort = (status, share()).prop_map(|(status, percentage)| Abort { status, percentage });
    (option::of(delay), option::of(abort)).prop_map(|(delay, abort)| Fault { delay, abort })
}

fn field_changes() -> impl Strategy<Value = FieldChanges> {
    let fields = || vec((text(), text()), 0..2);
    (fields(), fields(), vec(text(), 0..2)).prop_map(|(set, add, remove)| FieldChanges { set, add, remove })
}

fn routes() -> impl Strategy<Value = RouteTable> {
    let table = (text(), option::of(any::<Duration>()), vec(rule(), 0..4), option::of(retry()));
    let table = table.prop_map(|(policy, timeout, rules, retry)| RouteTable::new(policy, timeout, rules).with_retry(retry));
    prop_oneof![Just(RouteTable::default()), table]
}
