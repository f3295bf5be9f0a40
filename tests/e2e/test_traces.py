"""Traces on the cluster: a request through two sidecars is one trace, with the right parents, at a collector of OpenTelemetry."""

import json
import random

import apps
import pytest
from cluster import ROOT, Namespace, helm, until

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def upgrade(**values):
    words = [word for name, value in values.items() for word in ("--set", f"tracing.{name.replace('_', '.')}={value}")]
    helm("upgrade", "leno", ROOT / "charts/leno", "-n", "leno-system", "--reuse-values", *words, "--wait", "--timeout", "120s")


@pytest.fixture(scope="module")
def traced(api):
    """A namespace in a mesh that traces, and what its collector has got."""
    mark = f"{random.randrange(16**4):04x}"
    outside = Namespace(api, f"collector-{mark}")
    ready = apps.tcp_probe(4317)
    outside.create(apps.pod("collector", apps.container("collector", readinessProbe=ready)), apps.service("collector", (4317, 4317)))
    outside.await_pods("collector")
    upgrade(otlp_endpoint=f"http://collector.{outside.name}:4317", sampling=0, propagation="{W3C,B3}")
    namespace = Namespace(api, f"traces-{mark}", {"leno.dev/inject": "enabled"})
    try:
        *shop, _web = apps.payment()
        web = apps.client("web", annotations={"leno.dev/access-log": "all"})
        namespace.create(*shop, web, apps.client("all", annotations={"leno.dev/trace-sampling": "100"}))
        namespace.await_rollout("payment-v1", "payment-v2")
        namespace.await_pods("web", "all")
        namespace.await_reply("web", "http://payment/")
        yield namespace, lambda **wanted: spans_of(outside, **wanted)
    finally:
        upgrade(otlp_endpoint="", sampling=1, propagation="{W3C}")
        namespace.delete_all()
        outside.delete_all()


def spans_of(outside, **wanted):
    spans = [json.loads(line) for line in outside.log("collector", "app").splitlines() if line.startswith('{"trace"')]
    return [span for span in spans if all(span[name] == value for name, value in wanted.items())]


def test_a_request_through_two_sidecars_is_one_trace(traced):
    shop, spans = traced
    sent = ["-H", f"traceparent:00-{TRACE}-{SPAN}-01", "-H", "x-request-id:traced-1"]
    arrived = shop.fetch("web", "http://payment/traced?secret=1", *sent)["headers"]
    until("both sidecars have sent their spans", lambda: len(spans(trace=TRACE)) == 2)
    (caller,), (callee,) = spans(trace=TRACE, kind="SPAN_KIND_CLIENT"), spans(trace=TRACE, kind="SPAN_KIND_SERVER")
    assert caller["parent"] == SPAN and callee["parent"] == caller["span"]
    assert arrived["Traceparent"] == [f"00-{TRACE}-{callee['span']}-01"] and arrived["X-B3-Spanid"] == [callee["span"]]
    resource = caller["resource"]
    assert (resource["service.name"], resource["k8s.namespace.name"], resource["k8s.pod.name"]) == ("web", shop.name, "web")
    assert callee["resource"]["k8s.pod.name"].startswith("payment-v")
    for span in (caller, callee):
        said = span["attributes"]
        assert (said["http.request.method"], said["url.path"], said["http.response.status_code"]) == ("GET", "/traced", 200), said
        assert "secret" not in json.dumps(span)
        assert said["leno.source_identity"].endswith(f"/ns/{shop.name}/sa/default")
    until("the access log names them", lambda: shop.access_log("web", trace_id=TRACE, span_id=caller["span"]))


def test_a_share_of_nothing_keeps_no_trace_and_an_annotation_says_otherwise(traced):
    shop, spans = traced
    arrived = shop.fetch("web", "http://payment/unkept")["headers"]
    kept = shop.fetch("all", "http://payment/kept")["headers"]
    assert arrived["Traceparent"][0].endswith("-00") and kept["Traceparent"][0].endswith("-01")
    trace = kept["Traceparent"][0].split("-")[1]
    until("both sidecars have sent their spans", lambda: len(spans(trace=trace)) == 2)
    assert not spans(trace=arrived["Traceparent"][0].split("-")[1])
    until("they are counted", lambda: shop.metric("all", "leno_spans_total", outcome="exported") >= 1)


def test_failures_have_their_reason(traced):
    shop, spans = traced
    shop.create(apps.service("nobody"))
    until("there is no endpoint: 503", lambda: shop.count("all", "get", "http://nobody/")["byStatus"] == {"503": 1})
    failed = until("the span arrives", lambda: [it for it in spans() if it["attributes"].get("error.type") == "no-endpoint"])
    assert failed[-1]["attributes"]["leno.origin"] == "upstream" and failed[-1]["resource"]["service.name"] == "all"
