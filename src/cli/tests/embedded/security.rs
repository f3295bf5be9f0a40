//! Workloads know each other: mutual TLS between sidecars, and SecurityPolicy, with the YAML of a cluster.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::apps;
use crate::client::{Client, get};
use crate::harness::{Mesh, PATIENCE, service, workload};

/// A workload of a service account.
fn account(name: &str, account: &str, address: SocketAddr) -> String {
    workload(name, name, "v1", address).replace("spec:\n", &format!("spec:\n  serviceAccount: {account}\n"))
}

/// Payment, orders and web, each of its own service account.
fn shop() -> String {
    let (payment, orders, web) = (apps::http("paid", Duration::ZERO), apps::nobody(), apps::nobody());
    [service("payment"), account("payment", "pay", payment), account("orders", "orders", orders), account("web", "web", web)].concat()
}

/// What a workload's sidecar counts.
fn metrics(mesh: &Mesh, workload: &str) -> String {
    get(mesh.state()["workloads"][workload]["admin"].as_str().unwrap().parse().unwrap(), "/metrics", "").body
}

/// The line of one of a workload's series that has all `labels`.
fn counted(mesh: &Mesh, workload: &str, labels: &[&str]) -> bool {
    metrics(mesh, workload).lines().any(|line| line.starts_with("leno_requests_total") && labels.iter().all(|label| line.contains(label)))
}

/// Where the sidecar of a workload takes traffic for its only port.
fn inbound(mesh: &Mesh, workload: &str) -> SocketAddr {
    let ports = mesh.state()["workloads"][workload]["inbound"].clone();
    ports.as_object().unwrap().values().next().unwrap().as_str().unwrap().parse().unwrap()
}

#[test]
fn workloads_call_each_other_over_mutual_tls_and_strangers_plainly() {
    let mesh = Mesh::up(&shop());
    assert_eq!(get(mesh.outbound("shop/orders"), "http://payment/", "").body, "paid");
    for (workload, direction) in [("shop/orders", "direction=\"outbound\""), ("shop/payment", "direction=\"inbound\"")] {
        let secured = [direction, "mtls=\"true\"", "code=\"2xx\""];
        mesh.until("it is counted", |mesh| counted(mesh, workload, &secured));
    }

    assert_eq!(get(mesh.service("shop/payment", 80), "/", "").body, "paid");
    mesh.until("payment has counted it", |mesh| {
        counted(mesh, "shop/payment", &["direction=\"inbound\"", "mtls=\"false\"", "code=\"2xx\""])
    });

    let ready = get(mesh.state()["workloads"]["shop/payment"]["admin"].as_str().unwrap().parse().unwrap(), "/ready", "").body;
    assert!(ready.starts_with("ready\nspiffe://cluster.local/ns/shop/sa/pay until 20"), "{ready}");
    let expiry = "leno_certificate_expiry_timestamp_seconds{identity=\"spiffe://cluster.local/ns/shop/sa/pay\"}";
    assert!(metrics(&mesh, "shop/payment").contains(expiry));
}

/// A SecurityPolicy; `spec` is its spec.
fn policy(name: &str, spec: &str) -> String {
    format!("---\napiVersion: leno.dev/v1alpha1\nkind: SecurityPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}")
}

/// What `caller` is answered by payment: status and body.
fn asked(mesh: &Mesh, caller: &str, method: &str, path: &str) -> (u16, String) {
    let answer = Client::to(mesh.outbound(caller)).ask(method, &format!("http://payment{path}"), "");
    (answer.status, answer.body)
}

#[test]
fn a_strict_service_takes_only_the_calls_that_its_policies_allow() {
    let mesh = Mesh::up(&shop());
    assert_eq!(asked(&mesh, "shop/web", "GET", "/pay/1"), (200, "paid".to_owned()), "without a policy everybody may");
    let allow = "  targetRef: {kind: Service, name: payment}\n  mtls: {mode: Strict}\n  authorization:\n  - from: [{serviceAccount: orders}]\n    methods: [GET]\n    paths: [/pay/*]\n";
    mesh.write("policy.yaml", &policy("payment", allow));
    let refused = (403, "access denied".to_owned());
    mesh.until("the policy is in force", |mesh| asked(mesh, "shop/web", "GET", "/pay/1") == refused);
    for (caller, method, path, expected) in [
        ("shop/orders", "GET", "/pay/1", (200, "paid".to_owned())),
        ("shop/orders", "GET", "/pay", (200, "paid".to_owned())),
        ("shop/orders", "GET", "/refund", refused.clone()),
        ("shop/orders", "GET", "/pay/../refund", refused.clone()),
        ("shop/orders", "DELETE", "/pay/1", refused.clone()),
        ("shop/web", "GET", "/pay/1", refused.clone()),
    ] {
        assert_eq!(asked(&mesh, caller, method, path), expected, "{caller} {method} {path}");
    }

    let outside = get(mesh.service("shop/payment", 80), "/pay/1", "");
    assert!(matches!(outside.status, 502 | 503), "who is outside the mesh proves nothing: {outside:?}");
    let mut plain = TcpStream::connect(inbound(&mesh, "shop/payment")).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    let answered = plain.write_all(b"GET /pay/1 HTTP/1.1\r\nhost: payment\r\n\r\n").and_then(|()| plain.read(&mut [0; 1]));
    assert!(!matches!(answered, Ok(1..)), "plain text is refused without a word");

    mesh.remove("policy.yaml");
    mesh.until("the policy is gone", |mesh| get(mesh.service("shop/payment", 80), "/pay/1", "").status == 200);
    assert_eq!(asked(&mesh, "shop/web", "DELETE", "/refund").0, 200);
}

#[test]
fn policies_name_the_ports_that_the_app_itself_listens_on() {
    let app = apps::http("paid", Duration::ZERO);
    let shop = [service("payment"), account("payment", "pay", app), account("web", "web", apps::nobody())].concat();
    let deny = |port: u16| {
        let spec = format!(
            "  selector: {{matchLabels: {{app: payment}}}}\n  action: Deny\n  authorization:\n  - from: [{{serviceAccount: web}}]\n    ports: [{port}]\n"
        );
        policy("payment", &spec)
    };
    let mesh = Mesh::up(&[shop, deny(app.port())].concat());
    assert_eq!(asked(&mesh, "shop/web", "GET", "/").0, 403);
    assert_eq!(get(mesh.service("shop/payment", 80), "/", "").status, 200, "others may");
}

/// Takes any certificate and keeps it.
#[derive(Debug)]
struct Keeps(Mutex<Vec<u8>>, WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Keeps {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = leaf.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.1)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.1)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.supported_schemes()
    }
}

#[test]
fn a_sidecar_proves_its_service_account_and_lets_nobody_in_who_proves_nothing() {
    let mesh = Mesh::up(&shop());
    let provider = Arc::new(CryptoProvider { ..aws_lc_rs::default_provider() });
    let keeps = Arc::new(Keeps(Mutex::default(), provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let verifier = Arc::clone(&keeps) as Arc<dyn ServerCertVerifier>;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"leno/http".to_vec()];

    let address = inbound(&mesh, "shop/payment");
    let client = ClientConnection::new(Arc::new(config), "payment".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut tls = StreamOwned::new(client, stream);
    let answered = tls.write_all(b"GET / HTTP/1.1\r\nhost: payment\r\n\r\n").and_then(|()| tls.read(&mut [0; 100]));
    assert_eq!(tls.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3), "{answered:?}");
    let leaf = keeps.0.lock().unwrap().clone();
    let name = b"spiffe://cluster.local/ns/shop/sa/pay";
    assert!(leaf.windows(name.len()).any(|part| part == name), "its certificate names the service account");
    let error = answered.expect_err("without a certificate there is no answer");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}
