//! Rotations against a small mesh that is told of changes late and in any order.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use leno_core::names::Identity;
use leno_core::trust::Trust;
use proptest::prelude::*;
use rcgen::KeyPair;

use super::*;
use crate::ca::authority::{Authority, make};
use crate::ca::proof::proven;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn domains() -> Domains {
    Domains { own: "cluster.local".into(), also: Vec::new() }
}

fn web() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

struct Proxy {
    replica: usize,
    /// The authority whose trust it runs.
    trusts: Arc<Authority>,
    /// The root that signed its certificate.
    by: String,
}

/// Replicas that have seen some version of the Secret, and proxies that have heard some version of their replica.
struct Mesh {
    kept: Kept,
    /// What the Secret came to at each step.
    loaded: BTreeMap<Option<Step>, Arc<Authority>>,
    replicas: Vec<Arc<Authority>>,
    proxies: BTreeMap<WorkloadId, Proxy>,
}

fn load(kept: &Kept) -> Arc<Authority> {
    Arc::new(Authority::load(kept, &domains(), now()).unwrap())
}

fn version(trust: &Trust) -> String {
    leno_xds::encode::version(&leno_xds::security::encode_trust(trust)).to_string()
}

impl Mesh {
    fn new(replicas: usize, proxies: usize) -> Self {
        let kept = make(&domains(), now()).unwrap();
        let mut mesh = Self { replicas: vec![load(&kept); replicas], loaded: BTreeMap::new(), kept, proxies: BTreeMap::new() };
        for index in 0..proxies {
            mesh.start(index, index % replicas);
        }
        mesh
    }

    /// A proxy starts, and is given all it needs by its replica.
    fn start(&mut self, index: usize, replica: usize) {
        let trusts = self.replicas[replica].clone();
        let by = trusts.signer().fingerprint.clone();
        self.proxies.insert(WorkloadId::new("shop", format!("web-{index}")), Proxy { replica, trusts, by });
    }

    fn hear(&mut self, proxy: usize) {
        let replicas = &self.replicas;
        if let Some(proxy) = self.proxies.values_mut().nth(proxy) {
            proxy.trusts = replicas[proxy.replica].clone();
        }
    }

    /// A proxy whose certificate is not by the present issuer renews it.
    fn renew(&mut self, proxy: usize) {
        let replicas = &self.replicas;
        if let Some(proxy) = self.proxies.values_mut().nth(proxy)
            && proxy.by != proxy.trusts.signer().fingerprint
        {
            proxy.by = replicas[proxy.replica].signer().fingerprint.clone();
        }
    }

    fn listings(&self) -> Vec<Listing> {
        let listed = |(id, proxy): (&WorkloadId, &Proxy)| Listed {
            workload: id.to_string(),
            issuer: Some(proxy.by.clone()),
            trust: Some(version(proxy.trusts.trust())),
            ..Listed::default()
        };
        let listing = |(at, authority): (usize, &Arc<Authority>)| Listing {
            trust_domain: "cluster.local".into(),
            roots: authority.roots().iter().map(|root| root.fingerprint.clone()).collect(),
            issuer: authority.signer().fingerprint.clone(),
            trust_version: version(authority.trust()),
            proxies: self.proxies.iter().filter(|(_, proxy)| proxy.replica == at).map(listed).collect(),
        };
        self.replicas.iter().enumerate().map(listing).collect()
    }

    fn expected(&self) -> BTreeSet<WorkloadId> {
        self.proxies.keys().cloned().collect()
    }

    fn next(&self) -> Action {
        next(&self.kept, &self.listings(), &self.expected()).unwrap()
    }

    /// Drives once, as the command line does.
    fn drive(&mut self) -> Action {
        let action = self.next();
        if let Action::Write(kept) = &action {
            self.kept = Kept::clone(kept);
        }
        action
    }

    fn replica(&mut self, at: usize) {
        let loaded = self.loaded.entry(self.kept.step).or_insert_with(|| load(&self.kept));
        self.replicas[at] = loaded.clone();
    }

    /// Whether every proxy would be let in by every other, and by every replica.
    fn is_whole(&self) -> bool {
        let trusts = self.proxies.values().map(|peer| &peer.trusts).chain(&self.replicas);
        let roots = trusts.map(|it| it.roots().iter().map(|root| root.fingerprint.as_str()).collect::<BTreeSet<_>>());
        let believed = roots.reduce(|one, other| &one & &other).unwrap();
        self.proxies.values().all(|proxy| believed.contains(proxy.by.as_str()))
    }
}

/// Whether who holds a certificate by `one` is let in by who trusts as `other` does.
fn lets_in(other: &Authority, one: &Authority) -> bool {
    let signed = one.sign(&KeyPair::generate().unwrap(), &web(), SignedDuration::from_hours(1), [1; 16], now()).unwrap();
    proven(other, &signed.chain, now()) == Ok(web())
}

#[test]
fn a_rotation_goes_through_its_steps_and_ends_with_the_new_root_alone() {
    let mut mesh = Mesh::new(2, 3);
    assert_eq!(mesh.next(), Action::Idle);
    let old = mesh.kept.clone();
    mesh.kept = begin(&mesh.kept, &domains(), now()).unwrap();
    assert!(matches!(begin(&mesh.kept, &domains(), now()), Err(RotationError::UnderWay(Step::Distribute))));
    let mut steps = Vec::new();
    while let Some(step) = mesh.kept.step {
        steps.push(step);
        assert!(matches!(mesh.drive(), Action::Wait(waiting) if waiting.replicas == 2), "{step}: the replicas come first");
        for at in 0..2 {
            mesh.replica(at);
        }
        assert!(matches!(mesh.drive(), Action::Wait(waiting) if waiting.behind.len() == 3), "{step}: then the proxies");
        for at in 0..3 {
            mesh.hear(at);
            mesh.renew(at);
        }
        assert!(matches!(mesh.drive(), Action::Write(_)), "{step}");
    }
    assert_eq!(steps, [Step::Distribute, Step::Issue, Step::Retire]);
    assert_eq!(mesh.next(), Action::Idle);
    assert_eq!((&mesh.kept.roots, &mesh.kept.next), (&mesh.kept.signing.certificate, &None));
    assert_ne!(mesh.kept.signing, old.signing);
    let (first, at) = (load(&old), |step| mesh.loaded[&Some(step)].clone());
    let [both, new, alone] = [Step::Distribute, Step::Issue, Step::Retire].map(at);
    assert!(lets_in(&both, &first) && lets_in(&both, &new) && lets_in(&new, &both) && lets_in(&alone, &new), "at every step and between");
    assert!(!lets_in(&first, &new) && !lets_in(&alone, &first), "which is what the waiting is for");
}

#[test]
fn a_step_waits_for_replicas_that_are_silent_and_proxies_that_are_not_connected() {
    let mut mesh = Mesh::new(2, 2);
    mesh.kept = begin(&mesh.kept, &domains(), now()).unwrap();
    let silent = next(&mesh.kept, &[], &BTreeSet::new()).unwrap();
    assert!(matches!(&silent, Action::Wait(waiting) if waiting.nobody && waiting.to_string() == "no replica of the controller answered"));
    (0..2).for_each(|at| mesh.replica(at));
    (0..2).for_each(|at| mesh.hear(at));
    let expected = mesh.expected().into_iter().chain([WorkloadId::new("shop", "web-9")]).collect();
    let Action::Wait(waiting) = next(&mesh.kept, &mesh.listings(), &expected).unwrap() else { panic!("web-9 would be left behind") };
    assert_eq!(waiting.to_string(), "1 proxies are not connected (shop/web-9)");
    assert!(matches!(mesh.next(), Action::Write(_)));
}

#[test]
fn a_secret_that_was_brought_or_is_damaged_is_not_rotated() {
    let mesh = Mesh::new(1, 0);
    let brought = Kept { own: false, ..mesh.kept.clone() };
    assert!(matches!(begin(&brought, &domains(), now()), Err(RotationError::NotOwn)));
    let under_way = begin(&mesh.kept, &domains(), now()).unwrap();
    let listings =
        |kept: &Kept| Mesh { kept: kept.clone(), loaded: BTreeMap::new(), replicas: vec![load(kept)], proxies: BTreeMap::new() }.listings();
    let cases = [
        (Kept { next: None, ..under_way.clone() }, "next.crt holds no certificate"),
        (Kept { roots: mesh.kept.roots.clone(), ..under_way.clone() }, "next.crt is not among the roots"),
        (Kept { roots: "-----BEGIN CERTIFICATE-----\n?\n".into(), ..under_way.clone() }, "ca.crt cannot be read"),
        (Kept { own: false, ..under_way.clone() }, "not made by Leno"),
    ];
    for (kept, text) in cases {
        let listings = if text.contains("cannot be read") { Vec::new() } else { listings(&kept) };
        let error = next(&kept, &listings, &BTreeSet::new()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[derive(Clone, Debug)]
enum Event {
    Replica(usize),
    Hear(usize),
    Renew(usize),
    Start(usize, usize),
    Move(usize, usize),
    Drive,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2usize).prop_map(Event::Replica),
        8 => (0..4usize).prop_map(Event::Hear),
        8 => (0..4usize).prop_map(Event::Renew),
        1 => (0..4usize, 0..2usize).prop_map(|(index, replica)| Event::Start(index, replica)),
        1 => (0..4usize, 0..2usize).prop_map(|(index, replica)| Event::Move(index, replica)),
        4 => Just(Event::Drive),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever order news travels in, whoever starts, moves or lags: every proxy is let in by every other at every moment.
    #[test]
    fn nobody_is_ever_shut_out(events in prop::collection::vec(event(), 1..150)) {
        let mut mesh = Mesh::new(2, 3);
        mesh.kept = begin(&mesh.kept, &domains(), now()).unwrap();
        for event in events {
            let before = mesh.kept.step;
            match event {
                Event::Replica(at) => mesh.replica(at),
                Event::Hear(at) => mesh.hear(at),
                Event::Renew(at) => mesh.renew(at),
                Event::Start(index, replica) => mesh.start(index, replica),
                Event::Move(at, replica) => {
                    if let Some(proxy) = mesh.proxies.values_mut().nth(at) {
                        proxy.replica = replica;
                    }
                }
                Event::Drive => drop(mesh.drive()),
            }
            prop_assert!(mesh.is_whole(), "after {event:?} at {before:?}");
        }
    }
}
