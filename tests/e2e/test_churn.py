"""Nothing fails while pods and endpoints come and go all the time: 500 requests a second, 50,000 and more."""

import json
import random
import threading
import time

import apps
from cluster import until
from test_availability import restart

RATE = 500  # requests a second in all, from four clients
WANTED = 50_000
CHANGES = 10  # of one EndpointSlice, each second
STEADY = 4
# Client, service, and how it speaks; each has a quarter of the rate.
CLIENTS = [("web", "payment", []), ("web", "payment", ["-h2"]), ("web", "churned", []), ("web", "churned", ["-h2", "-method", "PUT"])]


def APPS():
    servers = [apps.server(f"payment-{version}", version, app="payment", replicas=2) for version in ("v1", "v2")]
    # A Service without a selector: its endpoints are what the test writes.
    churned = apps.service("churned")
    del churned["spec"]["selector"]
    return [*servers, apps.service("payment"), apps.server("steady", replicas=STEADY), churned, apps.client("web")]


class Churn:
    """Writes the endpoints of `churned` anew ten times a second: some of the steady pods, never none, each time others."""

    def __init__(self, shop):
        self.shop, self.changes, self.error, self.done = shop, 0, None, threading.Event()
        self.pods = shop.list("Pod", "app=steady")
        self.slice = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "churned-1", "labels": {"kubernetes.io/service-name": "churned", "endpointslice.kubernetes.io/managed-by": "tests"}},
            "addressType": "IPv4",
            "ports": [{"name": "p80", "port": 8080, "protocol": "TCP"}],
            "endpoints": [self.endpoint(pod) for pod in self.pods],
        }
        shop.create(self.slice)

    def endpoint(self, pod):
        target = {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": self.shop.name}
        return {"addresses": [pod["status"]["podIP"]], "conditions": {"ready": True}, "targetRef": target}

    def __enter__(self):
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()
        return self

    def work(self):
        present = self.pods
        while not self.done.wait(max(0.0, self.began + self.changes / CHANGES - time.monotonic())):
            others = [pods for pods in (random.sample(self.pods, random.randint(1, STEADY)) for _ in range(20)) if pods != present]
            present = others[0]
            try:
                self.shop.patch("EndpointSlice", "churned-1", {"endpoints": [self.endpoint(pod) for pod in present]})
            except Exception as error:  # told where the test can fail by it
                self.error = error
                return
            self.changes += 1

    def __exit__(self, *_):
        self.done.set()
        self.thread.join(30)
        self.seconds = time.monotonic() - self.began

    def assert_kept_up(self):
        assert self.error is None, self.error
        assert self.changes >= 0.9 * CHANGES * self.seconds, f"{self.changes} changes in {self.seconds:.0f} s: the API server was too slow for the test"


def test_no_idempotent_request_fails_while_pods_and_endpoints_come_and_go(shop):
    """Half of the traffic is for a service of two Deployments: one is rolled over, the other is scaled to zero and back, again and
    again. (Of a service that has no pod at all no request can succeed, whoever carries it; so what is scaled to zero is one of
    the two, which takes every second pod of the service away, the last of its version included.) The other half is for a service whose endpoints
    change ten times a second. Requests are GET and PUT, without a retry policy: what mends them is the mesh's own rule that what an app cannot
    have seen goes elsewhere.
    """
    shop.await_reply("web", "http://payment/")
    with Churn(shop) as churn:
        shop.await_reply("web", "http://churned/")
        sent = lambda: shop.metric("web", "leno_requests_total", direction="outbound")  # noqa: E731
        before = sent()
        words = ["-rate", str(RATE / len(CLIENTS)), "-stdin", "-c", "32"]
        clients = [shop.start_app(pod, "load", f"http://{service}/", *words, *flags) for pod, service, flags in CLIENTS]
        rounds = 0
        while sent() < before + WANTED:
            assert all(client.poll() is None for client in clients), [client.poll() for client in clients]
            restart(shop, "payment-v1", f"round {rounds}")
            shop.await_rollout("payment-v1", seconds=120)
            shop.scale("payment-v2", 0)
            until("its pods are gone", lambda: not shop.list("Pod", "app=payment,version=v2"), 120)
            shop.scale("payment-v2", 2)
            shop.await_rollout("payment-v2", seconds=120)
            rounds += 1
        counts = [json.loads(client.communicate("", timeout=60)[0]) for client in clients]
    churn.assert_kept_up()
    total, failed = (sum(it[field] for it in counts) for field in ("requests", "failed"))
    errors = [line for it in counts for line in it["errors"]]
    slowest = max(it["maxms"] for it in counts)
    print(f"{total} requests, {failed} failed, slowest {slowest:.0f} ms; {rounds} rounds, {churn.changes} changes of endpoints in {churn.seconds:.0f} s")
    assert failed == 0, f"{failed} of {total} failed: {errors}"
    assert total >= WANTED and rounds >= 2, (total, rounds)
    assert all(len(it["byPod"]) >= STEADY for it in counts[2:]), "every endpoint had its turn"
    assert all(len(it["byPod"]) >= 5 for it in counts[:2]), "pods from before and after answered"
