//! The app's declared probes: what a kubelet, which has no identity, may ask of a port that lets in nobody else unproven.
//!
//! Written `PORT/PATH`, separated by commas: `8080/healthz` for an HTTP probe, `9000/grpc.health.v1.Health/Check` for a gRPC one.

use std::str::FromStr;

use leno_core::names::Name;

/// The method every gRPC probe calls (gRPC health checking protocol, version 1).
const GRPC_CHECK: &str = "/grpc.health.v1.Health/Check";

/// The declared probes of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes(Vec<(u16, Name)>);

/// The text lists no probes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no probe: write PORT/PATH, as in 8080/healthz")]
pub struct InvalidProbe(String);

impl FromStr for Probes {
    type Err = InvalidProbe;

    fn from_str(text: &str) -> Result<Self, InvalidProbe> {
        let probe = |entry: &str| {
            let place = entry.find('/')?;
            let port = entry[..place].parse().ok().filter(|port| *port != 0)?;
            Some((port, Name::from(&entry[place..])))
        };
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(|entry| probe(entry).ok_or_else(|| InvalidProbe(entry.to_owned()))).collect::<Result<_, _>>().map(Self)
    }
}

impl Probes {
    /// Whether `port` has any.
    pub fn has(&self, port: u16) -> bool {
        self.0.iter().any(|(probed, _)| *probed == port)
    }

    /// Whether `port` has one for gRPC.
    pub fn has_grpc(&self, port: u16) -> bool {
        self.lists(port, GRPC_CHECK)
    }

    /// Whether an HTTP/1 request is one: a `GET` of exactly the path (with its query) that was declared.
    pub fn allow_http(&self, port: u16, method: &str, target: &str) -> bool {
        method == "GET" && self.lists(port, target)
    }

    /// Whether a gRPC call is one.
    pub fn allow_grpc(&self, port: u16, path: &str) -> bool {
        path == GRPC_CHECK && self.lists(port, path)
    }

    fn lists(&self, port: u16, path: &str) -> bool {
        self.0.iter().any(|(probed, declared)| *probed == port && **declared == *path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_what_was_declared_passes() {
        let probes: Probes = "8080/healthz, 8080/ready?full=1,9000/grpc.health.v1.Health/Check,".parse().unwrap();
        let cases = [
            (8080, "GET", "/healthz", true),
            (8080, "GET", "/ready?full=1", true),
            (8080, "GET", "/ready", false),
            (8080, "GET", "/healthz/", false),
            (8080, "GET", "/healthz?x", false),
            (8080, "GET", "/HEALTHZ", false),
            (8080, "GET", "/x/../healthz", false),
            (8080, "GET", "/%68ealthz", false),
            (8080, "POST", "/healthz", false),
            (8080, "HEAD", "/healthz", false),
            (9000, "GET", "/healthz", false),
        ];
        for (port, method, target, want) in cases {
            assert_eq!(probes.allow_http(port, method, target), want, "{method} {target} on {port}");
        }
        assert!(probes.allow_grpc(9000, "/grpc.health.v1.Health/Check"));
        assert!(!probes.allow_grpc(9000, "/grpc.health.v1.Health/Watch") && !probes.allow_grpc(8080, "/grpc.health.v1.Health/Check"));
        assert!(!probes.allow_grpc(8080, "/healthz"), "only the health service is asked by gRPC");
        assert!(probes.has(8080) && !probes.has(80));
    }

    #[test]
    fn what_is_no_probe_is_refused_with_what_to_write() {
        for bad in ["healthz", "/healthz", "0/healthz", "http/healthz", "8080", "70000/x"] {
            let error = bad.parse::<Probes>().unwrap_err().to_string();
            assert!(error.contains("write PORT/PATH"), "{error}");
        }
        assert_eq!("".parse(), Ok(Probes::default()));
    }
}
