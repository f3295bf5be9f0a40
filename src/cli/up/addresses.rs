//! Loopback addresses: each service and each workload has one of its own, the same at every start.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use ipnet::Ipv4Net;

/// The range that addresses are taken from unless another is given: loopback, away from what systems use themselves.
pub const RANGE: &str = "127.64.0.0/10";

/// Where a service port is found if its own number cannot be had: a port below 1024 needs privileges.
const SECOND_CHOICE: u16 = 10_000;

/// The address in `range` that belongs to `name`. Two names may share one; ports keep them apart.
pub fn of(name: &str, range: Ipv4Net) -> Ipv4Addr {
    let hosts = u64::from(u32::MAX >> range.prefix_len().min(31)) + 1;
    // The first and the last are the network's own.
    let place = if hosts > 2 { fnv1a(name.as_bytes()) % (hosts - 2) + 1 } else { 0 };
    let first = u32::from(range.network());
    Ipv4Addr::from(first + u32::try_from(place).expect("a place within an IPv4 range"))
}

/// The 64-bit hash of Fowler, Noll and Vo (FNV-1a): the same everywhere, always.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The ports to try for a service's `port`, in order, before any free one. A number that an app of the folder listens on is
/// left to it: apps like to listen on all addresses.
pub fn service_ports(port: u16, apps: impl Fn(u16) -> bool) -> Vec<u16> {
    let second = port.checked_add(SECOND_CHOICE);
    [Some(port), second].into_iter().flatten().filter(|port| !apps(*port)).collect()
}

/// The first of `ports` that nobody listens on at `ip`; otherwise port 0, which takes a free one. Systems that have only one
/// loopback address get that.
pub fn free(ip: Ipv4Addr, ports: &[u16]) -> SocketAddr {
    for port in ports {
        // Without SO_REUSEPORT, so that another mesh on this machine is not shared a port with.
        match TcpListener::bind((ip, *port)) {
            Ok(_listener) => return SocketAddr::new(IpAddr::V4(ip), *port),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return (Ipv4Addr::LOCALHOST, 0).into(),
            Err(_taken) => {}
        }
    }
    match TcpListener::bind((ip, 0)) {
        Ok(_listener) => (ip, 0).into(),
        Err(_none) => (Ipv4Addr::LOCALHOST, 0).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_same_address_within_the_range_always() {
        let range: Ipv4Net = RANGE.parse().unwrap();
        assert_eq!(of("service shop/payment", range), of("service shop/payment", range));
        assert_ne!(of("service shop/payment", range), of("service shop/orders", range));
        for narrow in ["127.64.0.0/10", "127.9.9.0/24", "127.9.9.4/30", "127.9.9.4/31", "127.9.9.9/32"] {
            let range: Ipv4Net = narrow.parse().unwrap();
            for number in 0..200 {
                assert!(range.contains(&of(&number.to_string(), range)), "{narrow}");
            }
        }
    }

    #[test]
    fn a_service_gets_its_own_port_unless_an_app_has_it_or_it_is_taken() {
        assert_eq!(service_ports(80, |_| false), [80, 10_080]);
        assert_eq!(service_ports(8080, |port| port == 8080), [18_080]);
        assert_eq!(service_ports(60_000, |_| false), [60_000]);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let holder = TcpListener::bind(taken).unwrap();
        assert_eq!(free(Ipv4Addr::LOCALHOST, &[taken.port()]).port(), 0);
        drop(holder);
        assert_eq!(free(Ipv4Addr::LOCALHOST, &[taken.port()]), taken);
    }
}
