//! How much a large mesh takes. Run by hand: `cargo test --release -p leno-translate size -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "measures memory and time: run it alone"]
fn size_of_ten_thousand_services_and_a_hundred_thousand_pods_stays_under_100_mib() {
    let (before, started) = (resident_kib(), Instant::now());
    let mut translator = Translator::new(Defaults::new("cluster.local"));
    for service in 0..10_000_u32 {
        let (namespace, name) = (format!("team-{}", service / 50), format!("service-{service}"));
        let mut slice = format!(
            "kind: EndpointSlice\nmetadata: {{name: {name}-x7k2p, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\nports: [{{name: http, port: 8080}}]\nendpoints:\n"
        );
        for pod in 0..10 {
            let number = service * 10 + pod;
            let (ip, pod) = (std::net::Ipv4Addr::from(0x0a00_0000 + number), format!("{name}-6d4cf56db6-{number:05}"));
            slice.push_str(&format!("- {{addresses: [{ip}], targetRef: {{kind: Pod, name: {pod}}}}}\n"));
            apply(
                &mut translator,
                &format!(
                    "kind: Pod\nmetadata: {{name: {pod}, namespace: {namespace}, labels: {{app: {name}, app.kubernetes.io/part-of: shop, pod-template-hash: 6d4cf56db6, version: v1}}}}\n"
                ),
            );
        }
        let vip = std::net::Ipv4Addr::from(0x0a60_0000 + service);
        apply(
            &mut translator,
            &format!(
                "kind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: {vip}, selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n"
            ),
        );
        apply(&mut translator, &slice);
    }
    let kib = resident_kib() - before;
    println!("{} MiB, {:?} with the decoding of YAML", kib / 1024, started.elapsed());

    // What one endpoint's change costs.
    let slice = |ready: bool| {
        change(serde_yaml::from_str(&format!("{{kind: EndpointSlice, metadata: {{name: service-7-x7k2p, namespace: team-0, labels: {{kubernetes.io/service-name: service-7}}}}, ports: [{{name: http, port: 8080}}], endpoints: [{{addresses: [10.0.0.70], conditions: {{ready: {ready}}}}}]}}")).unwrap())
    };
    let changes: Vec<Change> = (0..10_000).map(|turn| slice(turn % 2 == 0)).collect();
    let started = Instant::now();
    let touched: usize = changes.into_iter().map(|change| translator.apply(change).endpoints.len()).sum();
    println!("{} ns per slice", started.elapsed().as_nanos() / 10_000);
    assert_eq!(touched, 10_000);
    assert!(kib < 100 * 1024, "{kib} KiB");
}
