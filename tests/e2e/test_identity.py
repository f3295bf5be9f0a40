"""Between pods of the mesh everything is mutually authenticated TLS 1.3, and nobody had to ask for it."""

import json
import os
import re
import subprocess
import sys

import pytest

import apps
from cluster import COMMANDS, run, until
from load import Load
from pki import Desk, minted

ON_THE_NODE = pytest.mark.skipif(bool(os.environ.get("KUBECONFIG")), reason="needs the network of the node, which only our own cluster gives")
BYE = "GET / HTTP/1.1\\r\\nConnection: close\\r\\nHost: a\\r\\n\\r\\n"
CAPTURE = COMMANDS.parent / "e2e/capture.py"


def APPS():
    return [
        *everything("payment"),
        *everything("vault"),
        apps.security_policy("vault", target="vault", mode="Strict"),
        *everything("outside", annotations=apps.NO_INJECT),
        apps.client("web"),
        apps.client("outsider", annotations=apps.NO_INJECT),
    ]


def everything(name, **fields):
    """A Deployment that speaks HTTP, HTTPS, gRPC and a protocol in which the server speaks first, with a probe of each kind."""
    https = {"httpGet": {"path": "/healthz", "port": 8443, "scheme": "HTTPS"}, "periodSeconds": 1}
    grpc = {"grpc": {"port": 9000}, "periodSeconds": 1}
    containers = [
        apps.container("server", "-name", name, name="app", readinessProbe=apps.HTTP_PROBE, livenessProbe=apps.HTTP_PROBE),
        apps.container("server", "-name", name, "-port", "8443", "-tls", name="https", readinessProbe=https, livenessProbe=https),
        apps.container("grpc-server", name="grpc", readinessProbe=grpc, livenessProbe=grpc),
        apps.container("tcp-server-first", name="tcp", readinessProbe=apps.tcp_probe(7000), livenessProbe=apps.tcp_probe(7000)),
    ]
    ports = [(80, 8080), (443, 8443), (9000, 9000), {"port": 7000, "targetPort": 7000, "appProtocol": "tcp"}]
    return [apps.workload("Deployment", name, *containers, **fields), apps.service(name, *ports)]


CALLS = {  # what is sent to a service, and whether it was served
    "HTTP/1.1": lambda shop, pod, service: shop.count(pod, "get", f"http://{service}/", "-new-conn")["byStatus"] == {"200": 1},
    "HTTP/2": lambda shop, pod, service: shop.count(pod, "get", f"http://{service}/", "-h2")["byStatus"] == {"200": 1},
    "HTTPS": lambda shop, pod, service: shop.count(pod, "get", f"https://{service}/", "-new-conn")["byStatus"] == {"200": 1},
    "gRPC": lambda shop, pod, service: json.loads(shop.app(pod, "grpc-client", f"{service}:9000", check=False))["failed"] == 0,
    "TCP": lambda shop, pod, service: "hello" in shop.dial(pod, f"{service}:7000", "-timeout", "1s")[0]["received"],
}


class Capture:
    """What crosses the node's network while the `with` block runs; afterwards `seen` counts the frames that hold each word."""

    def __init__(self, *words):
        self.words = words

    def __enter__(self):
        command = [str(COMMANDS / "exec"), sys.executable, str(CAPTURE), *self.words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line == "capturing\n", f"{line!r} {self.process.stderr.read()}"
        return self

    def __exit__(self, *_):
        out, told = self.process.communicate("", timeout=30)
        assert self.process.returncode == 0, told
        self.seen = json.loads(out)["seen"]


@ON_THE_NODE
def test_between_pods_of_the_mesh_no_plain_text_crosses_the_network(shop):
    pairs = {"inside": ("web", "payment"), "outside": ("outsider", "outside"), "into": ("outsider", "payment")}
    words = {f"{pair}-{kind}": f"secret-{pair}-{kind}-{os.getpid()}" for pair in pairs for kind in ("http1", "http2", "tcp", "answer")}
    with Capture(*words.values()) as capture:
        for pair, (client, service) in pairs.items():
            shop.await_reply(client, f"http://{service}/")
            word = {kind: words[f"{pair}-{kind}"] for kind in ("http1", "http2", "tcp", "answer")}
            assert shop.fetch(client, f"http://{service}/", "-H", f"X-Word: {word['http1']}")["headers"]["X-Word"] == [word["http1"]]
            assert shop.app(client, "get", f"http://{service}/echo", "-h2", "-method", "POST", "-body", word["http2"], "-print") == word["http2"]
            assert shop.fetch(client, f"http://{service}/{word['answer']}")["path"] == f"/{word['answer']}"
            met = shop.dial(client, f"{service}:7000", "-send", f"{word['tcp']}\\n", "-timeout", "1s")[0]
            assert word["tcp"] in met["received"], met
    for name, word in words.items():
        seen = capture.seen[word]
        assert (seen == 0) == name.startswith("inside"), f"{name}: {seen} frames hold it in plain text; of all: {capture.seen}"


@pytest.mark.parametrize("kind", CALLS)
def test_a_client_outside_the_mesh_is_served_by_permissive_and_refused_by_strict(shop, kind):
    call = CALLS[kind]
    for service, client, served in [("payment", "outsider", True), ("vault", "outsider", False), ("vault", "web", True), ("payment", "web", True)]:
        if served:
            until(f"{client} is served by {service}", lambda: call(shop, client, service), 20)
        else:
            assert not call(shop, client, service), f"{client} was served by {service}"


def test_strict_refuses_before_a_byte_reaches_the_app_and_says_why(shop):
    pod = shop.pod_of("app=vault")
    refused = shop.metric(pod, "leno_errors_total", reason="plain-text")
    before = shop.fetch("web", "http://vault/")["served"]
    met = shop.dial("outsider", "vault:80", "-send", "GET / HTTP/1.1\\r\\nHost: vault\\r\\n\\r\\n")[0]
    assert met["received"] == "" and "reset" in met["error"], met
    met = shop.dial("outsider", "vault:7000", "-send", "", "-send", "hello\\n", "-timeout", "1s")
    assert [one["received"] for one in met] == ["", ""], f"not even the greeting: {met}"
    assert "reset" in met[1]["error"], met
    assert shop.fetch("web", "http://vault/")["served"] == before + 1, "the app saw web's requests only"
    until("both refusals are counted", lambda: shop.metric(pod, "leno_errors_total", reason="plain-text") >= refused + 2)


def test_other_peoples_clients_see_tls_1_3_a_post_quantum_group_and_the_spiffe_id(shop):
    address = shop.address(shop.pod_of("app=payment"))
    tls = shop.dial("outsider", f"{address}:8080", "-tls", "-alpn", "leno/http")[0]["tls"]
    assert (tls["version"], tls["group"], tls["alpn"]) == ("TLS 1.3", "X25519MLKEM768", "leno/http"), tls
    assert tls["uris"] == [f"spiffe://cluster.local/ns/{shop.name}/sa/default"]


@ON_THE_NODE
def test_openssls_client_sees_the_same(api, shop):
    address = shop.address(shop.pod_of("app=payment"))
    desk = Desk()
    try:
        own = desk.file("web.pem", minted(api, desk, shop, "default", "web"))
        command = ["openssl", "s_client", "-connect", f"{address}:8080", "-alpn", "leno/http", "-quiet", "-cert", own, "-key", own]
        talk = f"GET /from-openssl HTTP/1.1\r\nHost: payment\r\nConnection: close\r\n\r\n"
        told = run(COMMANDS / "exec", *command, stdin=talk, check=False)
        assert '"path":"/from-openssl"' in told, f"a client with a certificate of the mesh is served: {told}"
        told = run(COMMANDS / "exec", *command[:6], "-showcerts", stdin="", check=False)
    finally:
        desk.close()
    assert re.search(r"New, TLSv1\.3", told) and "ALPN protocol: leno/http" in told, told
    leaf = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", told, re.DOTALL)[0]
    shown = run("openssl", "x509", "-noout", "-ext", "subjectAltName", stdin=leaf)
    assert shown.splitlines()[1].strip() == f"URI:spiffe://cluster.local/ns/{shop.name}/sa/default", shown
    for old in ("-tls1_2", "-tls1_1"):
        told = run(COMMANDS / "exec", *command[:6], old, stdin="", check=False)
        assert "BEGIN CERTIFICATE" not in told, f"{old} was spoken: {told}"


def test_an_apps_own_tls_reaches_the_app_inside_and_outside_the_mesh(shop):
    for client, service in [("web", "payment"), ("web", "vault"), ("web", "outside"), ("outsider", "payment"), ("outsider", "outside")]:
        pod = shop.pod_of(f"app={service}")
        for alpn, agreed in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")]:
            tls = shop.dial(client, f"{service}:443", "-tls", "-alpn", alpn, "-send", BYE)[0].get("tls")
            assert tls, f"{client} to {service} by {alpn}"
            assert (tls["subject"], tls["alpn"]) == (f"own certificate of {pod}", agreed), f"{client} to {service}: {tls}"


def test_the_log_and_the_metrics_name_both_sides(shop):
    identity = f"spiffe://cluster.local/ns/{shop.name}/sa/default"
    shop.await_reply("web", "http://payment/")
    shop.fetch("web", "http://payment/", "-H", "X-Request-Id: who-is-who")
    pod = shop.pod_of("app=payment")
    for name, direction in [("web", "outbound"), (pod, "inbound")]:
        line = until("the line is written", lambda: shop.access_log(name, direction=direction, request_id="who-is-who"))[0]
        assert line["source_identity"] == identity and line["destination_identity"] == identity, line
        assert (line["tls_version"], line["tls_group"]) == ("TLSv1_3", "X25519MLKEM768"), line


def test_declared_probes_pass_under_strict_and_nothing_else_does(shop):
    pod = shop.pod_of("app=vault")
    address = shop.address(pod)
    assert shop.count("outsider", "get", f"http://{address}:8080/healthz")["byStatus"] == {"200": 1}, "anybody may ask what the kubelet may"
    for path in ["/", "/healthz/", "/healthz/../", "/healthz%2f..%2f", "/Healthz", "//healthz/..", "/healthz/x"]:
        request = f"GET {path} HTTP/1.1\\r\\nHost: vault\\r\\nConnection: close\\r\\n\\r\\n"
        met = shop.dial("outsider", f"{address}:8080", "-send", request)[0]
        assert '"path"' not in met["received"] and "HTTP/1.1 200" not in met["received"], f"{path}: {met}"
    both = "GET /healthz HTTP/1.1\\r\\nHost: vault\\r\\n\\r\\nGET / HTTP/1.1\\r\\nHost: vault\\r\\nConnection: close\\r\\n\\r\\n"
    assert '"path"' not in shop.dial("outsider", f"{address}:8080", "-send", both)[0]["received"], "nothing rides behind a probe"
    assert shop.count("outsider", "get", f"http://{address}:8080/healthz", "-method", "POST")["byStatus"].get("200") is None
    statuses = shop.get("Pod", pod)["status"]["containerStatuses"]
    assert {it["name"]: it["restartCount"] for it in statuses} == {"app": 0, "https": 0, "grpc": 0, "tcp": 0}
    assert shop.pod_ready(pod)


def test_a_mode_that_changes_holds_at_once_and_the_status_says_so(shop):
    served = lambda: CALLS["HTTP/1.1"](shop, "outsider", "payment")  # noqa: E731
    shop.create(apps.security_policy("for-a-while", target="payment", mode="Strict"))
    try:
        shop.await_condition("SecurityPolicy", "for-a-while", Accepted="True", ResolvedRefs="True", Programmed="True")
        proxies = lambda: shop.get("SecurityPolicy", "for-a-while")["status"]["proxies"]  # noqa: E731
        until("the status counts the proxies that have it", lambda: proxies()["subscribed"] == proxies()["current"] >= 1)
        assert not served()
        shop.patch("SecurityPolicy", "for-a-while", {"spec": {"mtls": {"mode": "Disabled"}}})
        until("who is in no mesh is served again", served)
        assert CALLS["HTTP/1.1"](shop, "web", "payment"), "and who is in it too"
    finally:
        shop.delete("SecurityPolicy", "for-a-while")
    until("without the policy all are served", served)


def test_sidecars_come_and_go_in_any_order_without_a_failed_request(shop):
    rolling = apps.server("rolling", replicas=2, annotations=apps.NO_INJECT)
    # Without a sidecar nobody tells clients before connections are closed, so the app waits until its endpoints are known to end.
    rolling["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 3}}}
    shop.create(rolling, apps.service("rolling"))
    shop.await_rollout("rolling")
    shop.await_reply("web", "http://rolling/")
    shop.await_reply("outsider", "http://rolling/")
    inside = Load(shop, "web", "http://rolling/", "rolling", rate=100)
    outside = Load(shop, "outsider", "http://rolling/", "rolling", flags=["-new-conn"], rate=50)
    with inside, outside:
        for inject in (apps.INJECT, apps.NO_INJECT):
            shop.patch("Deployment", "rolling", {"spec": {"template": {"metadata": {"annotations": inject}}}})
            shop.await_rollout("rolling", seconds=120)
            inside.run_for(2)
    inside.assert_flawless()
    outside.assert_flawless()
