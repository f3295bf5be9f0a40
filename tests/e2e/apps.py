"""The objects that tests make: applications (the test application, which knows of no mesh), Services and Leno's kinds."""

IMAGE = "leno/testapp:1"
HTTP_PROBE = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
INJECT = {"leno.dev/inject": "enabled"}
NO_INJECT = {"leno.dev/inject": "disabled"}


def tcp_probe(port):
    return {"tcpSocket": {"port": port}, "periodSeconds": 1}


def container(*args, name="app", image=IMAGE, **fields):
    return {"name": name, "image": image, "args": list(args), **fields}


def pod(name, *containers, labels=None, annotations=None, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {"app": name}, "annotations": annotations or {}},
        "spec": {"containers": list(containers), **spec},
    }


def client(name="web", **fields):
    """A pod to send traffic from."""
    return pod(name, container("sleep"), **fields)


def workload(kind, name, *containers, labels=None, annotations=None, replicas=1, **spec):
    labels = labels or {"app": name}
    template = {"metadata": {"labels": labels, "annotations": annotations or {}}, "spec": {"containers": list(containers)}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


def server(name, version="v1", app=None, replicas=1, args=(), **fields):
    """A Deployment of one version of an HTTP server."""
    app = app or name
    one = container("server", "-name", app, "-version", version, *args, readinessProbe=HTTP_PROBE)
    labels = {"app": app, "version": version}
    return workload("Deployment", name, one, labels=labels, replicas=replicas, **fields)


def service(name, *ports, app=None, **spec):
    """A Service. Ports are (port, target port) or objects."""
    ports = [port if isinstance(port, dict) else {"port": port[0], "targetPort": port[1]} for port in ports or [(80, 8080)]]
    named = [{"name": f"p{port['port']}", **port} for port in ports]
    selector = {"app": app or name}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": selector, "ports": named, **spec}}


def job(name, *args, **fields):
    template = {"spec": {"restartPolicy": "Never", "containers": [container(*args)]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template, **fields}}


def leno(kind, name, **spec):
    return {"apiVersion": "leno.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def mesh_service(name, *versions, **spec):
    listed = {"versions": [{"name": version, "labels": {"version": version}} for version in versions]} if versions else {}
    return leno("MeshService", name, **listed, **spec)


def security_policy(name, *authorization, target=None, mode=None, **spec):
    """Who may call: rules of `authorization`, and a mode of mTLS."""
    spec |= {"targetRef": {"kind": "Service", "name": target}} if target else {}
    spec |= {"mtls": {"mode": mode}} if mode else {}
    spec |= {"authorization": list(authorization)} if authorization else {}
    return leno("SecurityPolicy", name, **spec)


def service_account(name):
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def traffic_policy(name, *routes, target=None, **spec):
    routes = {"routes": list(routes)} if routes else {}
    return leno("TrafficPolicy", name, targetRef={"kind": "MeshService", "name": target or name}, **routes, **spec)


def route(name, *matches, **destinations):
    """A route to versions by weight: `route("all", v1=90, v2=10)`."""
    listed = [{"version": version, "weight": weight} for version, weight in destinations.items()]
    return {"name": name, **({"matches": list(matches)} if matches else {}), "destinations": listed}


def payment(*policies):
    """The shop of most tests: `payment` in two versions, and the pod `web` that calls it."""
    servers = [server(f"payment-{version}", version, app="payment") for version in ("v1", "v2")]
    return [*servers, service("payment"), mesh_service("payment", "v1", "v2"), *policies, client("web")]
