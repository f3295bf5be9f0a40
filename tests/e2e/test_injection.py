"""Which pods get a sidecar, and that pods live as well with one as without."""

import re

import pytest

import apps
from cluster import Refused, kubectl, until

PROXY = "leno-proxy"


def containers_of(pod):
    return [it["name"] for it in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]]


def test_labelled_namespaces_and_annotated_pods_get_a_sidecar_and_opting_out_wins(mesh, plain):
    mesh.create(apps.client("says-nothing"), apps.client("opts-out", annotations=apps.NO_INJECT))
    mesh.create(apps.client("opts-out-by-label", labels=apps.NO_INJECT))
    plain.create(apps.client("says-nothing"), apps.client("opts-in", annotations=apps.INJECT))
    plain.create(apps.client("opts-in-by-label", labels=apps.INJECT))
    mesh.await_pods("says-nothing", "opts-out", "opts-out-by-label")
    plain.await_pods("says-nothing", "opts-in", "opts-in-by-label")
    for namespace, name, wanted in [
        (mesh, "says-nothing", True),
        (mesh, "opts-out", False),
        (mesh, "opts-out-by-label", False),
        (plain, "says-nothing", False),
        (plain, "opts-in", True),
        (plain, "opts-in-by-label", True),
    ]:
        pod = namespace.get("Pod", name)
        assert (PROXY in containers_of(pod)) == wanted, f"{namespace.name}/{name}: {containers_of(pod)}"


def test_the_sidecar_is_a_native_one_that_runs_without_privileges(mesh):
    mesh.create(apps.client("web"))
    mesh.await_pods("web")
    spec = mesh.get("Pod", "web")["spec"]
    proxy = next(it for it in spec["initContainers"] if it["name"] == PROXY)
    assert proxy["restartPolicy"] == "Always" and "startupProbe" in proxy
    context = proxy["securityContext"]
    assert context["runAsNonRoot"] and context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}


def test_an_idle_pod_ends_soon_and_without_errors(mesh):
    mesh.create(apps.server("payment"), apps.service("payment"), apps.client("web"))
    mesh.await_rollout("payment")
    mesh.await_pods("web")
    mesh.await_reply("web", "http://payment/")
    mesh.delete("Pod", "web")
    until("the pod is gone", lambda: not [it for it in mesh.list("Pod") if it["metadata"]["name"] == "web"], seconds=10)


def test_a_job_calls_a_service_even_from_its_init_container_and_completes(mesh):
    mesh.create(apps.server("payment"), apps.service("payment"))
    mesh.await_rollout("payment")
    report = apps.job("report", "http-wait", "http://payment/", "-for", "30s")
    asks_first = apps.container("http-wait", "http://payment/", "-for", "30s", name="asks-first")
    report["spec"]["template"]["spec"]["initContainers"] = [asks_first]
    mesh.create(report)
    until("the Job is complete", lambda: mesh.get("Job", "report").get("status", {}).get("succeeded") == 1)
    pod = mesh.list("Pod", "job-name=report")[0]
    assert PROXY in containers_of(pod)


def test_probes_of_every_kind_pass(mesh):
    exec_probe = {"exec": {"command": ["/testapp", "exit", "0"]}, "periodSeconds": 1}
    grpc_probe = {"grpc": {"port": 9000}, "periodSeconds": 1}
    mesh.create(
        apps.pod(
            "probed",
            apps.container("server", name="http", ports=[{"name": "web", "containerPort": 8080}], **every_probe(apps.HTTP_PROBE)),
            apps.container("tcp-server-first", name="tcp", **every_probe(apps.tcp_probe(7000))),
            apps.container("grpc-server", name="grpc", **every_probe(grpc_probe)),
            apps.container("sleep", name="exec", **every_probe(exec_probe)),
        )
    )
    mesh.await_pods("probed")
    # Liveness goes on for some rounds: the sidecar's log shows that the app was asked again and again.
    until("several liveness probes went through the sidecar", lambda: mesh.log("probed", PROXY).count('"path":"/healthz"') >= 6)
    pod = mesh.get("Pod", "probed")
    restarts = {it["name"]: it["restartCount"] for it in pod["status"]["containerStatuses"]}
    assert restarts == {"http": 0, "tcp": 0, "grpc": 0, "exec": 0}
    assert mesh.pod_ready("probed")


def every_probe(probe):
    return {"startupProbe": {**probe, "failureThreshold": 30}, "readinessProbe": probe, "livenessProbe": probe}


def test_probes_of_an_app_that_is_down_fail(mesh):
    probes = {
        "tcp": apps.tcp_probe(7000),
        "http-nobody": apps.HTTP_PROBE,
        "grpc": {"grpc": {"port": 9000}, "periodSeconds": 1},
    }
    mesh.create(*(apps.pod(name, apps.container("sleep", readinessProbe=probe)) for name, probe in probes.items()))
    unhealthy = {"httpGet": {"path": "/status/500", "port": 8080}, "periodSeconds": 1}
    mesh.create(apps.pod("http-unhealthy", apps.container("server", readinessProbe=unhealthy)))

    def unready():
        events = [it for it in mesh.list("Event") if it["reason"] == "Unhealthy" and "spec.containers{app}" in str(it["involvedObject"])]
        return {it["involvedObject"]["name"] for it in events} >= {*probes, "http-unhealthy"}

    until("the kubelet says of each pod that its app is unhealthy", unready)
    assert not any(mesh.pod_ready(name) for name in [*probes, "http-unhealthy"])


def test_a_pod_on_the_nodes_network_is_refused_in_words(mesh):
    with pytest.raises(Refused, match="spec.hostNetwork.*remove hostNetwork, or annotate the pod with leno.dev/inject: disabled"):
        mesh.create(apps.client("web", hostNetwork=True))
    mesh.create(apps.client("opted-out", annotations=apps.NO_INJECT, hostNetwork=True))


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        ("leno.dev/inject", "yes", "write enabled or disabled"),
        ("leno.dev/exclude-outbound-ports", "http", "write at most 64 ports from 1 to 65535 separated by commas, such as 5432,6379"),
        ("leno.dev/exclude-outbound-cidrs", "10.0.0.0/33", "separated by commas, such as 10.0.0.0/8"),
        ("leno.dev/proxy-cpu-limit", "lots", "write a Kubernetes quantity such as 100m"),
        ("leno.dev/log-level", "loud", "write error, warn, info, debug or trace"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_refused_in_words(mesh, annotation, value, words):
    with pytest.raises(Refused) as refused:
        mesh.create(apps.client("web", annotations={annotation: value}))
    assert f'annotation {annotation} is "{value}": ' in refused.value.message and words in refused.value.message


def test_annotations_set_up_the_sidecar(mesh):
    wanted = {"leno.dev/proxy-memory-limit": "96Mi", "leno.dev/log-level": "debug", "leno.dev/access-log": "off"}
    mesh.create(apps.client("web", annotations=wanted))
    mesh.await_pods("web")
    proxy = next(it for it in mesh.get("Pod", "web")["spec"]["initContainers"] if it["name"] == PROXY)
    env = {it["name"]: it.get("value") for it in proxy["env"]}
    assert proxy["resources"]["limits"]["memory"] == "96Mi"
    assert (env["LENO_LOG"], env["LENO_ACCESS_LOG"]) == ("debug", "off")


def test_excluded_ports_and_networks_bypass_the_sidecar(mesh):
    mesh.create(apps.service("payment"), apps.service("open"))
    address = mesh.get("Service", "payment")["spec"]["clusterIP"]
    mesh.create(
        apps.server("payment", annotations=apps.NO_INJECT),
        apps.server("open", annotations={"leno.dev/exclude-inbound-ports": "8080"}),
        apps.client("web"),
        apps.client("by-port", annotations={"leno.dev/exclude-outbound-ports": "80"}),
        apps.client("by-network", annotations={"leno.dev/exclude-outbound-cidrs": f"{address}/32"}),
        apps.client("outsider", annotations=apps.NO_INJECT),
    )
    mesh.await_rollout("payment", "open")
    mesh.await_pods("web", "by-port", "by-network", "outsider")
    # A sidecar gives a request an id, so a request without one met none.
    for caller, service, through_sidecar in [
        ("web", "payment", True),
        ("by-port", "payment", False),
        ("by-network", "payment", False),
        ("by-network", "open", True),
        ("outsider", "open", False),
    ]:
        mesh.await_reply(caller, f"http://{service}/")
        arrived = mesh.fetch(caller, f"http://{service}/")["headers"]
        assert ("X-Request-Id" in arrived) == through_sidecar, f"{caller} to {service}: {arrived}"


def test_the_controller_passes_the_restricted_pod_security_level(api):
    labels = api.json("GET", "/api/v1/namespaces/leno-system")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = api.json("GET", "/api/v1/namespaces/leno-system/pods?labelSelector=app.kubernetes.io/name=leno-controller")["items"]
    assert len(pods) >= 2
    told = kubectl("label", "--dry-run=server", "--overwrite", "namespace/leno-system", "pod-security.kubernetes.io/enforce=restricted")
    assert not re.search("warning|violat", told, re.IGNORECASE), told
