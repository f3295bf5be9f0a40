//! Writes the rules as nf_tables messages, in the form that `nft` shows as it would its own.
//!
//! A rule is a list of expressions over 16-byte registers: load something, compare it, and when
//! every comparison held, give the verdict. Numbers are those of `linux/netfilter/nf_tables.h`.

use ipnet::IpNet;

use super::Redirect;
use super::netlink::{Attributes, Batch, Request};
use super::rules::{self, Action, Match, Rule};

/// The table all rules are in.
const TABLE: &str = "leno";
/// Priority of destination NAT (`NF_IP_PRI_NAT_DST`), as a 32-bit two's complement.
const PRIORITY_DSTNAT: u32 = (-100i32).cast_unsigned();
/// The loopback interface has this index in every network namespace.
const LOOPBACK_INDEX: u32 = 1;
const IPPROTO_TCP: u8 = 6;

const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;

const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_RETURN: u32 = (-5i32).cast_unsigned();
const NFT_CMP_EQ: u32 = 0;
const NFT_META_IIF: u32 = 4;
const NFT_META_SKUID: u32 = 10;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;

/// Where in a TCP header the destination port is, and how long it is.
const TCP_DESTINATION_PORT: (u32, u32) = (2, 2);
/// Where in an IPv4 header the destination address is, and how long it is.
const IPV4_DESTINATION: (u32, u32) = (16, 4);
/// The same of an IPv6 header.
const IPV6_DESTINATION: (u32, u32) = (24, 16);

/// The user data that `nft` shows as a comment.
const USERDATA_COMMENT: u8 = 0;

/// Which packets the table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4 alone, for a kernel that has nothing else.
    Ipv4,
}

impl Family {
    /// What `nft` calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Inet => NFPROTO_INET,
            Self::Ipv4 => NFPROTO_IPV4,
        }
    }

    fn sees(self, rule: &Rule) -> bool {
        !matches!((self, rule.when), (Self::Ipv4, Match::ToNet(IpNet::V6(_))))
    }
}

/// Where a chain hangs (`NF_INET_*`).
#[derive(Clone, Copy)]
enum Hook {
    Prerouting,
    Output,
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Output => 3,
        }
    }
}

/// The batch that replaces the table, whether or not it exists.
pub(super) fn batch(redirect: &Redirect, family: Family) -> Request {
    let mut batch = Batch::new(family.number());
    // Deleting fails when there is nothing to delete, and adding does not mind what is there.
    batch.add(format!("table {TABLE}"), NFT_MSG_NEWTABLE, NLM_F_CREATE, table);
    batch.add(format!("removal of table {TABLE}"), NFT_MSG_DELTABLE, 0, table);
    batch.add(format!("table {TABLE}"), NFT_MSG_NEWTABLE, NLM_F_CREATE, table);
    for (hook, rules) in [(Hook::Prerouting, rules::prerouting(redirect)), (Hook::Output, rules::output(redirect))] {
        let step = format!("chain {}", hook.name());
        batch.add(step, NFT_MSG_NEWCHAIN, NLM_F_CREATE, |at| chain(at, hook));
        for rule in rules.iter().filter(|rule| family.sees(rule)) {
            let step = format!("rule \"{}\" of chain {}", rule.why, hook.name());
            batch.add(step, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |at| encode_rule(at, family, hook, rule));
        }
    }
    batch.finish()
}

fn table(at: &mut Attributes<'_>) {
    at.string(NFTA_TABLE_NAME, TABLE);
}

fn chain(at: &mut Attributes<'_>, hook: Hook) {
    at.string(NFTA_CHAIN_TABLE, TABLE);
    at.string(NFTA_CHAIN_NAME, hook.name());
    at.nested(NFTA_CHAIN_HOOK, |at| {
        at.number(NFTA_HOOK_HOOKNUM, hook.number());
        at.number(NFTA_HOOK_PRIORITY, PRIORITY_DSTNAT);
    });
    at.string(NFTA_CHAIN_TYPE, "nat");
}

fn encode_rule(at: &mut Attributes<'_>, family: Family, hook: Hook, rule: &Rule) {
    at.string(NFTA_RULE_TABLE, TABLE);
    at.string(NFTA_RULE_CHAIN, hook.name());
    at.nested(NFTA_RULE_EXPRESSIONS, |at| {
        matching(at, family, rule.when);
        match rule.then {
            Action::Pass => verdict_return(at),
            Action::RedirectTo(port) => redirect_to(at, port),
        }
    });
    at.bytes(NFTA_RULE_USERDATA, &comment(rule.why));
}

fn matching(at: &mut Attributes<'_>, family: Family, when: Match) {
    match when {
        // The kernel keeps users and interfaces in its own byte order.
        Match::SentBy(uid) => meta_equals(at, NFT_META_SKUID, &uid.to_ne_bytes()),
        Match::CameOverLoopback => meta_equals(at, NFT_META_IIF, &LOOPBACK_INDEX.to_ne_bytes()),
        Match::Tcp => meta_equals(at, NFT_META_L4PROTO, &[IPPROTO_TCP]),
        Match::ToPort(port) => {
            meta_equals(at, NFT_META_L4PROTO, &[IPPROTO_TCP]);
            load(at, NFT_PAYLOAD_TRANSPORT_HEADER, TCP_DESTINATION_PORT);
            compare(at, &port.to_be_bytes());
        }
        Match::ToNet(IpNet::V4(net)) => {
            version_is(at, family, NFPROTO_IPV4);
            destination(at, IPV4_DESTINATION, &net.netmask().octets(), &net.network().octets());
        }
        Match::ToNet(IpNet::V6(net)) => {
            version_is(at, family, NFPROTO_IPV6);
            destination(at, IPV6_DESTINATION, &net.netmask().octets(), &net.network().octets());
        }
    }
}

/// Asks for the IP version where both are seen. (`nft` cannot list a table of one version that asks.)
fn version_is(at: &mut Attributes<'_>, family: Family, version: u8) {
    if family == Family::Inet {
        meta_equals(at, NFT_META_NFPROTO, &[version]);
    }
}

/// The destination address, its host bits cleared, equals `network`.
fn destination(at: &mut Attributes<'_>, field: (u32, u32), mask: &[u8], network: &[u8]) {
    if mask.iter().all(|byte| *byte == 0) {
        return; // every address
    }
    load(at, NFT_PAYLOAD_NETWORK_HEADER, field);
    if mask.iter().any(|byte| *byte != 0xff) {
        clear_host_bits(at, field.1, mask);
    }
    compare(at, network);
}

fn meta_equals(at: &mut Attributes<'_>, key: u32, value: &[u8]) {
    expression(at, "meta", |at| {
        at.number(NFTA_META_KEY, key);
        at.number(NFTA_META_DREG, NFT_REG_1);
    });
    compare(at, value);
}

fn load(at: &mut Attributes<'_>, header: u32, (offset, len): (u32, u32)) {
    expression(at, "payload", |at| {
        at.number(NFTA_PAYLOAD_DREG, NFT_REG_1);
        at.number(NFTA_PAYLOAD_BASE, header);
        at.number(NFTA_PAYLOAD_OFFSET, offset);
        at.number(NFTA_PAYLOAD_LEN, len);
    });
}

fn clear_host_bits(at: &mut Attributes<'_>, len: u32, mask: &[u8]) {
    expression(at, "bitwise", |at| {
        at.number(NFTA_BITWISE_SREG, NFT_REG_1);
        at.number(NFTA_BITWISE_DREG, NFT_REG_1);
        at.number(NFTA_BITWISE_LEN, len);
        at.nested(NFTA_BITWISE_MASK, |at| at.bytes(NFTA_DATA_VALUE, mask));
        at.nested(NFTA_BITWISE_XOR, |at| at.bytes(NFTA_DATA_VALUE, &vec![0; mask.len()]));
    });
}

fn compare(at: &mut Attributes<'_>, value: &[u8]) {
    expression(at, "cmp", |at| {
        at.number(NFTA_CMP_SREG, NFT_REG_1);
        at.number(NFTA_CMP_OP, NFT_CMP_EQ);
        at.nested(NFTA_CMP_DATA, |at| at.bytes(NFTA_DATA_VALUE, value));
    });
}

fn verdict_return(at: &mut Attributes<'_>) {
    immediate(at, NFT_REG_VERDICT, |at| {
        at.nested(NFTA_DATA_VERDICT, |at| at.number(NFTA_VERDICT_CODE, NFT_RETURN));
    });
}

fn redirect_to(at: &mut Attributes<'_>, port: u16) {
    immediate(at, NFT_REG_1, |at| at.bytes(NFTA_DATA_VALUE, &port.to_be_bytes()));
    expression(at, "redir", |at| at.number(NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1));
}

fn immediate(at: &mut Attributes<'_>, register: u32, data: impl FnOnce(&mut Attributes<'_>)) {
    expression(at, "immediate", |at| {
        at.number(NFTA_IMMEDIATE_DREG, register);
        at.nested(NFTA_IMMEDIATE_DATA, data);
    });
}

fn expression(at: &mut Attributes<'_>, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
    at.nested(NFTA_LIST_ELEM, |at| {
        at.string(NFTA_EXPR_NAME, name);
        at.nested(NFTA_EXPR_DATA, data);
    });
}

/// `why` in the form in which `nft` keeps comments: type, length, text ended by a zero.
fn comment(why: &'static str) -> Vec<u8> {
    let len = u8::try_from(why.len() + 1).expect("a comment is a few words");
    [&[USERDATA_COMMENT, len], why.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    /// One attribute: its kind without flags, whether it holds attributes, and its value.
    fn attributes(mut bytes: &[u8]) -> Vec<(u16, bool, &[u8])> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
            let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
            found.push((kind & 0x7fff, kind & 0x8000 != 0, &bytes[4..len]));
            bytes = &bytes[len.next_multiple_of(4)..];
        }
        found
    }

    /// The messages of a batch: kind, sequence number, family, attributes.
    fn messages(mut bytes: &[u8]) -> Vec<(u16, u32, u8, &[u8])> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let number = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
            let len = usize::try_from(number(0)).unwrap();
            let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
            found.push((kind, number(8), bytes[16], &bytes[20..len]));
            bytes = &bytes[len.next_multiple_of(4)..];
        }
        found
    }

    /// Attributes as `kind=hex kind=hex ...`; those inside an attribute in braces.
    fn show(bytes: &[u8]) -> String {
        let mut text = String::new();
        for (kind, nested, value) in attributes(bytes) {
            let value = if nested { format!("{{{}}}", show(value)) } else { hex(value) };
            write!(text, "{}{kind}={value}", if text.is_empty() { "" } else { " " }).unwrap();
        }
        text
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn expressions(family: Family, when: Match, then: Action) -> Vec<String> {
        let mut batch = Batch::new(family.number());
        batch.add(String::new(), NFT_MSG_NEWRULE, 0, |at| {
            encode_rule(at, family, Hook::Output, &Rule { when, then, why: "why" });
        });
        let request = batch.finish();
        let rule = attributes(messages(&request.bytes)[1].3);
        assert_eq!(rule[3], (NFTA_RULE_USERDATA, false, &b"\0\x04why\0"[..]));
        let list = attributes(rule[2].2);
        list.into_iter()
            .map(|(_, _, expression)| {
                let parts = attributes(expression);
                let name = String::from_utf8(parts[0].2.to_vec()).unwrap();
                format!("{} {}", name.trim_end_matches('\0'), show(parts[1].2))
            })
            .collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn every_match_loads_a_field_and_compares_it() {
        let cases: [(Match, &[&str]); 6] = [
            (Match::SentBy(15100), &["meta 2=0000000a 1=00000001", "cmp 1=00000001 2=00000000 3={1=fc3a0000}"]),
            (Match::CameOverLoopback, &["meta 2=00000004 1=00000001", "cmp 1=00000001 2=00000000 3={1=01000000}"]),
            (
                Match::ToPort(443),
                &[
                    "meta 2=00000010 1=00000001",
                    "cmp 1=00000001 2=00000000 3={1=06}",
                    "payload 1=00000001 2=00000002 3=00000002 4=00000002",
                    "cmp 1=00000001 2=00000000 3={1=01bb}",
                ],
            ),
            (
                Match::ToNet("10.128.0.0/9".parse().unwrap()),
                &[
                    "meta 2=0000000f 1=00000001",
                    "cmp 1=00000001 2=00000000 3={1=02}",
                    "payload 1=00000001 2=00000001 3=00000010 4=00000004",
                    "bitwise 1=00000001 2=00000001 3=00000004 4={1=ff800000} 5={1=00000000}",
                    "cmp 1=00000001 2=00000000 3={1=0a800000}",
                ],
            ),
            (
                Match::ToNet("::1/128".parse().unwrap()),
                &[
                    "meta 2=0000000f 1=00000001",
                    "cmp 1=00000001 2=00000000 3={1=0a}",
                    "payload 1=00000001 2=00000001 3=00000018 4=00000010",
                    "cmp 1=00000001 2=00000000 3={1=00000000000000000000000000000001}",
                ],
            ),
            (Match::ToNet("0.0.0.0/0".parse().unwrap()), &["meta 2=0000000f 1=00000001", "cmp 1=00000001 2=00000000 3={1=02}"]),
        ];
        for (when, expected) in cases {
            let mut all = expressions(Family::Inet, when, Action::Pass);
            assert_eq!(all.pop().as_deref(), Some("immediate 1=00000000 2={2={1=fffffffb}}"), "{when:?} returns");
            assert_eq!(all, expected, "{when:?}");
        }
    }

    #[test]
    fn a_redirect_names_the_port_in_network_byte_order() {
        let all = expressions(Family::Inet, Match::Tcp, Action::RedirectTo(15101));
        assert_eq!(all[2..], ["immediate 1=00000001 2={1=3afd}", "redir 1=00000001"]);
    }

    #[test]
    fn a_kernel_without_ipv6_gets_the_ipv4_rules_alone() {
        let exclude = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).to_vec();
        let redirect = Redirect { exclude_outbound_cidrs: exclude, ..Redirect::default() };
        let (both, ipv4) = (batch(&redirect, Family::Inet), batch(&redirect, Family::Ipv4));
        assert_eq!(both.steps.len() - ipv4.steps.len(), 2, "no ::1 and no fd00::/8");
        let families: Vec<u8> = messages(&ipv4.bytes).iter().map(|(_, _, family, _)| *family).collect();
        assert!(families[1..families.len() - 1].iter().all(|family| *family == NFPROTO_IPV4), "{families:?}");
        let all = expressions(Family::Ipv4, Match::ToNet("10.0.0.1/32".parse().unwrap()), Action::Pass);
        assert!(all[0].starts_with("payload"), "no question which IP version it is: {all:?}");
    }

    proptest! {
        /// The steps of a batch are its messages: same count, numbered in order, each well-formed.
        #[test]
        fn each_step_is_one_message_with_its_number(
            ports in prop::collection::vec(any::<u16>(), 0..20),
            nets in prop::collection::vec((any::<u128>(), 0u8..=128), 0..20),
        ) {
            let net = |(bits, len): (u128, u8)| IpNet::new(std::net::Ipv6Addr::from_bits(bits).into(), len).unwrap();
            let redirect = Redirect {
                exclude_inbound_ports: ports.clone(),
                exclude_outbound_ports: ports,
                exclude_outbound_cidrs: nets.into_iter().map(net).collect(),
                ..Redirect::default()
            };
            let request = batch(&redirect, Family::Inet);
            let messages = messages(&request.bytes);
            prop_assert_eq!(messages.len(), request.steps.len() + 1, "the end is no step");
            for (index, (_, sequence, _, body)) in messages.iter().enumerate() {
                prop_assert_eq!(usize::try_from(*sequence), Ok(index));
                show(body); // walks every attribute, and panics when a length is wrong
            }
        }
    }
}
