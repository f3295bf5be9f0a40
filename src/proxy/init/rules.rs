//! Which packets are redirected: the two chains as plain values, first match wins.
//!
//! The chains are of type `nat`, so the kernel asks them once per connection, for its first packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Redirect;

/// One line of a chain. A packet that no line matches goes on unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) when: Match,
    pub(super) then: Action,
    /// Shown as the rule's comment by `nft list table inet leno`.
    pub(super) why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Sent through a socket of this user.
    SentBy(u32),
    /// Came in over the loopback interface.
    CameOverLoopback,
    /// Goes to an address of this network.
    ToNet(IpNet),
    /// TCP to this port.
    ToPort(u16),
    /// Any TCP.
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Leave the connection as it is.
    Pass,
    /// Send the connection to this port of the pod.
    RedirectTo(u16),
}

/// What the pod sends.
///
/// Loopback is told by address, not by interface: a call to the pod's own address travels over `lo`
/// too, and belongs to the mesh (a headless Service resolves to it).
pub(super) fn output(redirect: &Redirect) -> Vec<Rule> {
    let mut rules = vec![pass(Match::SentBy(redirect.proxy_uid), "sent by the proxy")];
    rules.extend(loopback().map(|net| pass(Match::ToNet(net), "loopback")));
    rules.extend(redirect.exclude_outbound_cidrs.iter().map(|net| pass(Match::ToNet(net.trunc()), "excluded network")));
    rules.extend(redirect.exclude_outbound_ports.iter().map(|port| pass(Match::ToPort(*port), "excluded port")));
    rules.push(Rule { when: Match::Tcp, then: Action::RedirectTo(redirect.outbound_port), why: "outbound" });
    rules
}

/// What arrives at the pod.
///
/// A packet on the loopback interface was sent by this pod and has passed [`output`]. The proxy's
/// own ports are left alone so that nothing can send its listeners to each other.
pub(super) fn prerouting(redirect: &Redirect) -> Vec<Rule> {
    let own = [redirect.outbound_port, redirect.inbound_port, redirect.admin_port];
    let mut rules = vec![pass(Match::CameOverLoopback, "sent by this pod")];
    rules.extend(own.map(|port| pass(Match::ToPort(port), "port of the proxy")));
    rules.extend(redirect.exclude_inbound_ports.iter().map(|port| pass(Match::ToPort(*port), "excluded port")));
    rules.push(Rule { when: Match::Tcp, then: Action::RedirectTo(redirect.inbound_port), why: "inbound" });
    rules
}

fn pass(when: Match, why: &'static str) -> Rule {
    Rule { when, then: Action::Pass, why }
}

fn loopback() -> [IpNet; 2] {
    [IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)), IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything_excluded() -> Redirect {
        Redirect {
            exclude_inbound_ports: vec![9090],
            exclude_outbound_ports: vec![5432],
            exclude_outbound_cidrs: vec!["10.9.8.7/16".parse().unwrap()],
            ..Redirect::default()
        }
    }

    #[test]
    fn what_the_pod_sends_is_redirected_after_every_exception() {
        let rules: Vec<_> = output(&everything_excluded()).into_iter().map(|rule| (rule.when, rule.then)).collect();
        assert_eq!(
            rules,
            [
                (Match::SentBy(15100), Action::Pass),
                (Match::ToNet("127.0.0.0/8".parse().unwrap()), Action::Pass),
                (Match::ToNet("::1/128".parse().unwrap()), Action::Pass),
                (Match::ToNet("10.9.0.0/16".parse().unwrap()), Action::Pass),
                (Match::ToPort(5432), Action::Pass),
                (Match::Tcp, Action::RedirectTo(15101)),
            ]
        );
    }

    #[test]
    fn what_arrives_is_redirected_except_to_the_proxy_and_to_excluded_ports() {
        let rules: Vec<_> = prerouting(&everything_excluded()).into_iter().map(|rule| (rule.when, rule.then)).collect();
        assert_eq!(
            rules,
            [
                (Match::CameOverLoopback, Action::Pass),
                (Match::ToPort(15101), Action::Pass),
                (Match::ToPort(15106), Action::Pass),
                (Match::ToPort(15120), Action::Pass),
                (Match::ToPort(9090), Action::Pass),
                (Match::Tcp, Action::RedirectTo(15106)),
            ]
        );
    }
}
