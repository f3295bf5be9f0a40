"""What happens to requests beside their way to a destination: copies for mirrors, and limits to how many there may be."""

import apps
from cluster import until

APPS = apps.payment


def mirrored(shop, outcome):
    return shop.metric("web", "leno_mirrored_total", outcome=outcome)


def test_copies_reach_the_mirror_over_mutual_tls_and_its_answers_reach_nobody(shop, policy):
    policy({**apps.route("all", v1=1), "mirror": [{"version": "v2"}]})
    pod = shop.list("Pod", "app=payment,version=v2")[0]["metadata"]["name"]
    served = lambda: shop.metric(pod, "leno_requests_total", direction="inbound", mtls="true", code="2xx")  # noqa: E731
    before, copies = served(), mirrored(shop, "answered")
    counts = shop.count("web", "get", "http://payment/", "-n", "200")
    assert counts["byStatus"] == {"200": 200} and counts["byVersion"] == {"v1": 200}
    until("every copy is answered", lambda: mirrored(shop, "answered") >= copies + 200)
    until("v2 has seen them", lambda: served() >= before + 200)


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
