"""What is outside the mesh: TLS that sidecars begin, RegisteredOnly, and what neither may break. Outside is a pod of no Service."""

import pytest

import apps
from cluster import run, until

NAME = "api.example.test"


def outside(name, *flags, **fields):
    one = apps.container("server", "-name", name, *flags, readinessProbe=apps.tcp_probe(8080), **fields)
    return apps.pod(name, one, annotations=apps.NO_INJECT)


def APPS():
    return [
        apps.server("payment"),
        apps.service("payment"),
        outside("stranger"),
        apps.client("web"),
        apps.client("orders"),
    ]


@pytest.fixture(scope="module")
def bank(shop, tmp_path_factory):
    """An HTTPS server outside, with a certificate of an authority of its own; its address and the authority's certificate."""
    folder = tmp_path_factory.mktemp("pki")
    ca, ca_key, key, csr, names = (folder / it for it in ("ca.pem", "ca.key", "key.pem", "csr.pem", "names"))
    names.write_text(f"subjectAltName=DNS:{NAME}\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("openssl", "req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-subj", "/CN=outside", "-days", "1")
    run("openssl", "req", *new_key, "-keyout", key, "-out", csr, "-subj", "/CN=bank")
    leaf = run("openssl", "x509", "-req", "-in", csr, "-CA", ca, "-CAkey", ca_key, "-days", "1", "-extfile", names)
    mount = {"volumeMounts": [{"name": "pem", "mountPath": "/pem", "readOnly": True}]}
    pod = outside("bank", "-tls", "-pem", "/pem/pem", **mount)
    pod["spec"]["volumes"] = [{"name": "pem", "secret": {"secretName": "bank"}}]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bank"}, "stringData": {"pem": leaf + key.read_text()}}
    shop.create(secret, pod)
    shop.await_pods("bank")
    return shop.address("bank"), ca.read_text()


@pytest.fixture
def registered(shop, bank):
    """The bank, registered at port 80, with TLS begun at its port 8080."""
    address, ca = bank
    tls = {"port": 8080, "serverName": NAME, "caBundle": ca}
    external = {"addresses": [address], "ports": [80], "tls": tls}
    shop.create(apps.mesh_service("bank", hosts=[NAME], external=external, ports=[{"port": 80, "protocol": "HTTP"}]))
    shop.await_condition("MeshService", "bank", Accepted="True", ResolvedRefs="True")
    yield address
    shop.delete("MeshService", "bank")


@pytest.fixture
def closed(shop):
    """web may only connect to what is registered."""
    policy = apps.security_policy("inside", selector={"matchLabels": {"app": "web"}}, egress={"mode": "RegisteredOnly"})
    shop.create(policy)
    shop.await_condition("SecurityPolicy", "inside", Accepted="True", Programmed="True")
    yield
    shop.delete("SecurityPolicy", "inside")


def status(shop, pod, url, *flags):
    """The status that one request gets; 0 for none."""
    (code,) = shop.count(pod, "get", url, *flags)["byStatus"] or {"0": 1}
    return int(code)


def test_plain_requests_leave_as_https_and_are_counted_by_the_name_they_are_registered_by(shop, registered):
    until("the sidecar knows it", lambda: status(shop, "web", f"http://{registered}/") == 200)
    for flags in ([], ["-h2"]):
        served = shop.fetch("web", f"http://{registered}/", *flags)
        assert served["name"] == "bank", served
    assert shop.metric("web", "leno_requests_total", destination=f"{shop.name}/bank") >= 2


def test_only_what_is_registered_is_reached_where_a_policy_says_so(shop, registered, closed):
    stranger = shop.address("stranger")
    until("the policy is in force", lambda: status(shop, "web", f"http://{stranger}:8080/") == 502)
    assert status(shop, "web", f"http://{stranger}:8080/", "-h2") == 502
    assert status(shop, "orders", f"http://{stranger}:8080/") == 200, "the policy is for web alone"
    assert status(shop, "web", f"http://{registered}/") == 200
    assert status(shop, "web", "http://payment/") == 200, "services need no registration"
    assert status(shop, "web", "http://10.255.255.1:9/") == 502
    met = shop.dial("web", f"{stranger}:8080", "-tls", "-send", "GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")[0]
    assert not met.get("received"), met
    assert shop.metric("web", "leno_errors_total", reason="not-registered") >= 4


def test_what_is_registered_by_a_name_is_found_where_dns_says(shop, bank):
    address, ca = bank
    shop.create(apps.service("found", (8080, 8080), app="bank", clusterIP="None"))
    external = {"addresses": [f"found.{shop.name}.svc.cluster.local"], "ports": [80], "tls": {"port": 8080, "serverName": NAME, "caBundle": ca}}
    shop.create(apps.mesh_service("named", external=external, ports=[{"port": 80, "protocol": "HTTP"}]))
    try:
        until("DNS is asked again", lambda: status(shop, "web", f"http://{address}/") == 200, seconds=90)
        served = shop.await_condition("MeshService", "named", Accepted="True", ResolvedRefs="True")
        assert served["status"]["endpoints"]["ready"] == 1, served["status"]
    finally:
        shop.delete("MeshService", "named")
        shop.delete("Service", "found")


def test_a_server_outside_that_is_somebody_else_is_not_talked_to(shop, bank):
    address, ca = bank
    external = {"addresses": [address], "ports": [80], "tls": {"port": 8080, "serverName": "other.example.test", "caBundle": ca}}
    shop.create(apps.mesh_service("wrong", external=external, ports=[{"port": 80, "protocol": "HTTP"}]))
    try:
        until("the sidecar refuses", lambda: status(shop, "orders", f"http://{address}/") == 502)
        assert shop.metric("orders", "leno_errors_total", reason="tls-failed") >= 1
    finally:
        shop.delete("MeshService", "wrong")
