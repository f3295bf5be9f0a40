"""What the chart renders: high availability, restricted pods, least privilege, and refusal of wrong values."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts/leno"


def render(*values: str, check: bool = True) -> subprocess.CompletedProcess:
    command = [os.environ["HELM"], "template", "leno", str(CHART), "--namespace", "leno-system"]
    for value in values:
        command += ["--set", value]
    return subprocess.run(command, capture_output=True, text=True, check=check)


def objects(*values: str) -> list[dict]:
    return [found for found in yaml.safe_load_all(render(*values).stdout) if found]


def one(found: list[dict], kind: str) -> dict:
    of_kind = [it for it in found if it["kind"] == kind]
    assert len(of_kind) == 1, [it["metadata"]["name"] for it in of_kind]
    return of_kind[0]


def test_two_replicas_that_a_drain_does_not_take_at_once():
    found = objects()
    assert one(found, "Deployment")["spec"]["replicas"] == 2
    budget = one(found, "PodDisruptionBudget")["spec"]
    assert budget.get("minAvailable") == 1 or budget.get("maxUnavailable") == 1


def test_the_controller_passes_the_restricted_pod_security_level():
    pod = one(objects(), "Deployment")["spec"]["template"]["spec"]
    for container in pod["containers"]:
        context = {**pod.get("securityContext", {}), **container["securityContext"]}
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["seccompProfile"]["type"] == "RuntimeDefault"
        assert context["readOnlyRootFilesystem"] is True


def test_only_pods_that_asked_reach_the_webhook_and_they_cannot_start_without_it():
    webhooks = one(objects(), "MutatingWebhookConfiguration")["webhooks"]
    for webhook in webhooks:
        assert webhook["failurePolicy"] == "Fail"
        assert webhook["matchConditions"], webhook["name"]
        assert webhook["timeoutSeconds"] <= 10
        assert "caBundle" not in webhook["clientConfig"], "an upgrade would wipe what the controller put there"


def test_the_controller_may_write_only_its_own_objects_and_status():
    writes = {"create", "update", "patch", "delete", "deletecollection", "*"}
    for role in (it for it in objects() if it["kind"] == "ClusterRole"):
        for rule in role["rules"]:
            for resource in rule["resources"]:
                if writes & set(rule["verbs"]):
                    assert resource.endswith("/status") or rule.get("resourceNames") or resource == "tokenreviews", rule
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert "secrets" not in rule["resources"], "secrets only in its own namespace"


def test_the_controller_reads_and_writes_secrets_by_name_and_never_rewrites_the_authority():
    rules = [rule for it in objects() if it["kind"] == "Role" for rule in it["rules"] if "secrets" in rule["resources"]]
    assert {it["metadata"]["namespace"] for it in objects() if it["kind"] == "Role"} == {"leno-system"}
    may = {}
    for rule in rules:
        for name in rule.get("resourceNames", ["any"]):
            may.setdefault(name, set()).update(rule["verbs"])
    assert may == {"any": {"create"}, "leno-controller-tls": {"get", "update"}, "leno-ca": {"get"}}


def arguments(*values: str) -> list[str]:
    return one(objects(*values), "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]


def test_identity_and_authorization_are_as_the_values_say():
    told = [it for it in arguments() if it.startswith(("--trust", "--certificate-life", "--mtls", "--authorization"))]
    assert told == ["--trust-domain=cluster.local", "--certificate-life=24h", "--mtls-mode=Permissive", "--authorization-default=Allow"]
    values = ["identity.trustDomain=a.example", "identity.trustedDomains={b.example,c.example}", "identity.certificateLife=90m"]
    changed = arguments(*values, "mtls.mode=Strict", "authorization.default=Deny")
    wanted = ["--trust-domain=a.example", "--trusted-domain=b.example", "--trusted-domain=c.example", "--certificate-life=90m"]
    assert [it for it in changed if it in [*wanted, "--mtls-mode=Strict", "--authorization-default=Deny"]] == [
        *wanted,
        "--mtls-mode=Strict",
        "--authorization-default=Deny",
    ]


def test_egress_is_as_the_values_say():
    told = [it for it in arguments() if it.startswith(("--egress", "--cluster-network"))]
    assert told == ["--egress-mode=Allow"]
    changed = arguments("egress.mode=RegisteredOnly", "egress.clusterNetworks={10.244.0.0/16,fd00::/48}")
    wanted = ["--egress-mode=RegisteredOnly", "--cluster-network=10.244.0.0/16", "--cluster-network=fd00::/48"]
    assert [it for it in changed if it.startswith(("--egress", "--cluster-network"))] == wanted


def test_the_access_log_is_as_the_values_say(tmp_path):
    told = [it for it in arguments() if it.startswith("--proxy-access-log")]
    assert told == ["--proxy-access-log=errors", "--proxy-access-log-sampling=100", "--proxy-access-log-format=json"]
    template = 'a "%{method}": {%{path}} 100%% $(HOME)'
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"proxy": {"accessLogFormat": template, "accessLogSampling": 0.5}}))
    command = [os.environ["HELM"], "template", "leno", str(CHART), "--namespace", "leno-system", "-f", str(values)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = one([it for it in yaml.safe_load_all(rendered) if it], "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--proxy-access-log-sampling=0.5" in found
    assert "--proxy-access-log-format=" + template.replace("$(", "$$(") in found, "Kubernetes would put a variable in its place"


def test_requests_are_traced_where_there_is_a_collector():
    of_tracing = lambda *values: [it for it in arguments(*values) if it.startswith(("--otlp", "--trace"))]
    assert of_tracing() == []
    endpoint = "tracing.otlp.endpoint=http://otel.obs:4317"
    assert of_tracing(endpoint) == ["--otlp-endpoint=http://otel.obs:4317", "--otlp-protocol=grpc", "--trace-sampling=1", "--trace-propagation=W3C"]
    changed = of_tracing(endpoint, "tracing.otlp.protocol=http/protobuf", "tracing.sampling=0.5", "tracing.propagation={B3,W3C}")
    assert changed[1:] == ["--otlp-protocol=http/protobuf", "--trace-sampling=0.5", "--trace-propagation=B3,W3C"]


def test_kinds_stay_when_the_chart_goes_and_can_be_left_out():
    kinds = [it for it in objects() if it["kind"] == "CustomResourceDefinition"]
    assert {it["spec"]["names"]["kind"] for it in kinds} == {"MeshService", "SecurityPolicy", "TrafficPolicy"}
    assert all(it["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for it in kinds)
    assert not [it for it in objects("crds.install=false") if it["kind"] == "CustomResourceDefinition"]


@pytest.mark.parametrize(
    "value",
    [
        "controller.replicas=0",
        "controller.replicas=two",
        "proxy.accessLog=some",
        "proxy.workers=0",
        "proxy.accessLogSampling=101",
        "proxy.accessLogSampling=100.5",
        "tracing.otlp.endpoint=otel:4317",
        "tracing.otlp.protocol=http/json",
        "tracing.sampling=-1",
        "tracing.propagation={w3c}",
        "tracing.propagation={}",
        "proxy.accessLogFormat=JSON",
        "proxy.accessLogFormat=%method",
        "nosuch=1",
        "identity.trustDomain=spiffe://mesh",
        "identity.trustedDomains={A.example}",
        "identity.certificateLife=day",
        "mtls.mode=strict",
        "authorization.default=Maybe",
        "egress.mode=Deny",
        "egress.clusterNetworks={10.0.0.1}",
    ],
)
def test_a_wrong_value_is_refused_by_the_schema(value):
    refused = render(value, check=False)
    assert refused.returncode != 0 and "schema" in refused.stderr, refused.stderr
