//! Workloads as the mesh on a laptop sees them: each is reached through its sidecar.
//!
//! In a cluster traffic for a pod is redirected into its sidecar. On a laptop nothing is redirected; instead the mesh is told where
//! the sidecar takes traffic for each port of the app. Everything else (services, policies) speaks of the app's own ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use leno_api as api;
use leno_controller::inject::INJECTED;

/// Where the sidecar of a workload takes traffic for each port of the app.
pub type Inbound = BTreeMap<u16, SocketAddr>;

/// The workload with the sidecar that takes traffic at `inbound`.
pub fn behind_sidecar(mut workload: api::Workload, inbound: Inbound) -> api::Workload {
    let annotations = workload.metadata.annotations.get_or_insert_default();
    annotations.insert(INJECTED.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    workload.spec.sidecar = inbound;
    workload
}

#[cfg(test)]
mod tests {
    use leno_controller::source::folder::parse;
    use leno_core::endpoints::EndpointsId;
    use leno_core::names::{ServiceId, WorkloadId};
    use leno_translate::{Change, Defaults, Object, Translator};

    use super::*;

    const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: payment, namespace: shop}
spec:
  selector: {app: payment}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: admin, port: 90, targetPort: admin}
---
apiVersion: leno.dev/v1alpha1
kind: Workload
metadata: {name: payment-1, namespace: shop, labels: {app: payment}}
spec:
  address: 127.0.0.1
  serviceAccount: pay
  ports:
  - {port: 8080}
  - {name: admin, port: 8081}
";

    #[test]
    fn services_lead_to_sidecars_which_must_prove_the_service_account_and_speak_of_the_app_s_ports() {
        let inbound: Inbound = [(8080, "127.70.0.1:15106".parse().unwrap()), (8081, "127.70.0.1:15107".parse().unwrap())].into();
        let mut translator = Translator::new(Defaults::new("cluster.local"));
        for manifest in parse(std::path::Path::new("a.yaml"), SHOP).manifests {
            let mut object = manifest.object;
            if let Object::Workload(workload) = object {
                object = Object::Workload(behind_sidecar(workload, inbound.clone()));
            }
            translator.apply(Change::Apply(object));
        }
        let payment = ServiceId::new("shop", "payment");
        let endpoint = |port| {
            let endpoints = translator.endpoints(&EndpointsId::new(payment.clone(), port)).unwrap().endpoints;
            assert_eq!(endpoints.len(), 1);
            format!("{} {}", endpoints[0].address, endpoints[0].identity.as_ref().unwrap())
        };
        assert_eq!(endpoint(80), "127.70.0.1:15106 spiffe://cluster.local/ns/shop/sa/pay");
        assert_eq!(endpoint(90), "127.70.0.1:15107 spiffe://cluster.local/ns/shop/sa/pay");
        let workload = translator.workload(&WorkloadId::new("shop", "payment-1")).unwrap();
        let ports: Vec<_> = workload.inbound.iter().map(|port| port.port).collect();
        assert_eq!(ports, [8080, 8081]);
    }
}
