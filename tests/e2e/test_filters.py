"""Routes change what they send on, hold it, or have the sidecar answer by itself."""

import json

import pytest

import apps

APPS = apps.payment


def under(prefix):
    return {"path": {"prefix": prefix}}


@pytest.mark.parametrize("http2", [[], ["-h2"]], ids=["HTTP/1.1", "HTTP/2"])
def test_path_host_and_fields_are_changed_on_the_way(shop, policy, http2):
    policy(
        {
            **apps.route("api", under("/api/v1"), v1=1),
            "rewrite": {"path": {"prefix": "/"}, "host": "ledger.example.com"},
            "requestHeaders": {"set": {"x-team": "shop"}, "add": {"x-list": "b"}, "remove": ["x-internal"]},
        },
        apps.route("others", v1=1),
    )
    fields = ["-H", "x-team: other", "-H", "x-list: a", "-H", "x-internal: 1"]
    told = shop.fetch("web", "http://payment/api/v1/books?page=2", *fields, *http2)
    assert (told["path"], told["query"], told["host"]) == ("/books", "page=2", "ledger.example.com")
    headers = {name.lower(): values for name, values in told["headers"].items()}
    assert headers["x-team"] == ["shop"] and ",".join(headers["x-list"]).replace(" ", "") == "a,b"
    assert "x-internal" not in headers
    assert shop.fetch("web", "http://payment/api", *fields, *http2)["headers"]["X-Internal"] == ["1"], "another route's request"


@pytest.mark.parametrize("http2", [[], ["-h2"]], ids=["HTTP/1.1", "HTTP/2"])
def test_a_redirect_is_answered_by_the_sidecar(shop, policy, http2):
    policy({"name": "moved", "matches": [under("/old")], "redirect": {"path": {"prefix": "/new"}, "status": 301}})
    counts = shop.count("web", "get", "http://payment/old/a?b", *http2)
    assert counts["byStatus"] == {"301": 1} and counts["byVersion"] == {"none": 1}, counts
    assert shop.count("web", "get", "http://payment/new", *http2)["byStatus"] == {"200": 1}



@pytest.mark.parametrize("http2", [[], ["-h2"]], ids=["HTTP/1.1", "HTTP/2"])
def test_an_abort_befalls_its_share_of_requests_and_says_so(shop, policy, http2):
    policy(
        {"name": "chaos", "matches": [under("/chaos")], "fault": {"abort": {"status": 503}}},
        {"name": "some", "matches": [under("/some")], "fault": {"abort": {"status": 500, "percentage": 20}}},
    )
    assert shop.count("web", "get", "http://payment/chaos", "-n", "20", *http2)["byStatus"] == {"503": 20}
    counts = shop.count("web", "get", "http://payment/some", "-n", "1000", *http2)["byStatus"]
    assert 150 <= counts["500"] <= 250 and counts["200"] == 1000 - counts["500"], counts
    assert shop.access_log("web", reason="fault-injected"), "the caller's proxy says who answered"


def test_a_delay_holds_requests_and_counts_against_the_timeout(shop, policy):
    policy(
        {"name": "slow", "matches": [under("/slow")], "fault": {"delay": {"duration": "300ms"}}},
        {"name": "late", "matches": [under("/late")], "timeout": "200ms", "fault": {"delay": {"duration": "5s"}}},
    )
    counts = shop.count("web", "get", "http://payment/slow", "-n", "5")
    assert counts["byStatus"] == {"200": 5} and counts["p50ms"] >= 300, counts
    assert shop.count("web", "get", "http://payment/late")["byStatus"] == {"504": 1}


CORS = {
    "allowOrigins": ["https://www.example.com", "https://*.shop.example.com"],
    "allowMethods": ["GET", "PUT"],
    "allowHeaders": ["content-type"],
    "exposeHeaders": ["x-app-version"],
    "maxAge": "10m",
    "allowCredentials": True,
}


@pytest.mark.parametrize("http2", [[], ["-h2"]], ids=["HTTP/1.1", "HTTP/2"])
def test_a_browser_is_told_which_pages_may_call(shop, policy, http2):
    policy({**apps.route("pages", under("/api"), v1=1), "cors": CORS}, apps.route("others", v1=1))

    def ask(origin, *more):
        head = json.loads(shop.app("web", "get", "http://payment/api", "-head", "-H", f"origin: {origin}", *more, *http2))
        return head["status"], {name.lower(): ", ".join(values) for name, values in head["headers"].items()}

    # What a browser asks before a page of another origin may send a PUT with a body of JSON.
    preflight = ["-method", "OPTIONS", "-H", "access-control-request-method: PUT", "-H", "access-control-request-headers: content-type"]
    status, told = ask("https://a.shop.example.com", *preflight)
    assert status == 200 and "x-app-version" not in told, "the sidecar answers, not the app"
    assert told["access-control-allow-origin"] == "https://a.shop.example.com"
    assert told["access-control-allow-credentials"] == "true" and told["access-control-max-age"] == "600"
    assert "PUT" in told["access-control-allow-methods"] and "content-type" in told["access-control-allow-headers"]
    status, told = ask("https://elsewhere.example", *preflight)
    assert status == 403 and "access-control-allow-origin" not in told, "the browser sends nothing"

    # The request itself: what the page may read of the answer.
    status, told = ask("https://www.example.com")
    assert status == 200 and told["x-app-version"] == "v1"
    assert (told["access-control-allow-origin"], told["access-control-expose-headers"]) == ("https://www.example.com", "x-app-version")
    assert "origin" in told["vary"].lower(), "no cache gives it to another page"
    status, told = ask("https://elsewhere.example")
    assert status == 200 and "access-control-allow-origin" not in told, "others are answered; it is the browser that keeps it from the page"
