"""Fixtures: the cluster, a namespace for each test or file, and everybody's logs when a test fails."""

import os
import random
import tempfile
from pathlib import Path

import pytest

import apps
from cluster import Api, Namespace, kubectl, slug

INJECTED = {"leno.dev/inject": "enabled"}
LOGS = Path(os.environ.get("LENO_E2E_LOGS") or tempfile.mkdtemp(prefix="leno-e2e-logs-"))
# Files whose tests disturb the others' traffic or end the mesh come last.
LAST = ["test_renewal.py", "test_churn.py", "test_availability.py", "test_lifecycle.py"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LAST.index(item.path.name) if item.path.name in LAST else -1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.session.stash.setdefault(FAILED, []).append(item.nodeid)
        for name in ("mesh", "shop", "plain"):
            namespace = item.funcargs.get(name)
            if isinstance(namespace, Namespace):
                keep_logs(LOGS / slug(item.name, 80), namespace)
    return report


FAILED = pytest.StashKey[list]()


def pytest_terminal_summary(terminalreporter):
    if any(LOGS.iterdir()):
        terminalreporter.write_line(f"logs of the controller, the proxies and the apps: {LOGS}")


@pytest.fixture(scope="session")
def api():
    api = Api()
    yield api
    api.close()


def new_namespace(api, request, labels):
    stem = slug(request.node.name.removeprefix("test_").removesuffix(".py"))
    return Namespace(api, f"{stem}-{random.randrange(16**4):04x}", labels)


@pytest.fixture
def mesh(api, request):
    """A namespace whose pods get sidecars."""
    namespace = new_namespace(api, request, INJECTED)
    yield namespace
    namespace.delete_all()


@pytest.fixture
def plain(api, request):
    """A namespace that says nothing of a mesh."""
    namespace = new_namespace(api, request, {})
    yield namespace
    namespace.delete_all()


@pytest.fixture(scope="module")
def shop(api, request):
    """A namespace in the mesh with the applications that the file's `APPS()` lists, all of them ready."""
    namespace = new_namespace(api, request, INJECTED)
    objects = request.module.APPS()
    namespace.create(*objects)
    for item in objects:
        kind, name = item["kind"], item["metadata"]["name"]
        if kind in ("Deployment", "StatefulSet"):
            namespace.await_rollout(name, kind=kind)
        elif kind == "Pod":
            namespace.await_pods(name)
    yield namespace
    namespace.delete_all()


@pytest.fixture
def policy(shop):
    """Sets the routes of `payment` for one test, and waits until web's sidecar has them."""

    def set_routes(*routes):
        shop.create(apps.traffic_policy("payment", *routes))
        shop.await_reply("web", "http://payment/")
        return shop.await_condition("TrafficPolicy", "payment", Accepted="True", ResolvedRefs="True", Programmed="True")

    yield set_routes
    shop.delete("TrafficPolicy", "payment")


def keep_logs(folder, namespace):
    """Writes down what can be known of a namespace and of the controller."""
    folder.mkdir(parents=True, exist_ok=True)

    def keep(file, *command):
        (folder / file).write_text(kubectl(*command, check=False))

    keep("objects.yaml", "get", "-n", namespace.name, "-o", "yaml", "pods,services,endpointslices,meshservices,trafficpolicies,securitypolicies,events")
    keep("describe.txt", "describe", "-n", namespace.name, "pods,meshservices,trafficpolicies,securitypolicies")
    keep("controller.txt", "logs", "-n", "leno-system", "-l", "app.kubernetes.io/name=leno-controller", "--prefix", "--tail=2000")
    for pod in namespace.list("Pod"):
        name = pod["metadata"]["name"]
        keep(f"pod-{name}.txt", "logs", "-n", namespace.name, name, "--all-containers", "--prefix", "--tail=-1", "--ignore-errors")
