//! Which endpoint takes a stream: weights, keys, sessions and zones, over HTTP/2 and gRPC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderValue, Request, Response};
use leno_core::balance::affinity::{Affinity, SessionCookie};
use leno_core::balance::key::HashKey;
use leno_core::balance::weighing::EndpointWeight;
use leno_core::balance::{Algorithm, Balancing};
use leno_core::endpoints::Endpoint;
use leno_core::names::WorkloadId;
use leno_core::workload::Workload;
use leno_proxy::control::Update;

use crate::peers::{Server, ask, dial, get, grpc, patient, send_all, trailers};
use crate::support::{Mesh, Setup};

/// A server that answers with its name, in words of gRPC as well.
async fn naming(name: &'static str) -> Server {
    Server::start(move |(_, mut respond)| async move {
        let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
        if send_all(&mut send, Bytes::from_static(name.as_bytes())).await.is_ok() {
            send.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
        }
    })
    .await
}

fn weighted(algorithm: Algorithm, endpoints: &[(&Server, u32)]) -> (Mesh, SocketAddr) {
    let (mesh, address) = Setup::default().start();
    mesh.set_balancing(Balancing { algorithm, ..Balancing::default() });
    let endpoint =
        |(server, weight): &(&Server, u32)| Endpoint { weight: EndpointWeight::new(*weight).unwrap(), ..Endpoint::at(server.address) };
    let mut endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    mesh.set_these(endpoints);
    (mesh, address)
}

async fn name(client: &SendRequest<Bytes>, request: Request<()>) -> String {
    ask(client, request, b"").await.unwrap().text().to_owned()
}

#[tokio::test]
async fn streams_of_one_connection_have_turns_by_weight() {
    let (one, three, none) = (naming("one").await, naming("three").await, naming("none").await);
    let (_mesh, address) = weighted(Algorithm::RoundRobin, &[(&one, 100), (&three, 300), (&none, 0)]);
    let client = dial(address).await;
    for _ in 0..40 {
        name(&client, get("/")).await;
    }
    assert_eq!((one.requests(), three.requests(), none.requests()), (10, 30, 0));
}

/// The request of one user.
type Ask = fn(usize) -> Request<()>;

#[tokio::test]
async fn the_same_key_meets_the_same_endpoint_from_the_first_stream_on() {
    let servers = [naming("a").await, naming("b").await, naming("c").await];
    let all: Vec<_> = servers.iter().map(|server| (server, 100)).collect();
    let cases: [(HashKey, Ask); 3] = [
        (HashKey::Header("x-user".into()), |user| {
            let mut request = grpc();
            request.headers_mut().insert("x-user", HeaderValue::from(user));
            request
        }),
        (HashKey::Cookie("user".into()), |user| {
            let mut request = get("/");
            // HTTP/2 may send a field for each cookie.
            request.headers_mut().append("cookie", HeaderValue::from_static("a=b"));
            request.headers_mut().append("cookie", HeaderValue::from_str(&format!("user={user}")).unwrap());
            request
        }),
        (HashKey::Query("user".into()), |user| get(&format!("/?user={user}"))),
    ];
    for (key, request) in cases {
        let (_known, address) = weighted(Algorithm::ConsistentHash(key.clone()), &all);
        let client = dial(address).await;
        let mut met = std::collections::BTreeSet::new();
        for user in 0..12 {
            let owner = name(&client, request(user)).await;
            for _ in 0..3 {
                assert_eq!(name(&client, request(user)).await, owner);
            }
            met.insert(owner);
        }
        assert!(met.len() > 1, "{key}: {met:?}");
        let (_new, other) = weighted(Algorithm::ConsistentHash(key), &all);
        assert_eq!(name(&dial(other).await, request(7)).await, name(&client, request(7)).await, "another proxy, and its first stream");
    }
}

#[tokio::test]
async fn a_session_stays_with_its_endpoint_and_its_first_answer_says_how() {
    let servers = [naming("a").await, naming("b").await, naming("c").await];
    let cookie = Affinity::Cookie(SessionCookie { name: "sid".into(), ttl: None, path: "/".into() });
    for (affinity, asks, tells) in [(cookie, "cookie", "set-cookie"), (Affinity::Header("x-session".into()), "x-session", "x-session")] {
        let (mesh, address) = Setup::default().start();
        mesh.set_balancing(Balancing { algorithm: Algorithm::RoundRobin, affinity: Some(affinity), ..Balancing::default() });
        let set = |servers: &[Server]| {
            let mut endpoints: Vec<_> = servers.iter().map(|server| Endpoint::at(server.address)).collect();
            endpoints.sort_by_key(|endpoint| endpoint.address);
            mesh.set_these(endpoints);
        };
        set(&servers[..2]);
        let client = dial(address).await;
        let first = ask(&client, get("/"), b"").await.unwrap();
        let told = first.headers[tells].to_str().unwrap();
        let session = told.split(';').next().unwrap().to_owned();
        assert_eq!(told.ends_with("; Path=/; HttpOnly"), tells == "set-cookie", "{told}");
        set(&servers);
        for _ in 0..8 {
            let mut request = grpc();
            request.headers_mut().insert(asks, HeaderValue::from_str(&session).unwrap());
            let response = ask(&client, request, b"").await.unwrap();
            assert_eq!((response.text(), response.headers.get(tells)), (first.text(), None));
        }
    }
}

#[tokio::test]
async fn streams_stay_in_the_zone_of_the_proxy_and_a_new_endpoint_gets_little_at_first() {
    let (home, away, new) = (naming("home").await, naming("away").await, naming("new").await);
    let (mesh, address) = Setup::default().start();
    let long = Some(Duration::from_secs(100_000));
    mesh.set_balancing(Balancing { algorithm: Algorithm::RoundRobin, prefers_zone: true, slow_start: long, ..Balancing::default() });
    let set = |servers: &[(&Server, &str)]| {
        let zoned = |(server, zone): &(&Server, &str)| Endpoint { zone: Some((*zone).into()), ..Endpoint::at(server.address) };
        let mut endpoints: Vec<_> = servers.iter().map(zoned).collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        mesh.set_these(endpoints);
    };
    set(&[(&home, "a"), (&away, "b")]);
    mesh.tell(Update::Workload(Arc::new(Workload { zone: Some("a".into()), ..Workload::new(WorkloadId::new("shop", "web-1")) })));
    let client = dial(address).await;
    name(&client, get("/")).await;
    let before = away.requests();
    eventually_stays(&client, "home").await;
    assert!(away.requests() <= before + 6, "what went elsewhere came before the zone was known");
    set(&[(&home, "a"), (&away, "b"), (&new, "a")]);
    while new.requests() == 0 {
        name(&client, get("/")).await;
    }
    let counted = new.requests();
    for _ in 0..220 {
        name(&client, get("/")).await;
    }
    let share = new.requests() - counted;
    assert!((17..=23).contains(&share), "a tenth of a share beside a whole one: {share} of 220");
}

/// Waits until several streams in a row are answered by `wanted`.
async fn eventually_stays(client: &SendRequest<Bytes>, wanted: &str) {
    let all = async {
        let mut row = 0;
        while row < 6 {
            row = if name(client, get("/")).await == wanted { row + 1 } else { 0 };
        }
    };
    patient(all).await;
}
