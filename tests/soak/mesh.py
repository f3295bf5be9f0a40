"""The mesh under test: a controller with a folder of manifests, a proxy beside the client, two proxies beside servers, and their apps.

Each server stands at an address of its own and speaks HTTP, gRPC and plain TCP. Everybody has a token, so all of it is mutual TLS with
certificates that live for two minutes.
"""

import json
import os
import secrets
import subprocess
import time
import urllib.request

NAMESPACE = "soak"
PORTS = {"http": 8080, "grpc": 9000, "line": 7000}
SERVICES = {"payment": ("http", 80, "127.0.0.1:8000"), "echo": ("grpc", 9000, "127.0.0.1:8001"), "line": ("line", 7000, "127.0.0.1:8002")}
SERVERS = {"v1": "127.0.1.1", "v2": "127.0.1.2"}
NOBODY = "127.0.9.9"  # where no endpoint listens
CONTROL = "127.0.0.1:15110"
ADMIN = {"web": "127.0.0.1:15120", "v1": "127.0.1.1:15120", "v2": "127.0.1.2:15120"}
CERTIFICATE_LIFE = "2m"
PATIENCE = 60  # seconds


class Mesh:
    def __init__(self, binaries, folder):
        self.binaries, self.folder = binaries, folder
        self.manifests = folder / "manifests"
        self.manifests.mkdir()
        self.testapp = folder / "testapp"
        self.processes = {}
        self.watched = {}  # name: pid, of what is to stay flat

    def start(self):
        tokens = {name: secrets.token_hex(16) for name in ("web", *SERVERS)}
        listing = self.folder / "tokens"
        listing.write_text("".join(f"{token} {NAMESPACE}/{name} {name}\n" for name, token in tokens.items()))
        listing.chmod(0o600)
        for name, token in tokens.items():
            (self.folder / f"{name}.token").write_text(token)
        self.write("services", *(self.service(name) for name in SERVICES), self.workload("web", "127.0.0.2"))
        self.write("endpoints", *self.endpoints(present=set(SERVERS)))
        self.write("routes", self.versions(), self.policy(50, 50))
        for number, (version, address) in enumerate(SERVERS.items(), start=1):
            for kind, port in PORTS.items():
                self.spawn(f"{kind}-{version}", self.testapp, *self.app(kind), "-port", str(port + number), "-version", version)
        self.watch("controller", self.binaries / "leno-controller", "--folder", self.manifests, "--ca-file", self.folder / "ca.pem",
                   "--control-listen", CONTROL, "--admin-listen", "127.0.0.1:9090", "--token-file", listing,
                   "--certificate-life", CERTIFICATE_LIFE, "--mtls-mode", "Strict")
        self.until("the controller has written its CA", lambda: (self.folder / "ca.pem").exists())
        for number, (version, address) in enumerate(SERVERS.items(), start=1):
            inbound = ",".join(f"{port + number}={address}:{port}" for port in PORTS.values())
            self.proxy(version, LENO_INBOUND=inbound)
        self.proxy("web", LENO_SERVICES=",".join(f"{NAMESPACE}/{name}:{port}={local}" for name, (_, port, local) in SERVICES.items()))
        for name in ADMIN:
            self.until(f"proxy {name} is ready", lambda name=name: self.page(name, "ready") is not None)

    @staticmethod
    def app(kind):
        return {"http": ["server", "-name", "payment"], "grpc": ["grpc-server"], "line": ["tcp-server-first"]}[kind]

    # Manifests.

    def write(self, name, *objects):
        """Replaces a file of the folder in one step."""
        draft = self.folder / f"{name}.draft"
        draft.write_text("---\n".join(json.dumps(item) + "\n" for item in objects))
        draft.rename(self.manifests / f"{name}.yaml")

    @staticmethod
    def service(name):
        kind, port, _ = SERVICES[name]
        protocol = {"http": {}, "grpc": {"appProtocol": "grpc"}, "line": {"appProtocol": "tcp"}}[kind]  # HTTP/1 and HTTP/2 are told apart by detection
        ports = [{"name": "it", "port": port, "targetPort": PORTS[kind], **protocol}]
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"selector": {"serves": "yes"}, "ports": ports}}

    @staticmethod
    def workload(name, address, ports=(), **labels):
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": {"leno.dev/injected": "true"}}
        spec = {"address": address, "serviceAccount": name, "ports": [{"port": port} for port in ports]}
        return {"apiVersion": "leno.dev/v1alpha1", "kind": "Workload", "metadata": metadata, "spec": spec}

    def endpoints(self, present, nobody=False):
        """Both servers' workloads, of which only those `present` serve, and maybe one more that does not answer."""
        ports = PORTS.values()
        listed = [self.workload(name, address, ports, version=name, serves="yes" if name in present else "no") for name, address in SERVERS.items()]
        return listed + ([self.workload("nobody", NOBODY, ports, version="v1", serves="yes")] if nobody else [])

    @staticmethod
    def versions():
        versions = [{"name": name, "labels": {"version": name}} for name in SERVERS]
        spec = {"versions": versions, "connections": {"connectTimeout": "1s"}, "outlierDetection": {"consecutiveErrors": 50}}
        return {"apiVersion": "leno.dev/v1alpha1", "kind": "MeshService", "metadata": {"name": "payment", "namespace": NAMESPACE}, "spec": spec}

    @staticmethod
    def policy(v1, v2, turn=0):
        """Every request goes to the service's own endpoints, so that it has somewhere to go whoever is there; `/split` goes by weight."""
        retry = {"attempts": 3, "retryOn": ["connect-failure", "reset", "gateway-error"], "backoff": {"base": "1ms", "max": "10ms"}}
        split = {
            "name": "split",
            "matches": [{"path": {"prefix": "/split"}}],
            "destinations": [{"version": "v1", "weight": v1}, {"version": "v2", "weight": v2}],
            "mirror": [{"version": "v2", "percentage": 10}],
            "requestHeaders": {"set": {"x-turn": str(turn)}},
            "rewrite": {"path": {"prefix": "/"}},
            "rateLimit": {"requests": 1_000_000, "per": "1s", "key": "header:x-user"},
        }
        flaky = {"name": "flaky", "matches": [{"path": {"prefix": "/status"}}], "retry": {**retry, "retryOn": ["5xx"]}}
        fault = {"name": "fault", "matches": [{"path": {"prefix": "/fault"}}], "fault": {"abort": {"status": 418, "percentage": 50}, "delay": {"duration": "5ms", "percentage": 50}}}
        spec = {"targetRef": {"kind": "MeshService", "name": "payment"}, "timeout": "10s", "retry": retry, "routes": [split, flaky, fault]}
        return {"apiVersion": "leno.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": {"name": "payment", "namespace": NAMESPACE}, "spec": spec}

    # Processes.

    def spawn(self, name, *command, **variables):
        log = open(self.folder / f"{name}.log", "wb")
        environment = {"PATH": os.environ["PATH"], **variables}
        words = [str(word) for word in command]
        self.processes[name] = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self.processes[name]

    def watch(self, name, *command, **variables):
        self.watched[name] = self.spawn(name, *command, **variables).pid

    def proxy(self, name, **variables):
        self.watch(f"proxy {name}", self.binaries / "leno-proxy", "run",
                   LENO_POD_NAMESPACE=NAMESPACE, LENO_POD_NAME=name, LENO_INTERCEPT="off", LENO_ACCESS_LOG="off",
                   LENO_TOKEN_FILE=str(self.folder / f"{name}.token"), LENO_ADMIN_ADDRESS=ADMIN[name],
                   LENO_CONTROL_ADDRESS=CONTROL.replace("127.0.0.1", "localhost"), LENO_CONTROL_CA_FILE=str(self.folder / "ca.pem"), **variables)

    def until(self, what, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assert_alive()
            if time.monotonic() > deadline:
                raise SystemExit(f"never came true: {what}\n{self.complaints()}")
            time.sleep(0.05)

    def assert_alive(self):
        ended = [name for name, process in self.processes.items() if process.poll() is not None]
        if ended:
            raise SystemExit(f"ended: {ended}\n{self.complaints()}")

    def page(self, name, path):
        """A page of a proxy's admin port; None while there is none."""
        try:
            return urllib.request.urlopen(f"http://{ADMIN[name]}/{path}", timeout=5).read().decode()
        except OSError:
            return None

    def metric(self, name, series):
        lines = (self.page(name, "metrics") or "").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))

    def complaints(self):
        """What the processes said last."""
        texts = []
        for name in self.processes:
            tail = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-5:]
            texts += [f"{name}: {line}" for line in tail]
        return "\n".join(texts)
