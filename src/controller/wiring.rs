//! What the controller needs with a cluster ([`crate::run`]) and without ([`crate::standalone`]).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::health::Health;
use crate::publish::Publisher;

/// Changes that wait to be translated; a source that is ahead by more waits.
pub(crate) const EVENTS_MAX: usize = 1024;

/// Listens at `address`; where the machine has no IPv6, at the same port of IPv4.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = match TcpListener::bind(address).await {
        Err(error) if address == (Ipv6Addr::UNSPECIFIED, address.port()).into() => {
            tracing::debug!(%error, %address, "listening on IPv4 alone");
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    };
    listener.with_context(|| format!("cannot listen at {address}"))
}

/// Says when the first lists are in.
pub(crate) async fn follow_lists(publisher: Publisher, health: Arc<Health>) {
    if publisher.ready().wait_for(|ready| *ready).await.is_ok() {
        health.lists_are_in();
    }
    std::future::pending().await
}
