"""Every protocol an app may speak, and everybody it may speak to, through sidecars that nobody told the app of."""

import json
import time

import pytest

import apps
from cluster import kubectl, until


def APPS():
    echo = [
        apps.workload(
            "Deployment",
            f"echo-{version}",
            apps.container("grpc-server", "-version", version, name="grpc", readinessProbe=apps.tcp_probe(9000)),
            apps.container("tcp-server-first", "-version", version, name="tcp", readinessProbe=apps.tcp_probe(7000)),
            labels={"app": "echo", "version": version},
        )
        for version in ("v1", "v2")
    ]
    greeter = apps.container("tcp-server-first", "-version", "v1", readinessProbe=apps.tcp_probe(7000))
    redis = apps.container("--save", "", "--protected-mode", "no", "--dir", "/tmp", image="leno/redis:1", readinessProbe=apps.tcp_probe(6379))
    return [
        *echo,
        apps.service("echo", (9000, 9000), (7000, 7000)),
        apps.mesh_service("echo", "v1", "v2", ports=[{"port": 9000, "protocol": "GRPC"}, {"port": 7000, "protocol": "TCP"}]),
        apps.workload("Deployment", "greeter", greeter),
        apps.service("greeter", {"port": 7000, "targetPort": 7000, "appProtocol": "tcp"}),
        apps.workload("Deployment", "silent", greeter),
        apps.service("silent", (7000, 7000)),
        apps.server("http", replicas=2),
        # Go's server offers extended CONNECT, by which WebSockets run over HTTP/2, only where it is told to.
        apps.workload("Deployment", "sockets", apps.container("server", env=[{"name": "GODEBUG", "value": "http2xconnect=1"}], readinessProbe=apps.HTTP_PROBE)),
        apps.service("sockets"),
        apps.service("http", ipFamilyPolicy="PreferDualStack"),
        apps.workload("StatefulSet", "db", *one_of_a_set(), replicas=2, serviceName="db", podManagementPolicy="Parallel"),
        apps.service("db", (8080, 8080), clusterIP="None"),
        apps.workload("Deployment", "redis", redis),
        apps.service("redis", (6379, 6379)),
        apps.server("outside", annotations=apps.NO_INJECT),
        apps.service("outside"),
        apps.client("web"),
        apps.client("outsider", annotations=apps.NO_INJECT),
    ]


def one_of_a_set():
    return [apps.container("server", "-name", "db", readinessProbe=apps.HTTP_PROBE)]


def test_http1_and_http2_requests_arrive_as_they_were_sent(shop):
    shop.await_reply("web", "http://http/")
    for flags, proto in ([], "HTTP/1.1"), (["-h2"], "HTTP/2.0"):
        arrived = shop.fetch("web", "http://http/a%2Fb?x=1&y=%20", "-method", "PUT", "-body", "text", "-H", "X-Mine: kept", *flags)
        assert (arrived["proto"], arrived["method"], arrived["query"], arrived["host"]) == (proto, "PUT", "x=1&y=%20", "http")
        assert arrived["headers"]["X-Mine"] == ["kept"]
        assert arrived["headers"]["X-Request-Id"][0]


@pytest.mark.parametrize("flags", [[], ["-h2"]], ids=["HTTP/1.1", "HTTP/2"])
def test_bodies_of_any_size_pass(shop, flags):
    shop.await_reply("web", "http://http/")
    for size in (0, 1, 65_536, 20_000_000):
        assert len(shop.app("web", "get", f"http://http/bytes?n={size}", "-print", *flags)) == size
    text = "0123456789" * 3000
    assert shop.app("web", "get", "http://http/echo", "-method", "POST", "-body", text, "-print", *flags) == text


def test_grpc_calls_of_one_connection_are_balanced_over_both_versions(shop):
    counts = shop.count("web", "grpc-client", "echo:9000", "-n", "100", "-H", "x-mine: kept")
    assert counts["failed"] == 0, counts["errors"]
    assert sum(counts["byVersion"].values()) == 100 and min(counts["byVersion"].values()) >= 20, counts["byVersion"]
    assert counts["metadata"]["x-mine"] == "kept"


def test_a_grpc_stream_stays_open(shop):
    counts = shop.count("web", "grpc-client", "echo:9000", "-hold", "3s")
    assert counts["failed"] == 0 and counts["heldStreamMessages"] >= 20, counts


def test_grpc_streams_pass_up_down_and_both_ways(shop):
    counts = shop.count("web", "grpc-client", "echo:9000", "-n", "50")
    assert (counts["failed"], counts["calls"]) == (0, 250), f"unary, an error, a stream down, one up, one both ways, each 50 times: {counts}"


def test_websockets_over_http2_pass(shop):
    shop.await_reply("web", "http://sockets/", "-h2")
    assert shop.count("web", "ws-client", "http://sockets/ws", "-h2", "-n", "100") == {"messages": 100}
    counted = lambda: shop.metric("web", "leno_requests_total", destination=f"{shop.name}/sockets", protocol="http2")
    until("the sidecar carried the request and the socket, and counted both", lambda: counted() >= 2)


def test_websockets_pass(shop):
    shop.await_reply("web", "http://http/")
    assert shop.count("web", "ws-client", "http://http/ws", "-n", "100") == {"messages": 100}


@pytest.mark.parametrize("service", ["echo", "greeter"], ids=["declared by MeshService", "declared by appProtocol"])
def test_a_server_that_speaks_first_is_reached_at_once(shop, service):
    shop.app("web", "tcp-client", f"{service}:7000")
    started = time.monotonic()
    counts = shop.count("web", "tcp-client", f"{service}:7000", "-n", "40")
    assert counts["failed"] == 0, counts
    assert time.monotonic() - started < 4, "40 connections, none of which waits for the client's first word"


def test_connections_are_balanced_over_the_versions(shop):
    counts = shop.count("web", "tcp-client", "echo:7000", "-n", "40")
    assert min(counts["byVersion"]["v1"], counts["byVersion"]["v2"]) >= 5, counts


def test_a_server_that_speaks_first_unannounced_is_reached_too(shop):
    assert shop.count("web", "tcp-client", "silent:7000", "-n", "3")["failed"] == 0


def test_redis_works(shop):
    def redis(*args):
        pod = shop.list("Pod", "app=redis")[0]["metadata"]["name"]
        return kubectl("exec", "-n", shop.name, pod, "-c", "app", "--", "/usr/bin/redis-cli", "-h", "redis", *args)

    until("redis answers by its Service's name", lambda: redis("ping") == "PONG\n")
    assert redis("set", "key", "value") == "OK\n"
    assert redis("get", "key") == "value\n"


def test_pods_of_a_headless_statefulset_are_reached_by_name(shop):
    for name in ("db-0", "db-1"):
        shop.await_reply("web", f"http://{name}.db:8080/")
        counts = shop.count("web", "get", f"http://{name}.db:8080/", "-n", "20", "-new-conn")
        assert counts["byPod"] == {name: 20}
    assert shop.fetch("db-0", "http://db-1.db:8080/")["pod"] == "db-1", "one of the set calls the other"
    assert set(shop.count("web", "get", "http://db:8080/", "-n", "40", "-new-conn")["byPod"]) <= {"db-0", "db-1"}


def test_a_pod_calls_its_own_service(shop):
    pods = {it["metadata"]["name"] for it in shop.list("Pod", "app=http")}
    caller = min(pods)
    shop.await_reply(caller, "http://http/")
    counts = shop.count(caller, "get", "http://http/", "-n", "40", "-new-conn")
    assert counts["failed"] == 0 and set(counts["byPod"]) == pods, counts


def test_pods_in_and_outside_the_mesh_reach_each_other(shop):
    shop.await_reply("web", "http://outside/")
    assert shop.count("web", "get", "http://outside/", "-n", "20")["byStatus"] == {"200": 20}
    shop.await_reply("outsider", "http://http/")
    counts = shop.count("outsider", "get", "http://http/", "-n", "20", "-new-conn")
    assert counts["byStatus"] == {"200": 20} and len(counts["byPod"]) == 2, counts
    assert shop.count("outsider", "tcp-client", "echo:7000", "-n", "5")["failed"] == 0
    assert shop.count("outsider", "grpc-client", "echo:9000", "-n", "5")["failed"] == 0


def test_a_pods_address_is_reached_without_a_service(shop):
    pod = shop.list("Pod", "app=http")[0]
    counts = shop.count("web", "get", f"http://{pod['status']['podIP']}:8080/", "-n", "10", "-new-conn")
    assert counts["byPod"] == {pod["metadata"]["name"]: 10}


def test_the_api_server_is_reached_over_its_own_tls(shop):
    answer = shop.app("web", "get", "https://kubernetes.default.svc/version", "-print")
    assert json.loads(answer)["major"] == "1"


def test_names_that_do_not_exist_still_do_not(shop):
    counts = shop.count("web", "get", "http://nowhere.default.svc.cluster.local/")
    assert "no such host" in counts["errors"][0], "the answer came from DNS, over UDP"


def test_a_port_nobody_listens_on_is_no_success(shop):
    pod = shop.list("Pod", "app=http")[0]["status"]["podIP"]
    counts = shop.count("web", "get", f"http://{pod}:8099/")
    assert counts["failed"] == 1, counts


def test_services_are_reached_over_ipv6(shop):
    addresses = shop.get("Service", "http")["spec"]["clusterIPs"]
    if len(addresses) < 2:
        pytest.skip("the cluster has no second IP family")
    url = f"http://[{next(it for it in addresses if ':' in it)}]/"
    shop.await_reply("web", url)
    counts = shop.count("web", "get", url, "-n", "20", "-new-conn")
    assert counts["failed"] == 0 and len(counts["byPod"]) == 2, counts
    assert shop.fetch("web", url)["headers"]["X-Request-Id"][0], "the sidecar carried it"
