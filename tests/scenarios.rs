//! Scenarios: each folder of `tests/scenarios` shows one behaviour from the manifests to the decisions.
//!
//! A folder holds `manifests.yaml` (objects, applied in order; the same object again is an update) and `requests.yaml`. From these
//! follow `model.yaml` (services, endpoints, workloads, guards), `resources.yaml` (what the control stream carries), `decisions.yaml`
//! (where each request goes and whether it may pass there, and why) and `reports.yaml` (what people are told). `UPDATE_SCENARIOS=1 cargo test --test scenarios`
//! writes them anew; the difference is for a reviewer to read.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use leno_api as api;
use leno_core::authorize::{self as access, Call, Claims, Guard, Issuer, Mode, PathRule, Policy, Source, authorize};
use leno_core::balance::Balancing;
use leno_core::balance::weighing::EndpointWeight;
use leno_core::endpoints::{Endpoint, EndpointsId};
use leno_core::filters::Asked;
use leno_core::limits::Limits;
use leno_core::matching::{Match, Mismatch, PathMatch, ValueMatch};
use leno_core::names::{Identity, Name, ServiceId, WorkloadId, split_authority};
use leno_core::path::normalise;
use leno_core::request::{Caller, RequestHead, split_target};
use leno_core::resilience::Resilience;
use leno_core::retry::{Reason, Retry};
use leno_core::route::{Backend, Decision, Rule, Target, Trace, decide, decide_connection};
use leno_core::service::Service;
use leno_core::workload::Workload;
use leno_translate::{Change, Defaults, Object, Report, Translator};
use leno_xds::{decode, encode};
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

/// One line of `requests.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// What it shows.
    name: String,
    /// The caller, NAMESPACE/NAME.
    #[serde(default = "web")]
    from: String,
    /// `METHOD http://host[:port]/path?query`, or `CONNECT host:port` for bytes that are not looked at.
    request: String,
    /// The address it was sent to, when not to a name that the mesh is asked for.
    to: Option<SocketAddr>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Who the caller proves to be (spiffe://…), where it does.
    #[serde(rename = "as", default, deserialize_with = "identity")]
    identity: Option<Identity>,
    /// The address that its connection comes from.
    #[serde(default = "nowhere", rename = "fromIp")]
    source: IpAddr,
    /// Claims of its verified token, where it has one.
    claims: Option<Claims>,
    /// How many draws to judge, from 0 on: the shares of the destinations are counted.
    #[serde(default = "once")]
    draws: u64,
}

fn web() -> String {
    "shop/web".to_owned()
}

fn once() -> u64 {
    1
}

fn identity<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Identity>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(serde::de::Error::custom)
}

fn nowhere() -> IpAddr {
    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
}

#[test]
fn every_scenario_gives_what_its_folder_says() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut folders: Vec<PathBuf> = fs::read_dir(&root)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    ensure!(folders.len() >= 28, "only {} scenarios were found in {}", folders.len(), root.display());
    let mut different = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for difference in run(&folder).with_context(|| format!("scenario {name}"))? {
            different.push(format!("{name}/{difference}"));
        }
    }
    ensure!(different.is_empty(), "{}\nIf this is what you want: UPDATE_SCENARIOS=1 cargo test --test scenarios", different.join("\n"));
    Ok(())
}

/// Runs one scenario; gives its files that say something else.
fn run(folder: &Path) -> Result<Vec<String>> {
    let mut translator = Translator::new(Defaults::new("cluster.local"));
    let mut workloads = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&fs::read_to_string(folder.join("manifests.yaml"))?) {
        let object = object(Value::deserialize(document)?)?;
        if let Object::Pod(_) | Object::Workload(_) = object {
            let key = object.key();
            workloads.push(WorkloadId::new(key.namespace, key.name));
        }
        translator.apply(Change::Apply(object));
    }
    let model = Model::of(&translator, workloads);
    let requests: Vec<Request> = serde_yaml::from_str(&fs::read_to_string(folder.join("requests.yaml"))?)?;
    let decisions: Vec<Judged> = requests.iter().map(|it| judge(&translator, it).context(it.name.clone())).collect::<Result<_>>()?;
    let reports: BTreeMap<String, ReportText> =
        translator.reported().filter_map(|key| Some((key.to_string(), report(&translator.report(&key)?)))).collect();
    let mut different = Vec::new();
    different.extend(compare(&folder.join("model.yaml"), &model.text())?);
    different.extend(compare(&folder.join("resources.yaml"), &model.resources()?)?);
    different.extend(compare(&folder.join("decisions.yaml"), &decisions)?);
    different.extend(compare(&folder.join("reports.yaml"), &reports)?);
    Ok(different)
}

/// Holds `value` against the file at `path`, or writes it there.
fn compare(path: &Path, value: &impl Serialize) -> Result<Option<String>> {
    let text = serde_yaml::to_string(value)?;
    if env::var_os("UPDATE_SCENARIOS").is_some() {
        fs::write(path, text)?;
        return Ok(None);
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let known = fs::read_to_string(path).with_context(|| format!("{file} is missing: write it with UPDATE_SCENARIOS=1"))?;
    if known == text {
        return Ok(None);
    }
    let (mut old, mut new) = (known.lines(), text.lines());
    let mut line = 0;
    loop {
        line += 1;
        match (old.next(), new.next()) {
            (old, new) if old == new => (),
            (old, new) => return Ok(Some(format!("{file}:{line}\n  - {}\n  + {}", old.unwrap_or("(end)"), new.unwrap_or("(end)")))),
        }
    }
}

fn object(document: Value) -> Result<Object> {
    let kind = document.get("kind").and_then(Value::as_str).context("a document without kind")?.to_owned();
    Ok(match kind.as_str() {
        "Service" => Object::Service(serde_yaml::from_value::<api::k8s::Watched<_>>(document)?.object),
        "EndpointSlice" => Object::EndpointSlice(serde_yaml::from_value::<api::k8s::Watched<_>>(document)?.object),
        "Pod" => Object::Pod(serde_yaml::from_value::<api::k8s::Watched<_>>(document)?.object),
        "ReferenceGrant" => Object::ReferenceGrant(serde_yaml::from_value::<api::k8s::Watched<_>>(document)?.object),
        "MeshService" => Object::MeshService(serde_yaml::from_value(document)?),
        "TrafficPolicy" => Object::TrafficPolicy(serde_yaml::from_value(document)?),
        "SecurityPolicy" => Object::SecurityPolicy(serde_yaml::from_value(document)?),
        "Workload" => Object::Workload(serde_yaml::from_value(document)?),
        _ => bail!("there is no kind {kind}"),
    })
}

// The model, and the resources that carry it.

struct Model {
    services: Vec<Service>,
    endpoints: Vec<leno_core::endpoints::Endpoints>,
    workloads: Vec<Workload>,
}

#[derive(Serialize)]
struct ModelText {
    services: BTreeMap<String, ServiceText>,
    endpoints: BTreeMap<String, Vec<String>>,
    workloads: BTreeMap<String, Vec<String>>,
    /// By service port: how one of the endpoints is chosen, where anything is said.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    balancing: BTreeMap<String, String>,
    /// By service port: how the endpoints are guarded, where anything is said.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    resilience: BTreeMap<String, Vec<String>>,
    /// By workload, then by port (`others` for those to which no service leads): what holds for callers, where it is not the default.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    guards: BTreeMap<String, BTreeMap<String, GuardText>>,
}

#[derive(Serialize)]
struct GuardText {
    mode: String,
    /// By policy and action: its rules.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    policies: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    issuers: Vec<String>,
}

#[derive(Serialize)]
struct ServiceText {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    ports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RuleText>,
}

#[derive(Serialize)]
struct RuleText {
    name: String,
    matches: Vec<String>,
    destinations: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mirrors: Vec<String>,
    /// What it does to requests and responses besides.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    filters: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<String>,
}

#[derive(Serialize)]
struct ResourceText {
    name: String,
    version: String,
    bytes: usize,
}

impl Model {
    fn of(translator: &Translator, mut workloads: Vec<WorkloadId>) -> Self {
        workloads.sort();
        workloads.dedup();
        let services: Vec<Service> = translator.services().filter_map(|id| translator.service(id)).collect();
        let ports = services.iter().flat_map(|service| service.ports.iter().map(|port| EndpointsId::new(service.id.clone(), port.port)));
        let endpoints = ports.filter_map(|id| translator.endpoints(&id)).collect();
        let workloads = workloads.iter().filter_map(|id| translator.workload(id)).collect();
        Self { services, endpoints, workloads }
    }

    fn text(&self) -> ModelText {
        let endpoints = self.endpoints.iter().map(|endpoints| {
            let line = |it: &leno_core::endpoints::Endpoint| {
                let identity = it.identity.as_ref().map(|identity| format!(" as {identity}")).unwrap_or_default();
                let zone = it.zone.as_ref().map(|zone| format!(" in {zone}")).unwrap_or_default();
                let weight = if it.weight == EndpointWeight::USUAL { String::new() } else { format!(" weight {}", it.weight) };
                format!("{} {} [{}]{weight}{zone}{identity}", it.address, or_dash(&it.workload), it.versions.join(", "))
            };
            (endpoints.id.to_string(), endpoints.endpoints.iter().map(line).collect())
        });
        let workloads = self.workloads.iter().map(|workload| {
            let line = |it: &leno_core::workload::InboundPort| {
                let version = or_dash(it.version.as_deref().unwrap_or_default());
                let concurrency = it.concurrency.map(|it| format!(" {it:?}")).unwrap_or_default();
                format!("{} {:?} for {} {version}{concurrency}", it.port, it.protocol, it.service)
            };
            (workload.id.to_string(), workload.inbound.iter().map(line).collect())
        });
        ModelText {
            services: self.services.iter().map(|service| (service.id.to_string(), service_text(service))).collect(),
            endpoints: endpoints.collect(),
            workloads: workloads.collect(),
            balancing: self.endpoints.iter().filter_map(balancing_text).collect(),
            resilience: self.endpoints.iter().filter_map(resilience_text).collect(),
            guards: self.workloads.iter().map(|it| (it.id.to_string(), guards(it))).filter(|(_, guards)| !guards.is_empty()).collect(),
        }
    }

    /// What the control stream carries; each is read back and held against the model.
    fn resources(&self) -> Result<Vec<ResourceText>> {
        let mut resources = Vec::new();
        for service in &self.services {
            let bytes = encode::encode_service(service);
            same(service, &decode::decode_service(&bytes)?)?;
            resources.push(resource(format!("Service {}", service.id), &bytes));
        }
        for endpoints in &self.endpoints {
            let bytes = encode::encode_endpoints(endpoints);
            same(endpoints, &decode::decode_endpoints(&bytes)?)?;
            resources.push(resource(format!("Endpoints {}", endpoints.id), &bytes));
        }
        for workload in &self.workloads {
            let bytes = encode::encode_workload(workload);
            same(workload, &decode::decode_workload(&bytes)?)?;
            resources.push(resource(format!("Workload {}", workload.id), &bytes));
        }
        Ok(resources)
    }
}

fn same<T: PartialEq + Debug>(sent: &T, received: &T) -> Result<()> {
    ensure!(sent == received, "the control stream changes {sent:?}\ninto {received:?}");
    Ok(())
}

fn resource(name: String, bytes: &[u8]) -> ResourceText {
    ResourceText { name, version: encode::version(bytes).to_string(), bytes: bytes.len() }
}

fn balancing_text(endpoints: &leno_core::endpoints::Endpoints) -> Option<(String, String)> {
    let Balancing { algorithm, slow_start, prefers_zone, affinity } = endpoints.balancing.as_deref()?;
    let slow_start = slow_start.map(|time| format!(", slow start in {time:?}")).unwrap_or_default();
    let sessions = affinity.as_ref().map(|affinity| format!(", sessions by {affinity:?}")).unwrap_or_default();
    let zones = if *prefers_zone { ", the caller's zone first" } else { "" };
    Some((endpoints.id.to_string(), format!("{algorithm}{slow_start}{zones}{sessions}")))
}

fn resilience_text(endpoints: &leno_core::endpoints::Endpoints) -> Option<(String, Vec<String>)> {
    let Resilience { health_check, outliers, breaker, limits, panic_percent } = endpoints.resilience.as_deref()?;
    let mut lines = Vec::new();
    lines.extend(health_check.as_ref().map(|it| format!("{it:?}")));
    lines.extend(outliers.as_ref().map(|it| format!("{it:?}")));
    lines.extend(breaker.as_ref().map(|it| format!("{it:?}")));
    lines.extend((*limits != Limits::default()).then(|| format!("{limits:?}")));
    lines.push(format!("panic below {panic_percent} %"));
    Some((endpoints.id.to_string(), lines))
}

fn service_text(service: &Service) -> ServiceText {
    ServiceText {
        vips: service.vips.iter().map(ToString::to_string).collect(),
        hosts: service.hosts.iter().map(ToString::to_string).collect(),
        ports: service.ports.iter().map(|port| format!("{} {:?}", port.port, port.protocol)).collect(),
        policy: service.routes.policy().map(ToString::to_string),
        timeout: service.routes.timeout().map(|it| format!("{it:?}")),
        retry: service.routes.retry().map(|it| retry_text(it)),
        routes: service.routes.rules().iter().map(rule_text).collect(),
    }
}

fn rule_text(rule: &Rule) -> RuleText {
    let destinations =
        rule.destinations.iter().map(|destination| format!("{} to {}", destination.weight.get(), target_text(&destination.target)));
    RuleText {
        name: rule.name.to_string(),
        matches: rule.matches.iter().map(match_text).collect(),
        destinations: destinations.collect(),
        timeout: rule.timeout.map(|it| format!("{it:?}")),
        idle_timeout: rule.idle_timeout.map(|it| format!("{it:?}")),
        retry: rule.retry.as_ref().map(|it| retry_text(it)),
        mirrors: rule.mirrors.iter().map(|mirror| format!("{} to {}", mirror.percentage, target_text(&mirror.target))).collect(),
        filters: rule.filters.iter().flat_map(|filters| filters.words()).collect(),
        rate_limit: rule.rate_limit.as_ref().map(ToString::to_string),
    }
}

fn target_text(target: &Target) -> String {
    match target {
        Target::Version(version) => format!("version {version}"),
        Target::Service { service, port: None } => format!("service {service}"),
        Target::Service { service, port: Some(port) } => format!("service {service}:{port}"),
        Target::Missing(what) => format!("nobody: no {what}"),
    }
}

fn retry_text(retry: &Retry) -> String {
    let on: Vec<&str> = retry.on.iter().map(Reason::as_str).collect();
    let methods = if retry.methods.is_empty() { "idempotent".to_owned() } else { retry.methods.join(" ") };
    let (base, max) = (retry.backoff.base, retry.backoff.max);
    let each = retry.per_try_timeout.map_or_else(String::new, |it| format!(" each within {it:?}"));
    format!("{} more{each} on {}, {methods}, {base:?} to {max:?} apart", retry.attempts, on.join(" "))
}

fn match_text(conditions: &Match) -> String {
    let mut texts: Vec<String> = Vec::new();
    texts.extend(conditions.path.as_ref().map(path_text));
    texts.extend(conditions.method.as_ref().map(|method| format!("method {method}")));
    texts.extend(conditions.headers.iter().map(|it| format!("header {} {}", it.name, value_text(&it.value))));
    texts.extend(conditions.query.iter().map(|it| format!("query {} {}", it.name, value_text(&it.value))));
    if texts.is_empty() { "everything".to_owned() } else { texts.join(" and ") }
}

fn path_text(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => format!("path = {path}"),
        PathMatch::Prefix(prefix) => format!("path under {prefix}"),
        PathMatch::Regex(pattern) => format!("path ~ {}", pattern.source()),
    }
}

fn value_text(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(value) => format!("= {value}"),
        ValueMatch::Regex(pattern) => format!("~ {}", pattern.source()),
        ValueMatch::Present(true) => "is there".to_owned(),
        ValueMatch::Present(false) => "is not there".to_owned(),
    }
}

fn guards(workload: &Workload) -> BTreeMap<String, GuardText> {
    let ports = workload.inbound.iter().map(|port| (port.port.to_string(), &port.guard));
    let all = ports.chain([("others".to_owned(), &workload.others)]);
    all.filter(|(_, guard)| **guard != Guard::default()).map(|(port, guard)| (port, guard_text(guard))).collect()
}

fn guard_text(guard: &Guard) -> GuardText {
    let policies = guard.authorization.policies.iter();
    let policy = |it: &Arc<Policy>| (format!("{} {:?}", it.name, it.action), it.rules.iter().map(access_rule_text).collect());
    let issuer = |it: &Arc<Issuer>| {
        let (audiences, headers) = (it.audiences.join(", "), it.headers.join(", "));
        format!("{} for [{audiences}] in [{headers}], {} bytes of keys", it.issuer, it.keys.len())
    };
    GuardText {
        mode: format!("{:?}", guard.mode),
        policies: policies.map(policy).collect(),
        issuers: guard.authorization.issuers.iter().map(issuer).collect(),
    }
}

fn access_rule_text(rule: &access::Rule) -> String {
    let mut texts = Vec::new();
    let mut add = |what: &str, any_of: Vec<String>| {
        if !any_of.is_empty() {
            texts.push(format!("{what} {}", any_of.join(" or ")));
        }
    };
    add("from", rule.from.iter().map(source_text).collect());
    add("port", rule.ports.iter().map(ToString::to_string).collect());
    add("method", rule.methods.iter().map(ToString::to_string).collect());
    add("path", rule.paths.iter().map(access_path_text).collect());
    for (name, values) in &rule.claims {
        add(&format!("claim {name}"), values.iter().map(ToString::to_string).collect());
    }
    if texts.is_empty() { "everything".to_owned() } else { texts.join(" and ") }
}

fn source_text(source: &Source) -> String {
    let any = |name: &Option<Name>| name.as_deref().unwrap_or("*").to_owned();
    match source {
        Source::Block(block) => block.to_string(),
        Source::Peer { trust_domain, namespace, service_account } => format!("{trust_domain}/{}/{}", any(namespace), any(service_account)),
    }
}

fn access_path_text(path: &PathRule) -> String {
    match path {
        PathRule::Exact(path) => path.to_string(),
        PathRule::Below(path) => format!("{path}/*"),
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

// Decisions.

#[derive(Serialize)]
struct Judged {
    name: String,
    request: String,
    service: String,
    /// Every match that was judged, most specific first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    judged: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    /// What its filters make of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    filters: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<String>,
    /// Draws by where they lead.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    backends: BTreeMap<String, u64>,
    /// What the workloads that may take it say to the caller, where they have a say: the rules that were judged, then the verdict.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    access: BTreeMap<String, Vec<String>>,
}

/// Writes down which rules of SecurityPolicies were judged.
#[derive(Default)]
struct AccessRecorder(Vec<String>);

impl<'a> access::Trace<'a> for AccessRecorder {
    fn judged(&mut self, policy: &'a Policy, index: usize, outcome: Result<(), access::Mismatch<'a>>) {
        use access::Mismatch;
        let outcome = match outcome {
            Ok(()) => "yes",
            Err(Mismatch::From(_)) => "no: from",
            Err(Mismatch::Port(_)) => "no: port",
            Err(Mismatch::Method(_)) => "no: method",
            Err(Mismatch::Path(_)) => "no: path",
            Err(Mismatch::Claim(name, _)) => &format!("no: claim {name}"),
            Err(Mismatch::NoRequest) => "no: not a request",
        };
        self.0.push(format!("{} {:?}[{index}] {outcome}", policy.name, policy.action));
    }
}

/// Whether `request` may pass where `guard` holds: as the proxy before the app's `port` goes about it.
fn may_pass(guard: &Guard, request: &Request, method: &str, path: &str, port: u16) -> Vec<String> {
    let rules = &guard.authorization;
    if guard.mode == Mode::Strict && request.identity.is_none() {
        return vec!["closed: plain text".to_owned()];
    }
    let normal = match rules.looks_at_paths().then(|| normalise(path)).transpose() {
        Ok(normal) => normal,
        Err(error) => return vec![format!("400: {error}")],
    };
    let path = normal.as_ref().map_or(path, |normal| normal.as_str());
    let claims: Vec<Claims> = request.claims.iter().filter(|_| !rules.issuers.is_empty()).cloned().collect();
    let asked = (method != "CONNECT").then_some(access::Request { method, path, claims: &claims });
    let mut recorder = AccessRecorder::default();
    let call = Call { peer: request.identity.as_ref(), source: request.source, port, request: asked };
    let verdict = authorize(rules, &call, &mut recorder);
    let by = verdict.policy.map(|policy| format!(" by {policy}")).unwrap_or_default();
    let would = verdict.would_deny.map(|policy| format!(", {policy} would deny it")).unwrap_or_default();
    recorder.0.push(format!("{}{by}{would}", if verdict.allowed { "allowed" } else { "denied" }));
    recorder.0
}

/// Writes down what was judged.
#[derive(Default)]
struct Recorder(Vec<String>);

impl<'t> Trace<'t> for Recorder {
    fn judged(&mut self, rule: &'t Rule, index: usize, outcome: Result<(), Mismatch<'t>>) {
        let outcome = match outcome {
            Ok(()) => "yes".to_owned(),
            Err(Mismatch::Path(path)) => format!("no: {}", path_text(path)),
            Err(Mismatch::Method(method)) => format!("no: method {method}"),
            Err(Mismatch::Header(field)) => format!("no: header {} {}", field.name, value_text(&field.value)),
            Err(Mismatch::Query(field)) => format!("no: query {} {}", field.name, value_text(&field.value)),
        };
        self.0.push(format!("{}[{index}] {outcome}", rule.name));
    }
}

fn judge(translator: &Translator, request: &Request) -> Result<Judged> {
    let (method, url) = request.request.split_once(' ').context("write the request as METHOD URL")?;
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, target) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (host, port) = split_authority(authority).context("the URL has no host")?;
    let port = request.to.map_or(port.unwrap_or(80), |to| to.port());
    let from: WorkloadId = request.from.parse()?;
    let id = match request.to {
        Some(address) => translator.find_address(address),
        None => translator.find_host(host, &from.namespace),
    };
    let mut judged = Judged {
        name: request.name.clone(),
        request: format!("{} from {}", request.request, who(request)),
        service: "none: passes through".to_owned(),
        judged: Vec::new(),
        rule: None,
        timeout: None,
        filters: BTreeMap::new(),
        idle_timeout: None,
        retry: None,
        backends: BTreeMap::new(),
        access: BTreeMap::new(),
    };
    let Some(service) = id.and_then(|id| translator.service(&id)) else { return Ok(judged) };
    judged.service = format!("{}:{port}", service.id);
    if service.port(port).is_none() {
        judged.service.push_str(" is no port of it");
        return Ok(judged);
    }
    let (path, query) = split_target(target);
    let headers: Vec<(String, String)> = request.headers.clone().into_iter().collect();
    let caller = Caller { namespace: Some(from.namespace), identity: None };
    let head = RequestHead { method, path, query, authority, headers: &headers, caller: &caller };
    for draw in 0..request.draws {
        let mut recorder = Recorder::default();
        let decision = if method == "CONNECT" {
            Decision {
                rule: None,
                matched: None,
                backend: decide_connection(&service, port),
                timeout: None,
                idle_timeout: None,
                retry: None,
            }
        } else {
            decide(&service, port, &head, draw, &mut recorder)
        };
        let asked = Asked { request: &head, matched: decision.matched, service: &service.id, port, draws: [999_999; 2] };
        let filters = decision.rule.and_then(|rule| rule.filters.as_ref());
        judged.filters = filters.iter().flat_map(|filters| filters.explain(&asked)).collect();
        let rewritten = filters.and_then(|filters| filters.judge(&asked).path);
        let path = rewritten.as_deref().unwrap_or(path);
        *judged.backends.entry(backend(translator, &decision.backend)).or_default() += 1;
        for endpoint in candidates(translator, &decision.backend) {
            let workload = translator.workload(&WorkloadId::new(service.id.namespace.clone(), endpoint.workload));
            let (Some(workload), port) = (workload, endpoint.address.port()) else { continue };
            let guard = workload.guard(port);
            if *guard != Guard::default() {
                judged.access.insert(format!("{}:{port}", workload.id), may_pass(guard, request, method, path, port));
            }
        }
        judged.rule = decision.rule.map(|rule| rule.name.to_string());
        judged.timeout = decision.timeout.map(|it| format!("{it:?}"));
        judged.idle_timeout = decision.idle_timeout.map(|it| format!("{it:?}"));
        judged.retry = decision.retry.map(|it| retry_text(it));
        judged.judged = recorder.0;
    }
    Ok(judged)
}

/// Who sends it, with what it proves.
fn who(request: &Request) -> String {
    let mut who = request.from.clone();
    who.extend(request.identity.iter().map(|identity| format!(" as {identity}")));
    if request.source != nowhere() {
        who.push_str(&format!(" at {}", request.source));
    }
    for (name, values) in request.claims.iter().flatten() {
        who.push_str(&format!(", {name}={}", values.join(" ")));
    }
    who
}

/// The endpoints that may take what goes to `backend`.
fn candidates(translator: &Translator, backend: &Backend<'_>) -> Vec<Endpoint> {
    let Backend::Endpoints { service, port, version } = backend else { return Vec::new() };
    let endpoints = translator.endpoints(&EndpointsId::new(ServiceId::clone(service), *port));
    let endpoints = endpoints.into_iter().flat_map(|it| it.endpoints);
    endpoints.filter(|it| it.serves(version.map(|version| &**version))).collect()
}

fn backend(translator: &Translator, backend: &Backend<'_>) -> String {
    match backend {
        Backend::Missing(what) => format!("500: there is no {what}"),
        Backend::NoWeight => "500: no destination has weight".to_owned(),
        Backend::Endpoints { service, port, version } => {
            let id = EndpointsId::new(ServiceId::clone(service), *port);
            let serving = candidates(translator, backend).iter().map(|it| it.address.to_string()).collect::<Vec<_>>().join(", ");
            let version = version.map(|version| format!(" {version}")).unwrap_or_default();
            let serving = if serving.is_empty() { "503, no endpoint".to_owned() } else { serving };
            format!("{id}{version}: {serving}")
        }
    }
}

// Reports.

#[derive(Serialize)]
struct ReportText {
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    versions: BTreeMap<String, usize>,
    conditions: Vec<String>,
}

fn report(report: &Report) -> ReportText {
    let conditions = report.conditions.iter().map(|it| {
        let holds = if it.holds { "True" } else { "False" };
        format!("{}={holds} {}: {}", it.kind, it.reason, it.message)
    });
    ReportText {
        generation: report.generation,
        service: report.service.as_ref().map(ToString::to_string),
        endpoints: report.endpoints.map(|it| format!("{} of {} ready", it.ready, it.total)),
        versions: report.versions.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
        conditions: conditions.collect(),
    }
}
