"""Servers that answer wrongly: no response may be taken for another one, and no connection in doubt is used again.

Each row: the bytes that a server sends, and what the client must see: a status with its body, or CUT, a response that visibly
ends early. After each row, on the same connection where it is still open and on others, requests get their own answers.
"""

import itertools
import time

from . import wire
from .backend import Scripted
from .check import equal, table

CLOSE = Scripted.CLOSE
CUT = "a response that visibly ends early"
OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BAD = (502, None)

LATE = [HELLO, 0.1, POISON]

ROWS = [
    ("well-formed", (200, b"hello"), [HELLO]),
    ("no reason phrase", (200, b"hello"), [b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"]),
    ("a status of no meaning", (299, b"hello"), [b"HTTP/1.1 299 Who Knows\r\nContent-Length: 5\r\n\r\nhello"]),
    ("HTTP/1.0 up to the end", (200, b"hello"), [b"HTTP/1.0 200 OK\r\n\r\nhello", CLOSE]),
    ("one byte at a time", (200, b"hello"), [bytes([byte]) for byte in HELLO]),
    ("lengths that differ", BAD, [OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"]),
    ("lengths that are equal", BAD, [OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"]),
    ("length and chunked", BAD, [OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]),
    ("length negative", BAD, [OK + b"Content-Length: -1\r\n\r\n"]),
    ("length with plus", BAD, [OK + b"Content-Length: +5\r\n\r\nhello"]),
    ("length beyond 64 bits", BAD, [OK + b"Content-Length: 18446744073709551621\r\n\r\nhello"]),
    ("coding identity", BAD, [OK + b"Transfer-Encoding: identity\r\n\r\nhello", CLOSE]),
    ("coding gzip, chunked", BAD, [OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"]),
    ("coding twice", BAD, [OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]),
    ("coding in HTTP/1.0", BAD, [b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]),
    ("Connection that names Content-Length", BAD, [OK + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello"]),
    ("nothing", BAD, [CLOSE]),
    ("half a status line", BAD, [b"HTTP/1.1 20", CLOSE]),
    ("half a head", BAD, [OK + b"Content-Le", CLOSE]),
    ("garbage", BAD, [b"\x16\x03\x01\x02\x00garbage\r\n\r\n"]),
    ("another protocol", BAD, [b"220 mail ESMTP\r\n\r\n"]),
    ("a status of four digits", BAD, [b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"]),
    ("a status of letters", BAD, [b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"]),
    ("a status below 100", BAD, [b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"]),
    ("version 2", BAD, [b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n"]),
    ("a space before the status line", BAD, [b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]),
    ("a control character in the reason", BAD, [b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n"]),
    ("lines ended by LF", BAD, [b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"]),
    ("a CR in a value", BAD, [OK + b"X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"]),
    ("NUL in a value", BAD, [OK + b"X: a\0\r\nContent-Length: 0\r\n\r\n"]),
    ("a folded line", BAD, [OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n"]),
    ("space before a colon", BAD, [OK + b"Content-Length : 5\r\n\r\nhello"]),
    ("a line without a colon", BAD, [OK + b"hello\r\nContent-Length: 0\r\n\r\n"]),
    ("a head of 1 MiB", BAD, [OK + b"X: 0123456789\r\n" * 70_000 + b"\r\n"]),
    ("a line without an end", BAD, [OK + b"X: " + b"a" * 1_000_000]),
    ("a change of protocol that nobody asked for", BAD, [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + POISON]),
    ("some interim responses", (200, b"hello"), [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 10 + HELLO]),
    ("interim responses without end", BAD, [*itertools.repeat(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100, 1000), HELLO]),
    ("an interim response, then the end", BAD, [b"HTTP/1.1 100 Continue\r\n\r\n", CLOSE]),
    ("a body that is cut", CUT, [OK + b"Content-Length: 10\r\n\r\nhello", CLOSE]),
    ("a chunk that is cut", CUT, [CHUNKED + b"a\r\nhello", CLOSE]),
    ("chunks without the last", CUT, [CHUNKED + b"5\r\nhello\r\n", CLOSE]),
    ("a bad chunk size after a good chunk", CUT, [CHUNKED + b"5\r\nhello\r\n", 0.1, b"zz\r\nhello\r\n0\r\n\r\n"]),
    ("a chunk longer than its size", CUT, [CHUNKED + b"4\r\n", 0.1, b"hello\r\n0\r\n\r\n"]),
    ("a trailer that is none", CUT, [CHUNKED + b"5\r\nhello\r\n", 0.1, b"0\r\nhello\r\n\r\n"]),
    ("trailers of 100 KiB", CUT, [CHUNKED + b"5\r\nhello\r\n", 0.1, b"0\r\n" + b"A: 0123456789\r\n" * 7000 + b"\r\n"]),
    ("trailers that frame", (200, b"hello"), [CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 9\r\nA: b\r\n\r\n"]),
    ("chunk extensions", (200, b"hello"), [CHUNKED + b"5;a=b\r\nhello\r\n0;c\r\n\r\n"]),
    ("a second response behind the first", (200, b"hello"), [HELLO + POISON]),
    ("a second response a little later", (200, b"hello"), LATE),
    ("a second response behind chunks", (200, b"hello"), [CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + POISON]),
    ("bytes behind the body", (200, b"hello"), [HELLO + b"\r\n\r\nmore"]),
    ("a body after 204", (204, b""), [b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"]),
    ("a body after 304", (304, b""), [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"]),
    ("a response after 204", (204, b""), [b"HTTP/1.1 204 No Content\r\n\r\n" + POISON]),
    ("a response, then the end", (200, b"hello"), [HELLO, CLOSE]),
]
SCRIPTS = [parts for _, _, parts in ROWS]
NUMBERS = {name: number for number, (name, _, _) in enumerate(ROWS)}


def run(env, row):
    name, want, parts = row
    address = env.addresses["scripted"]
    request = f"GET /{NUMBERS[name]} HTTP/1.1\r\nHost: scripted\r\n\r\n"
    with wire.Client(address) as client:
        client.send(request)
        if want is CUT:
            check_cut(client)
        else:
            response = client.response()
            equal(response.status, want[0])
            assert b"poison" not in response.body
            if want[1] is not None:
                equal(response.body, want[1])
            if parts == LATE:
                time.sleep(0.3)
            if response.field("connection") != "close":
                ask_for_more(client, "same")
    for turn in range(3):
        with wire.Client(address) as client:
            ask_for_more(client, f"other-{turn}")


def check_cut(client):
    try:
        response = client.response()
    except (wire.Closed, ConnectionResetError):
        return
    raise AssertionError(f"the client takes it for whole: {response.status} {response.body!r}")


def ask_for_more(client, who):
    for turn in range(3):
        path = f"/mine/{who}/{turn}"
        response = client.ask(f"GET {path} HTTP/1.1\r\nHost: scripted\r\n\r\n")
        equal((response.status, response.body), (200, path.encode()), "the answer to a later request")


table("upstream", ROWS, run)
