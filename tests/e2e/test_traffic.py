"""What happens to requests beside their way to a destination: copies for mirrors, and limits to how many there may be."""

import re

import pytest

import apps
from cluster import until

APPS = apps.payment


@pytest.fixture
def policy(shop):
    """Sets the routes of `payment` for one test, and waits until web's sidecar has them."""

    def set_routes(*routes):
        shop.create(apps.traffic_policy("payment", *routes))
        shop.await_reply("web", "http://payment/")
        return shop.await_condition("TrafficPolicy", "payment", Accepted="True", ResolvedRefs="True", Programmed="True")

    yield set_routes
    shop.delete("TrafficPolicy", "payment")


def value(shop, pod, series):
    """The sum of the series of a pod's sidecar whose line matches."""
    return sum(int(count) for count in re.findall(rf"^{series} (\d+)$", shop.metrics(pod), re.MULTILINE))


def mirrored(shop, outcome):
    return value(shop, "web", rf'leno_mirrored_total{{outcome="{outcome}"}}')


def test_copies_reach_the_mirror_over_mutual_tls_and_its_answers_reach_nobody(shop, policy):
    policy({**apps.route("all", v1=1), "mirror": [{"version": "v2"}]})
    pod = shop.list("Pod", "app=payment,version=v2")[0]["metadata"]["name"]
    served = r'leno_requests_total{direction="inbound".*mtls="true",code="2xx"}'
    before, copies = value(shop, pod, served), mirrored(shop, "answered")
    counts = shop.count("web", "get", "http://payment/", "-n", "200")
    assert counts["byStatus"] == {"200": 200} and counts["byVersion"] == {"v1": 200}
    until("every copy is answered", lambda: mirrored(shop, "answered") >= copies + 200)
    until("v2 has seen them", lambda: value(shop, pod, served) >= before + 200)


def test_a_mirror_without_endpoints_harms_nobody(shop, policy):
    shop.create(apps.service("nobody"))
    policy({**apps.route("all", v1=1), "mirror": [{"service": "nobody"}]})
    counts = shop.count("web", "get", "http://payment/", "-n", "100")
    assert counts["byStatus"] == {"200": 100}
    until("the copies are counted", lambda: mirrored(shop, "no-endpoint") >= 100)


def test_requests_beyond_the_limit_are_refused_and_others_are_not(shop, policy):
    limit = {"rateLimit": {"requests": 1, "per": "1h", "burst": 10}}
    policy({**apps.route("limited", {"path": {"prefix": "/limited"}}, v1=1), **limit}, apps.route("others", v1=1))
    counts = shop.count("web", "get", "http://payment/limited", "-n", "30")
    assert counts["byStatus"] == {"200": 10, "429": 20}, "exactly the burst, whichever worker takes a connection"
    assert shop.count("web", "get", "http://payment/", "-n", "30")["byStatus"] == {"200": 30}
    until("they are counted", lambda: shop.metric("web", "leno_errors_total", reason="rate-limited") >= 20)
