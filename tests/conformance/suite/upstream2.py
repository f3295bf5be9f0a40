"""HTTP/2 servers that answer wrongly: as in `upstream`, with frames.

Each row: what the client must see, a status with its content or BROKEN (a 502, or a stream that is reset after it began), and
the frames that the server sends on the request's stream. After each row requests get their own answers."""

import struct

import hpack

from . import frames, wire
from .backend import Server
from .check import equal, table
from .frames import *

BROKEN = "a 502 or a reset"
CLOSE = "close the connection"
OK = [(":status", "200")]


def answer(stream, fields, body=None, end=True):
    """A response head, and its content where there is one."""
    return headers(fields, stream, end and body is None) + (b"" if body is None else data(body, stream, end))


ROWS = [
    ("well-formed", (200, b"hello"), lambda it: [answer(it, OK, b"hello")]),
    ("trailers", (200, b"hello"), lambda it: [answer(it, OK, b"hello", False) + headers([("x-sum", "5")], it)]),
    ("interim responses", (200, b"hello"), lambda it: [headers([(":status", "103"), ("link", "</a>")], it, False) * 5 + answer(it, OK, b"hello")]),
    ("interim responses without end", BROKEN, lambda it: [headers([(":status", "103"), ("link", "</a>")], it, False) * 5000 + answer(it, OK, b"hello")]),
    ("no status", BROKEN, lambda it: [answer(it, [("x", "1")], b"hello")]),
    ("a status of letters", BROKEN, lambda it: [answer(it, [(":status", "abc")], b"hello")]),
    ("a status of four digits", BROKEN, lambda it: [answer(it, [(":status", "2000")], b"hello")]),
    ("a status below 100", BROKEN, lambda it: [answer(it, [(":status", "099")], b"hello")]),
    ("a status twice", BROKEN, lambda it: [answer(it, OK + OK, b"hello")]),
    ("a status behind a field", BROKEN, lambda it: [answer(it, [("x", "1")] + OK, b"hello")]),
    ("a pseudo field of requests is dropped", (200, b"hello"), lambda it: [answer(it, OK + [(":path", "/")], b"hello")]),
    ("a change of protocol", BROKEN, lambda it: [answer(it, [(":status", "101")], b"hello")]),
    ("a name in capitals", BROKEN, lambda it: [answer(it, OK + [("X-Up", "1")], b"hello")]),
    ("a value with a line end", BROKEN, lambda it: [answer(it, OK + [("x", "1\r\nset-cookie: a")], b"hello")]),
    ("a value with NUL", BROKEN, lambda it: [answer(it, OK + [("x", "1\x00")], b"hello")]),
    ("connection", BROKEN, lambda it: [answer(it, OK + [("connection", "close")], b"hello")]),
    ("transfer-encoding", BROKEN, lambda it: [answer(it, OK + [("transfer-encoding", "chunked")], b"hello")]),
    ("content before the head", BROKEN, lambda it: [data(b"hello", it)]),
    ("less content than its length", BROKEN, lambda it: [answer(it, OK + [("content-length", "10")], b"hello")]),
    ("more content than its length", BROKEN, lambda it: [answer(it, OK + [("content-length", "3")], b"hello")]),
    ("lengths that differ", BROKEN, lambda it: [answer(it, OK + [("content-length", "5"), ("content-length", "6")], b"hello")]),
    ("a length that is no number", BROKEN, lambda it: [answer(it, OK + [("content-length", "+5")], b"hello")]),
    ("a reset before the head", BROKEN, lambda it: [reset(2, it)]),
    ("a reset after the head", BROKEN, lambda it: [answer(it, OK, b"hello", False), reset(2, it)]),
    ("the end after the head", BROKEN, lambda it: [answer(it, OK, b"hello", False), CLOSE]),
    ("the end within a frame", BROKEN, lambda it: [answer(it, OK, b"hello", False) + frame(DATA, 1, it, b"x", length=100), CLOSE]),
    ("a GOAWAY that gives the request up", BROKEN, lambda it: [frame(GOAWAY, 0, 0, struct.pack(">II", 0, 2)), CLOSE]),
    ("an answer, then GOAWAY", (200, b"hello"), lambda it: [answer(it, OK, b"hello") + frame(GOAWAY, 0, 0, struct.pack(">II", it, 0)), CLOSE]),
    ("a push promise", BROKEN, lambda it: [frame(PUSH_PROMISE, END_HEADERS, it, struct.pack(">I", 2) + block(GET)) + answer(it, OK, b"hello")]),
    ("garbage", BROKEN, lambda it: [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", CLOSE]),
    ("a frame above the maximum", BROKEN, lambda it: [answer(it, OK, b"x" * 17_000_000)]),
    ("a field that refers to no entry", BROKEN, lambda it: [headers(b"\xff\xff\x7f", it)]),
    ("a window beyond 2 GiB", BROKEN, lambda it: [answer(it, OK, b"he", False) + window(0x7FFFFFFF) * 2]),
    ("a head of 1 MiB", BROKEN, lambda it: [large_head(it)]),
    ("a second answer on the stream", (200, b"hello"), lambda it: [answer(it, OK, b"hello") + answer(it, OK, b"poison")]),
    ("an answer nobody asked for", (200, b"hello"), lambda it: [answer(it, OK, b"hello"), answer(it + 2, OK, b"poison")]),
]
NUMBERS = {name: number for number, (name, _, _) in enumerate(ROWS)}


def large_head(stream):
    parts = [block([("x-large", "v" * 15_000)]) for _ in range(70)]
    return (headers(block(OK), stream, False, 0) + b"".join(frame(CONTINUATION, 0, stream, part) for part in parts)
            + frame(CONTINUATION, END_HEADERS, stream))


class Scripted(Server):
    """Answers `GET /NUMBER` with the frames of that row, and all else with the path as the content."""

    def serve(self, sock):
        reader, decoder = wire.Reader(sock), hpack.Decoder()
        if reader.exactly(len(PREFACE)) != PREFACE:
            return
        sock.sendall(settings())
        while True:
            try:
                head = reader.exactly(9)
                payload = reader.exactly(int.from_bytes(head[:3], "big"))
            except wire.Closed:
                return
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == SETTINGS and not flags & ACK:
                sock.sendall(frame(SETTINGS, ACK))
            elif kind == PING and not flags & ACK:
                sock.sendall(frame(PING, ACK, 0, payload))
            elif kind == HEADERS:
                path = dict(decoder.decode(payload))[":path"]
                if not self.answer(sock, stream, path):
                    return

    @staticmethod
    def answer(sock, stream, path):
        number = path.strip("/")
        parts = ROWS[int(number)][2](stream) if number.isdigit() else [answer(stream, OK, path.encode())]
        for part in parts:
            if part == CLOSE:
                return False
            sock.sendall(part)
        return True


def get(path):
    return [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "scripted2")]


def run(env, row):
    name, want, _ = row
    with frames.Client(env.addresses["scripted2"]) as client:
        client.send(headers(get(f"/{NUMBERS[name]}")))
        try:
            status, fields, content, _ = client.response()
        except Reset:
            assert want is BROKEN, "the stream was reset"
        else:
            assert b"poison" not in content
            equal([name for name, _ in fields if name.startswith(":")], [":status"])
            if want is BROKEN:
                equal(status, 502, f"status of a response with {content[:100]!r}")
            else:
                equal((status, content), want)
        for stream in (3, 5, 7):
            check_own_answer(client, stream, "same")
    with frames.Client(env.addresses["scripted2"]) as client:
        check_own_answer(client, 1, "other")


def check_own_answer(client, stream, who):
    path = f"/mine/{who}/{stream}"
    client.send(headers(get(path), stream))
    status, _, content, _ = client.response(stream)
    equal((status, content), (200, path.encode()), "the answer to a later request")


table("HTTP/2 upstream", ROWS, run)
