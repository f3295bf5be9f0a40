"""Requests go where policies say, soon after these change, and `status` says so."""

import json
import math
import queue
import re
import threading
import time

import apps
from cluster import kubectl, until

APPS = apps.payment
PREMIUM = {"headers": [{"name": "x-user-type", "value": "premium"}]}


def test_ninety_of_a_hundred_requests_go_to_v1(shop, policy):
    policy(apps.route("canary", v1=90, v2=10))
    counts = shop.count("web", "get", "http://payment/", "-n", "2000")
    assert counts["byStatus"] == {"200": 2000}
    share = counts["byVersion"]["v1"] / 20
    assert 87 <= share <= 93, f"v1 got {share} % of 2000 requests"


def test_premium_users_meet_v2_only(shop, policy):
    policy(apps.route("premium", PREMIUM, v2=1), apps.route("others", v1=1))
    for header, version in [("x-user-type: premium", "v2"), ("x-user-type: basic", "v1"), ("x-other: premium", "v1")]:
        counts = shop.count("web", "get", "http://payment/", "-n", "100", "-H", header)
        assert counts["byVersion"] == {version: 100}, header


def test_paths_methods_and_queries_are_matched(shop, policy):
    v2 = [
        apps.route("exact", {"path": {"exact": "/exact"}}, v2=1),
        apps.route("prefix", {"path": {"prefix": "/api/v1"}}, v2=1),
        apps.route("regex", {"path": {"regex": "/items/[0-9]+"}}, v2=1),
        apps.route("method", {"method": "PUT"}, v2=1),
        apps.route("query", {"query": [{"name": "beta", "value": "1"}]}, v2=1),
    ]
    policy(*v2, apps.route("others", v1=1))
    for path, *more, version in [
        ("/exact", "v2"),
        ("/exact/more", "v1"),
        ("/api/v1/process", "v2"),
        ("/api/v10", "v1"),
        ("/items/42", "v2"),
        ("/items/x", "v1"),
        ("/?beta=1", "v2"),
        ("/?beta=2", "v1"),
        ("/other", "-method", "PUT", "v2"),
        ("/other", "v1"),
    ]:
        assert shop.fetch("web", f"http://payment{path}", *more)["version"] == version, path


def test_every_name_of_the_service_is_routed(shop, policy):
    policy(apps.route("all", v2=1))
    address = shop.get("Service", "payment")["spec"]["clusterIP"]
    for host in ["payment", f"payment.{shop.name}", f"payment.{shop.name}.svc.cluster.local", address]:
        assert shop.fetch("web", f"http://{host}/")["version"] == "v2", host


def test_a_route_that_takes_too_long_answers_504(shop, policy):
    policy({**apps.route("slow", {"path": {"prefix": "/delay"}}, v1=1), "timeout": "200ms"})
    started = time.monotonic()
    counts = shop.count("web", "get", "http://payment/delay?ms=5000")
    assert counts["byStatus"] == {"504": 1} and time.monotonic() - started < 4


CHANGES = 20


def test_a_change_is_in_force_within_two_seconds(shop, policy):
    policy(apps.route("all", v1=1))
    answers = Answers(shop, "web", "http://payment/delay?ms=4")
    try:
        took = [time_of_change(shop, answers, ("v2", "v1")[number % 2]) for number in range(CHANGES)]
    finally:
        answers.stop()
    took.sort()
    p99 = took[math.ceil(0.99 * CHANGES) - 1]
    print(f"{CHANGES} changes: p50 {took[CHANGES // 2]:.3f} s, p99 {p99:.3f} s")
    assert p99 <= 2.0, took


def time_of_change(shop, answers, version):
    """Sends everybody to `version`: the time from the write until the last answer of the other one."""
    began = time.monotonic()
    shop.patch("TrafficPolicy", "payment", {"spec": {"routes": [apps.route("all", **{version: 1})]}})
    last_of_before = began
    in_a_row = 0
    while in_a_row < 50:
        at, found = answers.next()
        if at < began:
            continue
        in_a_row = in_a_row + 1 if found == version else 0
        if found != version:
            last_of_before = at
    return last_of_before - began


class Answers:
    """A pod's endless requests, one after another on one connection, with the time at which each was answered."""

    def __init__(self, namespace, pod, url):
        self.process = namespace.start_app(pod, "get", url, "-n", "1000000", "-print")
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            try:
                self.lines.put((time.monotonic(), json.loads(line)["version"]))
            except ValueError:
                return  # the last answer is cut off; a test that still waits for one says so

    def next(self):
        return self.lines.get(timeout=10)

    def stop(self):
        self.process.kill()
        self.process.wait(10)


def test_status_counts_endpoints_versions_and_proxies(shop, policy):
    policy(apps.route("canary", v1=90, v2=10))
    mesh_service = shop.await_condition("MeshService", "payment", Accepted="True", ResolvedRefs="True", Programmed="True")
    status = mesh_service["status"]
    assert status["endpoints"] == {"ready": 2, "total": 2}
    assert status["versions"] == [{"name": "v1", "endpoints": 1}, {"name": "v2", "endpoints": 1}]
    for kind in ("MeshService", "TrafficPolicy"):
        proxies = shop.get(kind, "payment")["status"]["proxies"]
        assert proxies["subscribed"] == proxies["current"] >= 1, proxies


def test_kubectl_get_and_describe_read_well(shop, policy):
    policy(apps.route("canary", v1=90, v2=10))
    shop.await_condition("MeshService", "payment", Programmed="True")
    listed = kubectl("get", "-n", shop.name, "msvc,tp")
    services, policies = [block.splitlines() for block in listed.strip().split("\n\n")]
    assert services[0].split() == ["NAME", "SERVICE", "READY", "TOTAL", "CURRENT", "PROXIES", "PROGRAMMED", "AGE"]
    assert re.match(r"meshservice.leno.dev/payment +payment +2 +2 +1 +1 +True", services[1]), listed
    assert policies[0].split() == ["NAME", "TARGET", "ACCEPTED", "CURRENT", "PROXIES", "PROGRAMMED", "AGE"]
    assert re.match(r"trafficpolicy.leno.dev/payment +payment +True +1 +1 +True", policies[1]), listed
    told = kubectl("describe", "-n", shop.name, "msvc", "payment")
    for words in [r"Message: +In force for Service \S+/payment\.", r"Type: +Programmed", r"Ready: +2", r"Subscribed: +1", r"Name: +v1"]:
        assert re.search(words, told), f"{words} is not in\n{told}"


def test_an_endpoint_that_comes_or_goes_is_counted(shop):
    shop.scale("payment-v2", 2)
    versions = [{"name": "v1", "endpoints": 1}, {"name": "v2", "endpoints": 2}]
    until("status counts the new endpoint", lambda: shop.get("MeshService", "payment")["status"]["versions"] == versions)
    shop.scale("payment-v2", 1)
    until("and no more", lambda: shop.get("MeshService", "payment")["status"]["endpoints"] == {"ready": 2, "total": 2})


def test_a_caller_that_ends_is_no_longer_counted(shop):
    shop.create(apps.client("passing"))
    shop.await_pods("passing")
    proxies = lambda: shop.get("MeshService", "payment")["status"]["proxies"]  # noqa: E731
    before = proxies()["subscribed"]
    shop.app("passing", "get", "http://payment/")
    until("the new caller is counted", lambda: proxies() == {**proxies(), "subscribed": before + 1, "current": before + 1})
    shop.delete("Pod", "passing")
    until("and no more", lambda: proxies()["subscribed"] == before)
