"""No request fails and none arrives twice while things change: 200 requests a second, more than 10,000 in all."""

import json

import pytest

import apps
from cluster import Namespace, Refused, path_of, until
from load import Load

REPLICAS = 3
TOTAL_WANTED = 10_000
GRPC_ROUNDS = 5_000  # of five calls each: more than a rolling update lasts
requests_seen = []


def APPS():
    payment = apps.server("payment", replicas=REPLICAS)
    grpc = apps.container("grpc-server", name="app", readinessProbe=apps.tcp_probe(9000))
    echo = apps.workload("Deployment", "echo", grpc, replicas=2)
    mesh = [apps.mesh_service("payment", "v1", "v2"), apps.client("web")]
    return [payment, apps.service("payment"), echo, apps.service("echo", (9000, 9000)), *mesh]


@pytest.fixture
def load(shop, request):
    """Traffic of one test (over HTTP/2 where it is parametrized so); judged when the test's own part is over."""
    flags = getattr(request, "param", [])
    shop.await_reply("web", "http://payment/")
    with Load(shop, "web", flags=flags) as load:
        yield load
        load.run_for(2)
    requests_seen.append(load.requests)
    load.assert_flawless()


EACH_PROTOCOL = pytest.mark.parametrize("load", [[], ["-h2"], ["-new-conn"]], indirect=True, ids=["HTTP/1.1", "HTTP/2", "new connections"])


@pytest.fixture
def leno(api):
    """The namespace that Leno is installed in."""
    namespace = Namespace.__new__(Namespace)
    namespace.api, namespace.name = api, "leno-system"
    return namespace


def restart(namespace, name, mark):
    """What `kubectl rollout restart` does."""
    annotations = {"kubectl.kubernetes.io/restartedAt": mark}
    namespace.patch("Deployment", name, {"spec": {"template": {"metadata": {"annotations": annotations}}}})


@EACH_PROTOCOL
def test_a_rolling_update_of_the_service(shop, load):
    restart(shop, "payment", load.mark)
    shop.await_rollout("payment", seconds=120)


def test_a_rolling_update_of_a_grpc_service(shop):
    shop.app("web", "grpc-client", "echo:9000")
    calls = shop.start_app("web", "grpc-client", "echo:9000", "-n", str(GRPC_ROUNDS))
    restart(shop, "echo", "once")
    shop.await_rollout("echo")
    assert calls.poll() is None, "the calls ended before the update did"
    counts = json.loads(calls.communicate(timeout=120)[0])
    assert (counts["failed"], counts["calls"]) == (0, 5 * GRPC_ROUNDS), counts
    assert len(counts["byPod"]) >= 3, "pods from before and after the update answered"


def test_scaling_down_and_up(shop, load):
    for replicas in (1, REPLICAS, 2, REPLICAS):
        shop.scale("payment", replicas)
        shop.await_rollout("payment")
        load.run_for(1)


def test_a_restart_of_the_controllers(shop, load, leno):
    restart(leno, "leno-controller", load.mark)
    leno.await_rollout("leno-controller", seconds=120)
    await_present(shop)


def test_a_crash_of_both_controllers(shop, load, leno):
    leno.await_rollout("leno-controller")
    pods = leno.list("Pod", "app.kubernetes.io/name=leno-controller")
    for pod in [it for it in pods if "deletionTimestamp" not in it["metadata"]]:
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
        shop.create(apps.client("asks-for-nothing", annotations=apps.NO_INJECT))
        with pytest.raises(Refused, match="failed calling webhook"):
            shop.create(apps.client("asks-for-a-sidecar"))
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
