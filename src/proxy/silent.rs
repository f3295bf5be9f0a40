//! Clients that wait for the server to speak, remembered by their addresses.
//!
//! Where plain text is let in beside proxies of the mesh, silence may mean either: a client of a server that speaks first, or a proxy
//! whose hello is still on its way. The first time detection's whole wait tells. An address that was silent and no proxy then will
//! hardly be one a moment later, so its next connections wait only a little; one hello of a proxy from there ends that.
//!
//! Pure: the caller brings the time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

/// How long an address is remembered after it was silent: shorter than addresses rest before other pods get them.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Addresses remembered at once.
const ADDRESSES_MAX: usize = 1024;
/// How long one that is remembered is still waited for: a proxy says hello as soon as it is connected.
const WAIT: Duration = Duration::from_millis(20);

/// Addresses whose clients were silent lately. Single-threaded.
#[derive(Debug, Default)]
pub struct SilentPeers(RefCell<HashMap<IpAddr, Instant, RandomState>>);

impl SilentPeers {
    /// How long the first bytes from `address` are waited for, where `wait` is for those nothing is known of.
    pub fn wait(&self, address: IpAddr, wait: Duration, now: Instant) -> Duration {
        match self.0.borrow().get(&address) {
            Some(at) if now.saturating_duration_since(*at) < REMEMBERED => wait.min(WAIT),
            Some(_) | None => wait,
        }
    }

    /// A client at `address` was silent.
    pub fn was_silent(&self, address: IpAddr, now: Instant) {
        let mut known = self.0.borrow_mut();
        if known.len() >= ADDRESSES_MAX && !known.contains_key(&address) {
            known.retain(|_, at| now.saturating_duration_since(*at) < REMEMBERED);
        }
        if known.len() < ADDRESSES_MAX || known.contains_key(&address) {
            known.insert(address, now);
        }
    }

    /// A proxy of the mesh has said hello from `address`.
    pub fn said_hello(&self, address: IpAddr) {
        let mut known = self.0.borrow_mut();
        if !known.is_empty() {
            known.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(300);

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn who_was_silent_is_waited_for_less_until_a_hello_or_a_minute_later() {
        let (peers, now) = (SilentPeers::default(), Instant::now());
        assert_eq!(peers.wait(address(1), LONG, now), LONG);
        peers.was_silent(address(1), now);
        assert_eq!(peers.wait(address(1), LONG, now), WAIT);
        assert_eq!(peers.wait(address(1), WAIT / 2, now), WAIT / 2);
        assert_eq!(peers.wait(address(2), LONG, now), LONG);
        assert_eq!(peers.wait(address(1), LONG, now + REMEMBERED), LONG);
        peers.said_hello(address(1));
        assert_eq!(peers.wait(address(1), LONG, now), LONG);
    }

    #[test]
    fn no_more_addresses_are_remembered_than_the_bound_and_old_ones_make_room() {
        let (peers, now) = (SilentPeers::default(), Instant::now());
        let many = u32::try_from(ADDRESSES_MAX).unwrap();
        for number in 0..many + 10 {
            peers.was_silent(address(number), now);
        }
        assert_eq!(peers.0.borrow().len(), ADDRESSES_MAX);
        assert_eq!(peers.wait(address(many + 5), LONG, now), LONG);
        peers.was_silent(address(many + 5), now + REMEMBERED);
        assert_eq!(peers.0.borrow().len(), 1);
        assert_eq!(peers.wait(address(many + 5), LONG, now + REMEMBERED), WAIT);
    }
}
