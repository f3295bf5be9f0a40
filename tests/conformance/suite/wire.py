"""HTTP/1 over raw sockets: a client that sends any bytes, and a strict reader of messages for both sides."""

import re
import socket

TIMEOUT = 10
FIELD = re.compile(rb"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*$")
REQUEST_LINE = re.compile(rb"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [\x21-\x7e]+ HTTP/1\.1$")
STATUS_LINE = re.compile(rb"^HTTP/1\.1 [1-9][0-9][0-9] [\t\x20-\x7e\x80-\xff]*$")


class Malformed(Exception):
    """What was read is no well-formed message."""


class Closed(Exception):
    """The connection ended where a message was expected."""


class Message:
    """One message: first line, fields as they came, content."""

    def __init__(self, first, fields, body=b"", trailers=()):
        self.first, self.fields, self.body, self.trailers = first, fields, body, list(trailers)

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def field(self, name):
        values = self.all(name)
        return values[0] if values else None

    @property
    def status(self):
        return int(self.first.split(" ")[1])

    @property
    def method(self):
        return self.first.split(" ")[0]

    @property
    def target(self):
        return self.first.split(" ")[1]


class Reader:
    """Reads messages from a socket, strictly: what is no well-formed message is an error."""

    def __init__(self, sock, seen=None):
        self.sock, self.buffer, self.seen = sock, b"", seen

    def more(self):
        data = self.sock.recv(1 << 18)
        if self.seen:
            self.seen(data)
        self.buffer += data
        return data

    def until(self, end):
        while end not in self.buffer:
            if not self.more():
                raise Closed(f"after {self.buffer[:200]!r}")
        text, self.buffer = self.buffer.split(end, 1)
        return text

    def exactly(self, count):
        while len(self.buffer) < count:
            if not self.more():
                raise Closed(f"{count - len(self.buffer)} of {count} bytes are missing")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def rest(self):
        """All up to the end of the connection."""
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def head(self, first_line):
        lines = self.until(b"\r\n\r\n").split(b"\r\n")
        if not first_line.match(lines[0]):
            raise Malformed(f"first line {lines[0]!r}")
        return Message(lines[0].decode("latin-1"), fields(lines[1:]))

    def request(self, keep_body=True):
        """The next request; `None` at the end of the connection."""
        if not self.buffer and not self.more():
            return None
        request = self.head(REQUEST_LINE)
        framing = self.framing(request)
        if len(request.all("host")) != 1:
            raise Malformed(f"Host fields: {request.all('host')}")
        self.content(request, framing or 0, keep_body)
        return request

    def response(self, to="GET", interim=None):
        """The next response; interim ones are appended to `interim`."""
        while True:
            response = self.head(STATUS_LINE)
            if response.status >= 200 or response.status == 101:
                break
            if interim is not None:
                interim.append(response)
        framing = self.framing(response)
        if to == "HEAD" or response.status in (101, 204, 304):
            return response
        if framing is None:
            response.body = self.rest()
        else:
            self.content(response, framing, True)
        return response

    def framing(self, message):
        lengths, codings = message.all("content-length"), message.all("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise Malformed(f"content-length {lengths} and transfer-encoding {codings}")
        if codings:
            if codings != ["chunked"] and [coding.lower() for coding in codings] != ["chunked"]:
                raise Malformed(f"transfer-encoding {codings}")
            return "chunked"
        if lengths and not re.fullmatch("[0-9]{1,18}", lengths[0]):
            raise Malformed(f"content-length {lengths}")
        return int(lengths[0]) if lengths else None

    def content(self, message, framing, keep):
        if framing != "chunked":
            left = framing
            while left > 0 and not keep:
                left -= len(self.exactly(min(left, max(len(self.buffer), 1))))
            message.body = self.exactly(left)
            return
        parts = []
        while True:
            size = self.until(b"\r\n")
            if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", size):
                raise Malformed(f"chunk size {size!r}")
            if int(size, 16) == 0:
                break
            data = self.exactly(int(size, 16))
            if keep:
                parts.append(data)
            if self.exactly(2) != b"\r\n":
                raise Malformed("a chunk does not end with CR LF")
        message.body = b"".join(parts)
        while line := self.until(b"\r\n"):
            message.trailers += fields([line])


def fields(lines):
    for line in lines:
        if not FIELD.match(line):
            raise Malformed(f"field line {line!r}")
    pairs = (line.decode("latin-1").split(":", 1) for line in lines)
    return [(name, value.strip(" \t")) for name, value in pairs]


class Client(Reader):
    """A client of raw bytes."""

    def __init__(self, address):
        sock = socket.create_connection(address, timeout=TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def dribble(self, data):
        """Sends byte by byte. Stops when the other side takes no more."""
        try:
            for index in range(len(data)):
                self.sock.sendall(data[index:index + 1])
        except OSError:
            pass

    def ask(self, data):
        self.send(data)
        return self.response(to="HEAD" if data[:4] in (b"HEAD", "HEAD") else "GET")

    def get(self, path, *lines):
        return self.ask("\r\n".join([f"GET {path} HTTP/1.1", "Host: echo", *lines, "", ""]))

    def is_closed(self):
        """Whether the other side has closed, with nothing more to read."""
        try:
            return not self.buffer and not self.more()
        except ConnectionResetError:
            return True
