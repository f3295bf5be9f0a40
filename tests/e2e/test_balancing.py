"""Which pod takes a request: sessions that stay, keys that always meet the same pod, pods with a share of their own."""

import apps
from cluster import until

USERS = [f"user-{number}" for number in range(8)]


def APPS():
    light = apps.server("ledger-light", "light", app="ledger", annotations={"leno.dev/weight": "25"})
    heavy = apps.server("ledger", "usual")
    payment = [apps.server("payment", replicas=3), apps.service("payment")]
    return [*payment, light, heavy, apps.service("ledger"), apps.client("web"), apps.client("other")]


def balanced(shop, name, **load_balancer):
    shop.create(apps.mesh_service(name, loadBalancer=load_balancer))
    shop.await_condition("MeshService", name, Accepted="True", Programmed="True")


def pods(shop, caller, *args, requests=10):
    """The pods that answer, with how often each did."""
    counts = shop.count(caller, "get", "http://payment/", "-n", str(requests), *args)
    assert counts["byStatus"] == {"200": requests}, counts["errors"]
    return counts["byPod"]


def home(shop, caller, header):
    """The one pod that answers requests with this header."""
    answered = pods(shop, caller, "-H", header)
    assert len(answered) == 1, answered
    return next(iter(answered))


def test_a_cookie_keeps_a_session_with_its_pod(shop):
    balanced(shop, "payment", algorithm="RoundRobin", sessionAffinity={"cookie": {"name": "sid", "ttl": "1h"}})
    assert until("without cookies there is no session", lambda: len(pods(shop, "web")) == 3)
    counts = until(
        "the sidecar sets a cookie",
        lambda: (lambda it: it if it.get("cookies") else None)(shop.count("web", "get", "http://payment/", "-n", "20", "-cookies")),
    )
    assert len(counts["byPod"]) == 1 and len(counts["cookies"]) == 1, counts
    (session,), (pod,) = counts["cookies"], counts["byPod"]
    assert session.startswith("sid=")
    assert home(shop, "other", f"cookie: {session}") == pod, "every sidecar reads it alike"
    shop.scale("payment", 5)
    until("two more pods take sessions", lambda: len(pods(shop, "web", requests=20)) == 5)
    assert home(shop, "web", f"cookie: {session}") == pod, "a session stays when pods come"
    shop.scale("payment", 3)
    until("two pods are gone", lambda: len(pods(shop, "web", requests=20)) == 3)
    again = shop.count("web", "get", "http://payment/", "-n", "10", "-cookies", "-H", "x-unused: 1")
    assert len(again["byPod"]) == 1
    shop.delete("MeshService", "payment")


def test_a_header_keeps_a_session_with_its_pod(shop):
    balanced(shop, "payment", algorithm="RoundRobin", sessionAffinity={"header": "x-session"})
    for user in USERS[:4]:
        header = f"x-session: {user}"
        until("it is in force", lambda header=header: len(pods(shop, "web", "-H", header)) == 1)
        assert home(shop, "web", header) == home(shop, "other", header)
    shop.delete("MeshService", "payment")


def test_a_key_meets_the_same_pod_from_everywhere_and_stays_there_when_another_pod_goes(shop):
    balanced(shop, "payment", algorithm="ConsistentHash", consistentHash={"header": "x-user"})
    until("it is in force", lambda: all(len(pods(shop, caller, "-H", "x-user: a")) == 1 for caller in ("web", "other")))
    before = {user: home(shop, "web", f"x-user: {user}") for user in USERS}
    assert len(set(before.values())) > 1, before
    assert {user: home(shop, "other", f"x-user: {user}") for user in USERS} == before
    shop.scale("payment", 2)
    left = until("a pod is gone", lambda: (lambda it: it if len(it) == 2 else None)(pods(shop, "web", requests=20)))
    for user, pod in before.items():
        if pod in left:
            assert home(shop, "web", f"x-user: {user}") == pod, f"{user} has been moved"
        else:
            assert home(shop, "web", f"x-user: {user}") in left
    shop.scale("payment", 3)
    shop.delete("MeshService", "payment")


def test_a_pod_gets_the_share_that_its_annotation_says(shop):
    balanced(shop, "ledger", algorithm="WeightedRandom")

    def light(requests):
        counts = shop.count("web", "get", "http://ledger/", "-n", str(requests))
        assert counts["byStatus"] == {"200": requests}
        return counts["byVersion"].get("light", 0)

    # 25 beside 100. Of 2000 requests that is 400, with a standard deviation of 18.
    assert 300 <= light(2000) <= 500
    shop.patch("Pod", shop.list("Pod", "app=ledger,version=light")[0]["metadata"]["name"], {"metadata": {"annotations": {"leno.dev/weight": "0"}}})
    until("weight 0 gets nothing", lambda: light(50) == 0)
    shop.patch("Pod", shop.list("Pod", "app=ledger,version=light")[0]["metadata"]["name"], {"metadata": {"annotations": {"leno.dev/weight": "much"}}})
    shop.await_condition("MeshService", "ledger", ResolvedRefs="False")
    assert until("what is no weight counts as 100", lambda: light(100) > 20)
    shop.delete("MeshService", "ledger")
