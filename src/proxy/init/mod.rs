//! `leno-proxy init`: sends a pod's TCP through its sidecar, with rules this program writes itself.
//!
//! In: a [`Redirect`], read from the environment. Out: the nftables table `leno` in the network
//! namespace the process runs in, for IPv4 and IPv6. The rules travel as one netlink batch, so they
//! appear whole or not at all, and running again replaces the table by an equal one. No `nft` or
//! `iptables` is called, so the image needs neither.
//!
//! Reading order: [`Redirect`] (what), `rules` (which packets, in which order), `encode` (as netlink
//! bytes), `netlink` (attributes and answers), `socket` (the only I/O).
//!
//! # What the proxy can rely on
//! - Outbound connections arrive at `127.0.0.1` or `::1`, port `outbound_port`: a listener bound to
//!   these two alone cannot be dialled from outside the pod.
//! - Inbound connections arrive at an address of the pod, port `inbound_port`, so that listener binds
//!   the unspecified addresses.
//! - Where a connection wanted to go is [`original_destination`](crate::original_dst). It is `None`
//!   for a connection made straight to a port of the proxy; such a connection is to be closed,
//!   because forwarding it would lead the proxy to itself.
//! - What the proxy itself sends is never redirected: not when it leaves, and not when it arrives
//!   over the loopback interface. So a proxy that calls its own pod's address reaches the app, and
//!   not its own inbound side.
//! - An app that calls its own pod's address goes through the outbound side like any other call; one
//!   that calls a loopback address does not.

mod encode;
mod error;
mod netlink;
mod rules;
mod settings;
mod socket;

use ipnet::IpNet;

pub use self::encode::Family;
pub use self::error::InitError;
pub use self::settings::InvalidSetting;

/// Which TCP connections of a pod go through its sidecar.
///
/// UDP, ICMP and every other protocol are left alone, as is traffic to loopback addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The user the proxy runs as; what this user sends is not redirected.
    pub proxy_uid: u32,
    /// Where outbound connections go.
    pub outbound_port: u16,
    /// Where inbound connections go.
    pub inbound_port: u16,
    /// Health and metrics; reached from outside the pod without passing the inbound side.
    pub admin_port: u16,
    /// Ports of the pod that are reached directly.
    pub exclude_inbound_ports: Vec<u16>,
    /// Destination ports that the pod reaches directly, at any address.
    pub exclude_outbound_ports: Vec<u16>,
    /// Destination networks that the pod reaches directly, at any port.
    pub exclude_outbound_cidrs: Vec<IpNet>,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            proxy_uid: 15100,
            outbound_port: 15101,
            inbound_port: 15106,
            admin_port: 15120,
            exclude_inbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_outbound_cidrs: Vec::new(),
        }
    }
}

/// Replaces the table `leno` of the current network namespace by the rules of `redirect`.
///
/// A kernel without IPv6 gets the IPv4 rules alone. Fails with everything as it was before.
pub fn apply(redirect: &Redirect) -> Result<(), InitError> {
    let family = if socket::kernel_has_ipv6() { Family::Inet } else { Family::Ipv4 };
    apply_for(redirect, family)
}

/// Like [`apply`], for the IP versions of `family` whatever the kernel has.
pub fn apply_for(redirect: &Redirect, family: Family) -> Result<(), InitError> {
    socket::transact(&encode::batch(redirect, family))?;
    tracing::info!(
        family = family.name(),
        proxy_uid = redirect.proxy_uid,
        outbound_port = redirect.outbound_port,
        inbound_port = redirect.inbound_port,
        "redirect rules are in place"
    );
    Ok(())
}
