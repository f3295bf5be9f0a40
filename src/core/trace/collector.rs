//! Where spans are sent, and in what protocol.

use std::fmt;
use std::str::FromStr;

use crate::names::{Name, split_authority};

/// The collector that takes spans: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address; that of IPv6 without brackets.
    pub host: Name,
    /// Its port.
    pub port: u16,
}

/// The text is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a collector: write http://HOST:PORT, such as http://otel-collector.observability:4317")]
pub struct InvalidEndpoint(String);

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = || InvalidEndpoint(text.to_owned());
        let rest = text.strip_prefix("http://").ok_or_else(invalid)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        match split_authority(authority) {
            Some((host, Some(port @ 1..))) if authority.bytes().all(fits) => Ok(Self { host: host.into(), port }),
            Some(_) | None => Err(invalid()),
        }
    }
}

impl Endpoint {
    /// `host:port`, as a request names it.
    pub fn authority(&self) -> String {
        let Self { host, port } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

/// How OTLP is spoken, by the names that OpenTelemetry has for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, usually on port 4317.
    #[default]
    Grpc,
    /// Protobuf in HTTP/1.1, usually on port 4318.
    Http,
}

/// The text names no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no protocol of OTLP that is spoken here: write grpc or http/protobuf")]
pub struct InvalidProtocol(String);

impl FromStr for Protocol {
    type Err = InvalidProtocol;

    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::Http),
            _ => Err(InvalidProtocol(text.to_owned())),
        }
    }
}

impl Protocol {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_host_and_port() {
        for (text, host, port, authority) in [
            ("http://otel.obs:4317", "otel.obs", 4317, "otel.obs:4317"),
            ("http://10.0.0.1:4318/", "10.0.0.1", 4318, "10.0.0.1:4318"),
            ("http://[fd00::1]:4317", "fd00::1", 4317, "[fd00::1]:4317"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((&*endpoint.host, endpoint.port, endpoint.authority().as_str()), (host, port, authority));
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
        for bad in
            ["", "otel:4317", "https://otel:4317", "http://otel", "http://otel:0", "http://otel:4317/v1", "http://a b:1", "http://u@h:1"]
        {
            let error = bad.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("write http://HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn protocols_have_the_names_of_opentelemetry() {
        for protocol in [Protocol::Grpc, Protocol::Http] {
            assert_eq!(protocol.as_str().parse(), Ok(protocol));
        }
        assert!("http/json".parse::<Protocol>().is_err());
    }
}
