"""Steady traffic while something happens, and proof that none of it failed or arrived twice."""

import contextlib
import http.client
import json
import random
import threading
from collections import Counter

from cluster import Refused, until

RATE = 200  # requests a second, in all, unless a test says otherwise
CUT_OFF = (OSError, http.client.HTTPException)  # what a connection to the API server may end with


class Load:
    """GET and POST requests from a pod to a service, at a steady rate, for as long as the `with` block runs.

    Afterwards `requests`, `failed` and `errors` are what the clients counted, and `doubles` and `lost` what the servers' logs
    tell of the POST requests: each must have arrived exactly once.
    """

    def __init__(self, namespace, pod, url="http://payment/", app="payment", flags=(), rate=RATE):
        self.rate = rate
        self.namespace, self.pod, self.url, self.flags = namespace, pod, url, flags
        self.mark = f"load-{random.randrange(16**6):06x}"  # what tells this load's requests from another's
        self.arrivals = Arrivals(namespace, f"app={app}")

    def start(self, method):
        mark = f"{self.mark}-{method}"
        words = ["-rate", str(self.rate / 2), "-stdin", "-method", method, "-c", "32", "-mark", mark, *self.flags]
        return self.namespace.start_app(self.pod, "load", self.url, *words)

    def __enter__(self):
        self.arrivals.start()
        self.clients = {method: self.start(method) for method in ("GET", "POST")}
        self.run_for(2)
        return self

    def run_for(self, seconds):
        """Lets the traffic go on for that long, measured in requests that arrived."""
        wanted = self.arrived() + int(self.rate / 2 * seconds)
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
        wanted = {f"{self.mark}-POST-{number}" for number in range(1, sent + 1)}
        try:
            until("the logs tell of every POST", lambda: self.failed or self.arrived() >= sent, 20)
        except AssertionError:
            pass  # which are lost is said below
        seen = self.arrivals.stop()
        self.doubles = {mark: times for mark, times in seen.items() if mark in wanted and times > 1}
        self.lost = sorted(wanted - seen.keys())

    def assert_flawless(self):
        doubled = list(self.doubles)
        told = f"{self.failed} of {self.requests} failed: {self.errors}, {len(doubled)} doubled: {doubled[:5]}, {len(self.lost)} lost: {self.lost[:5]}"
        print(f"{self.requests} requests, {self.failed} failed, slowest {self.slowest:.0f} ms")
        assert not (self.failed or self.doubles or self.lost), told


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
            with contextlib.suppress(Refused, *CUT_OFF):  # the next look finds what this one did not
                self.follow_all()

    def follow_all(self):
        for pod in self.namespace.list("Pod", self.selector):
            name = pod["metadata"]["name"]
            if name not in self.followed:
                self.followed.add(name)
                threading.Thread(target=self.follow, args=[name], daemon=True).start()

    def follow(self, pod):
        """Reads a pod's log until the pod is gone.

        A log that is asked for before its container runs ends at once, and one may end early, so the end of the stream is not
        the end of the log: it is asked for again, and what was read of it is skipped. A node that has not heard yet of a pod
        that was given to it says 404, as for one that is gone; only the API server knows which.
        """
        seen = 0
        while not self.stopped.is_set():
            try:
                for number, line in enumerate(self.namespace.follow_log(pod, "app")):
                    if number >= seen:
                        self.note(line)
                        seen += 1
                    if self.stopped.is_set():
                        return
            except Refused as refused:
                if refused.status == 404 and self.is_gone(pod):
                    return
            except CUT_OFF:
                pass  # the rest is read next
            self.stopped.wait(0.1)

    def is_gone(self, pod):
        try:
            self.namespace.get("Pod", pod)
        except Refused as refused:
            return refused.status == 404
        except CUT_OFF:
            pass  # nobody knows: asked again with the next 404
        return False

    def note(self, line):
        words = line.split()
        if len(words) == 3 and words[0] == "arrived":
            with self.lock:
                self.counts[words[2]] += 1
