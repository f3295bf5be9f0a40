"""Endpoints that fail are left alone, by circuit breakers and outlier detection, and come back."""

import apps
from cluster import until

GOOD = "payment-v1"
BAD = "payment-v2"


def APPS():
    servers = [
        apps.server(GOOD, "v1", app="payment"),
        apps.server(BAD, "v2", app="payment", args=("-status", "503")),
        apps.server("ledger", "v1", args=("-status", "500")),
    ]
    return [*servers, apps.service("payment"), apps.service("ledger"), apps.client("web")]


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
