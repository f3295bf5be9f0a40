//! The controller's flags.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::inject;

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

    /// The injector's configuration. The CA is added when it is known.
    pub fn injector(&self) -> inject::Config {
        let proxy = self.proxy.clone();
        let control_address = proxy.control_address.unwrap_or_else(|| format!("{}:{CONTROL_PORT}", self.service_name()));
        inject::Config {
            proxy_image: proxy.proxy_image,
            image_pull_policy: proxy.proxy_image_pull_policy,
            control_address,
            cluster_domain: self.cluster_domain.clone(),
            control_ca: String::new(),
            defaults: inject::Settings {
                cpu_request: proxy.proxy_cpu_request,
                cpu_limit: proxy.proxy_cpu_limit,
                memory_request: proxy.proxy_memory_request,
                memory_limit: proxy.proxy_memory_limit,
                log_level: Some(proxy.proxy_log_level),
                access_log: Some(proxy.proxy_access_log),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_what_pods_get() {
        let flags = ["leno-controller", "--namespace=mesh", "--proxy-image=p:1", "--proxy-cpu-limit=1", "--proxy-access-log=off"];
        let settings = Settings::try_parse_from(flags).unwrap();
        let config = settings.injector();
        assert_eq!(config.control_address, "leno-controller.mesh.svc:15110");
        assert_eq!((config.proxy_image.as_str(), config.defaults.cpu_limit.as_deref()), ("p:1", Some("1")));
        assert_eq!(config.defaults.access_log.as_deref(), Some("off"));
        assert!(settings.names().contains(&"leno-controller.mesh.svc.cluster.local".to_owned()));
    }

    #[test]
    fn a_bad_flag_is_refused_in_words() {
        let error = Settings::try_parse_from(["leno-controller", "--proxy-cpu-limit=lots"]).unwrap_err().to_string();
        assert!(error.contains("write a Kubernetes quantity"), "{error}");
    }
}
