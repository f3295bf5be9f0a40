"""Stands between a proxy and its controller, and notes when something that the controller says is there for the proxy to read.

    relay.py LISTEN TARGET FILE      a line for each piece: nanoseconds of the monotonic clock
"""

import socket
import sys
import threading
import time


def main() -> None:
    listen, target, name = sys.argv[1:]
    listener = socket.create_server(address(listen))
    with open(name, "w") as log:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(address(target))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=carry, args=(client, server, lambda: None), daemon=True).start()
            threading.Thread(target=carry, args=(server, client, lambda: print(time.monotonic_ns(), file=log, flush=True)), daemon=True).start()


def address(text: str) -> tuple[str, int]:
    host, port = text.split(":")
    return host, int(port)


def carry(source: socket.socket, sink: socket.socket, note) -> None:
    try:
        while piece := source.recv(65536):
            note()
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, sink):
            one.close()


if __name__ == "__main__":
    main()
