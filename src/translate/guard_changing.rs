//! What changes touch by way of SecurityPolicies: the workloads that they are for, endpoints where the mode may differ, and reports.

use std::collections::BTreeSet;

use leno_api::k8s::Labels;
use leno_core::names::Name;

use crate::changing::{Effects, replace, unindex};
use crate::namespace::Namespace;
use crate::object::Kind;
use crate::policy::TargetRef;
use crate::security::{Scope, Security};
use crate::tracked::Tracked;

impl Namespace {
    /// A SecurityPolicy came, changed or went.
    pub(crate) fn put_security(&mut self, name: &Name, new: Option<Tracked<Security>>, effects: &mut Effects) {
        let old = self.securities.get(name);
        if old == new.as_ref() {
            return;
        }
        let meaning = |object: Option<&Tracked<Security>>| object.and_then(Tracked::value).cloned();
        let (before, after) = (meaning(old), meaning(new.as_ref()));
        effects.touched.reports.insert(self.key(Kind::SecurityPolicy, name));
        if before != after {
            let mode =
                |security: &Option<std::sync::Arc<Security>>| security.as_ref().and_then(|it| it.mode.map(|mode| (mode, it.scope.clone())));
            let endpoints = mode(&before) != mode(&after);
            for security in [&before, &after].into_iter().flatten() {
                self.touch_guarded(security, endpoints, effects);
            }
            // Whether somebody says whose tokens are taken is said to all who ask for claims.
            self.touch_reports_of_claims(effects);
        }
        if let Some(target) = before.as_ref().and_then(|security| security.target()) {
            unindex(&mut self.securities_for, target, name);
        }
        if let Some(target) = after.as_ref().and_then(|security| security.target()) {
            self.securities_for.entry(target.clone()).or_default().insert(name.clone());
        }
        replace(&mut self.securities, name, new);
        self.touch_reports_of_claims(effects);
    }

    /// Keys of an issuer came or changed.
    pub(crate) fn touch_keys(&self, uri: &Name, effects: &mut Effects) {
        for (name, object) in &self.securities {
            let Some(security) = object.value().filter(|security| security.key_uris().any(|wanted| wanted == uri)) else { continue };
            effects.touched.reports.insert(self.key(Kind::SecurityPolicy, name));
            self.touch_guarded(security, false, effects);
        }
    }

    /// The target of SecurityPolicies may be another one than before, or lead elsewhere.
    pub(crate) fn touch_securities_of(&self, target: &TargetRef, effects: &mut Effects) {
        let names = self.securities_for.get(target).into_iter().flatten();
        for name in names {
            effects.touched.reports.insert(self.key(Kind::SecurityPolicy, name));
            let Some(security) = self.securities.get(name).and_then(Tracked::value) else { continue };
            self.touch_guarded(security, security.mode.is_some(), effects);
        }
    }

    /// The same for every target that means `service`.
    pub(crate) fn touch_securities_of_service(&self, service: &Name, effects: &mut Effects) {
        let meshes = self.meshes_for(service).map(|mesh| TargetRef::MeshService(mesh.clone()));
        for target in meshes.chain([TargetRef::Service(service.clone())]) {
            self.touch_securities_of(&target, effects);
        }
        // A policy for a MeshService of this name, which is not there, is told of the Service.
        let spelt = self.securities_for.get(&TargetRef::MeshService(service.clone())).into_iter().flatten();
        effects.touched.reports.extend(spelt.map(|name| self.key(Kind::SecurityPolicy, name)));
    }

    /// A pod or workload called `name` is behind `service`, or no more: its ports may have another mode for callers of its other
    /// services too.
    pub(crate) fn touch_neighbours(&self, name: &Name, service: &Name, effects: &mut Effects) {
        let meshes = self.meshes_for(service).map(|mesh| TargetRef::MeshService(mesh.clone()));
        let targets = meshes.chain([TargetRef::Service(service.clone())]);
        let names: BTreeSet<&Name> = targets.filter_map(|target| self.securities_for.get(&target)).flatten().collect();
        let with_mode = names.into_iter().filter_map(|name| self.securities.get(name)?.value()).any(|security| security.mode.is_some());
        if with_mode {
            self.touch_endpoints_of(name, effects);
        }
    }

    /// Touches what a pod or workload whose labels were `old` and are `new` alters in policies that select by labels. Returns
    /// whether its mode may differ.
    pub(crate) fn touch_selecting(&self, old: Option<&Labels>, new: Option<&Labels>, effects: &mut Effects) -> bool {
        let mut mode = false;
        for (name, object) in &self.securities {
            let Some(security) = object.value() else { continue };
            if security.selects(old) != security.selects(new) {
                effects.touched.reports.insert(self.key(Kind::SecurityPolicy, name));
                mode |= security.mode.is_some();
            }
        }
        mode
    }

    /// Touches the endpoints of every service that leads to the pod or workload called `name`.
    pub(crate) fn touch_endpoints_of(&self, name: &str, effects: &mut Effects) {
        for (service, _) in self.pods.get(name).into_iter().flat_map(|pod| &pod.services) {
            self.touch_endpoints(service, effects);
        }
        if let Some(local) = self.locals.get(name) {
            for service in self.services.values().filter(|service| service.selects(local.labels())) {
                self.touch_endpoints(&service.id.name, effects);
            }
        }
    }

    /// Touches the workloads that `security` is for, and their endpoints if `endpoints`.
    fn touch_guarded(&self, security: &Security, endpoints: bool, effects: &mut Effects) {
        for name in self.guarded(security) {
            effects.touched.workloads.insert(self.workload_id(&name));
            if endpoints {
                self.touch_endpoints_of(&name, effects);
            }
        }
    }

    /// The pods and workloads that `security` is for.
    pub(crate) fn guarded(&self, security: &Security) -> BTreeSet<Name> {
        match &security.scope {
            Scope::Namespace => self.pods.keys().chain(self.locals.keys()).cloned().collect(),
            Scope::Selector(_) => {
                let pods = self.pods.iter().filter(|(_, pod)| security.selects(pod.labels())).map(|(name, _)| name);
                let locals = self.locals.iter().filter(|(_, local)| security.selects(Some(local.labels()))).map(|(name, _)| name);
                pods.chain(locals).cloned().collect()
            }
            Scope::Service(target) => {
                let Some(service) = self.service_of(target) else { return BTreeSet::new() };
                let pods = self.slices_of(&service).iter().flat_map(crate::backing::Slice::pods).cloned();
                let locals =
                    self.mesh_service(&service).into_iter().flat_map(|service| self.locals_of(service)).map(|(name, _)| name.clone());
                pods.chain(locals).collect()
            }
        }
    }

    fn touch_reports_of_claims(&self, effects: &mut Effects) {
        let asking = self.securities.iter().filter(|(_, object)| object.value().is_some_and(|it| it.asks_for_claims()));
        effects.touched.reports.extend(asking.map(|(name, _)| self.key(Kind::SecurityPolicy, name)));
    }
}
