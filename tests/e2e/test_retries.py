"""What fails is tried again where policies say so and it does no harm, at another pod, and records say how often."""

import time

import apps
from cluster import until

GOOD = "payment-v1"
BAD = "payment-v2"


def APPS():
    servers = [
        apps.server(GOOD, "v1", app="payment"),
        apps.server(BAD, "v2", app="payment", args=("-status", "503")),
        apps.server("ledger", "v1"),
    ]
    grpc = apps.container("grpc-server", name="app", readinessProbe=apps.tcp_probe(9000))
    echo = [apps.workload("Deployment", "echo", grpc), apps.service("echo", (9000, 9000))]
    return [*servers, *echo, apps.service("payment"), apps.service("ledger"), apps.client("web")]


def policy(shop, name, **spec):
    target = {"targetRef": {"kind": "Service", "name": name}}
    shop.create(apps.leno("TrafficPolicy", name, **target, **spec))
    shop.await_condition("TrafficPolicy", name, Accepted="True", Programmed="True")


def test_a_get_that_fails_is_answered_by_the_other_pod_and_a_post_is_not_repeated(shop):
    policy(shop, "payment", retry={"attempts": 2, "retryOn": ["5xx"]})
    counts = shop.count("web", "get", "http://payment/", "-n", "100")
    assert counts["byStatus"] == {"200": 100}
    labels = {"destination": f"{shop.name}/payment", "reason": "gateway-error"}
    assert shop.metric("web", "leno_retries_total", outcome="succeeded", **labels) > 0
    counts = shop.count("web", "get", "http://payment/", "-n", "100", "-method", "POST")
    assert counts["byStatus"].get("503", 0) > 0, counts
    assert shop.metric("web", "leno_retries_total", outcome="method", **labels) > 0
    line = until("the line says why", lambda: shop.access_log("web", method="POST", no_retry="method"))[-1]
    assert (line["status"], line["tries"]) == (503, 1)
    shop.delete("TrafficPolicy", "payment")


def test_a_pod_that_is_down_for_a_moment_is_tried_again(shop):
    policy(shop, "ledger", retry={"attempts": 3, "retryOn": ["5xx"], "backoff": {"base": "1ms"}})
    assert shop.count("web", "get", "http://ledger/flaky?key=three&fails=3")["byStatus"] == {"200": 1}
    assert shop.count("web", "get", "http://ledger/flaky?key=nine&fails=9")["byStatus"] == {"503": 1}
    line = until("the line says how often", lambda: shop.access_log("web", destination=f"{shop.name}/ledger", status=503))[-1]
    assert (line["tries"], line["no_retry"]) == (4, "attempts")
    shop.delete("TrafficPolicy", "ledger")


def test_a_try_that_takes_too_long_is_given_up_and_made_again(shop):
    policy(shop, "ledger", timeout="10s", retry={"attempts": 1, "perTryTimeout": "200ms"})
    began = time.monotonic()
    assert shop.count("web", "get", "http://ledger/delay?ms=8000")["byStatus"] == {"504": 1}
    assert time.monotonic() - began < 6
    line = until("the line says how often", lambda: shop.access_log("web", destination=f"{shop.name}/ledger", reason="timeout"))[-1]
    assert (line["status"], line["tries"], line["origin"]) == (504, 2, "upstream")
    shop.delete("TrafficPolicy", "ledger")


def test_a_body_is_sent_again_up_to_a_bound(shop):
    policy(shop, "ledger", retry={"attempts": 2, "retryOn": ["5xx"], "backoff": {"base": "1ms"}})
    put = ("-method", "PUT", "-body")
    assert shop.count("web", "get", "http://ledger/flaky?key=small&fails=1", *put, "x" * 50_000)["byStatus"] == {"200": 1}
    assert shop.count("web", "get", "http://ledger/flaky?key=large&fails=1", *put, "x" * 80_000)["byStatus"] == {"503": 1}
    line = until("the line says why", lambda: shop.access_log("web", method="PUT", no_retry="body"))[-1]
    assert (line["status"], line["tries"]) == (503, 1)
    shop.delete("TrafficPolicy", "ledger")


def test_a_grpc_call_is_made_again_by_its_status(shop):
    counts = shop.count("web", "grpc-client", "echo:9000", "-flaky", "without a policy", check=False)
    assert counts["failed"] == 1, counts
    policy(shop, "echo", retry={"attempts": 1, "retryOn": ["grpc-unavailable"]})
    counts = shop.count("web", "grpc-client", "echo:9000", "-flaky", "with one")
    assert counts["failed"] == 0, counts
    labels = {"destination": f"{shop.name}/echo", "reason": "grpc-unavailable"}
    assert shop.metric("web", "leno_retries_total", outcome="succeeded", **labels) == 1
    shop.delete("TrafficPolicy", "echo")


def test_a_response_that_stalls_is_cut(shop):
    policy(shop, "ledger", routes=[{"name": "all", "idleTimeout": "500ms"}])
    began = time.monotonic()
    counts = shop.count("web", "get", "http://ledger/stall?ms=9000")
    assert counts["failed"] == 1, counts
    assert time.monotonic() - began < 8
    line = until("the line says why", lambda: shop.access_log("web", destination=f"{shop.name}/ledger", reason="idle-timeout"))[-1]
    assert line["status"] == 200
    shop.delete("TrafficPolicy", "ledger")
