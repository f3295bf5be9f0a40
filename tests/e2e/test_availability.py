"""No request fails and none arrives twice while things change: 200 requests a second, more than 10,000 in all."""

import pytest

import apps
from cluster import Namespace, path_of, until
from load import Load

REPLICAS = 3
TOTAL_WANTED = 10_000
requests_seen = []


def APPS():
    payment = apps.server("payment", replicas=REPLICAS)
    return [payment, apps.service("payment"), apps.mesh_service("payment", "v1", "v2"), apps.client("web")]


@pytest.fixture
def load(shop, request):
    """Traffic of one test; judged when the test's own part is over."""
    shop.await_reply("web", "http://payment/")
    with Load(shop, "web", request.node.name.removeprefix("test_")[:20]) as load:
        yield load
        load.run_for(2)
    requests_seen.append(load.requests)
    load.assert_flawless()


@pytest.fixture
def leno(api):
    """The namespace that Leno is installed in."""
    namespace = Namespace.__new__(Namespace)
    namespace.api, namespace.name = api, "leno-system"
    return namespace


def test_a_rolling_update_of_the_service(shop, load):
    template = {"metadata": {"annotations": {"changed": "yes"}}}
    shop.patch("Deployment", "payment", {"spec": {"template": template}})
    shop.await_rollout("payment", seconds=120)


def test_scaling_down_and_up(shop, load):
    for replicas in (1, REPLICAS, 2, REPLICAS):
        shop.scale("payment", replicas)
        shop.await_rollout("payment")
        load.run_for(1)


def test_a_restart_of_the_controllers(shop, load, leno):
    annotations = {"kubectl.kubernetes.io/restartedAt": load.mark}
    leno.patch("Deployment", "leno-controller", {"spec": {"template": {"metadata": {"annotations": annotations}}}})
    leno.await_rollout("leno-controller", seconds=120)
    await_present(shop)


def test_a_crash_of_both_controllers(shop, load, leno):
    for pod in leno.list("Pod", "app.kubernetes.io/name=leno-controller"):
        path = path_of("Pod", leno.name, pod["metadata"]["name"]) + "?gracePeriodSeconds=0"
        leno.api.request("DELETE", path)
    leno.await_rollout("leno-controller", seconds=120)
    await_present(shop)


def test_a_minute_without_controllers(shop, load, leno):
    replicas = leno.get("Deployment", "leno-controller")["spec"]["replicas"]
    leno.scale("leno-controller", 0)
    try:
        until("the controllers are gone", lambda: not leno.list("Pod", "app.kubernetes.io/name=leno-controller"))
        load.run_for(60)
    finally:
        leno.scale("leno-controller", replicas)
        leno.await_rollout("leno-controller", seconds=120)
    await_present(shop)


def await_present(shop):
    """Waits until the proxies are connected again: a new policy reaches them."""
    shop.create(apps.traffic_policy("payment", timeout="10s"))
    try:
        shop.await_condition("TrafficPolicy", "payment", Accepted="True", Programmed="True")
        until("web's sidecar runs the policy", lambda: shop.get("TrafficPolicy", "payment")["status"]["proxies"]["current"] >= 1)
    finally:
        shop.delete("TrafficPolicy", "payment")


def test_the_requests_were_enough_to_mean_something():
    if len(requests_seen) < 5:
        pytest.skip("not all tests of this file ran")
    assert sum(requests_seen) >= TOTAL_WANTED, requests_seen
