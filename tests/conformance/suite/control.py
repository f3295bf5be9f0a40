"""A control stream server written from the protocol's description (src/xds/proto), so that the proxy is tested against
something other than its own crates: delta discovery over gRPC and TLS, with what the tests need of Leno's resources."""

import concurrent.futures
import ipaddress
import queue
import struct
import subprocess
import threading

import grpc

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
TYPE = "type.googleapis.com/leno.dev."
PROTOCOLS = {"detect": 0, "http": 1, "http2": 2, "grpc": 3, "tls": 4, "tcp": 5}


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message):
    """The length-delimited fields of a message, as (number, bytes)."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
    while at < len(message):
        key = number()
        if key & 7 == 2:
            length = number()
            yield key >> 3, message[at:at + length]
            at += length
        else:
            number()


def service(name, port, protocol, timeout):
    routes = field(6, field(1, name) + field(2, field(1, timeout))) if timeout else b""
    return field(1, name) + field(4, field(1, port) + field(2, PROTOCOLS[protocol])) + field(5, 1) + routes


def endpoints(name, addresses):
    packed = (ipaddress.ip_address(host).packed + struct.pack(">H", port) for host, port in addresses)
    return field(1, name) + b"".join(field(3, field(1, address) + field(2, "app")) for address in packed)


class Control(grpc.GenericRpcHandler):
    """Answers every subscription from a fixed set of resources."""

    def __init__(self, folder, workload):
        anybody_may_call = b""  # a guard with nothing in it; without one the workload would be refused
        self.resources = {("Workload", workload): field(1, workload) + field(5, anybody_may_call)}
        self.refused = []
        key, self.ca = folder / "key.pem", folder / "ca.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                        "-subj", "/CN=control", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
                        "-keyout", str(key), "-out", str(self.ca)],
                       check=True, capture_output=True)
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[self])
        credentials = grpc.ssl_server_credentials([(key.read_bytes(), self.ca.read_bytes())])
        self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.server.start()

    def add(self, name, port, protocol, addresses, timeout=None):
        self.resources["Service", name] = service(name, port, protocol, timeout)
        self.resources["Endpoints", f"{name}:{port}"] = endpoints(f"{name}:{port}", addresses)

    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(self.stream) if details.method == METHOD else None

    def stream(self, requests, _context):
        answers = queue.SimpleQueue()
        threading.Thread(target=self.read, args=(requests, answers), daemon=True).start()
        while (answer := answers.get()) is not None:
            yield answer

    def read(self, requests, answers):
        try:
            for nonce, request in enumerate(requests):
                parts = list(fields(request))
                kind = dict(parts)[2].decode().removeprefix(TYPE)
                self.refused += [text for number, text in parts if number == 7]
                wanted = [name.decode() for number, name in parts if number == 3]
                if wanted:
                    answers.put(self.response(kind, wanted, nonce))
        except grpc.RpcError:
            pass
        answers.put(None)

    def response(self, kind, wanted, nonce):
        out = field(1, "1") + field(4, TYPE + kind) + field(5, str(nonce))
        for name in wanted:
            resource = self.resources.get((kind, name))
            if resource is None:
                out += field(6, name)
            else:
                out += field(2, field(1, "1") + field(2, field(1, TYPE + kind) + field(2, resource)) + field(3, name))
        return out
