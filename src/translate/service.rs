//! What is kept of a Service.
//!
//! What is spoken on a port is, in this order: what the MeshService says; the port's `appProtocol`; the port's name, read as
//! `<protocol>` or `<protocol>-<anything>` (`http`, `grpc-public`, `tcp-admin`), as users of other meshes write it; and when
//! none of these says a protocol that is known, the first bytes tell.

use std::net::IpAddr;

use leno_api::k8s;
use leno_api::k8s::{Labels, TargetPort};
use leno_core::names::{Name, ServiceId};
use leno_core::service::Protocol;

/// A Service, as much as the model needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Its id.
    pub(crate) id: ServiceId,
    /// Whether it is an alias for a name elsewhere (type ExternalName): such services are not in the mesh.
    pub(crate) external: bool,
    /// Cluster IPs, the primary family first.
    pub(crate) vips: Box<[IpAddr]>,
    /// Labels of the pods behind it; empty when somebody else writes its slices.
    pub(crate) selector: Labels,
    /// TCP ports, ordered by number.
    pub(crate) ports: Box<[Port]>,
}

/// One TCP port of a Service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// What callers dial.
    pub(crate) number: u16,
    /// Its name, by which slices know it; empty when it has none.
    pub(crate) name: Box<str>,
    /// What endpoints listen on.
    pub(crate) target: TargetPort,
    /// What the Service says is spoken.
    pub(crate) protocol: Protocol,
}

impl Service {
    /// What to keep of `service` in `namespace`.
    pub(crate) fn new(namespace: &Name, service: k8s::Service) -> Self {
        let tcp = service.ports.into_vec().into_iter().filter(|port| &*port.protocol == "TCP");
        let mut ports: Vec<Port> = tcp.map(port).collect();
        ports.sort_by_key(|port| port.number);
        ports.dedup_by_key(|port| port.number);
        Self {
            id: ServiceId::new(namespace.clone(), service.name),
            external: &*service.kind == "ExternalName",
            vips: if service.headless { Box::default() } else { service.cluster_ips },
            selector: service.selector,
            ports: ports.into_boxed_slice(),
        }
    }

    /// Something outside the cluster, at `addresses`.
    pub(crate) fn outside(id: ServiceId, addresses: Vec<IpAddr>, ports: &[u16]) -> Self {
        let port =
            |number: &u16| Port { number: *number, name: Box::default(), target: TargetPort::Number(*number), protocol: Protocol::Detect };
        let ports = ports.iter().map(port).collect();
        Self { id, external: false, vips: addresses.into_boxed_slice(), selector: Labels::default(), ports }
    }

    /// The TCP port `number`.
    pub(crate) fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Whether something with `labels` is behind it.
    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        !self.selector.is_empty() && labels.contains_all(self.selector.iter())
    }

    /// Whether endpoints are to be reached by IPv6 where they have both families: as the first cluster IP.
    pub(crate) fn prefers_ipv6(&self) -> bool {
        self.vips.first().is_some_and(IpAddr::is_ipv6)
    }

    /// Whether the addresses at which callers find it differ from those of `other`.
    pub(crate) fn is_found_elsewhere(&self, other: &Self) -> bool {
        let numbers = |service: &Self| service.ports.iter().map(|port| port.number).collect::<Vec<_>>();
        self.external != other.external || self.vips != other.vips || numbers(self) != numbers(other)
    }
}

fn port(port: k8s::ServicePort) -> Port {
    let protocol = match (&port.app_protocol, &port.name) {
        (Some(declared), _) => protocol_called(declared),
        (None, Some(name)) => protocol_of_name(name),
        (None, None) => Protocol::Detect,
    };
    Port { number: port.port, name: port.name.unwrap_or_default(), target: port.target_port, protocol }
}

/// What a port called `name` speaks.
fn protocol_of_name(name: &str) -> Protocol {
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return Protocol::Http;
    }
    protocol_called(name.split('-').next().unwrap_or(name))
}

/// The protocol that `appProtocol` or a port's name calls `word`: the Kubernetes standard names (KEP-3726), the IANA service
/// names of common protocols, and the spellings of other meshes. Databases and the like are opaque, because some of them
/// (mysql, smtp, nats …) let the server speak first, which detection would have to wait out.
fn protocol_called(word: &str) -> Protocol {
    match word.to_ascii_lowercase().as_str() {
        "http" | "http1" | "http/1.1" | "grpc-web" | "ws" | "kubernetes.io/ws" => Protocol::Http,
        "http2" | "h2c" | "kubernetes.io/h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" | "tls" | "grpcs" | "wss" | "kubernetes.io/wss" | "ldaps" | "amqps" => Protocol::Tls,
        "tcp" | "redis" | "mysql" | "mariadb" | "postgres" | "postgresql" | "mongo" | "mongodb" | "mssql" | "cassandra" | "memcached"
        | "memcache" | "kafka" | "amqp" | "mqtt" | "nats" | "smtp" | "imap" | "pop3" | "ftp" | "ssh" | "ldap" | "zookeeper" => {
            Protocol::Tcp
        }
        _ => Protocol::Detect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_and_port_name_say_what_is_spoken() {
        let cases = [
            (Some("http"), None, Protocol::Http),
            (Some("HTTP"), None, Protocol::Http),
            (Some("kubernetes.io/h2c"), None, Protocol::Http2),
            (Some("kubernetes.io/ws"), None, Protocol::Http),
            (Some("kubernetes.io/wss"), None, Protocol::Tls),
            (Some("grpc"), None, Protocol::Grpc),
            (Some("https"), None, Protocol::Tls),
            (Some("tcp"), None, Protocol::Tcp),
            (Some("mysql"), None, Protocol::Tcp),
            (Some("example.com/own"), None, Protocol::Detect),
            // appProtocol is the last word, even when the name would say something else.
            (Some("tcp"), Some("http-web"), Protocol::Tcp),
            (Some("example.com/own"), Some("http"), Protocol::Detect),
            (None, Some("http"), Protocol::Http),
            (None, Some("http-public"), Protocol::Http),
            (None, Some("http2-x"), Protocol::Http2),
            (None, Some("grpc-orders"), Protocol::Grpc),
            (None, Some("grpc-web"), Protocol::Http),
            (None, Some("grpc-web-ui"), Protocol::Http),
            (None, Some("grpc-website"), Protocol::Grpc),
            (None, Some("tcp-admin"), Protocol::Tcp),
            (None, Some("redis"), Protocol::Tcp),
            (None, Some("https"), Protocol::Tls),
            (None, Some("httpbin"), Protocol::Detect),
            (None, Some("metrics"), Protocol::Detect),
            (None, None, Protocol::Detect),
        ];
        for (app_protocol, name, want) in cases {
            let spec = k8s::ServicePort {
                name: name.map(Box::from),
                port: 80,
                target_port: TargetPort::Number(80),
                protocol: "TCP".into(),
                app_protocol: app_protocol.map(Box::from),
            };
            assert_eq!(port(spec).protocol, want, "appProtocol {app_protocol:?}, name {name:?}");
        }
    }
}
