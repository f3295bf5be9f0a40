//! Who gets a certificate, and who a stream, with real TLS on loopback.

use jiff::{SignedDuration, Timestamp};
use leno_core::names::Identity;
use leno_core::trust::Held;
use leno_xds::SIGN_PATH;
use leno_xds::wire::leno::{SigningRequest, SigningResponse};
use prost::Message as _;
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::client::Resumption;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::ca::authenticate::Authenticator;
use crate::ca::authenticate::tokens::Tokens;
use crate::ca::authority::{Authority, Domains, make};
use crate::ca::count::Outcome;
use crate::ca::secret::Kept;
use crate::ca::signer::Signer;
use crate::certificates::serving::Serving;
use crate::certificates::{Policy, renew};

const CART: &str = "0123456789abcdef-cart-7";

/// A server that knows one workload's token, and the mesh's authority as the test may replace it.
struct Mesh {
    server: Server,
    kept: Kept,
    current: watch::Sender<Option<Arc<Authority>>>,
    signer: Arc<Signer>,
    tls: rustls::ClientConfig,
}

fn domains() -> Domains {
    Domains { own: "cluster.local".into(), also: vec!["partner.example".into()] }
}

async fn mesh() -> Mesh {
    let now = Timestamp::now();
    let kept = make(&domains(), now).unwrap();
    let (current, is_current) = watch::channel(Some(Arc::new(Authority::load(&kept, &domains(), now).unwrap())));
    let tokens = Tokens::parse(&format!("{CART} shop/cart-7 cart")).unwrap();
    let signer = Arc::new(Signer::new(is_current, Authenticator::Static(Arc::new(tokens)), SignedDuration::from_hours(1)));
    let serving = Serving::new(renew(None, &Policy::new(vec!["controller".into()]), now).unwrap()).unwrap();
    let server = start_with(Some(serving.server_config_for_proxies().unwrap()), Some(signer.clone()), Settings::default()).await;
    server.list_cart().await;
    let pod =
        "{kind: Pod, metadata: {name: cart-7, namespace: shop, labels: {app: cart}}, spec: {serviceAccountName: cart, containers: []}}";
    server.feed(changed(pod)).await;
    server.applied(|translator| translator.identity(&WorkloadId::new("shop", "cart-7")).is_some()).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(serving.ca_bundle().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut tls = config.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Mesh { server, kept, current, signer, tls }
}

/// A certificate to show, and its key.
struct Shown(Vec<CertificateDer<'static>>, KeyPair);

impl Mesh {
    fn authority(&self) -> Arc<Authority> {
        self.signer.authority().unwrap()
    }

    /// A certificate of this mesh.
    fn certificate(&self, identity: &str) -> Shown {
        let key = KeyPair::generate().unwrap();
        let identity: Identity = identity.parse().unwrap();
        let signed = self.authority().sign(&key, &identity, SignedDuration::from_hours(1), [1; 16], Timestamp::now()).unwrap();
        Shown(signed.chain, key)
    }

    /// A certificate signed with this mesh's root, as no controller would.
    fn odd(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/cart")];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let (key, root) = (KeyPair::generate().unwrap(), KeyPair::from_pem(&self.kept.signing.key).unwrap());
        let issuer = Issuer::from_ca_cert_pem(&self.kept.signing.certificate, root).unwrap();
        Shown(vec![params.signed_by(&key, &issuer).unwrap().der().clone()], key)
    }

    fn client_tls(&self, shown: Option<Shown>) -> Arc<rustls::ClientConfig> {
        let mut config = self.tls.clone();
        if let Some(Shown(chain, key)) = shown {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let certified = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
            config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        }
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }

    async fn connect(&self, tls: Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.server.address).await.unwrap();
        tokio_rustls::TlsConnector::from(tls).connect(ServerName::try_from("controller").unwrap(), stream).await.unwrap()
    }

    async fn stream(&self, node: &str, shown: Option<Shown>) -> Client {
        let (stream, node) = (self.connect(self.client_tls(shown)).await, node.parse().unwrap());
        Client::over(Subscriptions::new(&node), stream, None).await
    }

    /// Asks for a certificate; its answer, or the gRPC status and what it says.
    async fn sign(&self, token: Option<&str>, csr: Vec<u8>) -> Result<SigningResponse, (String, String)> {
        let (mut sender, _connection) = http2_client(self.connect(self.client_tls(None)).await, None).await;
        let (requests, mut request) = request(SIGN_PATH, "application/grpc");
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        requests.send(Ok(Frame::data(leno_xds::frame::encode(&SigningRequest { csr: csr.into() })))).await.unwrap();
        drop(requests);
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let fields = body.trailers().cloned().unwrap_or(head.headers);
        let text = |name: &str| fields.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        if text("grpc-status") != "0" {
            return Err((text("grpc-status"), text("grpc-message")));
        }
        let mut decoder = Decoder::new(1 << 20);
        decoder.push(&body.to_bytes());
        Ok(SigningResponse::decode(decoder.next().unwrap().unwrap()).unwrap())
    }
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// A request that asks to be somebody else.
fn csr(key: &KeyPair) -> Vec<u8> {
    crate::ca::request::tests::request(key)
}

fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// How a refused stream ended: status and text.
async fn ending(client: Result<Client, HeaderMap>) -> (String, String) {
    let fields = match client {
        Ok(mut client) => loop {
            if let Err(fields) = client.next().await {
                break fields;
            }
        },
        Err(fields) => fields,
    };
    let text = |name: &str| fields.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    (text("grpc-status"), text("grpc-message"))
}

/// What a stream that shows `shown` is told at once, if it is not let in.
async fn refusal(mesh: &Mesh, tls: Arc<rustls::ClientConfig>) -> Option<(String, String)> {
    let (mut sender, _connection) = http2_client(mesh.connect(tls).await, None).await;
    let (_requests, request) = request(METHOD_PATH, "application/grpc");
    let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    if response.headers().contains_key("grpc-status") { Some(ending(Err(response.headers().clone())).await) } else { None }
}

#[tokio::test]
async fn a_token_is_answered_with_a_certificate_of_its_own_identity_whatever_the_request_asks_for() {
    let mesh = mesh().await;
    let key = new_key();
    let answer = mesh.sign(Some(CART), csr(&key)).await.unwrap();
    let chain: Vec<_> = answer.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let trust = leno_xds::security::trust_of(answer.trust.unwrap());
    assert_eq!(&trust, &**mesh.authority().trust());
    let named = crate::ca::proof::proven(&mesh.authority(), &chain, Timestamp::now()).unwrap();
    assert_eq!(named.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(mesh.signer.counts().of(Outcome::Issued), 1);

    let mut client = mesh.stream("shop/cart-7", Some(Shown(chain, key))).await;
    client.subscribe(&[Subject::Workload(WorkloadId::new("shop", "cart-7"))]).await;
    assert_eq!(summary(&client.events().await), ["workload shop/cart-7"], "what was signed opens a stream");
}

#[tokio::test]
async fn a_request_that_is_not_proven_or_not_of_the_right_shape_is_refused_and_counted() {
    let mesh = mesh().await;
    let good = || csr(&new_key());
    let forged = {
        let mut bytes = good();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes
    };
    let long = "x".repeat(10_000);
    let cases = [
        (None, good(), "16", "authorization: Bearer", Outcome::BadToken),
        (Some("another token"), good(), "16", "nobody here was given it", Outcome::BadToken),
        (Some(long.as_str()), good(), "16", "nobody here was given it", Outcome::BadToken),
        (Some(CART), forged, "3", "not signed by the key", Outcome::BadRequest),
        (Some(CART), Vec::new(), "3", "no PKCS #10", Outcome::BadRequest),
    ];
    for (token, csr, status, text, outcome) in cases {
        let before = mesh.signer.counts().of(outcome);
        let (code, message) = mesh.sign(token, csr).await.unwrap_err();
        assert!(code == status && message.contains(text), "{code} {message}");
        assert_eq!(mesh.signer.counts().of(outcome), before + 1);
    }
    assert!(mesh.signer.render().contains("leno_certificate_requests_total{result=\"bad_token\"} 3\n"));
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait_and_so_is_an_address_that_guesses() {
    let mesh = mesh().await;
    let statuses = |token: &'static str, count: usize| {
        let mesh = &mesh;
        async move {
            let mut statuses = Vec::new();
            for _ in 0..count {
                statuses.push(mesh.sign(Some(token), csr(&new_key())).await.map_or_else(|(code, _)| code, |_| "0".to_owned()));
            }
            statuses
        }
    };
    assert_eq!(statuses(CART, 8).await, ["0", "0", "0", "0", "0", "0", "8", "8"]);
    let guesses = statuses("a guess at a token", 25).await;
    assert_eq!(guesses[..20], vec!["16"; 20], "{guesses:?}");
    assert_eq!(guesses[24], "8");
    assert!(mesh.signer.counts().of(Outcome::RateLimited) >= 3);
}

#[tokio::test]
async fn a_stream_is_only_for_who_shows_a_good_certificate_of_this_mesh() {
    let mesh = mesh().await;
    let at =
        |hours: i64| time::OffsetDateTime::from_unix_timestamp((Timestamp::now() + SignedDuration::from_hours(hours)).as_second()).unwrap();
    let own = || mesh.certificate("spiffe://cluster.local/ns/shop/sa/cart");
    let self_signed = {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/cart")];
        let key = new_key();
        Shown(vec![params.self_signed(&key).unwrap().der().clone()], key)
    };
    let of_another_mesh = {
        let authority = Authority::load(&make(&domains(), Timestamp::now()).unwrap(), &domains(), Timestamp::now()).unwrap();
        let (key, identity) = (new_key(), "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap());
        Shown(authority.sign(&key, &identity, SignedDuration::from_hours(1), [1; 16], Timestamp::now()).unwrap().chain, key)
    };
    let cases = [
        ("none", None, "none was shown"),
        ("self-signed", Some(self_signed), "not valid here"),
        ("by another root", Some(of_another_mesh), "not valid here"),
        ("ended", Some(mesh.odd(|it| (it.not_before, it.not_after) = (at(-3), at(-1)))), "not valid here"),
        ("not begun", Some(mesh.odd(|it| it.not_before = at(1))), "not valid here"),
        ("for servers", Some(mesh.odd(|it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])), "not valid here"),
        ("of a partner", Some(mesh.certificate("spiffe://partner.example/ns/shop/sa/cart")), "trust domain partner.example"),
        (
            "two names",
            Some(mesh.odd(|it| it.subject_alt_names.push(uri("spiffe://cluster.local/ns/shop/sa/web")))),
            "exactly one SPIFFE ID",
        ),
        (
            "a host too",
            Some(mesh.odd(|it| it.subject_alt_names.push(SanType::DnsName("web".try_into().unwrap())))),
            "exactly one SPIFFE ID",
        ),
        ("no name", Some(mesh.odd(|it| it.subject_alt_names.clear())), "exactly one SPIFFE ID"),
        ("another kind of name", Some(mesh.odd(|it| it.subject_alt_names = vec![uri("spiffe://cluster.local/shop")])), "names no workload"),
    ];
    for (name, shown, text) in cases {
        let (code, message) = refusal(&mesh, mesh.client_tls(shown)).await.expect(name);
        assert!(code == "16" && message.contains(text), "{name}: {code} {message}");
    }
    assert_eq!(refusal(&mesh, mesh.client_tls(Some(own()))).await, None);
}

#[tokio::test]
async fn nobody_is_known_while_there_is_no_authority() {
    let mesh = mesh().await;
    let shown = mesh.certificate("spiffe://cluster.local/ns/shop/sa/cart");
    mesh.current.send_replace(None);
    assert_eq!(refusal(&mesh, mesh.client_tls(Some(shown))).await.unwrap().0, "14");
    assert_eq!(mesh.sign(Some(CART), csr(&new_key())).await.unwrap_err().0, "14");
}

/// The authority may come after the connection, or change while it lasts.
#[tokio::test]
async fn each_stream_of_a_connection_is_judged_by_the_authority_of_its_moment() {
    let mesh = mesh().await;
    let authority = mesh.authority();
    let tls = mesh.client_tls(Some(mesh.certificate("spiffe://cluster.local/ns/shop/sa/cart")));
    mesh.current.send_replace(None);
    let (mut sender, _connection) = http2_client(mesh.connect(tls).await, None).await;
    let mut status = async || {
        let (_requests, request) = request(METHOD_PATH, "application/grpc");
        let response = sender.send_request(request).await.unwrap();
        response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
    };
    assert_eq!(status().await.as_deref(), Some("14"));
    mesh.current.send_replace(Some(authority));
    assert_eq!(status().await, None);
    let next = make(&domains(), Timestamp::now()).unwrap();
    mesh.current.send_replace(Some(Arc::new(Authority::load(&next, &domains(), Timestamp::now()).unwrap())));
    assert_eq!(status().await.as_deref(), Some("16"));
}

/// A resumed session brings back the certificate of an earlier handshake: it counts for no more than it would now.
#[tokio::test]
async fn a_root_that_is_trusted_no_more_ends_what_it_signed_even_for_a_resumed_session() {
    let mesh = mesh().await;
    let tls = mesh.client_tls(Some(mesh.certificate("spiffe://cluster.local/ns/shop/sa/cart")));
    assert_eq!(refusal(&mesh, tls.clone()).await, None);
    let next = make(&domains(), Timestamp::now()).unwrap();
    let both = Kept { roots: mesh.kept.roots.clone() + &next.roots, ..mesh.kept.clone() };
    let put = |kept: &Kept| drop(mesh.current.send_replace(Some(Arc::new(Authority::load(kept, &domains(), Timestamp::now()).unwrap()))));
    put(&both);
    assert_eq!(refusal(&mesh, tls.clone()).await, None, "both roots are trusted");
    put(&next);
    let resumed = mesh.connect(tls.clone()).await;
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    let (code, message) = refusal(&mesh, tls).await.unwrap();
    assert!(code == "16" && message.contains("not valid here"), "{code} {message}");
}

#[tokio::test]
async fn a_proxy_may_not_call_itself_what_it_is_not() {
    let mesh = mesh().await;
    let web = || Some(mesh.certificate("spiffe://cluster.local/ns/shop/sa/web"));
    let mut client = mesh.stream("bank/cart-7", web()).await;
    client.subscribe(&[address(1)]).await;
    let (code, message) = ending(Ok(client)).await;
    assert!(code == "7" && message.contains("same namespace"), "{message}");

    let mut client = mesh.stream("shop/web-1", web()).await;
    let identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    client.subscriptions.holds_certificate(Held { identity, serial: "01".into(), not_after: 1, issuer: Vec::new() });
    client.subscribe(&[address(1)]).await;
    let (code, message) = ending(Ok(client)).await;
    assert!(code == "7" && message.contains("tells of a certificate of"), "{message}");
    assert!(mesh.signer.render().contains("leno_control_streams_refused_total 2\n"));
}

#[tokio::test]
async fn a_workload_is_shown_to_its_own_proxy_and_to_no_other() {
    let mesh = mesh().await;
    let workload = Subject::Workload(WorkloadId::new("shop", "cart-7"));
    let cases = [
        ("its own", "shop/cart-7", "cart", "workload shop/cart-7"),
        ("another pod of its account", "shop/cart-8", "cart", "gone shop/cart-7"),
        ("its name with another account", "shop/cart-7", "web", "gone shop/cart-7"),
    ];
    for (name, node, account, expected) in cases {
        let shown = mesh.certificate(&format!("spiffe://cluster.local/ns/shop/sa/{account}"));
        let mut client = mesh.stream(node, Some(shown)).await;
        client.subscribe(std::slice::from_ref(&workload)).await;
        assert_eq!(summary(&client.events().await), [expected], "{name}");
        client.subscribe(&[address(1)]).await;
        assert_eq!(
            summary(&client.events().await),
            ["service shop/cart ", "address/10.96.0.1:80 = shop/cart"],
            "{name}: services are for all"
        );
    }
}

/// The pod is replaced by one of another account under its name: what follows is not for the old one.
#[tokio::test]
async fn a_workload_that_changes_hands_is_taken_from_who_had_it() {
    let mesh = mesh().await;
    let shown = mesh.certificate("spiffe://cluster.local/ns/shop/sa/cart");
    let mut client = mesh.stream("shop/cart-7", Some(shown)).await;
    client.subscribe(&[Subject::Workload(WorkloadId::new("shop", "cart-7"))]).await;
    assert_eq!(summary(&client.events().await), ["workload shop/cart-7"]);
    let pod =
        "{kind: Pod, metadata: {name: cart-7, namespace: shop, labels: {app: cart}}, spec: {serviceAccountName: other, containers: []}}";
    mesh.server.feed(changed(pod)).await;
    assert_eq!(summary(&client.events().await), ["gone shop/cart-7"]);
}

#[tokio::test]
async fn the_listing_says_who_holds_what_and_runs_which_trust() {
    let mesh = mesh().await;
    mesh.server.publisher.set_trust(mesh.authority().trust().clone()).await.unwrap();
    let mut client = mesh.stream("shop/cart-7", Some(mesh.certificate("spiffe://cluster.local/ns/shop/sa/cart"))).await;
    let issuer = mesh.authority().trust().issuer.clone();
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    client.subscriptions.holds_certificate(Held { identity, serial: "0a".into(), not_after: 7, issuer });
    client.subscribe(&[Subject::Trust]).await;
    assert_eq!(summary(&client.events().await), ["trust cluster.local"]);
    client.until_answered("ghost").await;

    let listing = crate::ca::listing::Listing::new(mesh.server.publisher.standing().await.unwrap());
    let (signer, text) = (mesh.authority().signer().fingerprint.clone(), serde_json::to_value(&listing).unwrap());
    let version = listing.trust_version.clone();
    let expected = serde_json::json!({
        "trustDomain": "cluster.local", "roots": [signer], "issuer": signer, "trustVersion": version,
        "proxies": [{"workload": "shop/cart-7", "identity": "spiffe://cluster.local/ns/shop/sa/cart", "serial": "0a", "notAfter": 7,
            "issuer": signer, "trust": version}],
    });
    assert_eq!(text, expected);
}
