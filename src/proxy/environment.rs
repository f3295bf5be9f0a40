//! The sidecar's configuration, read from environment variables: a pure function of them.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `LENO_POD_NAMESPACE`, `LENO_POD_NAME` | the workload this proxy stands beside | required |
//! | `LENO_POD_IP` | where the app listens | `127.0.0.1` |
//! | `LENO_WORKLOAD` | name in metrics and logs | the pod's name |
//! | `LENO_CONTROL_ADDRESS` | `host:port` of the controller | `leno-controller.leno-system.svc:15110` |
//! | `LENO_CONTROL_CA` or `LENO_CONTROL_CA_FILE` | PEM roots that vouch for the controller, or a file of them | required |
//! | `LENO_TOKEN_FILE` | the workload's token, with which it is given certificates; read anew for each | none: no identity, everything is plain |
//! | `LENO_PROBES` | probes that pass without an identity: `PORT/PATH,…`; for gRPC `PORT/grpc.health.v1.Health/Check` | none |
//! | `LENO_CLUSTER_DOMAIN` | domain of cluster host names | `cluster.local` |
//! | `LENO_INTERCEPT` | `on`: redirected traffic is taken on 15101 and 15106; `off`: only `LENO_SERVICES` and `LENO_INBOUND` | `on` |
//! | `LENO_SERVICES` | `namespace/name:port=address:port,…`: addresses that stand for service ports | none |
//! | `LENO_INBOUND` | `port=address:port,…`: addresses, as endpoints name them, behind which that port of the app is | none |
//! | `LENO_ADMIN_ADDRESS` | where the admin port listens | `[::]:15120` |
//! | `LENO_ADMIN_PROBES` | `SCHEME/PORT/TARGET …`: HTTP probes of the app that the admin port makes, separated by spaces | none |
//! | `LENO_PROXY_WORKERS` | threads that carry traffic, 1 to 64 | 1 |
//! | `LENO_ACCESS_LOG` | `all`, `errors` or `off` | `errors` |
//! | `LENO_ACCESS_LOG_SAMPLING` | percentage of the requests that `all` logs of those that did not fail | 100 |
//! | `LENO_ACCESS_LOG_FORMAT` | `json`, or a template with the names of JSON's fields, such as `%{method} %{path} %{status}` | `json` |
//! | `LENO_OTLP_ENDPOINT` | collector that gets spans, `http://HOST:PORT` | none: requests are not traced |
//! | `LENO_OTLP_PROTOCOL` | how OTLP is spoken with it: `grpc` or `http/protobuf` | `grpc` |
//! | `LENO_TRACE_SAMPLING` | percentage of the traces that are kept, of those that nobody has decided about | 1 |
//! | `LENO_TRACE_PROPAGATION` | the forms in which traces travel, `W3C` and `B3`; the first that says something is believed | `W3C` |
//! | `LENO_DRAIN_SECONDS` | how long what runs may take after SIGTERM | 25 |
//! | `LENO_LOG` | filter of the proxy's own log, as in `info` or `leno_proxy=debug` | `info` |

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use leno_core::access_log::InvalidFormat;
use leno_core::endpoints::EndpointsId;
use leno_core::names::{Name, WorkloadId};
use leno_core::percentage::Percentage;
use leno_core::trace::Propagation;
use leno_core::trace::collector::Protocol;

use crate::probe;
use crate::probes::Probes;
use crate::telemetry::{AccessLogMode, LogSettings, Tracing};

/// Where redirected outbound traffic is taken.
pub const OUTBOUND_PORT: u16 = 15101;
/// Where redirected inbound traffic is taken.
pub const INBOUND_PORT: u16 = 15106;
/// Health, metrics and the app's TCP probes.
pub const ADMIN_PORT: u16 = 15120;

const WORKERS_MAX: usize = 64;
const DRAIN_SECONDS_MAX: u64 = 3600;
const PERCENTAGE: &str = "a number from 0 to 100, such as 5 or 0.1";

/// The configuration of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The workload this proxy stands beside.
    pub workload: WorkloadId,
    /// Where the app listens.
    pub pod_ip: IpAddr,
    /// Name in metrics and logs.
    pub source: Name,
    /// `host:port` of the controller.
    pub control_address: String,
    /// Roots that vouch for the controller.
    pub control_ca: ControlCa,
    /// Where the workload's token is.
    pub token_file: Option<PathBuf>,
    /// Probes that pass without an identity.
    pub probes: Arc<Probes>,
    /// Domain of cluster host names.
    pub cluster_domain: Name,
    /// Whether redirected traffic is taken.
    pub intercept: bool,
    /// Addresses that stand for service ports.
    pub services: Vec<(EndpointsId, SocketAddr)>,
    /// Ports of the app, each with the address that stands for it.
    pub inbound: Vec<(u16, SocketAddr)>,
    /// Where the admin port listens.
    pub admin: SocketAddr,
    /// `SCHEME/PORT/TARGET` of the HTTP probes that the admin port makes.
    pub admin_probes: Vec<Name>,
    /// Threads that carry traffic.
    pub workers: usize,
    /// What is logged, and how.
    pub access_log: LogSettings,
    /// How requests are traced, where they are.
    pub tracing: Option<Tracing>,
    /// How long what runs may take after SIGTERM.
    pub drain: Duration,
}

/// Where the controller's roots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlCa {
    /// PEM text.
    Pem(String),
    /// A file of PEM text.
    File(String),
}

/// A variable is missing or says something that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// It has no default and is not set.
    #[error("{0} is not set; the injector sets it, and so must you when you start the proxy by hand")]
    Missing(&'static str),
    /// Its value is not of the right form.
    #[error("{name}={value:?} cannot be used: write {wanted}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// The access log's lines have no such form.
    #[error("LENO_ACCESS_LOG_FORMAT cannot be used: {0}")]
    Format(#[from] InvalidFormat),
}

struct Variables(BTreeMap<String, String>);

impl Variables {
    /// An empty value counts as not set.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn required(&self, name: &'static str) -> Result<&str, EnvironmentError> {
        self.get(name).ok_or(EnvironmentError::Missing(name))
    }

    fn parsed<T: FromStr>(&self, name: &'static str, default: T, wanted: &'static str) -> Result<T, EnvironmentError> {
        self.get(name).map_or(Ok(default), |value| value.parse().map_err(|_invalid| invalid(name, value, wanted)))
    }

    fn within<T: FromStr + PartialOrd>(
        &self,
        name: &'static str,
        default: T,
        range: std::ops::RangeInclusive<T>,
        wanted: &'static str,
    ) -> Result<T, EnvironmentError> {
        let value = self.parsed(name, default, wanted)?;
        if range.contains(&value) { Ok(value) } else { Err(invalid(name, self.get(name).unwrap_or_default(), wanted)) }
    }
}

fn invalid(name: &'static str, value: &str, wanted: &'static str) -> EnvironmentError {
    EnvironmentError::Invalid { name, value: value.to_owned(), wanted }
}

impl Environment {
    /// Reads the variables of the module's table.
    pub fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, EnvironmentError> {
        let variables = Variables(variables.into_iter().collect());
        let workload = WorkloadId::new(variables.required("LENO_POD_NAMESPACE")?, variables.required("LENO_POD_NAME")?);
        let source = variables.get("LENO_WORKLOAD").map_or_else(|| Name::clone(&workload.name), Name::from);
        let control_ca = match (variables.get("LENO_CONTROL_CA"), variables.get("LENO_CONTROL_CA_FILE")) {
            (Some(pem), _) => ControlCa::Pem(pem.to_owned()),
            (None, Some(file)) => ControlCa::File(file.to_owned()),
            (None, None) => return Err(EnvironmentError::Missing("LENO_CONTROL_CA")),
        };
        let control_address = variables.get("LENO_CONTROL_ADDRESS").unwrap_or("leno-controller.leno-system.svc:15110");
        if !control_address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            return Err(invalid("LENO_CONTROL_ADDRESS", control_address, "HOST:PORT"));
        }
        let admin = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), ADMIN_PORT);
        let drain = variables.within("LENO_DRAIN_SECONDS", 25, 0..=DRAIN_SECONDS_MAX, "whole seconds from 0 to 3600")?;
        Ok(Self {
            source,
            control_ca,
            control_address: control_address.to_owned(),
            pod_ip: variables.parsed("LENO_POD_IP", Ipv4Addr::LOCALHOST.into(), "an IP address")?,
            token_file: variables.get("LENO_TOKEN_FILE").map(PathBuf::from),
            probes: Arc::new(variables.parsed("LENO_PROBES", Probes::default(), "PORT/PATH, separated by commas")?),
            cluster_domain: variables.get("LENO_CLUSTER_DOMAIN").unwrap_or("cluster.local").into(),
            intercept: intercept(&variables)?,
            services: pairs(&variables, "LENO_SERVICES", "NAMESPACE/NAME:PORT=ADDRESS:PORT, separated by commas")?,
            inbound: pairs(&variables, "LENO_INBOUND", "PORT=ADDRESS:PORT, separated by commas")?,
            admin: variables.parsed("LENO_ADMIN_ADDRESS", admin, "ADDRESS:PORT, for example 127.0.0.1:15120")?,
            admin_probes: admin_probes(&variables)?,
            workers: variables.within("LENO_PROXY_WORKERS", 1, 1..=WORKERS_MAX, "a number from 1 to 64")?,
            access_log: access_log(&variables)?,
            tracing: tracing(&variables)?,
            drain: Duration::from_secs(drain),
            workload,
        })
    }
}

fn admin_probes(variables: &Variables) -> Result<Vec<Name>, EnvironmentError> {
    let list = variables.get("LENO_ADMIN_PROBES").unwrap_or_default();
    let probes: Vec<Name> = list.split_ascii_whitespace().map(Name::from).collect();
    match probes.iter().find(|probe| !probe::is_well_formed(probe)) {
        Some(bad) => Err(invalid("LENO_ADMIN_PROBES", bad, "SCHEME/PORT/TARGET, for example https/8443/healthz")),
        None => Ok(probes),
    }
}

fn access_log(variables: &Variables) -> Result<LogSettings, EnvironmentError> {
    Ok(LogSettings {
        mode: variables.parsed("LENO_ACCESS_LOG", AccessLogMode::default(), "all, errors or off")?,
        share: variables.parsed("LENO_ACCESS_LOG_SAMPLING", Percentage::ALL, PERCENTAGE)?,
        format: variables.get("LENO_ACCESS_LOG_FORMAT").unwrap_or("json").parse()?,
    })
}

fn tracing(variables: &Variables) -> Result<Option<Tracing>, EnvironmentError> {
    const ENDPOINT: &str = "LENO_OTLP_ENDPOINT";
    let Some(endpoint) = variables.get(ENDPOINT) else { return Ok(None) };
    Ok(Some(Tracing {
        endpoint: endpoint.parse().map_err(|_invalid| invalid(ENDPOINT, endpoint, "http://HOST:PORT"))?,
        protocol: variables.parsed("LENO_OTLP_PROTOCOL", Protocol::default(), "grpc or http/protobuf")?,
        share: variables.parsed("LENO_TRACE_SAMPLING", Tracing::SHARE, PERCENTAGE)?,
        propagation: variables.parsed("LENO_TRACE_PROPAGATION", Propagation::default(), "W3C, B3 or both, separated by a comma")?,
    }))
}

fn intercept(variables: &Variables) -> Result<bool, EnvironmentError> {
    match variables.get("LENO_INTERCEPT") {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(invalid("LENO_INTERCEPT", other, "on or off")),
    }
}

/// A list of `WHAT=ADDRESS:PORT`.
fn pairs<T: FromStr>(variables: &Variables, name: &'static str, wanted: &'static str) -> Result<Vec<(T, SocketAddr)>, EnvironmentError> {
    let pair = |entry: &str| {
        let (what, address) = entry.split_once('=')?;
        Some((what.trim().parse().ok()?, address.trim().parse().ok()?))
    };
    let entries = variables.get(name).unwrap_or_default().split(',').filter(|entry| !entry.trim().is_empty());
    entries.map(|entry| pair(entry).ok_or_else(|| invalid(name, entry, wanted))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(extra: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        let base = [("LENO_POD_NAMESPACE", "shop"), ("LENO_POD_NAME", "web-1"), ("LENO_CONTROL_CA", "pem")];
        Environment::read(base.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let environment = read(&[]).unwrap();
        assert_eq!(environment.workload.to_string(), "shop/web-1");
        assert_eq!((&*environment.source, environment.workers, environment.intercept), ("web-1", 1, true));
    }

    #[test]
    fn services_are_read_as_a_list() {
        let environment = read(&[("LENO_SERVICES", "shop/payment:80=127.0.0.1:1800, shop/web:8080=[::1]:1")]).unwrap();
        let services: Vec<String> = environment.services.iter().map(|(id, address)| format!("{id} at {address}")).collect();
        assert_eq!(services, ["shop/payment:80 at 127.0.0.1:1800", "shop/web:8080 at [::1]:1"]);
    }

    #[test]
    fn ports_of_the_app_are_read_as_a_list() {
        let environment = read(&[("LENO_INBOUND", "8080=127.0.0.1:18080,9000=[::1]:1")]).unwrap();
        assert_eq!(environment.inbound, [(8080, "127.0.0.1:18080".parse().unwrap()), (9000, "[::1]:1".parse().unwrap())]);
    }

    #[test]
    fn requests_are_traced_where_there_is_a_collector() {
        assert_eq!(read(&[("LENO_TRACE_SAMPLING", "5")]).unwrap().tracing, None);
        let endpoint = ("LENO_OTLP_ENDPOINT", "http://otel:4317");
        let tracing = read(&[endpoint]).unwrap().tracing.unwrap();
        assert_eq!(
            (tracing.protocol, tracing.share.to_string(), tracing.propagation),
            (Protocol::Grpc, "1 %".to_owned(), Propagation::default())
        );
        let more = [("LENO_OTLP_PROTOCOL", "http/protobuf"), ("LENO_TRACE_SAMPLING", "0.5"), ("LENO_TRACE_PROPAGATION", "B3,W3C")];
        let tracing = read(&[endpoint, more[0], more[1], more[2]]).unwrap().tracing.unwrap();
        let said = (tracing.protocol.as_str(), tracing.share.to_string(), tracing.propagation.to_string());
        assert_eq!(said, ("http/protobuf", "0.5 %".to_owned(), "B3,W3C".to_owned()));
        for (name, _) in more {
            let error = read(&[endpoint, (name, "some")]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("write "), "{error}");
        }
    }

    #[test]
    fn a_bad_value_is_refused_with_what_to_write() {
        for (name, value) in [
            ("LENO_PROXY_WORKERS", "0"),
            ("LENO_PROXY_WORKERS", "many"),
            ("LENO_DRAIN_SECONDS", "-1"),
            ("LENO_INTERCEPT", "yes"),
            ("LENO_SERVICES", "payment=127.0.0.1:1"),
            ("LENO_INBOUND", "127.0.0.1:1"),
            ("LENO_INBOUND", "http=127.0.0.1:1"),
            ("LENO_ACCESS_LOG", "some"),
            ("LENO_ACCESS_LOG_SAMPLING", "101"),
            ("LENO_ACCESS_LOG_FORMAT", "%{verb}"),
            ("LENO_ADMIN_PROBES", "https/8443/ok tcp/1/"),
            ("LENO_ADMIN_PROBES", "https/8443"),
            ("LENO_OTLP_ENDPOINT", "otel:4317"),
            ("LENO_POD_IP", "here"),
            ("LENO_CONTROL_ADDRESS", "leno-controller"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("write "), "{error}");
        }
        assert_eq!(Environment::read([]), Err(EnvironmentError::Missing("LENO_POD_NAMESPACE")));
    }
}
