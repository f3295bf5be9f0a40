"""HTTP/2 by hand: a client that sends any frames."""

import struct

import hpack

from . import wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
GET = [(":method", "GET"), (":scheme", "http"), (":path", "/row"), (":authority", "http2")]
POST = [(":method", "POST")] + GET[1:]


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(fields):
    """Header fields as literals that enter no table, so that blocks do not depend on each other; nothing is checked."""
    out = b""
    for name, value in fields:
        out += b"\0"
        for text in (name, value):
            text = text if isinstance(text, bytes) else text.encode("latin-1")
            out += number(len(text)) + text
    return out


def number(value):
    """An integer with a 7-bit prefix (RFC 7541 section 5.1)."""
    if value < 127:
        return bytes([value])
    out, value = b"\x7f", value - 127
    while value >= 128:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def headers(fields, stream=1, end=True, flags=END_HEADERS):
    return frame(HEADERS, flags | (END_STREAM if end else 0), stream, fields if isinstance(fields, bytes) else block(fields))


def data(payload, stream=1, end=True):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in pairs))


def window(increment, stream=0):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def reset(code=8, stream=1):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


class Client(wire.Client):
    """A connection; `start` sends the preface and empty settings."""

    def __init__(self, address, start=True):
        super().__init__(address)
        self.decoder = hpack.Decoder()
        self.decoder.max_allowed_table_size = 1 << 16
        if start:
            self.send(PREFACE + settings())

    def next(self):
        """The next frame that says something of a request: (kind, flags, stream, payload). Answers SETTINGS and PING."""
        while True:
            head = self.exactly(9)
            length, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
            payload = self.exactly(length)
            if kind == SETTINGS and not flags & ACK:
                self.quietly(frame(SETTINGS, ACK))
            elif kind == PING and not flags & ACK:
                self.quietly(frame(PING, ACK, 0, payload))
            elif kind in (HEADERS, CONTINUATION):
                return kind, flags, stream, self.decoder.decode(payload)
            elif kind in (DATA, RST_STREAM, GOAWAY):
                return kind, flags, stream, payload

    def quietly(self, data):
        try:
            self.send(data)
        except OSError:
            pass

    def response(self, stream=1):
        """The response on `stream`: (status, fields, content, trailers). A reset or the end of the connection is an error."""
        status, fields, content, trailers = None, None, b"", None
        while True:
            kind, flags, on, payload = self.next()
            if kind == GOAWAY and int.from_bytes(payload[4:8], "big"):
                raise GoneAway(int.from_bytes(payload[4:8], "big"))
            if on != stream:
                continue
            if kind == RST_STREAM:
                raise Reset(int.from_bytes(payload, "big"), status)
            if kind == DATA:
                content += payload
                if payload:
                    self.quietly(window(len(payload)) + window(len(payload), stream))
            elif kind == HEADERS and fields is None:
                found = dict(payload)
                if found[":status"].startswith("1"):
                    continue
                status, fields = int(found[":status"]), payload
            elif kind == HEADERS:
                trailers = payload
            if flags & END_STREAM and kind in (DATA, HEADERS):
                return status, fields, content, trailers

    def end(self):
        """Reads up to the connection's end: the code of its GOAWAY, or `None`."""
        code = None
        while True:
            try:
                kind, _, _, payload = self.next()
            except (wire.Closed, ConnectionResetError):
                return code
            if kind == GOAWAY:
                code = int.from_bytes(payload[4:8], "big")


class Reset(Exception):
    def __init__(self, code, status=None):
        super().__init__(f"the stream was reset with code {code} after status {status}")
        self.code = code


class GoneAway(Exception):
    def __init__(self, code):
        super().__init__(f"the connection was ended with code {code}")
        self.code = code
