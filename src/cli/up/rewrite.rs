//! Objects as the mesh on a laptop sees them: workloads listen where their sidecars do.
//!
//! In a cluster traffic for a pod is redirected into its sidecar. On a laptop nothing is redirected; instead the address and
//! ports of each [`api::Workload`] are replaced by those on which its sidecar takes traffic for it, and Services find these
//! ports by name, because a sidecar's port has another number than the app's.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use leno_api as api;
use leno_api::k8s::TargetPort;
use leno_api::workload::WorkloadPort;
use leno_translate::Object;

/// Where the sidecar of a workload takes traffic for each port of the app.
pub type Inbound = BTreeMap<u16, SocketAddr>;

/// The object as the mesh is to see it. `inbound` is for a Workload; ports that it lacks are left out.
pub fn rewritten(object: Object, inbound: &Inbound) -> Object {
    match object {
        Object::Service(service) => Object::Service(by_name(service)),
        Object::Workload(workload) => Object::Workload(behind_sidecar(workload, inbound)),
        Object::EndpointSlice(_) | Object::Pod(_) | Object::MeshService(_) | Object::TrafficPolicy(_) => object,
    }
}

/// A Service finds its workloads' ports by name: a number becomes the name that [`behind_sidecar`] gives.
fn by_name(mut service: api::k8s::Service) -> api::k8s::Service {
    for port in &mut service.ports {
        if let TargetPort::Number(number) = port.target_port {
            port.target_port = TargetPort::Name(number.to_string().into());
        }
    }
    service
}

/// A workload at its sidecar's address. Each port has its name, and its number as a second name.
fn behind_sidecar(mut workload: api::Workload, inbound: &Inbound) -> api::Workload {
    if let Some(address) = inbound.values().next() {
        workload.spec.address = address.ip();
    }
    let ports = workload.spec.ports.iter().filter_map(|port| {
        let number = inbound.get(&port.port)?.port();
        let by_number = WorkloadPort { name: Some(port.port.to_string()), port: number };
        let by_name = port.name.clone().map(|name| WorkloadPort { name: Some(name), port: number });
        Some([Some(by_number), by_name])
    });
    workload.spec.ports = ports.flatten().flatten().collect();
    workload
}

#[cfg(test)]
mod tests {
    use leno_controller::source::folder::parse;
    use leno_core::endpoints::EndpointsId;
    use leno_core::names::{ServiceId, WorkloadId};
    use leno_translate::{Change, Defaults, Translator};

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
  ports:
  - {port: 8080}
  - {name: admin, port: 8081}
";

    #[test]
    fn services_lead_to_sidecars_by_number_and_by_name() {
        let inbound: Inbound = [(8080, "127.70.0.1:15106".parse().unwrap()), (8081, "127.70.0.1:15107".parse().unwrap())].into();
        let mut translator = Translator::new(Defaults::new("cluster.local"));
        for manifest in parse(std::path::Path::new("a.yaml"), SHOP).manifests {
            translator.apply(Change::Apply(rewritten(manifest.object, &inbound)));
        }
        let payment = ServiceId::new("shop", "payment");
        let address = |port| {
            let endpoints = translator.endpoints(&EndpointsId::new(payment.clone(), port)).unwrap().endpoints;
            assert_eq!(endpoints.len(), 1);
            endpoints[0].address.to_string()
        };
        assert_eq!((address(80).as_str(), address(90).as_str()), ("127.70.0.1:15106", "127.70.0.1:15107"));
        let workload = translator.workload(&WorkloadId::new("shop", "payment-1")).unwrap();
        let ports: Vec<_> = workload.inbound.iter().map(|port| port.port).collect();
        assert_eq!(ports, [15106, 15107], "the sidecar knows its ports by its own numbers");
    }
}
