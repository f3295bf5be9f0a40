"""The cases of h2spec (and a few more), by section of RFC 9113 and RFC 7541, each with the errors that the section allows.

What a row sends is followed by a ping: a connection that is to go on must answer it. `Stream(codes)`: the stream, or the whole
connection, ends with one of these codes, or the request is answered with 4xx. `Connection(codes)`: the connection ends, and its GOAWAY,
where one is heard, has one of these codes or PROTOCOL_ERROR. `Served(count)`: so many responses of 200 come."""

import hpack

from . import wire
from .check import equal, table
from .frames import *
from .http2 import (CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, INTERNAL_ERROR, PROTOCOL_ERROR,
                    REFUSED_STREAM, STREAM_CLOSED, check_served, with_field, without)


class Stream:
    def __init__(self, *codes):
        self.codes = codes


class Connection(Stream):
    pass


class Served:
    def __init__(self, count=1):
        self.count = count


PING_FRAME = frame(PING, 0, 0, b"h2spec!!")
OPEN = headers(POST, end=False)
PRIORITY_SELF = struct.pack(">IB", 1, 255)
HEAD = [(":method", "HEAD"), *GET[1:]]
OPTIONS = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "http2")]


def coded(fields, **more):
    """A block as an HPACK encoder makes it: indexed, with Huffman codes."""
    return hpack.Encoder().encode(fields, **more)


def padded(kind, flags, payload, padding):
    return frame(kind, flags | PADDED, 1, bytes([padding]) + payload + b"\0" * padding)


TRAILERS = OPEN + data(b"x", end=False)
BROKEN = (PROTOCOL_ERROR, STREAM_CLOSED)

GENERIC = [
    ("generic 1 the preface", Served(0), b""),
    ("generic 2 an idle stream may be prioritised", Served(), frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 16)) + headers(GET)),
    ("generic 2 a window update on a half-closed stream", Served(), headers(GET) + window(1, 1)),
    ("generic 2 a priority on a half-closed stream", Served(), headers(GET) + frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 16))),
    ("generic 3.1 data", Served(), OPEN + data(b"test")),
    ("generic 3.1 data in several frames", Served(), OPEN + data(b"te", end=False) + data(b"st")),
    ("generic 3.1 padded data", Served(), OPEN + padded(DATA, END_STREAM, b"test", 6)),
    ("generic 3.1 data that is only padding", Served(), OPEN + padded(DATA, END_STREAM, b"", 255)),
    ("generic 3.2 headers", Served(), headers(GET)),
    ("generic 3.2 padded headers", Served(), padded(HEADERS, END_STREAM | END_HEADERS, block(GET), 6)),
    ("generic 3.2 headers with a priority", Served(), headers(struct.pack(">IB", 0, 255) + block(GET), flags=END_HEADERS | 0x20)),
    ("generic 3.2 headers with a priority and padding", Served(),
     frame(HEADERS, END_STREAM | END_HEADERS | PADDED | 0x20, 1, b"\x04" + struct.pack(">IB", 0, 255) + block(GET) + b"\0" * 4)),
    ("generic 3.3 a priority", Served(), frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 255)) + headers(GET)),
    ("generic 3.3 a priority that excludes", Served(), frame(PRIORITY, 0, 1, struct.pack(">IB", 1 << 31, 255)) + headers(GET)),
    ("generic 3.3 a priority of a stream that is not there", Served(), frame(PRIORITY, 0, 1, struct.pack(">IB", 77, 0)) + headers(GET)),
    ("generic 3.4 a reset", Served(0), headers(POST, end=False) + reset()),
    ("generic 3.5 settings", Served(0), settings((3, 100), (4, 65535))),
    ("generic 3.7 a ping", Served(0), frame(PING, 0, 0, b"12345678")),
    ("generic 3.8 a window update of the connection", Served(), window(1) + headers(GET)),
    ("generic 3.9 a window update of a stream", Served(), OPEN + window(1, 1) + data(b"x")),
    ("generic 3.10 a continuation", Served(), headers(block(GET)[:9], flags=0) + frame(CONTINUATION, END_HEADERS, 1, block(GET)[9:])),
    ("generic 3.10 several continuations", Served(), headers(block(GET)[:9], flags=0) + frame(CONTINUATION, 0, 1, block(GET)[9:20])
     + frame(CONTINUATION, END_HEADERS, 1, block(GET)[20:])),
    ("generic 4 GET", Served(), headers(GET)),
    ("generic 4 HEAD", Served(), headers(HEAD)),
    ("generic 4 POST", Served(), OPEN + data(b"x")),
    ("generic 4 POST with trailers", Served(), TRAILERS + headers([("x-sum", "1")])),
    ("generic 4 OPTIONS of everything", Served(), headers(OPTIONS)),
    ("generic 5 indexed fields", Served(), headers(coded([(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "http2")]))),
    ("generic 5 literals with indexing", Served(2), headers(coded(GET + [("x-custom", "1")])) + headers(coded(GET + [("x-custom", "1")]), 3)),
    ("generic 5 literals without Huffman codes", Served(), headers(coded(GET + [("x-custom", "1")], huffman=False))),
    ("generic 5 literals never indexed", Served(), headers(block(GET) + b"\x10" + number(4) + b"x-me" + number(1) + b"1")),
    ("generic 5 a change of the table's size", Served(), headers(b"\x20\x3f\xe1\x1f" + block(GET))),
]

FRAMES = [
    ("3.4 the preface without settings", Connection(PROTOCOL_ERROR), None),
    ("4.1 a frame of an unknown kind", Served(), frame(0x16, 0, 0, b"\0" * 8) + headers(GET)),
    ("4.1 undefined flags", Served(0), frame(PING, 0x16, 0, b"\0" * 8)),
    ("4.1 the reserved bit of the stream", Served(), frame(HEADERS, END_STREAM | END_HEADERS, 1 | 1 << 31, block(GET))),
    ("4.2 data of 16,384 bytes", Served(), OPEN + data(b"x" * 16384)),
    ("4.2 data above the maximum", Stream(FRAME_SIZE_ERROR), OPEN + data(b"x" * 16385)),
    ("4.2 headers above the maximum", Connection(FRAME_SIZE_ERROR), frame(HEADERS, END_STREAM | END_HEADERS, 1, block(GET + [("x", "v" * 17000)]))),
    ("4.3 a block that cannot be decoded", Connection(COMPRESSION_ERROR), headers(b"\xff\xff\xff\xff\xff\xff\xff\xff")),
    ("4.3 a priority within a block", Connection(PROTOCOL_ERROR), headers(block(GET), flags=0) + frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 9))),
    ("4.3 headers of another stream within a block", Connection(PROTOCOL_ERROR), headers(block(GET), flags=0) + headers(GET, 3)),
    ("5.1 idle: data", Connection(PROTOCOL_ERROR), data(b"x")),
    ("5.1 idle: a reset", Connection(PROTOCOL_ERROR), reset()),
    ("5.1 idle: a window update", Connection(PROTOCOL_ERROR), window(100, 1)),
    ("5.1 idle: a continuation", Connection(PROTOCOL_ERROR), frame(CONTINUATION, END_HEADERS, 1, block(GET))),
    ("5.1 half-closed: data", Stream(STREAM_CLOSED), headers([*GET[:2], (":path", "/never"), GET[3]]) + data(b"x")),
    ("5.1 half-closed: headers", Stream(STREAM_CLOSED), headers([*GET[:2], (":path", "/never"), GET[3]]) + headers(GET)),
    ("5.1 half-closed: a continuation", Connection(PROTOCOL_ERROR, STREAM_CLOSED), headers(GET) + frame(CONTINUATION, END_HEADERS, 1, block(GET))),
    ("5.1 closed by a reset: data", Stream(STREAM_CLOSED, CANCEL), OPEN + reset() + data(b"x")),
    ("5.1 closed by a reset: headers", Stream(STREAM_CLOSED, CANCEL), OPEN + reset() + headers(GET)),
    ("5.1 closed by a reset: a continuation", Connection(PROTOCOL_ERROR, STREAM_CLOSED), OPEN + reset() + frame(CONTINUATION, END_HEADERS, 1, b"")),
    ("5.1 closed: a priority", Served(0), OPEN + reset() + frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 9))),
    ("5.1 closed: a window update", Served(0), OPEN + reset() + window(1, 1)),
    ("5.1 closed: a reset", Served(0), OPEN + reset() + reset()),
    ("5.1.1 an even stream", Connection(PROTOCOL_ERROR), headers(GET, 2)),
    ("5.1.1 a stream below an earlier one", Connection(PROTOCOL_ERROR, STREAM_CLOSED), headers(GET, 5) + headers(GET, 3)),
    ("5.4.1 the connection closes after GOAWAY", Connection(PROTOCOL_ERROR), window(0)),
    ("5.5 unknown frames within a block", Connection(PROTOCOL_ERROR), headers(block(GET), flags=0) + frame(0x16, 0, 0, b"")),
]

KINDS = [
    ("6.1 data on no stream", Connection(PROTOCOL_ERROR), data(b"x", 0)),
    ("6.1 data on a stream that is over", Stream(STREAM_CLOSED), headers([*GET[:2], (":path", "/never"), GET[3]]) + data(b"test")),
    ("6.1 padding as long as the data", Connection(PROTOCOL_ERROR), OPEN + frame(DATA, END_STREAM | PADDED, 1, b"\x04xyz")),
    ("6.1 padding without its length", Connection(PROTOCOL_ERROR, FRAME_SIZE_ERROR), OPEN + frame(DATA, END_STREAM | PADDED, 1, b"")),
    ("6.2 headers without their end, then another frame", Connection(PROTOCOL_ERROR), headers(block(GET), flags=0) + PING_FRAME),
    ("6.2 headers on no stream", Connection(PROTOCOL_ERROR), headers(GET, 0)),
    ("6.2 headers padded beyond their length", Connection(PROTOCOL_ERROR), frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\xff" + block(GET))),
    ("6.2 headers too short for their priority", Connection(FRAME_SIZE_ERROR), frame(HEADERS, END_STREAM | END_HEADERS | 0x20, 1, b"\0\0")),
    ("6.3 a priority on no stream", Connection(PROTOCOL_ERROR), frame(PRIORITY, 0, 0, struct.pack(">IB", 1, 9))),
    ("6.3 a priority of four bytes", Stream(FRAME_SIZE_ERROR), OPEN + frame(PRIORITY, 0, 1, b"\0\0\0\0")),
    ("6.4 a reset on no stream", Connection(PROTOCOL_ERROR), reset(stream=0)),
    ("6.4 a reset of three bytes", Connection(FRAME_SIZE_ERROR), OPEN + frame(RST_STREAM, 0, 1, b"\0\0\0")),
    ("6.5 settings with ACK and content", Connection(FRAME_SIZE_ERROR), frame(SETTINGS, ACK, 0, b"\0" * 6)),
    ("6.5 settings on a stream", Connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 1, b"\0\1\0\0\0\1")),
    ("6.5 settings of three bytes", Connection(FRAME_SIZE_ERROR), frame(SETTINGS, 0, 0, b"\0\0\0")),
    ("6.5.2 push neither on nor off", Connection(PROTOCOL_ERROR), settings((2, 2))),
    ("6.5.2 a window above 2^31 - 1", Connection(FLOW_CONTROL_ERROR), settings((4, 1 << 31))),
    ("6.5.2 a frame below 16,384", Connection(PROTOCOL_ERROR), settings((5, 16383))),
    ("6.5.2 a frame above 2^24 - 1", Connection(PROTOCOL_ERROR), settings((5, 1 << 24))),
    ("6.5.2 a setting nobody knows", Served(), settings((0xFF, 1)) + headers(GET)),
    ("6.5.2 extended CONNECT neither on nor off", Connection(PROTOCOL_ERROR), settings((8, 2))),
    ("6.5.3 the same setting twice", Served(), settings((4, 100), (4, 70000)) + headers(GET)),
    ("6.7 a ping with ACK", Served(0), frame(PING, ACK, 0, b"invalid!")),
    ("6.7 a ping on a stream", Connection(PROTOCOL_ERROR), frame(PING, 0, 1, b"\0" * 8)),
    ("6.7 a ping of six bytes", Connection(FRAME_SIZE_ERROR), frame(PING, 0, 0, b"\0" * 6)),
    ("6.8 GOAWAY on a stream", Connection(PROTOCOL_ERROR), frame(GOAWAY, 0, 1, b"\0" * 8)),
    ("6.8 GOAWAY of seven bytes", Connection(FRAME_SIZE_ERROR), frame(GOAWAY, 0, 0, b"\0" * 7)),
    ("6.9 a window update of 0", Connection(PROTOCOL_ERROR), window(0)),
    ("6.9 a window update of 0 on a stream", Stream(PROTOCOL_ERROR), OPEN + window(0, 1)),
    ("6.9 a window update of three bytes", Connection(FRAME_SIZE_ERROR), frame(WINDOW_UPDATE, 0, 0, b"\0\0\1")),
    ("6.9.1 a window of the connection above 2^31 - 1", Connection(FLOW_CONTROL_ERROR), window(0x7FFFFFFF) * 2),
    ("6.9.1 a window of a stream above 2^31 - 1", Stream(FLOW_CONTROL_ERROR), OPEN + window(0x7FFFFFFF, 1) * 2),
    ("6.9.2 an initial window that overflows those that are open", Connection(FLOW_CONTROL_ERROR),
     headers([*GET[:2], (":path", "/never"), GET[3]]) + window(0x7FFFFFFF - 65535, 1) + settings((4, 0x7FFFFFFF))),
    ("6.10 continuations of several frames", Served(), headers(block(GET)[:4], flags=0) + frame(CONTINUATION, 0, 1, block(GET)[4:8])
     + frame(CONTINUATION, END_HEADERS, 1, block(GET)[8:])),
    ("6.10 a continuation, then another kind", Connection(PROTOCOL_ERROR), headers(block(GET), flags=0) + frame(CONTINUATION, 0, 1) + data(b"x")),
    ("6.10 a continuation on no stream", Connection(PROTOCOL_ERROR), headers(block(GET), flags=0) + frame(CONTINUATION, END_HEADERS, 0)),
    ("6.10 a continuation after the end of headers", Connection(PROTOCOL_ERROR), OPEN + frame(CONTINUATION, END_HEADERS, 1, block([("x", "1")]))),
    ("6.10 a continuation after a continuation with the end", Connection(PROTOCOL_ERROR),
     headers(block(POST), end=False, flags=0) + frame(CONTINUATION, END_HEADERS, 1) + frame(CONTINUATION, END_HEADERS, 1)),
    ("6.10 a continuation after data", Connection(PROTOCOL_ERROR), OPEN + data(b"x", end=False) + frame(CONTINUATION, END_HEADERS, 1)),
    ("7 GOAWAY with a code nobody knows", Served(0), frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0xFF))[:0] + PING_FRAME),
    ("7 a reset with a code nobody knows", Served(0), OPEN + reset(0xFF)),
]

FIELDS = [
    ("8.1 trailers that do not end the stream", Stream(*BROKEN), TRAILERS + headers([("x", "1")], end=False)),
    ("8.1.1 a content-length that differs", Stream(*BROKEN), headers(POST + [("content-length", "1")], end=False) + data(b"test")),
    ("8.1.1 a content-length that differs from the sum", Stream(*BROKEN),
     headers(POST + [("content-length", "1")], end=False) + data(b"te", end=False) + data(b"st")),
    ("8.1.1 a content-length of 0 and content", Stream(*BROKEN), headers(POST + [("content-length", "0")], end=False) + data(b"x")),
    ("8.2.1 a name in capitals", Stream(*BROKEN), with_field("X-TEST", "ok")),
    ("8.2.1 a name with a space at its end", Stream(*BROKEN), with_field("x-test ", "ok")),
    ("8.2.1 a name with a tab", Stream(*BROKEN), with_field("x\ttest", "ok")),
    ("8.2.1 a name above ASCII", Stream(*BROKEN), with_field("x-t\xe9st", "ok")),
    ("8.2.1 a name with DEL", Stream(*BROKEN), with_field("x\x7f", "ok")),
    ("8.2.1 a value with CR", Stream(*BROKEN), with_field("x-test", "a\rb")),
    ("8.2.2 connection", Stream(*BROKEN), with_field("connection", "keep-alive")),
    ("8.2.2 te with more than trailers", Stream(*BROKEN), with_field("te", "trailers, deflate")),
    ("8.2.2 te: trailers", Served(), with_field("te", "trailers")),
    ("8.2.3 cookies in several fields", Served(), headers(GET + [("cookie", "a=b"), ("cookie", "c=d")])),
    ("8.3 an unknown pseudo field", Stream(*BROKEN), with_field(":test", "ok")),
    ("8.3 a pseudo field of responses", Stream(*BROKEN), with_field(":status", "200")),
    ("8.3 a pseudo field behind the others", Stream(*BROKEN), headers([("x", "1")] + GET)),
    ("8.3.1 an empty path", Stream(*BROKEN), without(":path", (":path", ""))),
    ("8.3.1 no method", Stream(*BROKEN), without(":method")),
    ("8.3.1 no scheme", Stream(*BROKEN), without(":scheme")),
    ("8.3.1 no path", Stream(*BROKEN), without(":path")),
    ("8.3.1 a method twice", Stream(*BROKEN), with_field(":method", "GET")),
    ("8.3.1 a scheme twice", Stream(*BROKEN), with_field(":scheme", "http")),
    ("8.3.1 a path twice", Stream(*BROKEN), with_field(":path", "/")),
    ("8.3.1 an authority twice", Stream(*BROKEN), with_field(":authority", "http2")),
    ("8.3.1 no authority but Host", Served(), without(":authority", ("host", "http2"))),
    ("8.4 a promise of a client", Connection(PROTOCOL_ERROR), OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block(GET))),
    ("8.5 CONNECT with a scheme and a path", Stream(*BROKEN), headers([(":method", "CONNECT")] + GET[1:], end=False)),
    ("8.5 CONNECT without an authority", Stream(*BROKEN), headers([(":method", "CONNECT")], end=False)),
    ("RFC 8441 4 a protocol of another method", Stream(*BROKEN), headers(GET + [(":protocol", "websocket")], end=False)),
    ("RFC 8441 4 a protocol without a path", Stream(*BROKEN),
     headers([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "http2")], end=False)),
    ("H2.TE a coding of HTTP/1", Stream(*BROKEN), headers(POST + [("transfer-encoding", "chunked")], end=False) + data(b"0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n")),
    ("H2.CL a length below the content", Stream(*BROKEN), headers(POST + [("content-length", "0")], end=False) + data(b"GET /hidden HTTP/1.1\r\n\r\n")),
    ("H2.0 a request in a name", Stream(*BROKEN), with_field("x: y\r\n\r\nGET /hidden HTTP/1.1\r\nz", "1")),
]

HPACK = [
    ("HPACK 2.3.3 an index above both tables", Connection(COMPRESSION_ERROR), headers(block(GET) + b"\xc6")),
    ("HPACK 2.3.3 a name's index above both tables", Connection(COMPRESSION_ERROR), headers(block(GET) + b"\x7f\x07\x01x")),
    ("HPACK 4.2 a change of the table's size at the end", Connection(COMPRESSION_ERROR), headers(block(GET) + b"\x20")),
    ("HPACK 5.1 a number without end", Connection(COMPRESSION_ERROR), headers(block(GET) + b"\xff" + b"\xff" * 20)),
    ("HPACK 5.2 padding longer than seven bits", Connection(COMPRESSION_ERROR), headers(block(GET) + b"\0\x01x\x82\x1f\xff")),
    ("HPACK 5.2 padding of zeros", Connection(COMPRESSION_ERROR), headers(block(GET) + b"\0\x01x\x81\x18")),
    ("HPACK 5.2 the end of strings within one", Connection(COMPRESSION_ERROR), headers(block(GET) + b"\0\x01x\x84\xff\xff\xff\xff")),
    ("HPACK 5.2 a string longer than the block", Connection(COMPRESSION_ERROR), headers(block(GET) + b"\0\x01x\x7f\xff\x7f")),
    ("HPACK 6.1 index 0", Connection(COMPRESSION_ERROR), headers(block(GET) + b"\x80")),
    ("HPACK 6.3 a table larger than allowed", Connection(COMPRESSION_ERROR), headers(b"\x3f\xe2\x1f" + block(GET))),
]

ROWS = GENERIC + FRAMES + KINDS + FIELDS + HPACK


class Heard:
    """What comes until the ping is answered or the connection ends."""

    def __init__(self, client, wanted):
        self.responses, self.resets, self.gone, self.ended, self.is_answered = [], [], None, False, False
        answered = set()
        while not (self.is_answered and len(answered) >= wanted):
            try:
                head = client.exactly(9)
                payload = client.exactly(int.from_bytes(head[:3], "big"))
            except (wire.Closed, ConnectionResetError):
                self.ended = True
                return
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == SETTINGS and not flags & ACK:
                client.quietly(frame(SETTINGS, ACK))
            elif kind == HEADERS:
                self.responses.append(int(dict(client.decoder.decode(payload))[":status"]))
            elif kind == RST_STREAM:
                self.resets.append(int.from_bytes(payload, "big"))
                answered.add(stream)
            elif kind == GOAWAY:
                self.gone = int.from_bytes(payload[4:8], "big")
            elif kind == PING and flags & ACK and payload == b"h2spec!!":
                self.is_answered = True
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                answered.add(stream)


def run(env, row):
    name, want, sent = row
    env.apps.http2.reset()
    with Client(env.addresses["http2"], start=sent is not None) as client:
        if sent is None:
            client.quietly(PREFACE + headers(GET))
        else:
            client.quietly(sent + PING_FRAME)
        ends_stream = isinstance(want, Stream) and not isinstance(want, Connection)
        heard = Heard(client, 1 if ends_stream else want.count if isinstance(want, Served) else 1 << 30)
    brief = f"responses {heard.responses}, resets {heard.resets}, GOAWAY {heard.gone}, ended {heard.ended}"
    if isinstance(want, Served):
        assert not heard.ended and not heard.resets and heard.responses == [200] * want.count, brief
    elif isinstance(want, Connection):
        assert heard.ended and heard.gone in (*want.codes, PROTOCOL_ERROR, None), brief
    else:
        said = [*heard.resets, heard.gone] if heard.gone else heard.resets
        refused = heard.responses and all(400 <= status < 500 for status in heard.responses)
        assert refused or heard.ended and not said or said and all(code in (*want.codes, PROTOCOL_ERROR) for code in said), brief
        assert 200 not in heard.responses, brief
    check_served(env)
    hidden = [request.path for request in env.apps.http2.requests if request.path == "/hidden"]
    equal(hidden, [])


table("h2spec", ROWS, run)
