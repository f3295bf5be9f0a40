//! What a pod's annotations may set, read strictly: a value that cannot be used refuses the pod, in words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use leno_core::access_log::Format;
use leno_core::percentage::Percentage;

/// Whether the pod wants a sidecar.
pub const INJECT: &str = "leno.dev/inject";
/// Most entries of a list of ports or networks; `leno-proxy init` has the same limit.
pub const ENTRIES_MAX: usize = 64;

const INBOUND_PORTS: &str = "leno.dev/exclude-inbound-ports";
const OUTBOUND_PORTS: &str = "leno.dev/exclude-outbound-ports";
const OUTBOUND_CIDRS: &str = "leno.dev/exclude-outbound-cidrs";
const WEIGHT: &str = "leno.dev/weight";

/// How a pod's sidecar is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Instead of the configured image.
    pub image: Option<String>,
    /// CPU the scheduler reserves.
    pub cpu_request: Option<String>,
    /// CPU it may use at most.
    pub cpu_limit: Option<String>,
    /// Memory the scheduler reserves.
    pub memory_request: Option<String>,
    /// Memory it may use at most.
    pub memory_limit: Option<String>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: Option<String>,
    /// `all`, `errors` or `off`.
    pub access_log: Option<String>,
    /// Percentage of the requests that `all` logs of those that did not fail.
    pub access_log_sampling: Option<String>,
    /// `json`, or a template.
    pub access_log_format: Option<String>,
    /// Percentage of the traces that are kept, where requests are traced.
    pub trace_sampling: Option<String>,
    /// Worker threads.
    pub workers: Option<u16>,
    /// How long running requests may take to end once the pod stops.
    pub drain_seconds: Option<u16>,
    /// How long the app goes on after its pod is told to end; 0: not at all.
    pub stop_delay_seconds: Option<u16>,
    /// Ports of the pod that are reached directly.
    pub exclude_inbound_ports: Vec<u16>,
    /// Ports that the pod reaches directly.
    pub exclude_outbound_ports: Vec<u16>,
    /// Networks that the pod reaches directly.
    pub exclude_outbound_cidrs: Vec<IpNet>,
}

/// An annotation (or label) that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name} is {value:?}: write {write}")]
pub struct InvalidAnnotation {
    /// Its key.
    pub name: &'static str,
    /// What it says.
    pub value: String,
    /// What it may say.
    pub write: &'static str,
}

/// Whether an annotation or label of the pod says `disabled`, which outweighs every `enabled`.
///
/// # Errors
/// When one of them says something else than `enabled` or `disabled`.
pub fn opted_out(pod: &Pod) -> Result<bool, InvalidAnnotation> {
    let mut out = false;
    for map in [&pod.metadata.annotations, &pod.metadata.labels] {
        match map.as_ref().and_then(|map| map.get(INJECT)).map(String::as_str) {
            None | Some("enabled") => (),
            Some("disabled") => out = true,
            Some(other) => {
                return Err(InvalidAnnotation { name: INJECT, value: other.into(), write: "enabled or disabled" });
            }
        }
    }
    Ok(out)
}

impl Settings {
    /// These settings with what the annotations of `pod` say in their place.
    ///
    /// # Errors
    /// When an annotation cannot be used.
    pub fn overridden_by(mut self, pod: &Pod) -> Result<Self, InvalidAnnotation> {
        let empty = BTreeMap::new();
        let read = Reader(pod.metadata.annotations.as_ref().unwrap_or(&empty));
        const QUANTITY: &str = "a Kubernetes quantity such as 100m, 0.5 or 64Mi";
        for (slot, name) in [
            (&mut self.cpu_request, "leno.dev/proxy-cpu-request"),
            (&mut self.cpu_limit, "leno.dev/proxy-cpu-limit"),
            (&mut self.memory_request, "leno.dev/proxy-memory-request"),
            (&mut self.memory_limit, "leno.dev/proxy-memory-limit"),
        ] {
            read.set(slot, name, QUANTITY, |text| is_quantity(text).then(|| text.to_owned()))?;
        }
        read.set(&mut self.image, "leno.dev/proxy-image", "an image reference such as registry.example/leno-proxy:0.1.0", image)?;
        read.set(&mut self.log_level, "leno.dev/log-level", "error, warn, info, debug or trace", |text| {
            one_of(text, &["error", "warn", "info", "debug", "trace"])
        })?;
        read.set(&mut self.access_log, "leno.dev/access-log", "all, errors or off", |text| one_of(text, &["all", "errors", "off"]))?;
        read.set(&mut self.access_log_sampling, "leno.dev/access-log-sampling", PERCENTAGE, percentage)?;
        const FORMAT: &str = "json, or a template with the names of the access log's fields, such as %{method} %{path} %{status}";
        read.set(&mut self.access_log_format, "leno.dev/access-log-format", FORMAT, access_log_format)?;
        read.set(&mut self.trace_sampling, "leno.dev/trace-sampling", PERCENTAGE, percentage)?;
        read.set(&mut self.workers, "leno.dev/proxy-workers", "a number from 1 to 64", |text| number(text, 1, 64))?;
        read.set(&mut self.drain_seconds, "leno.dev/drain-seconds", "a number of seconds from 0 to 3600", |text| number(text, 0, 3600))?;
        read.set(&mut self.stop_delay_seconds, "leno.dev/stop-delay-seconds", "a number of seconds from 0 to 60", |text| {
            number(text, 0, 60)
        })?;
        const PORTS: &str = "at most 64 ports from 1 to 65535 separated by commas, such as 5432,6379";
        read.list(&mut self.exclude_inbound_ports, INBOUND_PORTS, PORTS, |text| number(text, 1, u16::MAX))?;
        read.list(&mut self.exclude_outbound_ports, OUTBOUND_PORTS, PORTS, |text| number(text, 1, u16::MAX))?;
        // Not the sidecar's: the share of requests that the pod gets. A slip is told here, where the pod is made.
        read.set(&mut None, WEIGHT, "a whole number from 0 to 1000 (pods without it have 100)", |text| number(text, 0, 1000))?;
        const NETS: &str = "at most 64 networks separated by commas, such as 10.0.0.0/8,2001:db8::/32,192.0.2.7";
        read.list(&mut self.exclude_outbound_cidrs, OUTBOUND_CIDRS, NETS, network)?;
        Ok(self)
    }
}

struct Reader<'a>(&'a BTreeMap<String, String>);

impl Reader<'_> {
    /// Puts what the annotation says, if it is there, into `slot`.
    fn set<T>(
        &self,
        slot: &mut Option<T>,
        name: &'static str,
        write: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<(), InvalidAnnotation> {
        let Some(value) = self.0.get(name) else { return Ok(()) };
        let parsed = parse(value.trim()).ok_or_else(|| InvalidAnnotation { name, value: value.clone(), write })?;
        *slot = Some(parsed);
        Ok(())
    }

    /// The same for a list separated by commas. What the annotation says replaces what was there; it may be empty.
    fn list<T: Ord>(
        &self,
        slot: &mut Vec<T>,
        name: &'static str,
        write: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<(), InvalidAnnotation> {
        let Some(value) = self.0.get(name) else { return Ok(()) };
        let entries = value.split(',').map(str::trim).filter(|text| !text.is_empty());
        let parsed: Option<Vec<T>> = entries.map(parse).collect();
        let mut parsed = parsed.ok_or_else(|| InvalidAnnotation { name, value: value.clone(), write })?;
        parsed.sort();
        parsed.dedup();
        if parsed.len() > ENTRIES_MAX {
            return Err(InvalidAnnotation { name, value: value.clone(), write });
        }
        *slot = parsed;
        Ok(())
    }
}

fn one_of(text: &str, words: &[&str]) -> Option<String> {
    words.contains(&text).then(|| text.to_owned())
}

/// What a percentage may be.
pub const PERCENTAGE: &str = "a number from 0 to 100, such as 5 or 0.1";

fn percentage(text: &str) -> Option<String> {
    text.parse::<Percentage>().ok().map(|_| text.to_owned())
}

fn access_log_format(text: &str) -> Option<String> {
    text.parse::<Format>().ok().map(|_| text.to_owned())
}

fn number(text: &str, min: u16, max: u16) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (min..=max).contains(number))
}

fn network(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(net.trunc())
}

fn image(text: &str) -> Option<String> {
    let good = !text.is_empty() && text.len() <= 512 && text.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| text.to_owned())
}

/// Whether `text` is a positive quantity: a decimal number with an optional SI or binary suffix.
pub fn is_quantity(text: &str) -> bool {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && digits(decimals) && suffixes.contains(&suffix)
}
