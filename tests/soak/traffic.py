"""Clients of every protocol, as foreign as the servers: the test application's."""

import json
import subprocess
import threading
from collections import Counter

from mesh import SERVICES

HTTP, ECHO, LINE = (SERVICES[name][2] for name in ("payment", "echo", "line"))

# Name: words of `testapp load`. Of these no request may fail.
STEADY = {
    "HTTP/1.1": [f"http://{HTTP}/", "-rate", "150", "-c", "16"],
    "HTTP/2": [f"http://{HTTP}/", "-rate", "150", "-c", "16", "-h2"],
    "new connections": [f"http://{HTTP}/", "-rate", "20", "-c", "8", "-new-conn"],
    "bodies": [f"http://{HTTP}/echo", "-rate", "20", "-c", "8", "-method", "PUT", "-body", "0123456789" * 2000],
    "large answers": [f"http://{HTTP}/bytes?n=300000", "-rate", "10", "-c", "4"],
}
# Of these some must fail: what the app answers, what the route does, and a version that may have no endpoint.
FAILING = {
    "an app's 503": [f"http://{HTTP}/status/503", "-rate", "10", "-c", "8"],
    "faults": [f"http://{HTTP}/fault", "-rate", "10", "-c", "8"],
    "by weight": [f"http://{HTTP}/split/a", "-rate", "30", "-c", "8"],
}
# Name: words of a client that ends by itself and is started again.
REPEATED = {
    "gRPC": ["grpc-client", ECHO, "-n", "20"],
    "gRPC stream": ["grpc-client", ECHO, "-hold", "5s"],
    "TCP": ["tcp-client", LINE, "-n", "20"],
    "TCP that stays": ["tcp-client", LINE, "-hold", "5s"],
    "WebSocket": ["ws-client", f"http://{HTTP}/ws", "-n", "50", "-hold", "3s"],
}


class Traffic:
    def __init__(self, mesh):
        self.mesh, self.done = mesh, threading.Event()
        self.runs, self.failures, self.told = Counter(), Counter(), []
        self.counts = {}

    def __enter__(self):
        # Hosts by which the proxy knows its services: the clients dial addresses.
        self.loads = {name: self.start("load", *words, "-stdin", "-H", "host:payment") for name, words in (STEADY | FAILING).items()}
        self.threads = [threading.Thread(target=self.repeat, args=[name], daemon=True) for name in REPEATED]
        for thread in self.threads:
            thread.start()
        return self

    def start(self, *words):
        pipe = subprocess.PIPE
        return subprocess.Popen([str(self.mesh.testapp), *words], stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def repeat(self, name):
        while not self.done.is_set():
            client = self.start(*REPEATED[name])
            out, told = client.communicate(timeout=120)
            self.runs[name] += 1
            if client.returncode != 0:
                self.failures[name] += 1
                self.told.append(f"{name}: {told.strip()} {out.strip()[:500]}")

    def assert_alive(self):
        for name, load in self.loads.items():
            if load.poll() is not None:
                raise SystemExit(f"the client of {name} ended: {load.communicate()}")

    def __exit__(self, kind, *_):
        self.done.set()
        if kind is None:
            self.counts = {name: json.loads(load.communicate("", timeout=60)[0]) for name, load in self.loads.items()}
            for thread in self.threads:
                thread.join(60)

    def problems(self):
        found = [f"{name}: {it['failed']} of {it['requests']} failed: {it['errors'][:3]}" for name, it in self.counts.items() if name in STEADY and it["failed"]]
        found += [f"{name}: no request" for name, it in self.counts.items() if not it["requests"]]
        found += [f"{name} failed {times} times: {[line for line in self.told if line.startswith(name)][:2]}" for name, times in self.failures.items()]
        found += [f"{name} never ran" for name in REPEATED if not self.runs[name]]
        # That routes do what they say, and that changes of them arrive.
        for name, field, wanted in (("by weight", "byVersion", {"v1", "v2"}), ("faults", "byStatus", {"200", "418"})):
            seen = self.counts[name][field] if name in self.counts else {}
            found += [] if wanted <= seen.keys() else [f"{name}: want {sorted(wanted)}, seen {seen}"]
        return found

    def summary(self):
        steady, failing = (sum(self.counts[name]["requests"] for name in names) for names in (STEADY, FAILING))
        rounds = ", ".join(f"{self.runs[name]} x {name}" for name in REPEATED)
        slowest = max(self.counts[name]["maxms"] for name in STEADY)
        return f"{steady} requests that may not fail (slowest {slowest:.0f} ms), {failing} of which some do; {rounds}"
