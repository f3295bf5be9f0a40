"""What a sidecar says of the traffic it carries: its access log and its metrics, with the documented fields and labels."""

import json
import re

import apps
from cluster import until

PROXY = "leno-proxy"


def APPS():
    words = {"leno.dev/access-log": "all", "leno.dev/access-log-format": '%{method} "%{path}" %{status} %{reason} 100%%'}
    few = {"leno.dev/access-log": "all", "leno.dev/access-log-sampling": "0"}
    clients = [apps.client("worded", annotations=words), apps.client("few", annotations=few)]
    return [*apps.payment(apps.traffic_policy("payment", apps.route("all", v1=1))), *clients]


def log_lines(shop, pod, **wanted):
    """The access log's lines that have these values."""
    lines = [json.loads(line) for line in shop.log(pod, PROXY).splitlines() if line.startswith("{")]
    return [line for line in lines if all(line.get(field) == value for field, value in wanted.items())]


def test_the_access_log_says_of_each_request_where_it_went(shop):
    shop.await_reply("web", "http://payment/")
    shop.app("web", "get", "http://payment/once?x=1", "-H", "X-Request-Id: mine-1")
    line = until("the line is written", lambda: log_lines(shop, "web", direction="outbound", request_id="mine-1"))[0]
    destination = f"{shop.name}/payment"
    wanted = {"source": "web", "destination": destination, "version": "v1", "route": "all", "protocol": "http1"}
    assert {field: line[field] for field in wanted} == wanted
    assert (line["method"], line["path"], line["authority"], line["status"]) == ("GET", "/once?x=1", "payment", 200)
    assert line["duration_us"] > 0 and line["upstream"].endswith(":8080") and "T" in line["time"]
    pod = shop.list("Pod", "app=payment,version=v1")[0]["metadata"]["name"]
    inbound = until("the server's sidecar logs it too", lambda: log_lines(shop, pod, direction="inbound", request_id="mine-1"))[0]
    assert inbound["status"] == 200 and inbound["path"] == "/once?x=1"


def test_the_access_log_has_the_form_and_the_share_that_the_pod_asks_for(shop):
    shop.create(apps.service("nowhere"))
    for pod in ("worded", "few"):
        shop.await_reply(pod, "http://payment/")
        shop.app(pod, "get", "http://payment/good?x=1")
        until("there is no endpoint: 503", lambda: shop.count(pod, "get", "http://nowhere/")["byStatus"] == {"503": 1})
    until("the line has this form", lambda: 'GET "/good?x=1" 200 - 100%' in shop.log("worded", PROXY).splitlines())
    until("failures are logged in any case", lambda: [line for line in log_lines(shop, "few") if line.get("reason")])
    assert not log_lines(shop, "few", status=200)


def test_metrics_count_requests_by_a_closed_set_of_labels(shop):
    shop.await_reply("web", "http://payment/")
    before = requests(shop, "2xx")
    shop.app("web", "get", "http://payment/metered", "-n", "30")
    until("30 more requests are counted", lambda: requests(shop, "2xx") == before + 30)
    page = shop.metrics("web")
    labels = rf'direction="outbound",source="web",destination="{shop.name}/payment",version="v1",route="all",protocol="http1",mtls="true"'
    for line in [
        rf'^leno_requests_total\{{{labels},code="2xx"\}} \d+$',
        rf'^leno_request_duration_seconds_bucket\{{{labels},le="\+Inf"\}} \d+$',
        r"^leno_request_duration_seconds_count\{.*\} \d+$",
        r'^leno_connections_open\{direction="outbound"\} \d+$',
        r"^leno_response_bytes_total\{.*\} [1-9]\d*$",
    ]:
        assert re.search(line, page, re.MULTILINE), f"{line}\nis missing in\n{page}"
    assert "metered" not in page, "nothing of a request becomes a label"


def requests(shop, code):
    found = re.findall(rf'^leno_requests_total{{direction="outbound".*code="{code}"}} (\d+)$', shop.metrics("web"), re.MULTILINE)
    return sum(int(count) for count in found)


def test_failures_of_the_proxy_itself_have_a_reason(shop):
    shop.create(apps.service("nobody"))
    until("there is no endpoint: 503", lambda: shop.count("web", "get", "http://nobody/")["byStatus"] == {"503": 1})
    line = until("the line says why", lambda: log_lines(shop, "web", destination=f"{shop.name}/nobody", status=503))[-1]
    assert (line["reason"], line["origin"], line["retry_safe"]) == ("no-endpoint", "upstream", True)
    assert re.search(r'^leno_errors_total{direction="outbound",origin="upstream",reason="no-endpoint"} [1-9]', shop.metrics("web"), re.MULTILINE)


def test_trace_headers_and_request_ids_pass(shop):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = {"Traceparent": trace, "X-B3-Traceid": "463ac35c9f6413ad48485a3953bb6124", "X-Request-Id": "mine-2"}
    shop.await_reply("web", "http://payment/")
    headers = [word for name, value in sent.items() for word in ("-H", f"{name}: {value}")]
    arrived = shop.fetch("web", "http://payment/", *headers)["headers"]
    assert {name: arrived[name] for name in sent} == {name: [value] for name, value in sent.items()}
    assert arrived["X-Forwarded-For"] == [shop.get("Pod", "web")["status"]["podIP"]], arrived
