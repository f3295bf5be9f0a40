"""Ways to pass for somebody else, each of which is refused: with tools that nobody made for this (openssl, gRPC, Go's TLS).

Beside each refusal stands the honest case that differs in nothing else, so that no test passes because all is broken.
"""

import json
import os
import time
from pathlib import Path

import pytest

import apps
from cluster import Refused, until
from pki import Controller, Desk, fields, length_delimited, minted, names, pem, secret, signed_again, token

OWN_CLUSTER = pytest.mark.skipif(bool(os.environ.get("KUBECONFIG")), reason="needs the key that signs service-account tokens")
STATE = Path(os.environ.get("LENO_CLUSTER_STATE") or f"/run/{os.environ.get('LENO_CLUSTER_NAME', 'leno-cluster')}")
SIGNING_KEY = STATE / "pki/sa.key"
STREAM = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
REQUEST = "GET /to-the-app HTTP/1.1\\r\\nHost: payment\\r\\nConnection: close\\r\\n\\r\\n"
H2_PREFACE = "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\x00\\x00\\x00\\x04\\x00\\x00\\x00\\x00\\x00"


def APPS():
    payment = apps.server("payment")
    payment["spec"]["template"]["spec"]["serviceAccountName"] = "payment"
    return [
        *(apps.service_account(name) for name in ("web", "payment", "other")),
        payment,
        apps.service("payment"),
        apps.security_policy("payment", target="payment", mode="Strict"),
        apps.client("web", serviceAccountName="web"),
        apps.client("outsider", annotations=apps.NO_INJECT, serviceAccountName="other"),
        # The controller signs a few certificates for each pod and then makes it wait, so each test that asks has a pod to ask for.
        *(apps.client(name, annotations=apps.NO_INJECT, serviceAccountName="web") for name in ("namer", "bearer", "bungler", "thief", "nagger")),
    ]


@pytest.fixture(scope="module")
def desk():
    desk = Desk()
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def controller(api):
    controller = Controller(api)
    yield controller
    controller.close()


def identity(shop, account, domain="cluster.local"):
    return f"spiffe://{domain}/ns/{shop.name}/sa/{account}"


@pytest.fixture(scope="module")
def stolen(api, shop, desk):
    """What a thief has who took over a pod of `web`: its certificate and key, PEM."""
    return minted(api, desk, shop, "web", "thief")


# At the controller: whose certificate is signed.


def test_a_pods_own_token_gets_its_own_name_whatever_it_asks_for(shop, desk, controller):
    key = desk.key()
    for wanted in (None, identity(shop, "web"), identity(shop, "payment"), "spiffe://cluster.local/ns/kube-system/sa/default"):
        chain = controller.sign(token(shop, "web", pod="namer"), desk.request(key, wanted))
        assert names(pem(chain[0])) == f"URI:{identity(shop, 'web')}", f"asked for {wanted}"


def test_tokens_that_prove_nothing_get_nothing(shop, desk, controller):
    request = desk.request(desk.key())
    honest = token(shop, "web", pod="bearer")
    assert controller.refusal(honest, request) == "OK"
    header, claims, signature = honest.split(".")
    shop.create(apps.client("gone", serviceAccountName="web"))
    shop.await_pods("gone")
    orphan = token(shop, "web", pod="gone")
    assert controller.refusal(orphan, request) == "OK"
    shop.delete("Pod", "gone")
    until("the pod is gone", lambda: all(it["metadata"]["name"] != "gone" for it in shop.list("Pod")))
    for name, bearer, codes in [
        ("wrong audience", token(shop, "web", audience="other.example", pod="bearer"), {"UNAUTHENTICATED"}),
        ("the API server's audience", token(shop, "web", audience=None, pod="bearer"), {"UNAUTHENTICATED"}),
        ("bound to no pod", token(shop, "web"), {"UNAUTHENTICATED", "PERMISSION_DENIED"}),
        ("a pod that is gone", orphan, {"UNAUTHENTICATED", "PERMISSION_DENIED"}),
        ("signature of another", ".".join([header, claims, signature[::-1]]), {"UNAUTHENTICATED"}),
        ("no token", "", {"UNAUTHENTICATED"}),
        ("nonsense", "x", {"UNAUTHENTICATED"}),
    ]:
        assert controller.refusal(bearer, request) in codes, name


def test_a_token_of_another_pod_makes_nobody_this_one(shop, desk, controller):
    with pytest.raises(Refused):  # Kubernetes itself binds tokens to pods of their own account only
        token(shop, "other", pod="web")
    chain = controller.sign(token(shop, "other", pod="outsider"), desk.request(desk.key(), identity(shop, "payment")))
    assert names(pem(chain[0])) == f"URI:{identity(shop, 'other')}", "it stays the name of its own account"


@OWN_CLUSTER
def test_a_token_that_has_expired_gets_nothing(shop, desk, controller):
    # The API server makes none that lives less than ten minutes, so these are signed with its key: all is right but the time.
    request, honest, now = desk.request(desk.key()), token(shop, "web", pod="bearer"), int(time.time())
    times = {"iat": now - 7200, "nbf": now - 7200}
    assert controller.refusal(signed_again(honest, SIGNING_KEY, exp=now + 600, **times), request) == "OK"
    assert controller.refusal(signed_again(honest, SIGNING_KEY, exp=now - 60, **times), request) == "UNAUTHENTICATED"


def test_requests_that_are_broken_are_refused_in_words(shop, desk, controller):
    bearer = token(shop, "web", pod="bungler")
    request = desk.request(desk.key())
    tampered = request[:-4] + bytes(4)
    for broken in (b"", b"x", request[:-1], tampered):
        refused = controller.ask(bearer, broken)
        assert refused["code"] == "INVALID_ARGUMENT" and refused["details"], f"{broken}: {refused}"


def test_a_pod_that_asks_too_often_waits_and_no_other_does(shop, desk, controller):
    request, often = desk.request(desk.key()), token(shop, "web", pod="nagger")
    codes = [controller.refusal(often, request) for _ in range(20)]
    assert codes[0] == "OK" and codes[-1] == "RESOURCE_EXHAUSTED", codes
    assert controller.refusal(token(shop, "other", pod="outsider"), request) == "OK"


def test_refusals_are_counted(api, shop, desk, controller):
    def refused():
        total = 0
        for pod in api.json("GET", "/api/v1/namespaces/leno-system/pods?labelSelector=app.kubernetes.io/name=leno-controller")["items"]:
            page = api.request("GET", f"/api/v1/namespaces/leno-system/pods/{pod['metadata']['name']}:9090/proxy/metrics")
            total += sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith('leno_certificate_requests_total{result="bad_token"}'))
        return total

    before = refused()
    assert controller.refusal("x", desk.request(desk.key())) == "UNAUTHENTICATED"
    until("it is counted", lambda: refused() == before + 1)


def test_the_control_stream_tells_a_proxy_of_itself_alone(shop, desk, controller, stolen):
    def told(client, namespace, name):
        """What the stream's first answer is to somebody who wants to know all of this workload."""
        parts = [(1, length_delimited(1, f"{namespace}/{name}".encode())), (2, b"type.googleapis.com/leno.dev.Workload")]
        request = b"".join(length_delimited(number, data) for number, data in [*parts, (3, f"{namespace}/{name}".encode())])
        answer = controller.call(STREAM, request, client=client)
        return answer["code"] if answer["code"] != "OK" else ["nothing", "all"][any(fields(answer["answer"], 2))]

    pod = shop.pod_of("app=payment")
    assert told(stolen, shop.name, "web") == "all"
    assert told(stolen, shop.name, pod) == "nothing", "another's workload"
    assert told("", shop.name, "web") == "UNAUTHENTICATED", "without a certificate"
    assert told(desk.self_signed(identity(shop, "web")), shop.name, "web") in {"UNAUTHENTICATED", "UNAVAILABLE"}, "nobody vouches for it"
    assert told(stolen, "kube-system", "web") in {"PERMISSION_DENIED", "UNAUTHENTICATED"}, "as a workload of another namespace"


# At the server's sidecar: who is let in.


def test_a_server_lets_in_only_who_the_mesh_vouches_for(api, shop, desk, stolen):
    address = f"{shop.address(shop.pod_of('app=payment'))}:8080"
    ca = secret(api, "leno-ca")
    certificate, key = ca["tls.crt"], ca["tls.key"]
    web = identity(shop, "web")
    alien = desk.signed_by(*own_ca(desk), web)
    for name, shown, served in [
        ("as the controller signed it", stolen, True),
        ("as the CA would sign it", desk.signed_by(certificate, key, web), True),
        ("self-signed", desk.self_signed(web), False),
        ("signed by somebody else", alien, False),
        ("another trust domain", desk.signed_by(certificate, key, identity(shop, "web", "evil.example")), False),
        ("a trust domain that begins alike", desk.signed_by(certificate, key, identity(shop, "web", "cluster.local.evil.example")), False),
        ("no SPIFFE ID", desk.signed_by(certificate, key, "https://cluster.local/ns/a/sa/b"), False),
        ("two names", desk.signed_by(certificate, key, f"{web},URI:{identity(shop, 'payment')}"), False),
        ("a path that is none", desk.signed_by(certificate, key, "spiffe://cluster.local/ns/a/sa/b/../c"), False),
    ]:
        met = shop.dial("outsider", address, "-alpn", "leno/http", "-send", REQUEST, pem=shown)[0]
        assert ('"path":"/to-the-app"' in met["received"]) == served, f"{name}: {met}"
    assert "to-the-app" not in shop.dial("outsider", address, "-tls", "-alpn", "leno/http", "-send", REQUEST)[0]["received"], "none at all"


def own_ca(desk):
    """A CA of one's own, as anybody may have: certificate and key."""
    text = desk.self_signed("spiffe://cluster.local")
    at = text.index("-----BEGIN EC PRIVATE KEY")
    return text[:at], text[at:]


def test_plain_http_of_any_kind_is_no_way_in(shop):
    pod = shop.address(shop.pod_of("app=payment"))
    for kind, text in [("HTTP/1.1", REQUEST), ("HTTP/2", H2_PREFACE), ("TLS of its own", "\\x16\\x03\\x01\\x00\\x05\\x01\\x00\\x00\\x01\\x00"), ("nothing known", "x\\n")]:
        met = shop.dial("outsider", f"{pod}:8080", "-send", text)[0]
        assert met["received"] == "" and met["error"] and "timeout" not in met["error"], f"{kind}: {met}"
    assert shop.count("outsider", "get", "http://payment/", "-h2")["failed"] == 1


def test_a_sidecars_own_ports_are_of_no_use_to_others(shop, stolen):
    pod = shop.address(shop.pod_of("app=payment"))
    for port in (15101, 15106):
        for text in (REQUEST, H2_PREFACE, ""):
            met = shop.dial("outsider", f"{pod}:{port}", "-send", text, "-timeout", "1s")[0]
            assert "to-the-app" not in met["received"] and "HTTP/1.1 200" not in met["received"], f"{port}: {met}"
        met = shop.dial("outsider", f"{pod}:{port}", "-alpn", "leno/http", "-send", REQUEST, "-timeout", "1s", pem=stolen)[0]
        assert "to-the-app" not in met["received"], f"{port}, with a certificate: {met}"
    # The sidecar's pages of itself are read-only.
    for path in ("/metrics", "/drain", "/quitquitquit", "/config_dump"):
        met = shop.dial("outsider", f"{pod}:15120", "-send", f"POST {path} HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")[0]
        assert not met["received"].startswith("HTTP/1.1 2"), f"POST {path}: {met}"
    assert "PRIVATE KEY" not in shop.metrics(shop.pod_of("app=payment"))


# At the client's sidecar: whom it talks to.


def rogue(name, certificate, account="other"):
    """A pod that says it is in the mesh but has no sidecar: an app of its own answers, with that certificate."""
    mount = {"volumeMounts": [{"name": "pem", "mountPath": "/pem", "readOnly": True}]}
    server = apps.container("server", "-name", name, "-tls", "-pem", "/pem/pem", "-alpn", "leno/http", readinessProbe=apps.tcp_probe(8080), **mount)
    annotations = {**apps.NO_INJECT, "leno.dev/injected": "true"}
    volumes = [{"name": "pem", "secret": {"secretName": name}}]
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"pem": certificate}},
        apps.pod(name, server, annotations=annotations, volumes=volumes, serviceAccountName=account),
        apps.service(name),
    ]


def test_a_client_talks_only_to_who_discovery_says_answers_there(api, shop, desk, stolen):
    ca = secret(api, "leno-ca")
    own = identity(shop, "other")
    cases = {
        "honest": desk.signed_by(ca["tls.crt"], ca["tls.key"], own),
        "stolen": stolen,  # genuine, of another pod, at an address that is not that pod's
        "self-signed": desk.self_signed(own),
        "alien": desk.signed_by(*own_ca(desk), own),
        "domain": desk.signed_by(ca["tls.crt"], ca["tls.key"], identity(shop, "other", "evil.example")),
    }
    for name, certificate in cases.items():
        shop.create(*rogue(name, certificate))
    shop.await_pods(*cases)
    until("who is who it should be is talked to", lambda: shop.count("web", "get", "http://honest/")["byStatus"] == {"200": 1})
    for name in cases.keys() - {"honest"}:
        counts = shop.count("web", "get", f"http://{name}/", "-H", f"X-Request-Id: to-{name}", "-H", "X-Test-Mark: arrived")
        assert counts["byStatus"] == {"502": 1}, f"{name}: {counts}"
        assert "arrived" not in shop.log(name, "app"), f"{name} saw the request"
        line = until("the log says why", lambda: shop.access_log("web", direction="outbound", request_id=f"to-{name}"))[0]
        assert line["reason"] == ("identity-mismatch" if name == "stolen" else "tls-failed"), line
        shop.delete("Pod", name)


def test_a_client_never_falls_back_to_plain_text(shop):
    annotations = {**apps.NO_INJECT, "leno.dev/injected": "true"}
    shop.create(apps.pod("plain", apps.container("server", readinessProbe=apps.HTTP_PROBE), annotations=annotations), apps.service("plain"))
    shop.await_pods("plain")
    until("what answers in plain text is not taken for the pod", lambda: shop.count("web", "get", "http://plain/")["byStatus"] == {"502": 1})
    assert json.loads(shop.app("outsider", "get", "http://plain/", "-print"))["name"] == "app", "whoever is in no mesh is served"
