"""Steady traffic while something happens, and proof that none of it failed or arrived twice."""

import json
import random
import threading
import time
from collections import Counter

from cluster import Refused, until

RATE = 200  # requests a second, in all
LOGGED_LEAST = 0.95  # the share of the POST requests that the logs must tell of


class Load:
    """GET and POST requests from a pod to a service, at a steady rate, for as long as the `with` block runs.

    Afterwards `requests`, `failed` and `errors` are what the clients counted, and `doubles` what the servers' logs tell of the
    POST requests: none may have arrived more than once.
    """

    def __init__(self, namespace, pod, url="http://payment/", app="payment", flags=()):
        self.namespace, self.pod, self.url, self.flags = namespace, pod, url, flags
        self.mark = f"load-{random.randrange(16**6):06x}"  # what tells this load's requests from another's
        self.arrivals = Arrivals(namespace, f"app={app}")

    def start(self, method):
        mark = f"{self.mark}-{method}"
        words = ["-rate", str(RATE / 2), "-stdin", "-method", method, "-c", "32", "-mark", mark, *self.flags]
        return self.namespace.start_app(self.pod, "load", self.url, *words)

    def __enter__(self):
        self.arrivals.start()
        self.clients = {method: self.start(method) for method in ("GET", "POST")}
        self.run_for(2)
        return self

    def run_for(self, seconds):
        """Lets the traffic go on for that long, measured in requests that arrived."""
        wanted = self.arrived() + int(RATE / 2 * seconds)
        until(f"{wanted} POST requests have arrived", lambda: self.still_runs() and self.arrived() >= wanted, seconds + 30)

    def still_runs(self):
        for method, client in self.clients.items():
            assert client.poll() is None, f"the {method} client ended: {client.communicate()}"
        return True

    def arrived(self):
        return self.arrivals.total(f"{self.mark}-POST-")

    def __exit__(self, kind, error, trace):
        """Ends the clients, which then print what they counted."""
        answers = {method: client.communicate("", timeout=60) for method, client in self.clients.items()}
        if kind is not None:
            self.arrivals.stop()
            return
        counts = {}
        for method, (out, told) in answers.items():
            assert out, f"the {method} client counted nothing: {told}"
            counts[method] = json.loads(out)
        self.requests = sum(it["requests"] for it in counts.values())
        self.failed = sum(it["failed"] for it in counts.values())
        self.errors = [line for it in counts.values() for line in it["errors"]]
        self.slowest = max(it["maxms"] for it in counts.values())
        sent = counts["POST"]["requests"]
        # Of a container that has been removed the last lines of its log may never be read, so most of them must do: that a POST
        # arrived at all is known from its answer, and the logs are for those that arrived twice.
        until("the logs tell of the POSTs", lambda: self.arrived() >= sent * LOGGED_LEAST, 20)
        marks = {mark: times for mark, times in self.arrivals.stop().items() if mark.startswith(f"{self.mark}-POST-")}
        self.doubles = {mark: times for mark, times in marks.items() if times > 1}

    def assert_flawless(self):
        some = list(self.doubles)[:5]
        told = f"{self.failed} of {self.requests} failed, {len(self.doubles)} doubled {some}: {self.errors}"
        print(f"{self.requests} requests, {self.failed} failed, slowest {self.slowest:.0f} ms")
        assert not (self.failed or self.doubles), told


class Arrivals:
    """Counts the marks that the pods of an app log, those of pods that come and go too."""

    def __init__(self, namespace, selector):
        self.namespace, self.selector = namespace, selector
        self.counts, self.lock = Counter(), threading.Lock()
        self.followed, self.stopped = set(), threading.Event()

    def start(self):
        self.follow_all()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def stop(self):
        self.stopped.set()
        self.watcher.join(10)
        with self.lock:
            return Counter(self.counts)

    def total(self, prefix):
        with self.lock:
            return sum(times for mark, times in self.counts.items() if mark.startswith(prefix))

    def watch(self):
        while not self.stopped.wait(0.2):
            self.follow_all()

    def follow_all(self):
        for pod in self.namespace.list("Pod", self.selector):
            name = pod["metadata"]["name"]
            if name not in self.followed:
                self.followed.add(name)
                threading.Thread(target=self.follow, args=[name], daemon=True).start()

    def follow(self, pod):
        """Reads a pod's log from when its app has started until the pod is gone."""
        while not self.stopped.is_set():
            try:
                for line in self.namespace.follow_log(pod, "app"):
                    self.note(line)
                    if self.stopped.is_set():
                        return
                return
            except Refused as refused:
                if refused.status == 404:
                    return
                time.sleep(0.1)  # the app has not started yet

    def note(self, line):
        words = line.split()
        if len(words) == 3 and words[0] == "arrived":
            with self.lock:
                self.counts[words[2]] += 1
