"""WebSocket as Autobahn's test suite has it (framing, pings, fragments, text, closing, sizes), through the proxies, over HTTP/1.1 and
over HTTP/2's extended CONNECT (RFC 8441). Frames are made by hand; both servers speak with Python's `websockets`.

What frames mean is the business of the two ends: each case must come out as it would without a proxy in between."""

import base64
import hashlib
import os
import socket
import struct

import h2.config
import h2.connection
import h2.events
import h2.settings
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, Side
from websockets.server import ServerProtocol

from . import frames, wire
from .backend import Server
from .check import case, equal, table

MIB = 1 << 20
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode, payload=b"", fin=True, reserved=0, mask=MASK, claim=None):
    """One frame of a client; `claim` states another length."""
    length = len(payload) if claim is None else claim
    size = bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length) if length < 1 << 16 else b"\x7f" + struct.pack(">Q", length)
    if mask:
        size = bytes([size[0] | 0x80]) + size[1:]
        repeated = (mask * (len(payload) // 4 + 1))[:len(payload)]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
    return bytes([(0x80 if fin else 0) | reserved << 4 | opcode]) + size + (mask or b"") + payload


def text(payload, **more):
    return frame(TEXT, payload.encode() if isinstance(payload, str) else payload, **more)


def close(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


def fragments(opcode, parts):
    last = len(parts) - 1
    return b"".join(frame(CONTINUED if place else opcode, part, fin=place == last) for place, part in enumerate(parts))


ECHO = "Hello-µ@ßöäüàá-UTF-8!!".encode()

ROWS = [(f"1.1 text of {size} bytes", text(b"*" * size), [(TEXT, b"*" * size)]) for size in (0, 125, 126, 127, 128, 65535, 65536)]
ROWS += [(f"1.2 binary of {size} bytes", frame(BINARY, b"\xfe" * size), [(BINARY, b"\xfe" * size)]) for size in (0, 125, 126, 127, 128, 65535, 65536)]
ROWS += [
    ("2.1 a ping without payload", frame(PING), [(PONG, b"")]),
    ("2.2 a ping with text", frame(PING, b"Hello, world!"), [(PONG, b"Hello, world!")]),
    ("2.3 a ping with bytes that are no text", frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), [(PONG, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")]),
    ("2.4 a ping of 125 bytes", frame(PING, b"\xfe" * 125), [(PONG, b"\xfe" * 125)]),
    ("2.5 a ping of 126 bytes", frame(PING, b"\xfe" * 126), [(CLOSE, 1002)]),
    ("2.7 a pong nobody asked for", frame(PONG) + frame(PING, b"x"), [(PONG, b"x")]),
    ("2.8 a pong with payload", frame(PONG, b"unsolicited") + frame(PING, b"x"), [(PONG, b"x")]),
    ("2.10 ten pings at once", b"".join(frame(PING, b"payload-%d" % number) for number in range(10)), [(PONG, b"payload-%d" % number) for number in range(10)]),
]
ROWS += [(f"3.{bits} reserved bits {bits}", text("x", reserved=bits), [(CLOSE, 1002)]) for bits in range(1, 8)]
ROWS += [(f"4.{opcode} opcode {opcode}", frame(opcode, b"x"), [(CLOSE, 1002)]) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)]
ROWS += [
    ("5.1 a ping in two fragments", fragments(PING, [b"a", b"b"]), [(CLOSE, 1002)]),
    ("5.2 a pong in two fragments", fragments(PONG, [b"a", b"b"]), [(CLOSE, 1002)]),
    ("5.3 text in two fragments", fragments(TEXT, [b"fragment1", b"fragment2"]), [(TEXT, b"fragment1fragment2")]),
    ("5.6 a ping between fragments", frame(TEXT, b"fragment1", fin=False) + frame(PING, b"between") + frame(CONTINUED, b"fragment2"),
     [(PONG, b"between"), (TEXT, b"fragment1fragment2")]),
    ("5.9 a continuation of nothing", frame(CONTINUED, b"x") + text("y"), [(CLOSE, 1002)]),
    ("5.10 a continuation of nothing, to go on", frame(CONTINUED, b"x", fin=False), [(CLOSE, 1002)]),
    ("5.15 a continuation after the end", fragments(TEXT, [b"a", b"b"]) + frame(CONTINUED, b"c", fin=False), [(TEXT, b"ab"), (CLOSE, 1002)]),
    ("5.18 text within fragments", frame(TEXT, b"a", fin=False) + text("b"), [(CLOSE, 1002)]),
    ("5.19 pings among five fragments", frame(TEXT, b"1", fin=False) + frame(CONTINUED, b"2", fin=False) + frame(PING, b"p1") + frame(CONTINUED, b"3", fin=False)
     + frame(CONTINUED, b"4", fin=False) + frame(PING, b"p2") + frame(CONTINUED, b"5"), [(PONG, b"p1"), (PONG, b"p2"), (TEXT, b"12345")]),
    ("6.1 text of empty fragments", fragments(TEXT, [b"", b"", b""]), [(TEXT, b"")]),
    ("6.2 text cut within a character", fragments(TEXT, [ECHO[:8], ECHO[8:]]), [(TEXT, ECHO)]),
    ("6.2 text in fragments of one byte", fragments(TEXT, [ECHO[at:at + 1] for at in range(len(ECHO))]), [(TEXT, ECHO)]),
    ("6.3 text that is none", text(b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"), [(CLOSE, 1007)]),
    ("6.8 text that ends early", text(b"\xf8\x88\x80\x80\x80"), [(CLOSE, 1007)]),
    ("7.1 a message, then the end", text("Hello") + close(1000), [(TEXT, b"Hello"), (CLOSE, 1000)]),
    ("7.1 what follows the end", close(1000) + text("too late"), [(CLOSE, 1000)]),
    ("7.1 the end twice", close(1000) + close(1000), [(CLOSE, 1000)]),
    ("7.1 the end within fragments", frame(TEXT, b"a", fin=False) + close(1000), [(CLOSE, 1002)]),
    ("7.3 an end without a code", close(), [(CLOSE, 1005)]),
    ("7.3 an end of one byte", frame(CLOSE, b"a"), [(CLOSE, 1002)]),
    ("7.3 an end with a reason", close(1000, b"Hello World!"), [(CLOSE, 1000)]),
    ("7.3 an end with a reason of 123 bytes", close(1000, b"*" * 123), [(CLOSE, 1000)]),
    ("7.3 an end with a reason of 124 bytes", close(1000, b"*" * 124), [(CLOSE, 1002)]),
    ("7.5 an end whose reason is no text", close(1000, b"\xce\xba\xed\xa0\x80"), [(CLOSE, 1007)]),
]
ROWS += [(f"7.7 the end with {code}", close(code), [(CLOSE, code)]) for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)]
ROWS += [(f"7.9 the end with {code}", close(code), [(CLOSE, 1002)]) for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)]
ROWS += [
    ("9.1 text of 1 MiB", text(b"*" * MIB), [(TEXT, b"*" * MIB)]),
    ("9.2 binary of 4 MiB", frame(BINARY, b"\xfe" * 4 * MIB), [(BINARY, b"\xfe" * 4 * MIB)]),
    ("9.3 text of 1 MiB in fragments of 4 KiB", fragments(TEXT, [b"*" * 4096] * 256), [(TEXT, b"*" * MIB)]),
    ("9.4 binary of 1 MiB in fragments of 64 bytes", fragments(BINARY, [b"\xfe" * 64] * 16384), [(BINARY, b"\xfe" * MIB)]),
    ("9.7 a thousand messages", text(b"*" * 64) * 1000, [(TEXT, b"*" * 64)] * 1000),
    ("a message that is not masked", text("x", mask=None), [(CLOSE, 1002)]),
]
# Bytes are sent one by one where there are few of them.
FEW = 300


class Echo:
    """Answers each message with itself, by the rules of Python's `websockets`. Mixed into one of its protocols."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.parts = []

    def recv_frame(self, frame):
        super().recv_frame(frame)
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        self.parts.append(frame)
        if not frame.fin:
            return
        whole, kind = b"".join(part.data for part in self.parts), self.parts[0].opcode
        self.parts.clear()
        if kind is Opcode.BINARY:
            self.send_binary(whole)
            return
        try:
            whole.decode()
        except UnicodeDecodeError:
            self.fail(1007)
        else:
            self.send_text(whole)

    def answer(self, data):
        """Takes bytes: what is to be sent, and whether that is all."""
        self.receive_data(data)
        self.events_received()
        sent = self.data_to_send()
        return b"".join(sent), b"" in sent


class Echo2(Echo, Protocol):
    pass


class Echo1(Echo, ServerProtocol):
    pass


class OverHttp1(Server):
    """An HTTP/1.1 server that takes WebSockets."""

    def serve(self, sock):
        echo = Echo1(max_size=None)
        while data := sock.recv(1 << 16):
            echo.receive_data(data)
            for event in echo.events_received():
                if isinstance(event, Request):
                    echo.send_response(echo.accept(event))
            for part in echo.data_to_send():
                if part:
                    sock.sendall(part)
                else:
                    sock.shutdown(socket.SHUT_WR)


class OverHttp2(Server):
    """An HTTP/2 server that takes WebSockets by extended CONNECT."""

    def serve(self, sock):
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        codes = h2.settings.SettingCodes
        connection.local_settings = h2.settings.Settings(client=False, initial_values={codes.ENABLE_CONNECT_PROTOCOL: 1, codes.MAX_CONCURRENT_STREAMS: 100})
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        streams = {}
        while data := sock.recv(1 << 16):
            for event in connection.receive_data(data):
                self.take(connection, event, streams)
            self.flush(connection, streams)
            sock.sendall(connection.data_to_send())

    @staticmethod
    def take(connection, event, streams):
        match event:
            case h2.events.RequestReceived():
                asked = dict(event.headers)
                taken = (asked.get(b":method"), asked.get(b":protocol"), asked.get(b":path")) == (b"CONNECT", b"websocket", b"/chat")
                connection.send_headers(event.stream_id, [(":status", "200" if taken else "404")], end_stream=not taken)
                if taken:
                    streams[event.stream_id] = [Echo2(Side.SERVER, max_size=None), b"", False]
            case h2.events.DataReceived():
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.stream_id in streams:
                    stream = streams[event.stream_id]
                    more, ended = stream[0].answer(event.data)
                    stream[1], stream[2] = stream[1] + more, stream[2] or ended
            case h2.events.StreamEnded():
                if event.stream_id in streams:
                    streams[event.stream_id][2] = True
            case h2.events.StreamReset():
                streams.pop(event.stream_id, None)

    @staticmethod
    def flush(connection, streams):
        for number, stream in list(streams.items()):
            out = memoryview(stream[1])
            while room := min(connection.local_flow_control_window(number), connection.max_outbound_frame_size, len(out)):
                connection.send_data(number, bytes(out[:room]))
                out = out[room:]
            stream[1] = bytes(out)
            if not stream[1] and stream[2]:
                connection.end_stream(number)
                del streams[number]


class Http1:
    """A WebSocket of HTTP/1.1."""

    def __init__(self, env):
        self.client = wire.Client(env.addresses["websocket1"])
        key = base64.b64encode(os.urandom(16))
        self.client.send(b"GET /chat HTTP/1.1\r\nHost: websocket1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                         b"Sec-WebSocket-Key: " + key + b"\r\n\r\n")
        answer = self.client.head(wire.STATUS_LINE)
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        equal((answer.status, answer.field("sec-websocket-accept")), (101, accept))

    def send(self, data):
        try:
            self.client.send(data)
        except OSError:
            pass  # it has ended the connection for what came before

    def read(self):
        if self.client.buffer:
            data, self.client.buffer = self.client.buffer, b""
            return data
        try:
            return self.client.sock.recv(1 << 18)
        except ConnectionResetError:
            return b""

    def end(self):
        self.client.sock.close()


class Http2(Http1):
    """A WebSocket that is a stream of HTTP/2."""

    def __init__(self, env, path="/chat", client=None, stream=1):
        self.client, self.stream = client or frames.Client(env.addresses["websocket2"]), stream
        self.window, self.stream_window, self.waiting, self.status = 65535, 65535, b"", None
        self.client.send(frames.settings((4, 1 << 24)) + frames.window(1 << 24) + frames.headers([
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path), (":authority", "websocket2"),
            ("sec-websocket-version", "13"), ("origin", "http://websocket2")], self.stream, end=False))
        while self.status is None:
            self.step()

    def send(self, data):
        self.waiting += data
        self.flush()

    def flush(self):
        out = memoryview(self.waiting)
        while room := min(self.window, self.stream_window, 16384, len(out)):
            self.client.quietly(frames.data(bytes(out[:room]), self.stream, end=False))
            self.window, self.stream_window, out = self.window - room, self.stream_window - room, out[room:]
        self.waiting = bytes(out)

    def read(self):
        while True:
            data = self.step()
            if data is not None:
                return data

    def step(self):
        """Takes one frame: content, `b""` at the end, `None` for anything else."""
        head = self.client.exactly(9)
        length, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        payload = self.client.exactly(length)
        if kind == frames.SETTINGS and not flags & frames.ACK:
            for at in range(0, length, 6):
                key, value = struct.unpack(">HI", payload[at:at + 6])
                if key == 4:
                    self.stream_window += value - 65535
                if key == 8:
                    self.takes_protocols = value == 1
            self.client.quietly(frames.frame(frames.SETTINGS, frames.ACK))
        elif kind == frames.WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            self.window, self.stream_window = self.window + (more if not stream else 0), self.stream_window + (more if stream == self.stream else 0)
        elif kind == frames.HEADERS and stream == self.stream:
            self.status = dict(self.client.decoder.decode(payload))[":status"]
        elif kind == frames.DATA and stream == self.stream:
            self.client.quietly(frames.window(length) + frames.window(length, stream) if length else b"")
            return payload if payload or flags & frames.END_STREAM else None
        elif kind in (frames.RST_STREAM, frames.GOAWAY):
            return b""
        self.flush()
        return None


def run_on(transport):
    def run(env, row):
        _, sent, want = row
        for pieces in ([sent], [sent[at:at + 1] for at in range(len(sent))]) if len(sent) <= FEW else ([sent],):
            socket_ = transport(env)
            for piece in pieces:
                socket_.send(piece)
            got = receive(socket_, len(want))
            socket_.end()
            brief = lambda messages: [(kind, said if isinstance(said, int) else (len(said), said[:20])) for kind, said in messages[:5]]
            assert got == want, f"got {brief(got)}, want {brief(want)}"
    return run


def receive(socket_, count):
    """The messages, pongs and the end that come back, `count` of them."""
    reader, got, parts = Protocol(Side.CLIENT, max_size=None), [], []
    while len(got) < count:
        data = socket_.read()
        if not data:
            break
        reader.receive_data(data)
        for event in reader.events_received():
            if event.opcode is Opcode.CLOSE:
                got.append((CLOSE, reader.close_rcvd.code))
            elif event.opcode in (Opcode.PONG, Opcode.PING):
                got.append((event.opcode.value, bytes(event.data)))
            else:
                parts.append(event)
                if event.fin:
                    got.append((parts[0].opcode.value, b"".join(part.data for part in parts)))
                    parts = []
    return got


table("WebSocket over HTTP/1.1", ROWS, run_on(Http1))
table("WebSocket over HTTP/2", ROWS, run_on(Http2))


@case("WebSocket over HTTP/2")
def many_sockets_share_a_connection_with_requests(env):
    sockets = []
    client = None
    for stream in range(1, 40, 2):
        sockets.append(Http2(env, client=client, stream=stream))
        client = sockets[0].client
        equal(sockets[-1].status, "200")
    for socket_ in sockets:
        socket_.send(text(f"to {socket_.stream}"))
        equal(receive(socket_, 1), [(TEXT, f"to {socket_.stream}".encode())])
    sockets[0].end()


@case("WebSocket over HTTP/2")
def the_proxy_says_that_it_takes_protocols_and_an_app_may_decline(env):
    socket_ = Http2(env, path="/elsewhere")
    equal((socket_.status, socket_.takes_protocols), ("404", True))
    socket_.end()


@case("WebSocket over HTTP/2")
def an_app_that_cannot_change_protocols_is_said_to_be_so(env):
    with frames.Client(env.addresses["files2"]) as client:
        client.send(frames.headers([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"), (":authority", "files2")], end=False))
        equal(client.response()[0], 501)


@case("WebSocket over HTTP/1.1")
def a_side_that_ends_without_a_word_ends_the_other(env):
    socket_ = Http1(env)
    socket_.send(text("hello"))
    equal(receive(socket_, 1), [(TEXT, b"hello")])
    socket_.client.sock.shutdown(socket.SHUT_WR)
    while socket_.read():
        pass
    socket_.end()
