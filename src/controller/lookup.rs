//! What host names outside the cluster mean (`MeshService.spec.external`): looked up where the publisher wants it, and handed to it as
//! events.
//!
//! Every replica looks up for itself, by the resolver of its pod. What was found stays while DNS is down: that is the
//! translator's part, which is told of every failure only to say so.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use leno_core::names::Name;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::schedule::Schedule;
use crate::source::SourceEvent;

/// How long an answer holds. What DNS itself says of it is not visible through the system's resolver.
const REFRESH: Duration = Duration::from_secs(30);
/// How long a lookup may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lookups at a time.
const LOOKUPS_MAX: usize = 16;
/// Addresses taken of one host.
const ADDRESSES_MAX: usize = 64;

/// Looks up what `wanted` names, for as long as somebody listens to `events`.
pub async fn run(mut wanted: watch::Receiver<BTreeSet<Name>>, events: mpsc::Sender<SourceEvent>) {
    let (mut schedule, mut lookups) = (Schedule::new(REFRESH), JoinSet::new());
    schedule.want(&wanted.borrow_and_update(), Instant::now());
    loop {
        let room = LOOKUPS_MAX - lookups.len();
        for host in schedule.take_due(Instant::now(), room) {
            lookups.spawn(async move {
                let found = look_up(&host).await;
                (host, found)
            });
        }
        let next = schedule.next().filter(|_| lookups.len() < LOOKUPS_MAX);
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return; // The publisher has ended.
                }
                schedule.want(&wanted.borrow_and_update(), Instant::now());
            }
            Some(Ok((host, found))) = lookups.join_next(), if !lookups.is_empty() => {
                schedule.done(&host, found.is_ok(), Instant::now());
                if let Err(error) = &found {
                    tracing::warn!(%host, %error, "cannot look up a host outside the cluster; the addresses that are known stay");
                }
                if events.send(SourceEvent::Addresses(host, found)).await.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => (),
        }
    }
}

async fn look_up(host: &str) -> Result<Vec<IpAddr>, String> {
    // The final dot keeps the search path of the pod out of it: the name is whole.
    let name = if host.contains('.') { format!("{host}.") } else { host.to_owned() };
    let found = match timeout(PATIENCE, tokio::net::lookup_host((&*name, 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip().to_canonical()).collect(),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("DNS gave no answer within {} seconds", PATIENCE.as_secs())),
    };
    let addresses = reachable(found, has_route);
    if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok(addresses) }
}

/// Each address once, ordered, and of a bounded number; where only some have a route, those: a cluster without IPv6 is told the
/// IPv6 addresses of servers all the same.
fn reachable(found: BTreeSet<IpAddr>, has_route: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    let routed: Vec<IpAddr> = found.iter().copied().filter(has_route).collect();
    let addresses = if routed.is_empty() { found.into_iter().collect() } else { routed };
    addresses.into_iter().take(ADDRESSES_MAX).collect()
}

/// Whether this machine knows a way to `address`. Nothing is sent.
fn has_route(address: &IpAddr) -> bool {
    let own = match address {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    UdpSocket::bind((own, 0)).and_then(|socket| socket.connect((*address, 9))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_without_a_route_are_left_out_unless_there_is_no_other() {
        let both = addresses(&["2001:db8::1", "192.0.2.2", "192.0.2.1"]);
        assert_eq!(reachable(both.clone(), IpAddr::is_ipv4), Vec::from_iter(addresses(&["192.0.2.1", "192.0.2.2"])));
        assert_eq!(reachable(both.clone(), |_| false), Vec::from_iter(both));
        let many = (0..1000).map(|number| IpAddr::from(Ipv4Addr::from_bits(number))).collect();
        assert_eq!(reachable(many, |_| true).len(), ADDRESSES_MAX);
    }

    #[tokio::test]
    async fn what_is_wanted_is_looked_up_and_a_name_that_means_nothing_is_told_in_words() {
        let (want, wanted) = watch::channel(BTreeSet::from([Name::from("localhost")]));
        let (sender, mut events) = mpsc::channel(8);
        let task = tokio::spawn(run(wanted, sender));
        match events.recv().await {
            Some(SourceEvent::Addresses(host, Ok(found))) => {
                assert!(&*host == "localhost" && found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
            }
            other => panic!("{other:?}"),
        }
        want.send_replace(BTreeSet::from([Name::from("no-such-host.invalid")]));
        match events.recv().await {
            Some(SourceEvent::Addresses(host, Err(error))) => assert!(&*host == "no-such-host.invalid" && !error.is_empty()),
            other => panic!("{other:?}"),
        }
        drop(want);
        task.await.unwrap();
    }
}
