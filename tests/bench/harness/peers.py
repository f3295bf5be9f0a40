"""Whom the benchmark compares: for each peer its configuration, its command and its addresses.

Each one is set up alike: one worker, no access log, plain HTTP/1.1 on one port and HTTP/2 with
prior knowledge on another, keep-alive on both sides, one backend.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import install

BACKEND = "127.0.0.1:19000"
HTTP1 = "127.0.0.1:18001"
HTTP2 = "127.0.0.1:18002"
HOST = "bench.local"
NAMES = ["direct", "fwd", "leno", "envoy", "haproxy", "nginx", "pingora"]


@dataclass(frozen=True)
class Peer:
    """One row of the comparison. Without a command nothing stands between load and backend."""

    name: str
    command: list[str]
    http1: str = HTTP1
    http2: str = HTTP2
    # Where connections are carried without being looked at; only of chains of two.
    tcp: str = ""
    # Where the proxy of the server takes HTTP/1.1 in mutual TLS, and arguments of the load generator for that; only of chains of two.
    tls: str = ""
    credentials: Callable[[], list[str]] = list
    # A process that `command` needs beside it, on the load's core, and where it listens: it is not what is measured.
    beside: tuple[str, ...] = ()
    beside_at: str = ""
    # The same as `command`, through whom it can be seen when its configuration comes; who that is, where it listens, and the file it
    # writes nanoseconds to.
    watched: list[str] | None = None
    watcher: tuple[str, ...] = ()
    watcher_at: str = ""
    told_at: Path | None = None


class Unavailable(Exception):
    """Why a peer cannot take part in this run."""


def make(name: str, tools: Path, folder: Path) -> Peer:
    """The peer of that name, with its configuration written to `folder`."""
    match name:
        case "direct":
            return Peer(name, [], http1=BACKEND, http2=BACKEND)
        case "fwd":
            return Peer(name, [f"{tools}/fwd", HTTP1, BACKEND], http2=HTTP1)
        case "leno":
            return leno.one(folder)
        case "envoy":
            return Peer(name, envoy_command(folder))
        case "haproxy":
            return Peer(name, haproxy_command(folder))
        case "nginx":
            return Peer(name, nginx_command(folder))
        case "pingora":
            return Peer(name, [str(install.pingora()), "plain", HTTP1, BACKEND, HTTP2, BACKEND])
    raise Unavailable(f"there is no peer {name}; there are {', '.join(NAMES)}")


def haproxy_command(folder: Path) -> list[str]:
    config = folder / "haproxy.cfg"
    config.write_text(f"""\
global
  nbthread 1
  maxconn 9600
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  option http-keep-alive
  http-reuse always
  backlog 4096
frontend http1
  bind {HTTP1}
  default_backend http1
frontend http2
  bind {HTTP2} proto h2
  default_backend http2
backend http1
  server backend {BACKEND}
backend http2
  server backend {BACKEND} proto h2
""")
    return ["haproxy", "-db", "-f", str(config)]


def nginx_command(folder: Path) -> list[str]:
    """nginx speaks HTTP/2 to a backend only as gRPC; its workers leave root, so the folder is open to them."""
    folder.chmod(0o755)
    temporary = "\n  ".join(
        f"{kind}_temp_path {folder}/nginx-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    keep_alive = "keepalive 512; keepalive_requests 1000000000; keepalive_timeout 3600s;"
    config = folder / "nginx.conf"
    config.write_text(f"""\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 19500; }}
http {{
  access_log off;
  proxy_max_temp_file_size 0;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  {temporary}
  upstream http1 {{ server {BACKEND}; {keep_alive} }}
  upstream http2 {{ server {BACKEND}; {keep_alive} }}
  server {{
    listen {HTTP1} backlog=4096;
    location / {{ proxy_pass http://http1; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
  server {{
    listen {HTTP2} http2 backlog=4096;
    http2_max_concurrent_streams 1000;
    location / {{ grpc_pass grpc://http2; }}
  }}
}}
""")
    return ["nginx", "-c", str(config)]


def envoy_command(folder: Path) -> list[str]:
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {
        "listeners": [envoy_listener("http1", HTTP1), envoy_listener("http2", HTTP2)],
        "clusters": [envoy_cluster("http1", False), envoy_cluster("http2", True)],
    }}))
    return [str(install.envoy()), "-c", str(config), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]


def envoy_address(address: str) -> dict:
    host, port = address.split(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def envoy_extension(kind: str, **fields) -> dict:
    return {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **fields}


def envoy_listener(name: str, address: str) -> dict:
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
    routes = {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
    router = {"name": "router", "typed_config": envoy_extension("filters.http.router.v3.Router")}
    manager = envoy_extension(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name, codec_type="AUTO", route_config=routes, http_filters=[router])
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": name, "address": envoy_address(address), "filter_chains": [chain], "tcp_backlog_size": 4096}


def envoy_cluster(name: str, http2: bool, to: str = BACKEND) -> dict:
    unlimited = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    endpoint = {"endpoint": {"address": envoy_address(to)}}
    cluster = {
        "name": name, "type": "STATIC", "connect_timeout": "5s", "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [unlimited]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if http2:
        options = envoy_extension(
            "upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return cluster
