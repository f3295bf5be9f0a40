"""The cluster as the tests see it: its API over one connection, and kubectl and helm for what people do with them."""

import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ROOT / "tests/cluster"
WAIT = 60.0  # seconds that a condition may take, unless a test says otherwise

# kind: (group and version, plural)
KINDS = {
    "Namespace": ("v1", "namespaces"),
    "Pod": ("v1", "pods"),
    "Service": ("v1", "services"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "Secret": ("v1", "secrets"),
    "Event": ("v1", "events"),
    "Deployment": ("apps/v1", "deployments"),
    "ReplicaSet": ("apps/v1", "replicasets"),
    "StatefulSet": ("apps/v1", "statefulsets"),
    "Job": ("batch/v1", "jobs"),
    "EndpointSlice": ("discovery.k8s.io/v1", "endpointslices"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
    "MutatingWebhookConfiguration": ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "ReferenceGrant": ("gateway.networking.k8s.io/v1beta1", "referencegrants"),
    "MeshService": ("leno.dev/v1alpha1", "meshservices"),
    "TrafficPolicy": ("leno.dev/v1alpha1", "trafficpolicies"),
    "SecurityPolicy": ("leno.dev/v1alpha1", "securitypolicies"),
}
ANSWERS_TWICE_SAFELY = {"GET", "PATCH", "DELETE"}


class Refused(Exception):
    """The API server said no. `message` is what a user would read."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class CommandFailed(Exception):
    """A command ended with another code than 0."""


def run(*command, check=True, seconds=180, stdin=None):
    """Runs a command and gives its standard output; what it says on failure becomes the exception."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=seconds, input=stdin)
    if check and done.returncode != 0:
        raise CommandFailed(f"{' '.join(str(word) for word in command)}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def kubectl(*args, **options):
    return run(COMMANDS / "kubectl", *args, **options)


def helm(*args, **options):
    return run(COMMANDS / "helm", *args, **options)


def leno(*args, **options):
    """The command `leno`, with the cluster in its KUBECONFIG."""
    binaries = os.environ.get("LENO_BINARIES") or run(ROOT / "tests/release", seconds=1800).strip()
    return run(COMMANDS / "exec", f"{binaries}/leno", *args, **options)


def until(what, condition, seconds=WAIT, pause=0.1):
    """Waits until `condition()` gives something true, and gives that. Its last value, or error, is part of the failure."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except (Refused, CommandFailed, AssertionError) as error:
            value, seen = None, str(error)
        else:
            seen = repr(value)
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds} s: {what}; last seen: {seen[:3000]}")
        time.sleep(pause)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """The API server, by way of one `kubectl proxy`, which keeps the credentials."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="leno-e2e-")
        self.path = f"{self.folder.name}/api"
        arguments = ["proxy", f"--unix-socket={self.path}", "--reject-methods=^$", "--reject-paths=^$"]
        self.proxy = subprocess.Popen([str(COMMANDS / "kubectl"), *arguments], stdout=subprocess.DEVNULL)
        self.local = threading.local()  # a connection for each thread
        until("kubectl proxy listens", lambda: os.path.exists(self.path), pause=0.02)

    def close(self):
        self.proxy.terminate()
        self.proxy.wait(10)
        self.folder.cleanup()

    def request(self, method, path, body=None, content_type="application/json"):
        """The text of the answer; `Refused` for a status of 400 and more."""
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        for attempt in range(2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = UnixConnection(self.path)
            try:
                connection.request(method, path, data, {"Content-Type": content_type, "Accept": "application/json"})
                answer = connection.getresponse()
                text = answer.read().decode()
                break
            except (http.client.HTTPException, OSError):
                self.local.connection = None
                if attempt == 1 or method not in ANSWERS_TWICE_SAFELY:
                    raise
        if answer.status >= 400:
            raise Refused(answer.status, words_of(text))
        return text

    def stream(self, path):
        """The lines of an answer that goes on, such as a log that is followed."""
        connection = UnixConnection(self.path)
        connection.timeout = None
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status >= 400:
            raise Refused(answer.status, words_of(answer.read().decode()))
        for line in answer:
            yield line.decode()

    def json(self, method, path, body=None, content_type="application/json"):
        return json.loads(self.request(method, path, body, content_type))


def words_of(text):
    """The message of a Status object, or the text as it is."""
    try:
        return json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return text


def path_of(kind, namespace=None, name=None, tail=None):
    version, plural = KINDS[kind]
    parts = ["/api" if version == "v1" else "/apis", version]
    parts += ["namespaces", namespace] if namespace else []
    parts += [part for part in (plural, name, tail) if part]
    return "/".join(parts)


class Namespace:
    """One namespace of the cluster and what a test does in it."""

    def __init__(self, api, name, labels=None):
        self.api, self.name = api, name
        self.api.json("POST", path_of("Namespace"), {"metadata": {"name": name, "labels": labels or {}}})
        until("the namespace has its service account", lambda: self.get("ServiceAccount", "default"), pause=0.02)

    def delete_all(self):
        """Asks for the end of the namespace and of all in it, and does not wait for that."""
        self.api.request("DELETE", path_of("Namespace", name=self.name) + "?propagationPolicy=Background")

    # Objects.

    def create(self, *objects):
        for item in objects:
            self.api.json("POST", path_of(item["kind"], self.name) + "?fieldValidation=Strict", item)

    def get(self, kind, name):
        return self.api.json("GET", path_of(kind, self.name, name))

    def list(self, kind, selector=""):
        return self.api.json("GET", path_of(kind, self.name) + (f"?labelSelector={selector}" if selector else ""))["items"]

    def patch(self, kind, name, change):
        """A JSON merge patch."""
        path = path_of(kind, self.name, name) + "?fieldValidation=Strict"
        return self.api.json("PATCH", path, change, "application/merge-patch+json")

    def delete(self, kind, name):
        self.api.request("DELETE", path_of(kind, self.name, name) + "?propagationPolicy=Background")

    def scale(self, name, replicas, kind="Deployment"):
        self.patch(kind, name, {"spec": {"replicas": replicas}})

    # Conditions.

    def rolled_out(self, name, kind="Deployment"):
        """Whether every replica is of the present template and ready, and no other is left."""
        item = self.get(kind, name)
        wanted, status = item["spec"]["replicas"], item.get("status", {})
        counts = [status.get(field, 0) for field in ("replicas", "readyReplicas", "updatedReplicas")]
        return status.get("observedGeneration", 0) >= item["metadata"]["generation"] and counts == [wanted] * 3

    def await_rollout(self, *names, kind="Deployment", seconds=WAIT):
        for name in names:
            until(f"{kind} {self.name}/{name} is rolled out", lambda: self.rolled_out(name, kind), seconds)

    def pod_ready(self, name):
        return condition(self.get("Pod", name), "Ready") == "True"

    def await_pods(self, *names, seconds=WAIT):
        for name in names:
            until(f"pod {self.name}/{name} is ready", lambda: self.pod_ready(name), seconds)

    def await_condition(self, kind, name, **wanted):
        """Waits until the conditions are as wanted, for the object as it is now: `Accepted="False"`."""

        def holds():
            item = self.get(kind, name)
            found = {it["type"]: it for it in item.get("status", {}).get("conditions", [])}
            for name_of, status in wanted.items():
                assert name_of in found, f"no condition {name_of} in {item.get('status')}"
                present = found[name_of].get("observedGeneration", 0) == item["metadata"]["generation"]
                assert present and found[name_of]["status"] == status, f"want {name_of}={status} of {item.get('status')}"
            return item

        return until(f"{kind} {name} has {wanted}", holds)

    # Traffic: always from a pod.

    def app(self, pod, *args, container=None, check=True, seconds=180):
        """What the test application prints, run with `args` in a pod."""
        where = ["-c", container] if container else []
        return kubectl("exec", "-n", self.name, pod, *where, "--", "/testapp", *args, check=check, seconds=seconds)

    def start_app(self, pod, *args):
        """The same, going on beside the test; it sees its standard input end."""
        command = [str(COMMANDS / "kubectl"), "exec", "-i", "-n", self.name, pod, "--", "/testapp", *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def hold(self, pod, kind, target):
        """A client that keeps a stream or connection open until its standard input ends; it is open already."""
        client = self.start_app(pod, kind, target, "-stdin")
        said = []
        for line in client.stderr:
            if line == "held\n":
                return client
            said.append(line)
        raise AssertionError(f"{kind} {target}: {said} {client.communicate()}")

    def count(self, pod, *args, **options):
        """What a client of the test application counted."""
        return json.loads(self.app(pod, *args, **options))

    def fetch(self, pod, url, *args):
        """One request from a pod: the server's answer, which says what arrived."""
        return json.loads(self.app(pod, "get", url, "-print", *args))

    def dial(self, pod, target, *args, pem=None):
        """What each connection of the test application's `dial` met; `pem` is a certificate and its key, to show over TLS."""
        words = ["-i"] if pem else []
        shown = ["-tls", "-pem", "-"] if pem else []
        out = kubectl("exec", *words, "-n", self.name, pod, "--", "/testapp", "dial", target, *shown, *args, stdin=pem)
        return [json.loads(line) for line in out.splitlines()]

    def await_reply(self, pod, url, *args):
        """Waits until the URL answers 200: a Service just made needs a moment to reach DNS and kube-proxy."""
        self.app(pod, "http-wait", url, "-for", "30s", *args)

    def log(self, pod, container, tail=None):
        query = f"?container={container}" + (f"&tailLines={tail}" if tail else "")
        return self.api.request("GET", path_of("Pod", self.name, pod, "log") + query)

    def follow_log(self, pod, container):
        """The lines of a container's log, until it ends."""
        return self.api.stream(path_of("Pod", self.name, pod, "log") + f"?container={container}&follow=true")

    def access_log(self, pod, container="leno-proxy", **wanted):
        """The lines of a sidecar's access log that have these values."""
        lines = [json.loads(line) for line in self.log(pod, container).splitlines() if line.startswith('{"time"')]
        return [line for line in lines if all(line.get(field) == value for field, value in wanted.items())]

    def metric(self, pod, name, **labels):
        """The sum of a counter's series that have these labels; 0 when there is none."""
        total = 0.0
        for line in self.metrics(pod).splitlines():
            found = re.match(rf"{name}(?:{{(.*)}})? (\S+)$", line)
            if found and all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total += float(found[2])
        return total

    def pod_of(self, selector):
        """The name of the one pod that is chosen so and is to stay."""
        pods = [it for it in self.list("Pod", selector) if "deletionTimestamp" not in it["metadata"]]
        assert len(pods) == 1, f"want one pod {selector}, found {[it['metadata']['name'] for it in pods]}"
        return pods[0]["metadata"]["name"]

    def address(self, pod):
        return self.get("Pod", pod)["status"]["podIP"]

    def metrics(self, pod, port=15120):
        """The metrics page of a pod's sidecar, fetched by the API server."""
        return self.api.request("GET", path_of("Pod", self.name, f"{pod}:{port}", "proxy/metrics"))


def condition(item, kind):
    """The status of one condition of an object, or None."""
    conditions = item.get("status", {}).get("conditions", [])
    return next((it["status"] for it in conditions if it["type"] == kind), None)


def slug(text, length=40):
    """A name that Kubernetes takes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:length].strip("-")
