"""The peers as a mesh uses them: a proxy beside the client and one beside the server, with mutual TLS 1.3 between them.

Both run on the one core that is measured, so the figures are of the two together. Every hop verifies the other's certificate (ECDSA
P-256, of one CA) and keeps its connections and its sessions. Three ways lead through each chain: HTTP/1.1, HTTP/2, and
connections that are carried as they are, of which each has a TLS connection of its own.
"""

import json
import shlex
import subprocess
from pathlib import Path

from harness import install, peers
from harness.peers import BACKEND, HOST, HTTP1, HTTP2, Peer, Unavailable

TCP = "127.0.0.1:18003"
# Where the proxy beside the server listens.
SERVER_HTTP1, SERVER_HTTP2, SERVER_TCP = "127.0.0.1:18101", "127.0.0.1:18102", "127.0.0.1:18103"
IDENTITY = "spiffe://bench.local/ns/bench/sa/default"
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def make(name: str, tools: Path, folder: Path) -> Peer:
    """The chain of two of that peer, with its configuration written to `folder`."""
    match name:
        case "direct":
            return Peer(name, [], http1=BACKEND, http2=BACKEND, tcp=BACKEND)
        case "fwd":
            hops = [[f"{tools}/fwd", SERVER_TCP, BACKEND], [f"{tools}/fwd", HTTP1, SERVER_TCP]]
            return Peer(name, both(*hops), http2=HTTP1, tcp=HTTP1)
        case "envoy":
            return Peer(name, envoy(folder), tcp=TCP, **takes_tls(folder))
        case "haproxy":
            return Peer(name, haproxy(folder), tcp=TCP, **takes_tls(folder))
        case "nginx":
            return Peer(name, nginx(folder), tcp=TCP, **takes_tls(folder))
        case "pingora":
            return Peer(name, pingora(folder), **takes_tls(folder))
    raise Unavailable(f"there is no chain of two {name}")


def both(server: list[str], client: list[str]) -> list[str]:
    """One command for the two proxies of a chain."""
    return ["sh", "-c", f"{shlex.join(server)} & exec {shlex.join(client)}"]


def takes_tls(folder: Path) -> dict:
    """How the load generator meets the proxy of the server by itself."""
    ca, certificate, key = certificates(folder)
    return {"tls": SERVER_HTTP1, "credentials": lambda: ["-A", str(ca), "-C", str(certificate), "-K", str(key), "-L", "http/1.1"]}


def pingora(folder: Path) -> list[str]:
    binary, files = str(install.pingora()), [str(path) for path in certificates(folder)]
    server = [binary, "server", SERVER_HTTP1, BACKEND, SERVER_HTTP2, BACKEND, *files]
    client = [binary, "client", HTTP1, SERVER_HTTP1, HTTP2, SERVER_HTTP2, *files]
    return both(server, client)


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A CA's certificate, and a certificate with its key that both hops show. They are made once for each run."""
    ca, certificate, key = (folder / f"bench-{name}.pem" for name in ("root", "leaf", "key"))
    if ca.exists():
        return ca, certificate, key
    ca_key, request, extensions = (folder / f"bench-{name}" for name in ("ca-key.pem", "leaf.csr", "leaf.ext"))
    extensions.write_text(f"subjectAltName=DNS:{HOST},URI:{IDENTITY}\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (
        ["req", "-x509", *new_key, "-days", "2", "-subj", "/CN=bench", "-keyout", ca_key, "-out", ca],
        ["req", *new_key, "-subj", "/CN=leaf", "-keyout", key, "-out", request],
        ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    for path in (ca, certificate, key):
        path.chmod(0o644)  # nginx's workers are somebody else
    return ca, certificate, key


def haproxy(folder: Path) -> list[str]:
    ca, certificate, key = certificates(folder)
    shown = folder / "bench-both.pem"
    shown.write_text(certificate.read_text() + key.read_text())
    tls = f"ssl crt {shown} ca-file {ca} verify required ssl-min-ver TLSv1.3"
    shows = f"{tls} sni str({HOST}) verifyhost {HOST}"
    settings = """\
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
"""

    def hop(name: str, listens: list[str], goes_to: list[str]) -> list[str]:
        config = folder / f"haproxy-{name}.cfg"
        parts = [settings]
        for kind, bind, server in zip(("http1", "http2", "tcp"), listens, goes_to, strict=True):
            mode = "  mode tcp\n" if kind == "tcp" else ""
            parts.append(f"frontend {kind}\n{mode}  bind {bind}\n  default_backend {kind}\n")
            parts.append(f"backend {kind}\n{mode}  server next {server}\n")
        config.write_text("".join(parts))
        return ["haproxy", "-db", "-f", str(config)]

    server = hop("server", [f"{SERVER_HTTP1} {tls} alpn http/1.1", f"{SERVER_HTTP2} {tls} alpn h2", f"{SERVER_TCP} {tls}"],
                 [BACKEND, f"{BACKEND} proto h2", BACKEND])
    client = hop("client", [HTTP1, f"{HTTP2} proto h2", TCP],
                 [f"{SERVER_HTTP1} {shows} alpn http/1.1", f"{SERVER_HTTP2} {shows} alpn h2", f"{SERVER_TCP} {shows}"])
    return both(server, client)


def nginx(folder: Path) -> list[str]:
    if not STREAM_MODULE.exists():
        raise Unavailable(f"{STREAM_MODULE} is missing: install libnginx-mod-stream")
    folder.chmod(0o755)
    ca, certificate, key = certificates(folder)
    accepts = (f"ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3; ssl_client_certificate {ca}; "
               "ssl_verify_client on; ssl_session_cache shared:s:1m;")

    def shows(module: str) -> str:
        words = {"certificate": certificate, "certificate_key": key, "protocols": "TLSv1.3", "trusted_certificate": ca, "verify": "on",
                 "name": HOST, "session_reuse": "on"}
        return " ".join(f"{module}_ssl_{word} {value};" for word, value in words.items())

    def hop(name: str, listens: list[str], goes_to: tuple[str, str, str], scheme: str, grpc: str, more: tuple[str, str, str]) -> list[str]:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n  ".join(f"{kind}_temp_path {folder}/nginx-{name}-{kind};" for kind in kinds)
        keep_alive = "keepalive 512; keepalive_requests 1000000000; keepalive_timeout 3600s;"
        config = folder / f"nginx-{name}.conf"
        config.write_text(f"""\
load_module {STREAM_MODULE};
worker_processes 1;
daemon off;
pid {folder}/nginx-{name}.pid;
error_log stderr crit;
events {{ worker_connections 19500; }}
http {{
  access_log off;
  proxy_max_temp_file_size 0;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  {temporary}
  upstream http1 {{ server {goes_to[0]}; {keep_alive} }}
  upstream http2 {{ server {goes_to[1]}; {keep_alive} }}
  server {{
    listen {listens[0]};
    {more[0]}
    location / {{ proxy_pass {scheme}://http1; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
  server {{
    listen {listens[1]};
    http2_max_concurrent_streams 1000;
    {more[1]}
    location / {{ grpc_pass {grpc}://http2; }}
  }}
}}
stream {{
  server {{ listen {listens[2]}; proxy_pass {goes_to[2]}; {more[2]} }}
}}
""")
        return ["nginx", "-c", str(config)]

    tls = "ssl backlog=4096"
    server = hop("server", [f"{SERVER_HTTP1} {tls}", f"{SERVER_HTTP2} ssl http2 backlog=4096", f"{SERVER_TCP} {tls}"],
                 (BACKEND, BACKEND, BACKEND), "http", "grpc", (accepts, accepts, accepts.replace("shared:s", "shared:t")))
    client = hop("client", [f"{HTTP1} backlog=4096", f"{HTTP2} http2 backlog=4096", f"{TCP} backlog=4096"],
                 (SERVER_HTTP1, SERVER_HTTP2, SERVER_TCP), "https", "grpcs",
                 (shows("proxy"), shows("grpc"), f"proxy_ssl on; {shows('proxy')}"))
    return both(server, client)


def envoy(folder: Path) -> list[str]:
    ca, certificate, key = certificates(folder)

    def context(kind: str, alpn: str) -> dict:
        common = {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}],
            "validation_context": {"trusted_ca": {"filename": str(ca)}, "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": IDENTITY}}]},
            **({"alpn_protocols": [alpn]} if alpn else {}),
        }
        more = {"require_client_certificate": True} if kind == "Downstream" else {}
        typed = peers.envoy_extension(f"transport_sockets.tls.v3.{kind}TlsContext", common_tls_context=common, **more)
        return {"transport_socket": {"name": "tls", "typed_config": typed}}

    def hop(name: str, listens: tuple[str, str, str], goes_to: tuple[str, str, str], tls_in: bool) -> list[str]:
        listeners, clusters = [], []
        for kind, at, to, alpn in zip(("http1", "http2", "tcp"), listens, goes_to, ("http/1.1", "h2", ""), strict=True):
            listener, cluster = peers.envoy_listener(kind, at), peers.envoy_cluster(kind, kind == "http2", to)
            if kind == "tcp":
                proxy = peers.envoy_extension("filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=kind, cluster=kind)
                listener["filter_chains"] = [{"filters": [{"name": "tcp", "typed_config": proxy}]}]
            if tls_in:
                listener["filter_chains"][0].update(context("Downstream", alpn))
            else:
                cluster.update(context("Upstream", alpn))
            listeners.append(listener)
            clusters.append(cluster)
        config = folder / f"envoy-{name}.json"
        config.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}))
        binary = str(install.envoy())
        return [binary, "-c", str(config), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]

    server = hop("server", (SERVER_HTTP1, SERVER_HTTP2, SERVER_TCP), (BACKEND, BACKEND, BACKEND), True)
    client = hop("client", (HTTP1, HTTP2, TCP), (SERVER_HTTP1, SERVER_HTTP2, SERVER_TCP), False)
    return both(server, client)
