"""Leno as a peer: sidecars as they always run, fed by a controller that reads a folder; redirection is off, as there is no pod.

What a mesh is for is on while it is measured: metrics; routes with several rules, of which each request takes one; where two sidecars
stand, certificates from the controller, Strict mode, and rules of who may call what. The access log is off, as it is for the others.
"""

import json
import secrets
import subprocess
import sys
from pathlib import Path

from harness import install, machine
from harness.chains import SERVER_HTTP1, SERVER_HTTP2, SERVER_TCP, TCP, both
from harness.peers import BACKEND, HTTP1, HTTP2, Peer

CONTROL, CONTROL_ADMIN, RELAY = "127.0.0.1:18021", "127.0.0.1:18022", "127.0.0.1:18024"
CLIENT_ADMIN, SERVER_ADMIN = "127.0.0.1:18020", "127.0.0.1:18023"
SIGN_PATH = "/leno.dev.CertificateService/Sign"


def one(folder: Path) -> Peer:
    """One sidecar, beside the client."""
    ca = folder / "leno-ca.pem"
    _, app = BACKEND.split(":")
    manifests(folder / "leno-manifests", [int(app)] * 2, [])
    command = sidecar("client", ca, CLIENT_ADMIN, LENO_SERVICES=services(2))
    watched = sidecar("client", ca, CLIENT_ADMIN, LENO_SERVICES=services(2), LENO_CONTROL_ADDRESS=f"localhost:{RELAY.split(':')[1]}")
    told_at = folder / "leno-told-at"
    return Peer("leno", command, beside=controller(folder / "leno-manifests", ca), beside_at=CONTROL, watched=watched,
                watcher=(sys.executable, f"{Path(__file__).parent}/relay.py", RELAY, CONTROL, str(told_at)), watcher_at=RELAY, told_at=told_at)


def two(folder: Path) -> Peer:
    """Two sidecars. Each has a token for which the controller signs its certificate, and knows the other by name."""
    ca, known = folder / "leno-chain-ca.pem", folder / "leno-chain-tokens"
    ports = [int(address.split(":")[1]) for address in (SERVER_HTTP1, SERVER_HTTP2, SERVER_TCP)]
    manifests(folder / "leno-chain-manifests", ports, who_may_call())
    tokens = {name: secrets.token_hex(16) for name in ("client", "server", "load")}
    known.write_text("".join(f"{token} bench/{name} {name}\n" for name, token in tokens.items()))
    known.chmod(0o600)
    for name, token in tokens.items():
        (folder / f"leno-chain-token-{name}").write_text(token)

    _, app = BACKEND.split(":")
    inbound = ",".join(f"{app}={address}" for address in (SERVER_HTTP1, SERVER_HTTP2, SERVER_TCP))
    server = sidecar("server", ca, SERVER_ADMIN, LENO_TOKEN_FILE=f"{folder}/leno-chain-token-server", LENO_INBOUND=inbound)
    client = sidecar("client", ca, CLIENT_ADMIN, LENO_TOKEN_FILE=f"{folder}/leno-chain-token-client", LENO_SERVICES=services(3))
    beside = (*controller(folder / "leno-chain-manifests", ca), "--token-file", str(known))
    return Peer("leno", both(server, client), tcp=TCP, tls=SERVER_HTTP1, beside=beside, beside_at=CONTROL,
                credentials=lambda: enrol(folder, ca, tokens["load"]))


def controller(folder: Path, ca: Path) -> tuple[str, ...]:
    return (f"{install.leno()}/leno-controller", "--folder", str(folder), "--ca-file", str(ca), "--control-listen", CONTROL,
            "--admin-listen", CONTROL_ADMIN)


def sidecar(name: str, ca: Path, admin: str, **more: str) -> list[str]:
    variables = {
        "LENO_POD_NAMESPACE": "bench", "LENO_POD_NAME": name, "LENO_INTERCEPT": "off", "LENO_ACCESS_LOG": "off",
        "LENO_ADMIN_ADDRESS": admin, "LENO_CONTROL_ADDRESS": f"localhost:{CONTROL.split(':')[1]}", "LENO_CONTROL_CA_FILE": str(ca), **more,
    }
    return ["env", *(f"{name}={value}" for name, value in variables.items()), f"{install.leno()}/leno-proxy", "run"]


def services(count: int) -> str:
    return ",".join(f"bench/backend:{80 + at}={address}" for at, address in enumerate((HTTP1, HTTP2, TCP)[:count]))


def manifests(folder: Path, ports: list[int], more: list[dict]) -> None:
    """Writes what is in the mesh: a service whose ports lead to `ports`, who is behind it, how its traffic is routed, and `more`."""
    kinds = [("http", "http"), ("h2c", "kubernetes.io/h2c"), ("tcp", "tcp")]
    items = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "backend", "namespace": "bench"}, "spec": {
            "selector": {"app": "backend"},
            "ports": [{"name": name, "port": 80 + at, "targetPort": ports[at], "appProtocol": protocol}
                      for at, (name, protocol) in enumerate(kinds[:len(ports)])],
        }},
        workload("client", {}, {"address": "127.0.0.2", "serviceAccount": "client"}),
        workload("server", {"app": "backend", "version": "v1"}, {
            "address": "127.0.0.1", "serviceAccount": "server", "ports": [{"port": port} for port in sorted(set(ports))]}, bool(more)),
        own("MeshService", "backend", {"versions": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}),
        own("TrafficPolicy", "backend", {"targetRef": {"kind": "MeshService", "name": "backend"}, "timeout": "15s", "routes": [
            {"name": "health", "matches": [{"path": {"exact": "/health"}}], "destinations": [{"version": "v2"}]},
            {"name": "beta", "matches": [{"path": {"prefix": "/"}, "headers": [{"name": "x-user-type", "value": "beta"}]}],
             "destinations": [{"version": "v2"}]},
            {"name": "bodies", "matches": [{"path": {"prefix": "/b"}, "method": "GET"}],
             "destinations": [{"version": "v1", "weight": 100}, {"version": "v2", "weight": 0}]},
            {"name": "calls", "matches": [{"path": {"prefix": "/bench.Echo"}, "method": "POST"}], "destinations": [{"version": "v1"}]},
        ]}),
        *more,
    ]
    folder.mkdir(exist_ok=True)
    (folder / "all.yaml").write_text("---\n".join(json.dumps(item) + "\n" for item in items))


def own(kind: str, name: str, spec: dict) -> dict:
    return {"apiVersion": "leno.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "bench"}, "spec": spec}


def workload(name: str, labels: dict, spec: dict, injected: bool = True) -> dict:
    item = own("Workload", name, spec)
    item["metadata"]["labels"] = labels
    if injected:
        item["metadata"]["annotations"] = {"leno.dev/injected": "true"}
    return item


def who_may_call() -> list[dict]:
    """Strict, and rules that each request is judged by: refused is who is not of the bench, let in are its requests, and its connections."""
    return [
        own("SecurityPolicy", "strict", {"mtls": {"mode": "Strict"}}),
        own("SecurityPolicy", "strangers", {"selector": {"matchLabels": {"app": "backend"}}, "action": "Deny", "authorization": [
            {"from": [{"namespace": "elsewhere"}]}, {"from": [{"serviceAccount": "batch"}], "paths": ["/admin/*"]}]}),
        own("SecurityPolicy", "callers", {"selector": {"matchLabels": {"app": "backend"}}, "authorization": [
            {"from": [{"serviceAccount": "client"}, {"serviceAccount": "load"}], "methods": ["GET"], "paths": ["/b/*"]},
            {"from": [{"serviceAccount": "client"}], "methods": ["POST"], "paths": ["/bench.Echo/*"]},
            {"from": [{"serviceAccount": "client"}]}]}),
    ]


def enrol(folder: Path, controller_ca: Path, token: str) -> list[str]:
    """Has the controller sign a certificate for the load generator, as proxies do; gives the generator's arguments."""
    key, request, answer = folder / "leno-load-key.pem", folder / "leno-load-request", folder / "leno-load-answer"
    new = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/", "-keyout", key, "-outform", "DER"]
    csr = subprocess.run(new, check=True, capture_output=True).stdout
    message = field(1, csr)
    request.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    call = ["curl", "-sS", "--fail", "--http2", "--cacert", str(controller_ca), "-H", "content-type: application/grpc", "-H", "te: trailers",
            "-H", f"authorization: Bearer {token}", "--data-binary", f"@{request}", "-o", str(answer),
            f"https://localhost:{CONTROL.split(':')[1]}{SIGN_PATH}"]
    if machine.start(call, machine.LOAD_CORE).wait() or not answer.exists() or len(answer.read_bytes()) < 5:
        raise RuntimeError("the controller signs no certificate for the load generator")
    response = fields(answer.read_bytes()[5:])
    [trust] = response[2]
    chain, roots = folder / "leno-load-chain.pem", folder / "leno-load-roots.pem"
    chain.write_text("".join(map(pem, response[1])))
    roots.write_text("".join(map(pem, fields(trust)[3])))
    return ["-A", str(roots), "-C", str(chain), "-K", str(key), "-L", "leno/http"]


def pem(der: bytes) -> str:
    return subprocess.run(["openssl", "x509", "-inform", "DER"], input=der, check=True, capture_output=True).stdout.decode()


def field(number: int, value: bytes) -> bytes:
    """A field of bytes in protobuf's wire format."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def fields(message: bytes) -> dict[int, list[bytes]]:
    """The fields of a protobuf message that holds nothing but bytes, texts and messages."""
    found: dict[int, list[bytes]] = {}
    at = 0

    def read_varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(message):
        tag, length = read_varint(), read_varint()
        if tag & 7 != 2:
            raise ValueError("a field is neither bytes nor text nor a message")
        found.setdefault(tag >> 3, []).append(message[at:at + length])
        at += length
    return found
