"""What is no HTTP: bytes both ways, each side closing on its own, resets as resets, servers that speak first, TLS of the app."""

import socket
import ssl
import struct
import subprocess
import threading
import time

from . import wire
from .backend import BLOCK, Server
from .check import case, equal, eventually

MIB = 1 << 20
SIZE = 8 * MIB


class Talker(Server):
    """Does what the first line of a connection says."""

    def __init__(self):
        self.heard = []
        super().__init__()

    def serve(self, sock):
        reader = wire.Reader(sock)
        getattr(self, reader.until(b"\n").decode())(sock, reader)

    def echo(self, sock, reader):
        """Everything back, and a word after its end."""
        data = reader.buffer
        while data or (data := sock.recv(1 << 16)):
            sock.sendall(data)
            data = b""
        sock.sendall(b"end")

    def finish(self, sock, reader):
        """Ends its own side first, and goes on listening."""
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        self.heard.append(reader.rest())

    def reset(self, sock, _reader):
        sock.sendall(b"going")
        time.sleep(0.1)
        abort(sock)

    def wait(self, _sock, reader):
        """Notes how the client ends."""
        try:
            self.heard.append(reader.rest())
        except ConnectionResetError:
            self.heard.append("reset")

    def pour(self, sock, _reader):
        for _ in range(SIZE // len(BLOCK)):
            sock.sendall(BLOCK)


class Greeter(Server):
    """Speaks first, then echoes."""

    def serve(self, sock):
        sock.sendall(b"220 ready\r\n")
        while data := sock.recv(1 << 16):
            sock.sendall(data)


class Secure(Server):
    """A TLS server: tells which name it was asked by and which protocol was agreed on, then echoes."""

    def __init__(self, folder):
        key, self.cert = folder / "secure-key.pem", folder / "secure.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                        "-subj", "/CN=secure", "-addext", "subjectAltName=DNS:secure.example", "-keyout", str(key), "-out", str(self.cert)],
                       check=True, capture_output=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.cert, key)
        self.context.set_alpn_protocols(["h2", "http/1.1", "shout"])
        self.context.sni_callback = lambda connection, name, _: setattr(connection, "asked", name)
        super().__init__()

    def serve(self, sock):
        with self.context.wrap_socket(sock, server_side=True) as secured:
            secured.sendall(f"{secured.asked} {secured.selected_alpn_protocol()}\n".encode())
            while data := secured.recv(1 << 16):
                secured.sendall(data)


def abort(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def dial(env, service, first=b""):
    client = wire.Client(env.addresses[service])
    client.send(first)
    return client


@case("opaque")
def a_client_that_ends_its_side_still_hears_the_rest(env):
    for service in ("tcp", "any-tcp"):
        with dial(env, service, b"echo\nhello") as client:
            equal(client.exactly(5), b"hello")
            client.sock.shutdown(socket.SHUT_WR)
            equal(client.rest(), b"end")


@case("opaque")
def a_server_that_ends_its_side_still_hears_the_rest(env):
    for service in ("tcp", "any-tcp"):
        env.apps.talker.heard.clear()
        with dial(env, service, b"finish\n") as client:
            equal(client.rest(), b"bye")
            client.send(b"x" * MIB)
            client.send(b"and more")
            client.sock.shutdown(socket.SHUT_WR)
            eventually("the server has all of it", lambda: env.apps.talker.heard == [b"x" * MIB + b"and more"])


@case("opaque")
def a_reset_of_the_server_is_a_reset_for_the_client(env):
    for service in ("tcp", "any-tcp"):
        with dial(env, service, b"reset\n") as client:
            equal(client.exactly(5), b"going")
            try:
                equal(client.sock.recv(1), None, "an end that looks like a whole one")
            except ConnectionResetError:
                pass


@case("opaque")
def a_reset_of_the_client_is_a_reset_for_the_server(env):
    for service in ("tcp", "any-tcp"):
        env.apps.talker.heard.clear()
        client = dial(env, service, b"wait\n")
        client.send(b"some")
        eventually("the server is reached", lambda: env.apps.talker.connections > 0)
        time.sleep(0.2)
        abort(client.sock)
        eventually("the server hears of it", lambda: env.apps.talker.heard == ["reset"])


@case("opaque")
def much_passes_both_ways_at_once(env):
    with dial(env, "tcp", b"echo\n") as client:
        def send():
            for _ in range(SIZE // len(BLOCK)):
                client.sock.sendall(BLOCK)
            client.sock.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        got = client.rest()
        sender.join()
        equal((len(got), got[:len(BLOCK)] == BLOCK, got[-3:]), (SIZE + 3, True, b"end"))


@case("opaque")
def a_reader_that_stops_holds_up_its_own_connection_alone(env):
    before = env.forget_memory_peak()
    with dial(env, "tcp", b"pour\n") as client:
        time.sleep(0.3)
        with dial(env, "tcp", b"echo\nhello") as other:
            equal(other.exactly(5), b"hello")
        equal(len(client.rest()), SIZE)
    assert env.memory_peak() - before < 24 * MIB


@case("opaque")
def a_server_that_speaks_first_is_heard_at_once_where_tcp_is_declared(env):
    timeouts = detection_timeouts(env)
    for _ in range(5):
        with dial(env, "greeter") as client:
            equal(client.until(b"\r\n"), b"220 ready")
            client.send(b"GET / HTTP/1.1\r\n")
            equal(client.until(b"\r\n"), b"GET / HTTP/1.1", "bytes are not looked at")
    equal(detection_timeouts(env), timeouts, "connections that detection waited for")


@case("opaque")
def a_server_that_speaks_first_is_heard_after_a_wait_where_nothing_is_declared_and_that_is_counted(env):
    timeouts = detection_timeouts(env)
    with dial(env, "any-greeter") as client:
        equal(client.until(b"\r\n"), b"220 ready")
        client.send(b"QUIT\r\n")
        equal(client.until(b"\r\n"), b"QUIT")
    if timeouts is not None:
        equal(detection_timeouts(env), timeouts + 1)


@case("opaque")
def a_client_that_waits_where_http_is_declared_is_not_counted_and_is_served(env):
    timeouts = detection_timeouts(env)
    with dial(env, "echo") as client:
        time.sleep(0.5)
        equal(client.get("/late").status, 200)
    equal(detection_timeouts(env), timeouts)


@case("opaque")
def the_beginning_of_a_request_is_waited_for(env):
    with dial(env, "any", b"GE") as client:
        time.sleep(0.1)
        client.send(b"T /in-two HTTP/1.1\r\nHost: any\r\n\r\n")
        equal(client.response().status, 200)
    with dial(env, "any-tcp", b"ec") as client:
        time.sleep(0.5)
        client.send(b"ho\nhello")
        equal(client.exactly(5), b"hello")


@case("opaque")
def tls_of_the_app_passes_unread_with_its_name_and_protocol(env):
    for service in ("tls", "any-tls"):
        for protocols, agreed in ((["shout"], "shout"), (["http/1.1"], "http/1.1"), (["h2"], "h2")):
            context = ssl.create_default_context(cafile=env.apps.secure.cert)
            context.set_alpn_protocols(protocols)
            with socket.create_connection(env.addresses[service], timeout=10) as sock:
                with context.wrap_socket(sock, server_hostname="secure.example") as secured:
                    said = secured.recv(100)
                    equal(said, f"secure.example {agreed}\n".encode())
                    secured.sendall(b"x" * 100_000)
                    got = 0
                    while got < 100_000:
                        got += len(secured.recv(1 << 16))


@case("opaque")
def a_service_that_is_down_is_a_reset(env):
    for service in ("tcp-down",):
        with dial(env, service) as client:
            try:
                equal(client.sock.recv(1), b"", "something came")
            except ConnectionResetError:
                pass


def detection_timeouts(env):
    """How often detection has waited in vain; `None` where there is no page of one proxy."""
    return env.metric("leno_detection_timeouts_total")
