//! The controller's flags.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use ipnet::IpNet;
use jiff::SignedDuration;
use leno_core::access_log;
use leno_core::authorize::{Mode, Posture};
use leno_core::names::{Identity, Name};
use leno_core::percentage::Percentage;
use leno_core::workload::Egress;
use leno_translate::Defaults;

use crate::ca::authority::Domains;
use crate::inject;
use crate::tracing_flags::TracingFlags;

/// Name of the Service, the Lease and the Deployment.
pub const NAME: &str = "leno-controller";
/// Name of the Secret with the certificates.
pub const SECRET: &str = "leno-controller-tls";
/// Name of the MutatingWebhookConfiguration.
pub const WEBHOOK: &str = "leno-injector";
/// Port of the control stream.
pub const CONTROL_PORT: u16 = 15110;

/// Leno's controller: watches the cluster, serves configuration to proxies, injects sidecars and writes status.
#[derive(Clone, Debug, Parser)]
#[command(name = "leno-controller", version)]
pub struct Settings {
    /// Kubeconfig file; default: the service account of the pod, else $KUBECONFIG or ~/.kube/config.
    #[arg(long, env = "LENO_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Folder of manifests to serve instead of a cluster: nothing is injected and no status is written.
    #[arg(long, conflicts_with = "kubeconfig")]
    pub folder: Option<PathBuf>,

    /// Namespace that the controller runs in.
    #[arg(long, env = "LENO_NAMESPACE", default_value = "leno-system")]
    pub namespace: String,

    /// Name of this replica.
    #[arg(long, env = "LENO_POD_NAME", default_value = NAME)]
    pub pod_name: String,

    /// Address of this replica, by which it tells itself from the others.
    #[arg(long, env = "LENO_POD_IP")]
    pub pod_ip: Option<IpAddr>,

    /// Domain of the cluster's DNS.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,

    /// The SPIFFE trust domain of this mesh: the first part of every identity.
    #[arg(long, default_value = leno_translate::defaults::TRUST_DOMAIN, value_parser = trust_domain)]
    pub trust_domain: Name,

    /// A further trust domain whose peers are let in, if a trusted root vouches for them. May be given several times.
    #[arg(long = "trusted-domain", value_name = "TRUST-DOMAIN", value_parser = trust_domain)]
    pub trusted_domains: Vec<Name>,

    /// Life of a proxy's certificate, at least 1m. Proxies renew them long before.
    #[arg(long, default_value = "24h", value_parser = certificate_life)]
    pub certificate_life: SignedDuration,

    /// Whether callers must prove who they are, where no SecurityPolicy says: Permissive, Strict or Disabled.
    #[arg(long, default_value = "Permissive", value_parser = mode)]
    pub mtls_mode: Mode,

    /// Whether callers that no SecurityPolicy speaks of may pass: Allow or Deny.
    #[arg(long, default_value = "Allow", value_parser = posture)]
    pub authorization_default: Posture,

    /// Where apps may connect to outside the cluster, where no SecurityPolicy says: Allow (anywhere) or RegisteredOnly.
    #[arg(long, default_value = "Allow", value_parser = egress)]
    pub egress_mode: Egress,

    /// A network of this cluster's pods, such as 10.244.0.0/16: under RegisteredOnly its addresses may be dialled as they are. May be
    /// given several times.
    #[arg(long = "cluster-network", value_name = "CIDR", value_parser = network)]
    pub cluster_networks: Vec<IpNet>,

    /// Tokens by which proxies of the folder get certificates, a line each: TOKEN NAMESPACE/WORKLOAD SERVICE-ACCOUNT. Without it
    /// identities are not in use there.
    #[arg(long, requires = "folder")]
    pub token_file: Option<PathBuf>,

    /// Where proxies connect for their configuration (gRPC over TLS).
    #[arg(long, default_value = "[::]:15110")]
    pub control_listen: SocketAddr,

    /// Where the API server reaches the webhook (HTTPS).
    #[arg(long, default_value = "[::]:8443")]
    pub webhook_listen: SocketAddr,

    /// Where /healthz, /readyz and /metrics are served (HTTP).
    #[arg(long, default_value = "[::]:9090")]
    pub admin_listen: SocketAddr,

    /// Runs without the webhook: nothing is injected, and no webhook configuration is touched.
    #[arg(long)]
    pub no_webhook: bool,

    /// Runs without election: this replica writes no status.
    #[arg(long)]
    pub no_status: bool,

    /// Where certificates are kept. `memory` is for running outside a cluster: each start makes a new CA.
    #[arg(long, value_enum, default_value_t = Certificates::Secret)]
    pub certificates: Certificates,

    /// Writes the CA certificate to this file, for clients outside the cluster.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,

    /// Further DNS names or IP addresses that the certificate is for.
    #[arg(long = "tls-name", value_name = "NAME")]
    pub tls_names: Vec<String>,

    /// What is logged: error, warn, info, debug, trace, or directives such as leno_controller=debug.
    #[arg(long, env = "LENO_LOG", default_value = "info")]
    pub log: String,

    /// How it is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,

    #[command(flatten)]
    tracing: TracingFlags,

    #[command(flatten)]
    proxy: Proxy,
}

/// Where certificates are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Certificates {
    /// In a Secret that all replicas share.
    Secret,
    /// In this process.
    Memory,
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// What pods get that ask for a sidecar.
#[derive(Clone, Debug, clap::Args)]
struct Proxy {
    /// Image of the proxy.
    #[arg(long, default_value = concat!("leno/proxy:", env!("CARGO_PKG_VERSION")))]
    proxy_image: String,
    /// Always, IfNotPresent or Never.
    #[arg(long, value_parser = ["Always", "IfNotPresent", "Never"])]
    proxy_image_pull_policy: Option<String>,
    /// Address of the control stream as pods reach it; default: the controller's Service.
    #[arg(long)]
    control_address: Option<String>,
    /// CPU reserved for a sidecar.
    #[arg(long, value_parser = quantity)]
    proxy_cpu_request: Option<String>,
    /// CPU a sidecar may use at most.
    #[arg(long, value_parser = quantity)]
    proxy_cpu_limit: Option<String>,
    /// Memory reserved for a sidecar.
    #[arg(long, value_parser = quantity)]
    proxy_memory_request: Option<String>,
    /// Memory a sidecar may use at most.
    #[arg(long, value_parser = quantity)]
    proxy_memory_limit: Option<String>,
    /// What a sidecar logs.
    #[arg(long, default_value = "info", value_parser = ["error", "warn", "info", "debug", "trace"])]
    proxy_log_level: String,
    /// Which requests a sidecar logs.
    #[arg(long, default_value = "errors", value_parser = ["all", "errors", "off"])]
    proxy_access_log: String,
    /// Percentage of the requests that `all` logs of those that did not fail.
    #[arg(long, default_value = "100", value_parser = percentage)]
    proxy_access_log_sampling: String,
    /// How a sidecar logs a request: json, or a template such as '%{method} %{path} %{status}'.
    #[arg(long, default_value = "json", value_parser = log_line)]
    proxy_access_log_format: String,
    /// Worker threads of a sidecar.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    proxy_workers: u16,
    /// How long a sidecar lets running requests end, in seconds.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(0..=3600))]
    proxy_drain_seconds: u16,
}

impl Settings {
    /// The names that the serving certificate is for.
    pub fn names(&self) -> Vec<String> {
        let (namespace, domain) = (&self.namespace, &self.cluster_domain);
        let mut names =
            vec![self.service_name(), format!("{NAME}.{namespace}"), format!("{NAME}.{namespace}.svc.{domain}"), "localhost".to_owned()];
        names.extend(self.tls_names.iter().cloned());
        names
    }

    /// The name by which replicas, proxies and the API server call the controller.
    pub fn service_name(&self) -> String {
        format!("{NAME}.{}.svc", self.namespace)
    }

    /// What holds for the whole mesh where no object says otherwise.
    pub fn defaults(&self) -> Defaults {
        Defaults {
            cluster_domain: self.cluster_domain.as_str().into(),
            trust_domain: self.trust_domain.clone(),
            mode: self.mtls_mode,
            posture: self.authorization_default,
            holds_unknown_pods: self.folder.is_none(),
            egress: self.egress_mode,
            inside: self.cluster_networks.clone(),
        }
    }

    /// Whose identities are issued and let in.
    pub fn domains(&self) -> Domains {
        Domains { own: self.trust_domain.clone(), also: self.trusted_domains.clone() }
    }

    /// The injector's configuration. The CA is added when it is known.
    pub fn injector(&self) -> inject::Config {
        let (proxy, tracing) = (self.proxy.clone(), self.tracing.clone());
        let control_address = proxy.control_address.unwrap_or_else(|| format!("{}:{CONTROL_PORT}", self.service_name()));
        inject::Config {
            proxy_image: proxy.proxy_image,
            image_pull_policy: proxy.proxy_image_pull_policy,
            control_address,
            cluster_domain: self.cluster_domain.clone(),
            control_ca: String::new(),
            tracing: tracing.otlp_endpoint.map(|endpoint| inject::Tracing {
                endpoint,
                protocol: tracing.otlp_protocol,
                propagation: tracing.trace_propagation,
            }),
            defaults: inject::Settings {
                trace_sampling: tracing.trace_sampling.map(|share| share.percent().to_string()),
                cpu_request: proxy.proxy_cpu_request,
                cpu_limit: proxy.proxy_cpu_limit,
                memory_request: proxy.proxy_memory_request,
                memory_limit: proxy.proxy_memory_limit,
                log_level: Some(proxy.proxy_log_level),
                access_log: Some(proxy.proxy_access_log),
                access_log_sampling: Some(proxy.proxy_access_log_sampling),
                access_log_format: Some(proxy.proxy_access_log_format),
                workers: Some(proxy.proxy_workers),
                drain_seconds: Some(proxy.proxy_drain_seconds),
                ..inject::Settings::default()
            },
        }
    }
}

fn quantity(text: &str) -> Result<String, String> {
    if inject::annotations::is_quantity(text) {
        Ok(text.to_owned())
    } else {
        Err("write a Kubernetes quantity such as 100m, 0.5 or 64Mi".to_owned())
    }
}

fn percentage(text: &str) -> Result<String, String> {
    text.parse::<Percentage>().map(|_| text.to_owned()).map_err(|_invalid| format!("write {}", inject::annotations::PERCENTAGE))
}

fn log_line(text: &str) -> Result<String, String> {
    text.parse::<access_log::Format>().map(|_| text.to_owned()).map_err(|invalid| invalid.to_string())
}

/// What a SPIFFE ID takes as trust domain (SPIFFE ID specification, section 2.1).
fn trust_domain(text: &str) -> Result<Name, String> {
    let fits = format!("spiffe://{text}/ns/none/sa/none").parse::<Identity>().is_ok();
    if fits && !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Ok(text.into())
    } else {
        Err("write a domain of lower-case letters, digits, dots, dashes and underscores, such as cluster.local".to_owned())
    }
}

/// Shortest life of a proxy's certificate: shorter ones are renewed without pause.
const LIFE_MIN: SignedDuration = SignedDuration::from_mins(1);
/// Longest: a stolen certificate cannot be called back.
const LIFE_MAX: SignedDuration = SignedDuration::from_hours(24 * 90);

fn certificate_life(text: &str) -> Result<SignedDuration, String> {
    let life = leno_api::Duration(text.to_owned()).parse().map_err(|error| error.to_string())?;
    let life = SignedDuration::try_from(life).map_err(|error| error.to_string())?;
    if (LIFE_MIN..=LIFE_MAX).contains(&life) { Ok(life) } else { Err("write a time from 1m to 2160h".to_owned()) }
}

fn egress(text: &str) -> Result<Egress, String> {
    match text {
        "Allow" => Ok(Egress::Allow),
        "RegisteredOnly" => Ok(Egress::RegisteredOnly),
        _ => Err("write Allow or RegisteredOnly".to_owned()),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().ok().ok_or_else(|| "write a network such as 10.244.0.0/16".to_owned())?;
    Ok(parsed.trunc())
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "Permissive" => Ok(Mode::Permissive),
        "Strict" => Ok(Mode::Strict),
        "Disabled" => Ok(Mode::Disabled),
        _ => Err("write Permissive, Strict or Disabled".to_owned()),
    }
}

fn posture(text: &str) -> Result<Posture, String> {
    match text {
        "Allow" => Ok(Posture::Allow),
        "Deny" => Ok(Posture::Deny),
        _ => Err("write Allow or Deny".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use leno_core::trace::collector::Protocol;

    use super::*;

    #[test]
    fn flags_become_what_pods_get() {
        let flags = ["leno-controller", "--namespace=mesh", "--proxy-image=p:1", "--proxy-cpu-limit=1", "--proxy-access-log=off"];
        let settings = Settings::try_parse_from(flags).unwrap();
        let config = settings.injector();
        assert_eq!(config.control_address, "leno-controller.mesh.svc:15110");
        assert_eq!((config.proxy_image.as_str(), config.defaults.cpu_limit.as_deref()), ("p:1", Some("1")));
        let log = &config.defaults;
        assert_eq!(
            (log.access_log.as_deref(), log.access_log_sampling.as_deref(), log.access_log_format.as_deref()),
            (Some("off"), Some("100"), Some("json"))
        );
        assert!(settings.names().contains(&"leno-controller.mesh.svc.cluster.local".to_owned()));
    }

    #[test]
    fn flags_of_identity_hold_for_the_whole_mesh() {
        let flags = ["--trust-domain=example.org", "--trusted-domain=a.example", "--trusted-domain=b.example"];
        let more = ["--certificate-life=1h30m", "--mtls-mode=Strict", "--authorization-default=Deny", "--egress-mode=RegisteredOnly"];
        let more = more.into_iter().chain(["--cluster-network=10.244.1.0/16"]);
        let settings = Settings::try_parse_from(["leno-controller"].into_iter().chain(flags).chain(more)).unwrap();
        assert_eq!(settings.domains(), Domains { own: "example.org".into(), also: vec!["a.example".into(), "b.example".into()] });
        let Defaults { trust_domain, mode, posture, egress, inside, .. } = settings.defaults();
        assert_eq!((&*trust_domain, mode, posture), ("example.org", Mode::Strict, Posture::Deny));
        assert_eq!((egress, inside), (Egress::RegisteredOnly, vec!["10.244.0.0/16".parse().unwrap()]));
        assert_eq!(settings.certificate_life, SignedDuration::from_mins(90));
        let plain = Settings::try_parse_from(["leno-controller"]).unwrap();
        assert_eq!(plain.defaults(), Defaults { holds_unknown_pods: true, ..Defaults::new("cluster.local") });
        assert_eq!(plain.certificate_life, SignedDuration::from_hours(24));
    }

    #[test]
    fn flags_of_tracing_become_what_pods_get() {
        let config = |flags: &[&str]| Settings::try_parse_from(["leno-controller"].iter().chain(flags)).unwrap().injector();
        assert_eq!(config(&[]).tracing, None);
        let traced = config(&["--otlp-endpoint=http://otel.obs:4318", "--otlp-protocol=http/protobuf", "--trace-sampling=0.5"]);
        let tracing = traced.tracing.unwrap();
        assert_eq!((tracing.endpoint.to_string().as_str(), tracing.protocol), ("http://otel.obs:4318", Protocol::Http));
        assert_eq!((tracing.propagation.to_string().as_str(), traced.defaults.trace_sampling.as_deref()), ("W3C", Some("0.5")));
    }

    #[test]
    fn a_bad_flag_is_refused_in_words() {
        let cases = [
            ("--proxy-cpu-limit=lots", "write a Kubernetes quantity"),
            ("--trust-domain=Example.org", "write a domain of lower-case letters"),
            ("--trusted-domain=a/b", "write a domain of lower-case letters"),
            ("--certificate-life=59s", "write a time from 1m to 2160h"),
            ("--certificate-life=1d", "is not a duration"),
            ("--mtls-mode=strict", "write Permissive, Strict or Disabled"),
            ("--authorization-default=deny", "write Allow or Deny"),
            ("--egress-mode=Deny", "write Allow or RegisteredOnly"),
            ("--cluster-network=10.0.0.1", "write a network such as"),
            ("--token-file=tokens", "--folder"),
            ("--otlp-endpoint=otel:4317", "write http://HOST:PORT"),
            ("--otlp-protocol=http", "write grpc or http/protobuf"),
            ("--trace-sampling=101", "write a number from 0 to 100"),
            ("--trace-propagation=w3c", "write W3C, B3 or both"),
            ("--proxy-access-log-sampling=most", "write a number from 0 to 100"),
            ("--proxy-access-log-format=%{verb}", "%{verb} is no field of the access log: write one of time, direction"),
        ];
        for (flag, text) in cases {
            let error = Settings::try_parse_from(["leno-controller", flag]).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
