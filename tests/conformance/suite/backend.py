"""Servers that the proxy sends to: one that records and answers by path, one that sends prepared bytes."""

import json
import socket
import threading
import time

from . import wire

BLOCK = bytes(range(256)) * 256  # 64 KiB


class Server:
    """A server on loopback with one thread per connection."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = self.listener.getsockname()
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            sock, _ = self.listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            self.serve(sock)
        except OSError:
            pass
        finally:
            sock.close()


class Recorder(Server):
    """Records every byte and every request, and answers by the request's path. What it reads it reads strictly."""

    BYTES_KEPT = 1 << 20

    def __init__(self):
        self.lock = threading.Lock()
        self.reset()
        super().__init__()

    def reset(self):
        """Forgets what was recorded."""
        with self.lock:
            self.bytes, self.byte_count, self.requests, self.malformed = b"", 0, [], []

    def saw(self, data):
        with self.lock:
            self.byte_count += len(data)
            if len(self.bytes) < self.BYTES_KEPT:
                self.bytes += data

    def serve(self, sock):
        reader = wire.Reader(sock, self.saw)
        while True:
            try:
                if b"/early" in self.peek(reader):
                    reader.head(wire.REQUEST_LINE)
                    return self.answer_early(sock)
                if b"Expect: 100-continue" in self.peek(reader):
                    sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                request = reader.request(keep_body=b"/sink" not in self.peek(reader))
            except wire.Malformed as error:
                with self.lock:
                    self.malformed.append(str(error))
                return
            except wire.Closed:
                return
            if request is None:
                return
            with self.lock:
                self.requests.append(request)
            if not self.answer(sock, request, reader):
                return

    @staticmethod
    def peek(reader):
        """The bytes of the next head, as far as there are any."""
        while b"\r\n\r\n" not in reader.buffer:
            if not reader.more():
                break
        return reader.buffer.split(b"\r\n\r\n")[0]

    @staticmethod
    def answer_early(sock):
        """Answers before the body has come, and does not read it."""
        sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly")
        time.sleep(0.1)

    def answer(self, sock, request, reader):
        """Answers one request; whether the connection goes on."""
        path, _, argument = request.target.lstrip("/").partition("/")
        head = "HTTP/1.1 200 OK\r\n"
        if path == "bytes":
            count = int(argument)
            sock.sendall(f"{head}Content-Length: {count}\r\n\r\n".encode())
            if request.method != "HEAD":
                send_bytes(sock, count)
        elif path == "chunks":
            parts = "".join(f"{len(part):x}\r\n{part}\r\n" for part in ("one", "three", "seven!!"))
            sock.sendall(f"{head}Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n{parts}0\r\nx-sum: 15\r\n\r\n".encode())
        elif path == "status":
            length = "" if argument in ("204", "304") else "Content-Length: 0\r\n"
            sock.sendall(f"HTTP/1.1 {argument} Some Phrase\r\n{length}\r\n".encode())
        elif path == "until-close":
            sock.sendall(f"{head}\r\nall there is".encode())
            return False
        elif path == "close":
            sock.sendall(f"{head}Connection: close\r\nContent-Length: 3\r\n\r\nbye".encode())
            return False
        elif path == "hangup":
            sock.sendall(f"{head}Content-Length: 3\r\n\r\nbye".encode())
            return False
        elif path == "sleep":
            time.sleep(float(argument))
            sock.sendall(f"{head}Content-Length: 5\r\n\r\nslept".encode())
        elif path == "hints":
            sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + f"{head}Content-Length: 2\r\n\r\nok".encode())
        elif path == "switch":
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nConnection: Upgrade\r\n\r\nready:")
            while data := reader.buffer or sock.recv(1 << 16):
                reader.buffer = b""
                sock.sendall(data.upper())
            return False
        else:
            seen = {"first": request.first, "fields": request.fields, "length": len(request.body), "trailers": request.trailers}
            body = json.dumps(seen).encode()
            hops = "Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n" if path == "hops" else ""
            sock.sendall(f"{head}{hops}X-App: kept\r\nContent-Length: {len(body)}\r\n\r\n".encode() + (b"" if request.method == "HEAD" else body))
        return True


def send_bytes(sock, count):
    while count > 0:
        count -= sock.send(BLOCK[:min(count, len(BLOCK))])


class Scripted(Server):
    """Answers `GET /NUMBER` with the prepared bytes of that number, and all else with the path as the content."""

    CLOSE = object()

    def __init__(self, scripts):
        self.scripts = scripts
        super().__init__()

    def serve(self, sock):
        reader = wire.Reader(sock)
        while request := reader.request():
            number = request.target.strip("/")
            if not number.isdigit():
                body = request.target.encode()
                sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                continue
            for part in self.scripts[int(number)]:
                if part is self.CLOSE:
                    return
                if isinstance(part, float):
                    time.sleep(part)
                else:
                    sock.sendall(part)
