"""Endpoints that fail are left alone, by circuit breakers, outlier detection and health checks, and come back; apps get what they bear."""

import apps
from cluster import until

GOOD = "payment-v1"
BAD = "payment-v2"


def APPS():
    servers = [
        apps.server(GOOD, "v1", app="payment"),
        apps.server(BAD, "v2", app="payment", args=("-status", "503")),
        apps.server("ledger", "v1", args=("-status", "500")),
        apps.server("counter", "v1"),
    ]
    return [*servers, *(apps.service(name) for name in ("payment", "ledger", "counter")), apps.client("web")]


def test_an_endpoint_that_fails_in_a_row_is_left_out(shop):
    detection = {"consecutiveErrors": 3, "baseEjectionTime": "10m"}
    shop.create(apps.mesh_service("payment", "v1", "v2", outlierDetection=detection))
    shop.await_condition("MeshService", "payment", Accepted="True", Programmed="True")
    until("it is left out", lambda: shop.count("web", "get", "http://payment/", "-n", "50")["byStatus"] == {"200": 50})
    assert shop.metric("web", "leno_endpoint_ejections_total", destination=f"{shop.name}/payment", cause="consecutive-errors") == 1
    shop.delete("MeshService", "payment")
    until("without detection it is asked again", lambda: "503" in shop.count("web", "get", "http://payment/", "-n", "50")["byStatus"])


def test_an_open_breaker_answers_at_once_and_closes_by_trials(shop):
    breaker = {"failureThreshold": 3, "openFor": "1s", "successThreshold": 2}
    shop.create(apps.mesh_service("ledger", circuitBreaker=breaker))
    shop.await_condition("MeshService", "ledger", Accepted="True", Programmed="True")
    until("it opens", lambda: "503" in shop.count("web", "get", "http://ledger/", "-n", "20")["byStatus"])
    assert shop.metric("web", "leno_errors_total", direction="outbound", reason="circuit-open") > 0
    line = until("the line says why", lambda: shop.access_log("web", destination=f"{shop.name}/ledger", reason="circuit-open"))[-1]
    assert line["status"] == 503
    # The app answers 200 where it is asked for that: trials succeed, and the breaker closes.
    until("it closes", lambda: shop.count("web", "get", "http://ledger/status/200", "-n", "20")["byStatus"] == {"200": 20})
    assert shop.metric("web", "leno_circuit_breaker_transitions_total", destination=f"{shop.name}/ledger", to="closed") > 0
    shop.delete("MeshService", "ledger")


def test_requests_beyond_a_limit_are_answered_503(shop):
    shop.create(apps.mesh_service("ledger", connections={"maxRequests": 2}))
    shop.await_condition("MeshService", "ledger", Accepted="True", Programmed="True")

    def counts():
        """Twelve at once, each of half a second. The app itself answers 500."""
        return shop.count("web", "load", "http://ledger/delay?ms=500", "-n", "12", "-c", "12", "-rate", "0")["byStatus"]

    refused = until("two are under way, the others are refused", lambda: (lambda it: it if it.get("500") == 2 else None)(counts()))
    assert refused == {"500": 2, "503": 10}
    assert shop.metric("web", "leno_overflow_total", destination=f"{shop.name}/ledger", limit="requests") >= 10
    line = until("the line says why", lambda: shop.access_log("web", destination=f"{shop.name}/ledger", reason="overflow"))[-1]
    assert line["status"] == 503


def test_an_endpoint_that_fails_its_checks_gets_no_traffic_and_comes_back(shop):
    check = {"http": {"path": "/"}, "interval": "200ms"}
    shop.create(apps.mesh_service("payment", "v1", "v2", healthCheck=check))
    shop.await_condition("MeshService", "payment", Accepted="True", Programmed="True")
    name = f"{shop.name}/payment"
    until("one is found not to be well", lambda: shop.metric("web", "leno_endpoints_unhealthy", destination=name) == 1)
    assert shop.count("web", "get", "http://payment/", "-n", "50")["byVersion"] == {"v1": 50}
    assert shop.metric("web", "leno_health_transitions_total", destination=name, to="unhealthy") == 1
    # What it answers is expected from now on.
    shop.patch("MeshService", "payment", {"spec": {"healthCheck": {"http": {"path": "/", "expectedStatuses": [200, 503]}}}})
    until("it is well", lambda: shop.metric("web", "leno_endpoints_unhealthy", destination=name) == 0)
    until("it is asked again", lambda: "v2" in shop.count("web", "get", "http://payment/", "-n", "50")["byVersion"])
    shop.delete("MeshService", "payment")


def test_an_overloaded_app_goes_on_answering_in_time(shop):
    """The app does one request after the other, in 20 ms each; four times as many come, and each waits for its answer."""
    asked = ("load", "http://counter/turn?ms=20", "-rate", "200", "-duration", "20s", "-c", "200")
    shop.create(apps.mesh_service("counter", adaptiveConcurrency={}))
    shop.await_condition("MeshService", "counter", Accepted="True", Programmed="True")
    counts = shop.count("web", *asked)
    assert counts["byStatus"].keys() == {"200", "503"}, counts
    assert counts["byStatus"]["200"] >= 600, "of the thousand that it can do"
    # Without a limit 200 callers would each wait for all of the others: four seconds.
    assert counts["p50ms"] < 1500, counts
    server = shop.pod_of("app=counter")
    assert shop.metric(server, "leno_overflow_total", destination=f"{shop.name}/counter", limit="concurrency") > 0
    assert 0 < shop.metric(server, "leno_concurrency_limit", destination=f"{shop.name}/counter") < 100
    line = until("the line says why", lambda: shop.access_log("web", destination=f"{shop.name}/counter", reason="overflow"))[-1]
    assert line["status"] == 503
    shop.delete("MeshService", "counter")
