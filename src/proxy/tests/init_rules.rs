//! The redirect rules at work: a real kernel, two network namespaces joined by a cable, real connections.
//!
//! Needs root, `ip`, `unshare` and `nft`. Without root every test says that it is skipped; as root, a
//! missing tool fails it. The namespaces live as long as a child process that ends with this one, so
//! nothing stays behind.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail by panicking, like the test itself")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leno_proxy::init::{self, Family, InitError, Redirect};
use leno_proxy::original_dst::original_destination;
use rustix::thread::{LinkNameSpaceType, Uid, move_into_link_name_space, set_thread_res_uid};
use socket2::SockRef;

const ROOT: u32 = 0;
const APP: u32 = 1000;
const PROXY: u32 = 15100;

/// Only ever waited for when a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// The addresses of one IP family.
struct Addresses {
    loopback: IpAddr,
    pod: IpAddr,
    peer: IpAddr,
    /// An address of the peer inside the excluded network.
    excluded: IpAddr,
    /// An address that no machine has: only a redirected connection can succeed.
    nowhere: IpAddr,
}

const V4: Addresses = Addresses {
    loopback: IpAddr::V4(Ipv4Addr::LOCALHOST),
    pod: IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)),
    peer: IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)),
    excluded: IpAddr::V4(Ipv4Addr::new(10, 78, 129, 1)),
    nowhere: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 80)),
};

const V6: Addresses = Addresses {
    loopback: IpAddr::V6(Ipv6Addr::LOCALHOST),
    pod: IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2)),
    peer: IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)),
    excluded: IpAddr::V6(Ipv6Addr::new(0xfd78, 0x8001, 0, 0, 0, 0, 0, 1)),
    nowhere: IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x80)),
};

fn redirect() -> Redirect {
    Redirect {
        exclude_inbound_ports: vec![9090],
        exclude_outbound_ports: vec![5432],
        exclude_outbound_cidrs: vec!["10.78.128.0/17".parse().unwrap(), "fd78:8000::/17".parse().unwrap()],
        ..Redirect::default()
    }
}

#[test]
fn connections_of_the_app_arrive_at_the_outbound_port_with_their_destination() {
    let Some(cable) = Cable::with_rules(&redirect()) else { return };
    for at in [V4, V6] {
        let outbound = cable.pod.listen(at.loopback, 15101);
        let _app = cable.pod.listen(at.pod, 8080);
        let cases = [
            ("a service", APP, SocketAddr::new(at.nowhere, 80)),
            ("a service, from root", ROOT, SocketAddr::new(at.nowhere, 443)),
            ("a peer that listens", APP, SocketAddr::new(at.peer, 80)),
            ("beside the excluded network", APP, SocketAddr::new(beside(at.excluded), 80)),
            ("its own pod", APP, SocketAddr::new(at.pod, 8080)),
            ("an excluded inbound port elsewhere", APP, SocketAddr::new(at.nowhere, 9090)),
        ];
        for (name, uid, destination) in cases {
            let accepted = cable.pod.dial(uid, destination, &outbound);
            assert_eq!(original_destination(&accepted).unwrap(), Some(destination), "{name}");
        }
    }
}

#[test]
fn what_is_excluded_leaves_the_pod_as_it_is() {
    let Some(cable) = Cable::with_rules(&redirect()) else { return };
    for at in [V4, V6] {
        let app = cable.pod.listen(at.pod, 8080);
        let app_on_loopback = cable.pod.listen(at.loopback, 8080);
        let peer = cable.peer.listen(at.peer, 80);
        let database = cable.peer.listen(at.peer, 5432);
        let excluded = cable.peer.listen(at.excluded, 80);
        let cases = [
            ("the proxy to a peer", PROXY, &peer),
            ("the proxy to its own pod", PROXY, &app),
            ("the proxy to loopback", PROXY, &app_on_loopback),
            ("the app to loopback", APP, &app_on_loopback),
            ("the app to an excluded port", APP, &database),
            ("the app to an excluded network", APP, &excluded),
        ];
        for (name, uid, listener) in cases {
            let accepted = cable.pod.dial(uid, listener.local_addr().unwrap(), listener);
            assert_eq!(original_destination(&accepted).unwrap(), None, "{name}");
        }
    }
}

#[test]
fn connections_to_the_pod_arrive_at_the_inbound_port_with_their_destination() {
    let Some(cable) = Cable::with_rules(&redirect()) else { return };
    // Dual-stack, as the proxy may listen: IPv4 peers appear here as mapped IPv6 addresses.
    let inbound = cable.pod.listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 15106);
    for at in [V4, V6] {
        let _app = cable.pod.listen(at.pod, 8080);
        for port in [8080, 80, 5432] {
            let destination = SocketAddr::new(at.pod, port);
            let accepted = cable.peer.dial(APP, destination, &inbound);
            assert_eq!(original_destination(&accepted).unwrap(), Some(destination));
        }
    }
}

#[test]
fn excluded_and_admin_ports_of_the_pod_are_reached_directly() {
    let Some(cable) = Cable::with_rules(&redirect()) else { return };
    for at in [V4, V6] {
        for port in [9090, 15120] {
            let listener = cable.pod.listen(at.pod, port);
            let accepted = cable.peer.dial(APP, SocketAddr::new(at.pod, port), &listener);
            assert_eq!(original_destination(&accepted).unwrap(), None, "port {port}");
        }
    }
}

#[test]
fn a_connection_dialled_straight_to_a_port_of_the_proxy_is_told_apart() {
    let Some(cable) = Cable::with_rules(&redirect()) else { return };
    for at in [V4, V6] {
        let inbound = cable.pod.listen(at.pod, 15106);
        let accepted = cable.peer.dial(APP, SocketAddr::new(at.pod, 15106), &inbound);
        assert_eq!(original_destination(&accepted).unwrap(), None);

        let _outbound = cable.pod.listen(at.loopback, 15101);
        let refused = cable.peer.run_as(APP, || TcpStream::connect_timeout(&SocketAddr::new(at.pod, 15101), PATIENCE));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn udp_is_left_alone_both_ways() {
    let Some(cable) = Cable::with_rules(&redirect()) else { return };
    for at in [V4, V6] {
        for (from, sender, to, receiver) in [(&cable.pod, at.pod, &cable.peer, at.peer), (&cable.peer, at.peer, &cable.pod, at.pod)] {
            let sender = from.run_as(APP, || UdpSocket::bind((sender, 0))).unwrap();
            let receiver = to.run_as(ROOT, || UdpSocket::bind((receiver, 53))).unwrap();
            receiver.set_read_timeout(Some(PATIENCE)).unwrap();
            sender.send_to(b"question", receiver.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 16];
            let (len, seen) = receiver.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], seen), (&b"question"[..], sender.local_addr().unwrap()));
        }
    }
}

#[test]
fn excluding_every_ipv4_address_leaves_ipv6_redirected() {
    let all_of_ipv4 = Redirect { exclude_outbound_cidrs: vec!["0.0.0.0/0".parse().unwrap()], ..Redirect::default() };
    let Some(cable) = Cable::with_rules(&all_of_ipv4) else { return };
    let peer = cable.peer.listen(V4.peer, 80);
    let accepted = cable.pod.dial(APP, SocketAddr::new(V4.peer, 80), &peer);
    assert_eq!(original_destination(&accepted).unwrap(), None);

    let outbound = cable.pod.listen(V6.loopback, 15101);
    let accepted = cable.pod.dial(APP, SocketAddr::new(V6.nowhere, 80), &outbound);
    assert_eq!(original_destination(&accepted).unwrap(), Some(SocketAddr::new(V6.nowhere, 80)));
}

#[test]
fn a_kernel_without_ipv6_redirects_ipv4() {
    let Some(cable) = Cable::new() else { return };
    for _ in 0..2 {
        cable.pod.run_as(ROOT, || init::apply_for(&redirect(), Family::Ipv4)).unwrap();
    }
    let listing = cable.pod.command("nft", "list table ip leno");
    assert_eq!(rule_lines(&listing).len(), 11, "the rules for IPv6 networks are left out: {listing}");

    let outbound = cable.pod.listen(V4.loopback, 15101);
    let accepted = cable.pod.dial(APP, SocketAddr::new(V4.nowhere, 80), &outbound);
    assert_eq!(original_destination(&accepted).unwrap(), Some(SocketAddr::new(V4.nowhere, 80)));
    for address in [V4.excluded, V6.peer] {
        let peer = cable.peer.listen(address, 80);
        let accepted = cable.pod.dial(APP, SocketAddr::new(address, 80), &peer);
        assert_eq!(original_destination(&accepted).unwrap(), None);
    }
}

#[test]
fn the_table_reads_as_intended_and_applying_again_gives_the_same() {
    let Some(cable) = Cable::with_rules(&redirect()) else { return };
    let first = cable.pod.table();
    assert_eq!(
        rule_lines(&first),
        [
            r#"iif "lo" return comment "sent by this pod""#,
            r#"tcp dport 15101 return comment "port of the proxy""#,
            r#"tcp dport 15106 return comment "port of the proxy""#,
            r#"tcp dport 15120 return comment "port of the proxy""#,
            r#"tcp dport 9090 return comment "excluded port""#,
            r#"meta l4proto tcp redirect to :15106 comment "inbound""#,
            r#"meta skuid 15100 return comment "sent by the proxy""#,
            r#"ip daddr 127.0.0.0/8 return comment "loopback""#,
            r#"ip6 daddr ::1 return comment "loopback""#,
            r#"ip daddr 10.78.128.0/17 return comment "excluded network""#,
            r#"ip6 daddr fd78:8000::/17 return comment "excluded network""#,
            r#"tcp dport 5432 return comment "excluded port""#,
            r#"meta l4proto tcp redirect to :15101 comment "outbound""#,
        ],
        "{first}"
    );
    cable.pod.run_as(ROOT, || init::apply(&redirect())).unwrap();
    assert_eq!(cable.pod.table(), first);
}

#[test]
fn applying_replaces_our_table_and_no_other() {
    let Some(cable) = Cable::with_rules(&redirect()) else { return };
    cable.pod.command("nft", "add table inet elsewhere");
    cable.pod.run_as(ROOT, || init::apply(&Redirect::default())).unwrap();
    assert!(!cable.pod.table().contains("excluded"), "{}", cable.pod.table());
    let tables = cable.pod.command("nft", "list tables");
    assert_eq!(tables.lines().collect::<BTreeSet<_>>(), ["table inet elsewhere", "table inet leno"].into());
}

#[test]
fn the_longest_lists_are_programmed_whole() {
    let Some(cable) = Cable::with_rules(&Redirect::default()) else { return };
    let list = |entry: fn(u16) -> String| (1..=64).map(entry).collect::<Vec<_>>().join(",");
    let vars = [
        ("LENO_EXCLUDE_INBOUND_PORTS", list(|number| format!("{}", 20_000 + number))),
        ("LENO_EXCLUDE_OUTBOUND_PORTS", list(|number| format!("{}", 30_000 + number))),
        ("LENO_EXCLUDE_OUTBOUND_CIDRS", list(|number| format!("2001:db8:{number}::/48"))),
    ];
    let longest = Redirect::from_env(vars.map(|(name, value)| (name.to_owned(), value))).unwrap();
    cable.pod.run_as(ROOT, || init::apply(&longest)).unwrap();
    assert_eq!(rule_lines(&cable.pod.table()).len(), 9 + 3 * 64, "9 rules are always there");
}

#[test]
fn without_net_admin_the_error_names_it_and_the_rules_stay() {
    let Some(cable) = Cable::with_rules(&redirect()) else { return };
    let before = cable.pod.table();
    let error = cable.pod.run_as(APP, || init::apply(&Redirect::default())).unwrap_err();
    assert!(matches!(error, InitError::NotPermitted), "{error:?}");
    assert!(error.to_string().contains("needs NET_ADMIN"), "{error}");
    assert_eq!(cable.pod.table(), before);
}

/// A pod and a machine beside it, each a network namespace, joined by a veth pair.
struct Cable {
    pod: Namespace,
    peer: Namespace,
}

impl Cable {
    /// The pair with `redirect` programmed in the pod, or `None` when this process may not build it.
    fn with_rules(redirect: &Redirect) -> Option<Self> {
        let cable = Self::new()?;
        cable.pod.run_as(ROOT, || init::apply(redirect)).unwrap();
        Some(cable)
    }

    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces and redirect rules need root");
            return None;
        }
        let (pod, peer) = (Namespace::new(), Namespace::new());
        pod.ip(&format!("link add eth0 type veth peer name eth0 netns {}", peer.keeper.id()));
        for (here, at) in [(&pod, [V4.pod, V6.pod]), (&peer, [V4.peer, V6.peer])] {
            here.ip("link set lo up");
            here.ip("link set eth0 up");
            here.ip(&format!("addr add {}/24 dev eth0", at[0]));
            here.ip(&format!("addr add {}/64 dev eth0 nodad", at[1]));
        }
        for at in [V4, V6] {
            peer.ip(&format!("addr add {} dev lo", at.excluded));
            pod.ip(&format!("route add default via {}", at.peer));
        }
        Some(Self { pod, peer })
    }
}

/// A network namespace of the test's own.
struct Namespace {
    /// Holds the namespace; ends when its standard input does.
    keeper: Child,
    net: File,
}

impl Namespace {
    fn new() -> Self {
        let mut unshare = Command::new("unshare");
        let mut keeper = unshare.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        // An echo comes from `cat`, so the namespace is there.
        keeper.stdin.as_mut().unwrap().write_all(b"there\n").unwrap();
        let mut echo = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut echo).unwrap();
        assert_eq!(echo, "there\n", "unshare --net works for root");
        let net = File::open(format!("/proc/{}/ns/net", keeper.id())).unwrap();
        Self { keeper, net }
    }

    /// Runs `work` on a thread that is in this namespace and, to the kernel, the user `uid`.
    fn run_as<T: Send>(&self, uid: u32, work: impl FnOnce() -> T + Send) -> T {
        let net = self.net.as_fd();
        let in_namespace = move || {
            move_into_link_name_space(net, Some(LinkNameSpaceType::Network)).unwrap();
            let user = Uid::from_raw(uid);
            set_thread_res_uid(user, user, user).unwrap();
            work()
        };
        let result = std::thread::scope(|scope| scope.spawn(in_namespace).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn ip(&self, arguments: &str) {
        self.command("ip", arguments);
    }

    fn table(&self) -> String {
        self.command("nft", "list table inet leno")
    }

    /// Runs a program in this namespace; it must succeed.
    fn command(&self, program: &str, arguments: &str) -> String {
        let mut command = Command::new(program);
        command.args(arguments.split(' '));
        let output = self
            .run_as(ROOT, move || command.output())
            .unwrap_or_else(|error| panic!("{program} must be installed for this test: {error}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn listen(&self, address: IpAddr, port: u16) -> TcpListener {
        let listener = self.run_as(ROOT, || TcpListener::bind((address, port))).unwrap();
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
        listener
    }

    /// Connects from here, and returns the connection as `listener` accepts it.
    fn dial(&self, uid: u32, destination: SocketAddr, listener: &TcpListener) -> TcpStream {
        let dialled = self.run_as(uid, || TcpStream::connect_timeout(&destination, PATIENCE));
        let dialled = dialled.unwrap_or_else(|error| panic!("user {uid} to {destination}: {error}"));
        let (accepted, from) =
            listener.accept().unwrap_or_else(|error| panic!("user {uid} to {destination} did not reach {listener:?}: {error}"));
        let here = dialled.local_addr().unwrap();
        assert_eq!((from.ip().to_canonical(), from.port()), (here.ip(), here.port()), "somebody else's connection");
        accepted
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

/// The same address with a bit of the excluded network's /17 prefix turned over.
fn beside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() ^ (1 << 15))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() ^ (1 << 111))),
    }
}

/// The rules of a listing, without the frame around them.
fn rule_lines(listing: &str) -> Vec<&str> {
    let framing = |line: &&str| !line.is_empty() && !line.ends_with('{') && *line != "}" && !line.starts_with("type ");
    listing.lines().map(str::trim).filter(framing).collect()
}
