"""Certificates that end, roots that are replaced and controllers that are gone, under traffic that never stops.

The certificates live for one minute here, so in a minute and a half everybody's are renewed twice. With `LENO_LONG=1` there are ten
renewals of certificates that live for two minutes, which takes a quarter of an hour.
"""

import json
import os
import time

import pytest

import apps
from cluster import ROOT, Namespace, helm, leno, until
from load import Load
from pki import secret

LIFE, RENEWALS = (120, 10) if os.environ.get("LENO_LONG") else (60, 2)
CHART = ROOT / "charts/leno"


def APPS():
    grpc = apps.container("grpc-server", name="grpc", readinessProbe=apps.tcp_probe(9000))
    tcp = apps.container("tcp-server-first", name="tcp", readinessProbe=apps.tcp_probe(7000))
    tcp_port = {"port": 7000, "targetPort": 7000, "appProtocol": "tcp"}
    return [
        apps.server("payment", replicas=2),
        apps.service("payment"),
        apps.workload("Deployment", "echo", grpc, tcp),
        apps.service("echo", (9000, 9000), tcp_port),
        apps.security_policy("strict", mode="Strict"),
        apps.client("web"),
    ]


def upgrade(*values):
    words = [word for value in values for word in ("--set", value)]
    helm("upgrade", "leno", CHART, "-n", "leno-system", "--reuse-values", *words, "--wait", "--timeout", "120s")


@pytest.fixture(scope="module", autouse=True)
def short_lives(api):
    """Certificates that are signed while this file's tests run live for `LIFE` seconds."""
    upgrade(f"identity.certificateLife={LIFE}s")
    yield
    upgrade("identity.certificateLife=24h")


@pytest.fixture
def home(api):
    """The namespace that Leno is installed in."""
    namespace = Namespace.__new__(Namespace)
    namespace.api, namespace.name = api, "leno-system"
    return namespace


class Traffic:
    """HTTP at a steady rate on connections that stay and on new ones, two streams and two connections that must not be cut."""

    def __init__(self, shop):
        self.shop = shop
        self.kept, self.new = Load(shop, "web", rate=100), Load(shop, "web", flags=["-new-conn"], rate=50)

    def __enter__(self):
        self.shop.await_reply("web", "http://payment/")
        self.held = [self.shop.hold("web", kind, target) for kind, target in 2 * [("grpc-client", "echo:9000"), ("tcp-client", "echo:7000")]]
        self.kept.__enter__()
        self.new.__enter__()
        return self

    def goes_on(self):
        for one in self.held:
            assert one.poll() is None, f"a stream was cut: {one.communicate()}"
        return self.kept.still_runs() and self.new.still_runs()

    def __exit__(self, kind, error, trace):
        counts = [json.loads(one.communicate("", timeout=30)[0]) for one in self.held] if kind is None else [one.kill() for one in self.held]
        for load in (self.kept, self.new):
            load.__exit__(kind, error, trace)
        if kind is None:
            for load in (self.kept, self.new):
                load.assert_flawless()
            assert all(one["failed"] == 0 for one in counts), counts
            print("held:", [one.get("heldStreamMessages", one.get("lines")) for one in counts])


def ends_at(shop, pod):
    """When the certificate ends that a pod's sidecar holds."""
    return shop.metric(pod, "leno_certificate_expiry_timestamp_seconds")


def pods(shop):
    return ["web", *(it["metadata"]["name"] for app in ("payment", "echo") for it in shop.list("Pod", f"app={app}"))]


def test_certificates_are_renewed_again_and_again_and_nobody_notices(shop):
    with Traffic(shop) as traffic:
        for number in range(RENEWALS):
            before = {pod: ends_at(shop, pod) for pod in pods(shop)}
            assert all(0 < end - time.time() <= LIFE for end in before.values()), before
            renewed = lambda: traffic.goes_on() and all(ends_at(shop, pod) > end for pod, end in before.items())  # noqa: E731, B023
            until(f"renewal {number + 1} of every certificate", renewed, LIFE, pause=1)


def test_the_root_is_replaced_and_nobody_notices(api, shop):
    before = secret(api, "leno-ca")["ca.crt"]
    with Traffic(shop) as traffic:
        out = leno("ca", "rotate", seconds=300)
        assert traffic.goes_on()
        print(out)
        after = secret(api, "leno-ca")
        assert after["ca.crt"] != before and before not in after["ca.crt"], "the old root is no longer trusted"
        assert "next.crt" not in after and "next.key" not in after, after.keys()
        traffic.kept.run_for(2)


def test_without_a_controller_nothing_fails_until_certificates_end_and_then_the_error_says_so(shop, home):
    replicas = home.get("Deployment", "leno-controller")["spec"]["replicas"]
    shop.await_reply("web", "http://payment/")
    fresh = lambda: all(ends_at(shop, pod) - time.time() > LIFE / 2 for pod in pods(shop))  # noqa: E731
    until("nobody's certificate is about to be renewed", fresh, LIFE)
    ends = min(ends_at(shop, pod) for pod in pods(shop))
    home.scale("leno-controller", 0)
    try:
        due = ends - LIFE * 0.3  # at the latest
        answers = {}
        while time.time() < ends - 3:
            counts = shop.count("web", "get", "http://payment/", "-n", "20", "-new-conn")
            answers[time.time() > due] = answers.get(time.time() > due, 0) + counts["byStatus"].get("200", 0)
            assert counts["byStatus"] == {"200": 20}, f"{ends - time.time():.1f} s before the first certificate ends: {counts}"
        assert answers.get(True), f"requests were sent after renewal was due: {answers}"
        until("every certificate has ended", lambda: time.time() > max(ends_at(shop, pod) for pod in pods(shop)), LIFE)
        until("nobody is let in any more", lambda: shop.count("web", "get", "http://payment/", "-new-conn", "-H", "X-Request-Id: too-late")["byStatus"] == {"503": 1})
        line = until("the log says why", lambda: [it for it in shop.access_log("web", direction="outbound", request_id="too-late") if it.get("reason") == "no-certificate"])[0]
        assert line["status"] == 503, line
        assert shop.metric("web", "leno_errors_total", reason="no-certificate") >= 1
    finally:
        home.scale("leno-controller", replicas)
        home.await_rollout("leno-controller", seconds=120)
    until("all is well again by itself", lambda: shop.count("web", "get", "http://payment/", "-n", "20", "-new-conn")["byStatus"] == {"200": 20})
