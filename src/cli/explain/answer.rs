//! The answer: what the decision function says about one request, with its trace.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use leno_core::balance::Balancing;
use leno_core::balance::weighing::EndpointWeight;
use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId};
use leno_core::matching::Mismatch;
use leno_core::names::ServiceId;
use leno_core::request::RequestHead;
use leno_core::route::{self, Backend, Decision, Rule, Trace};
use leno_core::service::{Protocol, Service};
use leno_core::workload::Egress;
use leno_translate::{Kind, ObjectKey, Translator};

use super::access::accesses;
use super::balancing::{Asking, Chosen, chosen};
use super::explanation::{Asked, Candidate, Destination, Explanation, Found, Judged, Outcome, Timeout};
use super::filters;
use super::guards;
use super::question::{Question, Scheme};
use super::similar::similar;
use super::words;

/// Keeps what is judged, in words.
struct Recorder<'q> {
    request: RequestHead<'q>,
    judged: Vec<Judged>,
}

impl<'t> Trace<'t> for Recorder<'_> {
    fn judged(&mut self, rule: &'t Rule, index: usize, outcome: Result<(), Mismatch<'t>>) {
        let why = outcome.err().map(|mismatch| words::why(mismatch, &self.request));
        let place = if rule.matches.is_empty() { 0 } else { index + 1 };
        self.judged.push(Judged { route: rule.name.to_string(), place, holds: why.is_none(), why });
    }
}

/// Explains one request by the model that `translator` holds.
pub fn explain(translator: &Translator, question: &Question, draw: Option<u64>) -> Explanation {
    let asked = Asked { method: question.method.clone(), url: question.url.clone(), from: question.from.as_ref().map(ToString::to_string) };
    let empty = Explanation {
        request: asked,
        outcome: Outcome::PassesThrough,
        service: None,
        policy: None,
        judged: Vec::new(),
        route: None,
        filters: Vec::new(),
        path: None,
        destinations: Vec::new(),
        rate_limit: None,
        mirrors: Vec::new(),
        access: Vec::new(),
        timeout: None,
        retry: None,
        idle_timeout: None,
        balancer: None,
        notes: Vec::new(),
    };
    match find(translator, question) {
        Err(notes) => not_found(translator, question, Explanation { notes, ..empty }),
        Ok((service, found)) => Answer { translator, question, service: &service, draw }.explain(found, empty),
    }
}

/// What becomes of a request that is for no service: it passes, unless its sender may only call what is registered.
fn not_found(translator: &Translator, question: &Question, base: Explanation) -> Explanation {
    let is_closed = match (&question.from, question.host.parse::<IpAddr>()) {
        (Some(from), Ok(ip)) => translator.workload(from).is_some_and(|workload| workload.is_closed_to(ip)),
        (Some(from), Err(_)) => translator.workload(from).is_some_and(|workload| workload.egress == Egress::RegisteredOnly),
        (None, _) => false,
    };
    if !is_closed {
        return base;
    }
    let mut notes = base.notes;
    notes.push(
        "the caller may only call what is registered (egress mode RegisteredOnly): register it as a MeshService with spec.external"
            .to_owned(),
    );
    let answer = nobody("502: nothing outside is registered by this name or address".to_owned());
    Explanation { outcome: Outcome::Refused, destinations: vec![answer], notes, ..base }
}

/// The service that the URL means, or why there is none.
fn find(translator: &Translator, question: &Question) -> Result<(Service, Found), Vec<String>> {
    let (id, found_by) = match question.host.parse::<IpAddr>() {
        Ok(ip) => (at_address(translator, ip, question.port)?, format!("its virtual address {ip}")),
        Err(_no_address) => (by_host(translator, question)?, format!("the host name {}", question.host)),
    };
    let service = translator.service(&id).ok_or_else(|| vec![format!("{id} is not in the mesh")])?;
    let Some(port) = service.port(question.port) else {
        let ports: Vec<_> = service.ports.iter().map(|port| port.port.to_string()).collect();
        return Err(vec![format!("{id} has no port {}: it has {}", question.port, listed(&ports))]);
    };
    let found = Found { name: id.to_string(), found_by, port: port.port, protocol: protocol_words(port.protocol).to_owned() };
    Ok((service, found))
}

fn at_address(translator: &Translator, ip: IpAddr, port: u16) -> Result<ServiceId, Vec<String>> {
    translator.find_address(SocketAddr::new(ip, port)).ok_or_else(|| {
        let service = translator.services().filter_map(|id| translator.service(id)).find(|service| service.vips.contains(&ip));
        vec![match service {
            Some(service) => {
                let ports: Vec<_> = service.ports.iter().map(|port| port.port.to_string()).collect();
                format!("{ip} is a virtual address of {}, which has no port {port}: it has {}", service.id, listed(&ports))
            }
            None => format!("{ip} is no virtual address of a service"),
        }]
    })
}

fn by_host(translator: &Translator, question: &Question) -> Result<ServiceId, Vec<String>> {
    translator.find_host(&question.host, question.namespace()).ok_or_else(|| {
        let mut notes = vec![format!("no service is called {} from namespace {}", question.host, question.namespace())];
        let near: Vec<_> =
            similar(&question.host, translator.services()).iter().map(|id| format!("{} ({}.{})", id, id.name, id.namespace)).collect();
        let all: Vec<_> = translator.services().map(ToString::to_string).collect();
        notes.push(match (near.is_empty(), all.len()) {
            (false, _) => format!("there is {}", listed(&near)),
            (true, 0) => "there are no services at all".to_owned(),
            (true, count @ 1..=10) => format!("there {} {}", if count == 1 { "is" } else { "are" }, listed(&all)),
            (true, count) => format!("there are {count} services, none of a similar name"),
        });
        notes
    })
}

/// What a request goes to when no route says otherwise.
const OWN: &str = "the service's own endpoints";

/// How a connection is carried.
enum Carried {
    /// Request by request.
    ByRequest,
    /// As it is; why.
    Unread(String),
    /// Not at all; what the proxy answers.
    Not(String),
}

pub(super) struct Answer<'a> {
    translator: &'a Translator,
    pub(super) question: &'a Question,
    pub(super) service: &'a Service,
    draw: Option<u64>,
}

impl Answer<'_> {
    fn explain(&self, found: Found, empty: Explanation) -> Explanation {
        let own = self.translator.endpoints(&EndpointsId::new(self.service.id.clone(), self.port()));
        let balancer = Some(balancing_of(own.as_ref()).algorithm.to_string());
        let policy = self.service.routes.policy().map(ToString::to_string);
        let base = Explanation { service: Some(found), balancer, policy, notes: self.reports(), ..empty };
        let base = self.outside(base);
        let explanation = match self.carried() {
            Carried::Unread(note) => self.connection(base, note),
            Carried::Not(answer) => Explanation { destinations: vec![nobody(answer)], ..base },
            Carried::ByRequest => self.request(base),
        };
        let by_request = matches!(self.carried(), Carried::ByRequest);
        let rewritten = explanation.path.clone().map(|path| Question { path, ..self.question.clone() });
        let arriving = rewritten.as_ref().unwrap_or(self.question);
        let access = accesses(self.translator, arriving, &explanation.destinations, by_request);
        let denied = access.iter().any(|access| !access.allowed);
        let refused = denied || explanation.destinations.iter().any(|it| it.answer.is_some() && (it.drawn.unwrap_or(true)));
        Explanation { outcome: if refused { Outcome::Refused } else { Outcome::Routed }, access, ..explanation }
    }

    /// Where something outside the cluster is, and how it is spoken to.
    fn outside(&self, mut base: Explanation) -> Explanation {
        if let Some(places) = self.translator.outside(&self.service.id) {
            base.notes.push(format!("{} is outside the cluster, at {}", self.service.id, listed(&places)));
        }
        let endpoints = self.translator.endpoints(&EndpointsId::new(self.service.id.clone(), self.port()));
        if let Some(origination) = endpoints.and_then(|it| it.origination) {
            let authorities = if origination.roots.is_empty() { "the public authorities" } else { "spec.external.tls.caBundle" };
            base.notes
                .push(format!("the proxy begins TLS there; the server must prove to be {}, by {authorities}", origination.server_name));
        }
        base
    }

    pub(super) fn port(&self) -> u16 {
        self.question.port
    }

    /// How the proxy carries what is spoken on such a port.
    fn carried(&self) -> Carried {
        let protocol = self.service.port(self.port()).map_or(Protocol::Detect, |port| port.protocol);
        let words = protocol_words(protocol);
        match (protocol.is_opaque(), protocol.is_http(), self.question.scheme) {
            (true, _, _) => {
                Carried::Unread(format!("the port is declared {words}, so the connection is carried as it is: no route is judged"))
            }
            (_, _, Scheme::Http) => Carried::ByRequest,
            (_, true, Scheme::Https) => {
                Carried::Not(format!("400: the port is declared {words}, TLS is not; declare it TLS in MeshService.spec.ports"))
            }
            (_, true, Scheme::Tcp) => Carried::Not(format!("400: the port is declared {words}; declare it TCP in MeshService.spec.ports")),
            (_, false, Scheme::Https) => {
                Carried::Unread("the app speaks TLS of its own, so the connection is carried as it is: no route is judged".to_owned())
            }
            (_, false, Scheme::Tcp) => Carried::Unread("bytes that are no HTTP are carried as they are: no route is judged".to_owned()),
        }
    }

    fn connection(&self, base: Explanation, note: String) -> Explanation {
        let backend = route::decide_connection(self.service, self.port());
        let mut own = self.destination(backend, OWN.into(), 100.0, None);
        if own.answer.is_some() {
            own.answer = Some("closed: it has no endpoint that is ready".to_owned());
        }
        let mut notes = vec![note];
        notes.extend(base.notes);
        Explanation { destinations: vec![own], notes, ..base }
    }

    fn request(&self, base: Explanation) -> Explanation {
        let question = self.question;
        let caller = question.caller();
        let head = question.head(&caller);
        let mut recorder = Recorder { request: head, judged: Vec::new() };
        let decision = route::decide(self.service, self.port(), &head, self.draw.unwrap_or(0), &mut recorder);
        let destinations = self.destinations(&decision, |draw| {
            let mut unheard = Recorder { request: head, judged: Vec::new() };
            route::decide(self.service, self.port(), &head, draw, &mut unheard).backend
        });
        let filters::Explained { filters, path, answer } = filters::of(&decision, &head, self.service, self.port());
        let destinations = answer.map_or(destinations, |answer| vec![nobody(answer)]);
        let timeout = decision.timeout.map(|after| self.timeout(after, decision.rule));
        let route = decision.rule.map(|rule| rule.name.to_string());
        let mirrors = decision.rule.map(|rule| self.mirrors(&rule.mirrors)).unwrap_or_default();
        let rate_limit = decision.rule.and_then(|rule| rule.rate_limit.as_ref()).map(ToString::to_string);
        let retry = decision.retry.map(|retry| self.retry(retry, decision.rule));
        let idle_timeout = decision.idle_timeout.map(|limit| format!("{limit:?}"));
        Explanation {
            judged: recorder.judged,
            route,
            filters,
            path,
            rate_limit,
            destinations,
            mirrors,
            timeout,
            retry,
            idle_timeout,
            ..base
        }
    }

    /// Every destination with its share. Each is what `decide` says for the first draw that belongs to it.
    fn destinations<'t>(&self, decision: &Decision<'t>, decide: impl Fn(u64) -> Backend<'t>) -> Vec<Destination> {
        let Some(rule) = decision.rule.filter(|rule| !rule.destinations.is_empty()) else {
            return vec![self.destination(decision.backend, OWN.into(), 100.0, None)];
        };
        let weight = |place: usize| u64::from(rule.destinations[place].weight.get());
        let total: u64 = (0..rule.destinations.len()).map(weight).sum();
        if total == 0 {
            return vec![self.destination(decision.backend, "nobody: every destination has weight 0".into(), 100.0, None)];
        }
        let mut destinations = Vec::new();
        let mut first = 0;
        for (place, destination) in rule.destinations.iter().enumerate() {
            let share = weight(place);
            let name = self.target_words(&destination.target);
            let drawn = self.draw.map(|draw| (first..first + share).contains(&(draw % total)));
            #[expect(clippy::cast_precision_loss, reason = "weights are below 2^53")]
            let percent = share as f64 * 100.0 / total as f64;
            if share == 0 {
                destinations.push(Destination { percent, name, drawn, ..Destination::default() });
            } else {
                destinations.push(self.destination(decide(first), name, percent, drawn));
            }
            first += share;
        }
        destinations
    }

    pub(super) fn destination(&self, backend: Backend<'_>, name: String, percent: f64, drawn: Option<bool>) -> Destination {
        let (mut guards, mut balancing) = (Vec::new(), Vec::new());
        let (endpoints, answer) = match backend {
            Backend::Missing(_) => (Vec::new(), Some("500: the destination does not exist".to_owned())),
            Backend::NoWeight => (Vec::new(), Some("500: no destination may receive it".to_owned())),
            Backend::Endpoints { service, port, version } => {
                let all = self.translator.endpoints(&EndpointsId::new(service.clone(), port));
                guards.extend(all.as_ref().and_then(|it| it.resilience.as_deref()).map(guards::words).into_iter().flatten());
                guards.extend(self.translator.concurrency(service).as_ref().map(guards::concurrency));
                let how = balancing_of(all.as_ref());
                if *service != self.service.id {
                    balancing.push(format!("balancer {}", how.algorithm));
                }
                let all = all.map(|it| it.endpoints).unwrap_or_default();
                let serving: Vec<_> = all.iter().filter(|it| it.serves(version.map(|version| &**version))).collect();
                let Chosen { words, shares } = self.chosen(&how, &serving);
                balancing.extend(words);
                let share = |place: usize| shares.get(place).copied();
                let candidates: Vec<_> = serving.iter().enumerate().map(|(place, it)| candidate(service, it, share(place))).collect();
                let answer = candidates.is_empty().then(|| "503: it has no endpoint that is ready".to_owned());
                (candidates, answer)
            }
        };
        Destination { percent, name, drawn, endpoints, balancing, guards, answer }
    }

    /// How one of `serving` is chosen for this request, or connection.
    fn chosen(&self, balancing: &Balancing, serving: &[&Endpoint]) -> Chosen {
        let (question, caller) = (self.question, self.question.caller());
        let workload = question.from.as_ref().and_then(|from| self.translator.workload(from));
        let head = question.head(&caller);
        let head = matches!(self.carried(), Carried::ByRequest).then_some(&head);
        let zone = workload.as_ref().and_then(|workload| workload.zone.as_deref());
        chosen(balancing, serving, Asking { head, source: question.source, zone })
    }

    pub(super) fn target_words(&self, target: &route::Target) -> String {
        match target {
            route::Target::Version(version) => format!("version {version}"),
            route::Target::Service { service, port } => format!("service {service}, port {}", port.unwrap_or(self.port())),
            route::Target::Missing(what) => what.to_string(),
        }
    }

    fn timeout(&self, after: Duration, rule: Option<&Rule>) -> Timeout {
        Timeout { after: format!("{after:?}"), set_by: self.set_by(rule.filter(|rule| rule.timeout.is_some())) }
    }

    /// Who says it: `rule`, where it does, or the policy.
    pub(super) fn set_by(&self, rule: Option<&Rule>) -> String {
        match (rule, self.service.routes.policy()) {
            (Some(rule), _) => format!("route {}", rule.name),
            (None, Some(policy)) => format!("policy {policy}"),
            (None, None) => "the service".to_owned(),
        }
    }

    /// What is said about objects that are for this service and are not, or not wholly, in force.
    fn reports(&self) -> Vec<String> {
        let reported = self.translator.reported().filter_map(|key| Some((self.translator.report(&key)?, key)));
        // A SecurityPolicy may be for any pod of its namespace.
        let guards = |key: &ObjectKey| key.kind == Kind::SecurityPolicy && key.namespace == self.service.id.namespace;
        let own = reported.filter(|(report, key)| report.service.as_ref() == Some(&self.service.id) || guards(key));
        let failing = own.flat_map(|(report, key)| {
            let failing = report.conditions.into_iter().filter(|condition| !condition.holds);
            failing.map(move |condition| format!("{key}: {}=False ({}): {}", condition.kind, condition.reason, condition.message))
        });
        failing.collect()
    }
}

fn nobody(answer: String) -> Destination {
    Destination { percent: 100.0, name: "nobody".to_owned(), answer: Some(answer), ..Destination::default() }
}

fn balancing_of(endpoints: Option<&Endpoints>) -> Arc<Balancing> {
    endpoints.and_then(|it| it.balancing.clone()).unwrap_or_default()
}

fn candidate(service: &ServiceId, endpoint: &Endpoint, percent: Option<f64>) -> Candidate {
    Candidate {
        namespace: service.namespace.to_string(),
        address: endpoint.address,
        workload: endpoint.workload.to_string(),
        versions: endpoint.versions.iter().map(ToString::to_string).collect(),
        weight: Some(endpoint.weight).filter(|weight| *weight != EndpointWeight::USUAL).map(EndpointWeight::get),
        percent,
    }
}

fn protocol_words(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Detect => "detected by the first bytes",
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP2",
        Protocol::Grpc => "GRPC",
        Protocol::Tls => "TLS",
        Protocol::Tcp => "TCP",
    }
}

/// `a, b and c`.
fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
