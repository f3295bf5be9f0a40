"""HTTP/2 as RFC 9113 has it, with frames made by hand."""

import json
import struct
import time

from . import wire
from .check import case, equal, eventually, table
from .frames import *

MIB = 1 << 20
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(7)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(7, 12)
ANY = None


def dial(env):
    return Client(env.addresses["http2"])


def seen(response):
    equal(response[0], 200)
    return json.loads(response[2])


def check_served(env):
    """A good client is served, and the app has seen nothing malformed."""
    with dial(env) as client:
        client.send(headers([(":method", "GET"), (":scheme", "http"), (":path", "/after"), (":authority", "http2")]))
        equal(dict(seen(client.response())["headers"])[":path"], "/after")
    equal(env.apps.http2.malformed, [], "what the app found malformed")


# Errors of the connection (RFC 9113 section 5.4.1): it must end. The code says why, or says PROTOCOL_ERROR, which fits them all;
# where it is ANY, only the end is asked for.
CONNECTION = [
    ("settings of 5 bytes", FRAME_SIZE_ERROR, frame(SETTINGS, 0, 0, b"\0" * 5)),
    ("settings on a stream", PROTOCOL_ERROR, frame(SETTINGS, 0, 1)),
    ("an answer to settings with content", FRAME_SIZE_ERROR, frame(SETTINGS, ACK, 0, b"\0" * 6)),
    ("an initial window of 2 GiB", FLOW_CONTROL_ERROR, settings((4, 1 << 31))),
    ("a maximum frame of 100 bytes", PROTOCOL_ERROR, settings((5, 100))),
    ("a maximum frame of 16 MiB", PROTOCOL_ERROR, settings((5, 1 << 24))),
    ("push neither on nor off", PROTOCOL_ERROR, settings((2, 2))),
    ("a ping of 7 bytes", FRAME_SIZE_ERROR, frame(PING, 0, 0, b"\0" * 7)),
    ("a ping on a stream", PROTOCOL_ERROR, frame(PING, 0, 1, b"\0" * 8)),
    ("a GOAWAY on a stream", PROTOCOL_ERROR, frame(GOAWAY, 0, 1, b"\0" * 8)),
    ("a window update of 3 bytes", FRAME_SIZE_ERROR, frame(WINDOW_UPDATE, 0, 0, b"\0\0\1")),
    ("a window update of nothing", PROTOCOL_ERROR, window(0)),
    ("a window beyond 2 GiB", FLOW_CONTROL_ERROR, window(0x7FFFFFFF) + window(0x7FFFFFFF)),
    ("a window update of an idle stream", PROTOCOL_ERROR, window(1, 9)),
    ("data on no stream", PROTOCOL_ERROR, data(b"x", 0)),
    ("data on an idle stream", PROTOCOL_ERROR, data(b"x", 1)),
    ("headers on no stream", PROTOCOL_ERROR, headers(GET, 0)),
    ("headers on an even stream", PROTOCOL_ERROR, headers(GET, 2)),
    ("a reset on no stream", PROTOCOL_ERROR, reset(stream=0)),
    ("a reset of an idle stream", PROTOCOL_ERROR, reset(stream=1)),
    ("a reset of 3 bytes", FRAME_SIZE_ERROR, headers(POST, end=False) + frame(RST_STREAM, 0, 1, b"\0\0\0")),
    ("a stream number below an earlier one", ANY, headers(GET, 5) + headers(GET, 3)),
    ("a frame above the maximum", FRAME_SIZE_ERROR, headers(POST, end=False) + data(b"x" * 16385)),
    ("a frame of 16 MiB announced", FRAME_SIZE_ERROR, headers(POST, end=False) + frame(DATA, 0, 1, b"x", length=(1 << 24) - 1)),
    ("padding longer than the frame", PROTOCOL_ERROR, headers(POST, end=False) + frame(DATA, PADDED, 1, b"\xffxx")),
    ("headers padded beyond the frame", PROTOCOL_ERROR, frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + block(GET))),
    ("a continuation of nothing", PROTOCOL_ERROR, frame(CONTINUATION, END_HEADERS, 1, block(GET))),
    ("a ping within headers", PROTOCOL_ERROR, headers(GET, flags=0) + frame(PING, 0, 0, b"\0" * 8)),
    ("data within headers", PROTOCOL_ERROR, headers(POST, end=False, flags=0) + data(b"x")),
    ("a continuation on another stream", PROTOCOL_ERROR, headers(GET, flags=0) + frame(CONTINUATION, END_HEADERS, 3, b"")),
    ("a field that refers to no entry", COMPRESSION_ERROR, headers(b"\xff\xff\x7f")),
    ("a field cut short", COMPRESSION_ERROR, headers(block(GET) + b"\0\x05na")),
    ("a table larger than allowed", COMPRESSION_ERROR, headers(b"\x3f\xff\xff\x7f" + block(GET))),
    ("a string that is no Huffman code", COMPRESSION_ERROR, headers(block(GET) + b"\0\x84\xff\xff\xff\xff\x01x")),
    ("a push promise of a client", PROTOCOL_ERROR, headers(POST, end=False) + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block(GET))),
]


def run_connection(env, row):
    _, code, sent = row
    env.apps.http2.reset()
    with dial(env) as client:
        client.quietly(sent)
        got = client.end()
        assert code is ANY or got in (code, PROTOCOL_ERROR, None), f"ended with code {got}, want {code}"
    check_served(env)


table("HTTP/2 connections", CONNECTION, run_connection)


def with_field(name, value, base=GET):
    return headers(base + [(name, value)])


def without(name, *more):
    return headers([field for field in GET if field[0] != name] + list(more))


# Malformed requests (RFC 9113 section 8.1.1): the stream is reset or answered with 4xx, and the app gets no such request.
MALFORMED = [
    ("a name in capitals", with_field("X-Up", "1")),
    ("a name with a space", with_field("x up", "1")),
    ("a name with a colon", with_field("x:up", "1")),
    ("a name with a line end", with_field("x\r\ny", "1")),
    ("an empty name", with_field("", "1")),
    ("a value with a line end", with_field("x", "1\r\ny: 2")),
    ("a value with LF", with_field("x", "1\n2")),
    ("a value with NUL", with_field("x", "1\x002")),
    ("connection", with_field("connection", "keep-alive")),
    ("keep-alive", with_field("keep-alive", "5")),
    ("proxy-connection", with_field("proxy-connection", "keep-alive")),
    ("transfer-encoding", with_field("transfer-encoding", "chunked")),
    ("upgrade", with_field("upgrade", "websocket")),
    ("te other than trailers", with_field("te", "gzip")),
    ("no method", without(":method")),
    ("no scheme", without(":scheme")),
    ("no path", without(":path")),
    ("an empty path", without(":path", (":path", ""))),
    ("a path without a slash", without(":path", (":path", "row"))),
    ("a path with a space", without(":path", (":path", "/row HTTP/1.1"))),
    ("a path with a line end", without(":path", (":path", "/row HTTP/1.1\r\nx: y"))),
    ("a method with a space", without(":method", (":method", "GET /hidden"))),
    ("a method with a line end", without(":method", (":method", "GET / HTTP/1.1\r\n\r\nGET"))),
    ("an empty method", without(":method", (":method", ""))),
    ("an authority with a user", without(":authority", (":authority", "user@http2"))),
    ("an authority with a slash", without(":authority", (":authority", "http2/evil"))),
    ("an authority with a space", without(":authority", (":authority", "http2 evil"))),
    ("an authority that contradicts Host", headers(GET + [("host", "evil")])),
    ("Host twice", headers(GET[:3] + [("host", "http2"), ("host", "evil")])),
    ("a method twice", with_field(":method", "POST")),
    ("a path twice", with_field(":path", "/other")),
    ("an unknown pseudo field", headers(GET[:3] + [(":own", "1")])),
    ("a pseudo field of responses", headers(GET + [(":status", "200")])),
    ("a pseudo field behind a field", headers([("x", "1")] + GET)),
    ("a content-length and no content", headers(POST + [("content-length", "5")])),
    ("a content-length above the content", headers(POST + [("content-length", "10")], end=False) + data(b"hello")),
    ("a content-length below the content", headers(POST + [("content-length", "3")], end=False) + data(b"hello")),
    ("content-lengths that differ", headers(POST + [("content-length", "5"), ("content-length", "6")], end=False) + data(b"hello")),
    ("a content-length that is no number", headers(POST + [("content-length", "+5")], end=False) + data(b"hello")),
    ("trailers that do not end the stream", headers(POST, end=False) + data(b"x", end=False) + headers([("x", "1")], end=False)),
    ("trailers in capitals", headers(POST, end=False) + data(b"x", end=False) + headers([("X", "1")])),
]


# The same, but the proxy may also pass the request on without what is wrong with it.
CLEANED = [
    ("a path with a fragment", without(":path", (":path", "/row#part"))),
    ("a pseudo field in trailers", headers(POST, end=False) + data(b"x", end=False) + headers([(":path", "/evil")])),
]


def run_malformed(env, row):
    _, sent = row
    env.apps.http2.reset()
    with dial(env) as client:
        client.send(sent)
        try:
            response = client.response()
        except (Reset, GoneAway, wire.Closed, ConnectionResetError):
            pass
        else:
            assert 400 <= response[0] < 500 or row in CLEANED, f"answered {response[0]} {response[2][:300]!r}"
    check_served(env)
    paths = [dict(request.headers)[":path"] for request in env.apps.http2.requests]
    assert paths == ["/after"] or (row in CLEANED and paths == ["/row", "/after"]), f"requests at the app: {paths}"
    equal([request.trailers for request in env.apps.http2.requests if request.trailers], [])


table("HTTP/2 requests", MALFORMED + CLEANED, run_malformed)


@case("HTTP/2")
def a_wrong_preface_is_refused(env):
    with Client(env.addresses["http2"], start=False) as client:
        client.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + settings())
        assert b"poison" not in client.rest()
    check_served(env)


@case("HTTP/2")
def frames_that_are_not_known_are_ignored(env):
    with dial(env) as client:
        client.send(frame(0xBE, 0xFF, 0, b"x" * 100) + frame(0xEF, 0xFF, 7, b"y") + frame(PRIORITY, 0, 3, struct.pack(">IB", 0, 16))
                    + settings((0x99, 7)) + headers(GET))
        equal(client.response()[0], 200)


@case("HTTP/2")
def fields_pass_and_those_of_the_proxy_are_added(env):
    with dial(env) as client:
        client.send(headers(GET + [("x-a", "1"), ("x-a", "2"), ("te", "trailers"), ("x-leno-undelivered", "connect"), ("cookie", "a=b")]))
        response = client.response()
        got = seen(response)["headers"]
        equal([value for name, value in got if name == "x-a"], ["1", "2"])
        found = dict(got)
        equal((found["te"], found["cookie"], found["x-forwarded-for"], found["x-forwarded-proto"]), ("trailers", "a=b", "127.0.0.1", "http"))
        assert len(found["x-request-id"]) == 36 and "x-leno-undelivered" not in found, found
        equal((found[":path"], found[":authority"], dict(response[1])["x-app"]), ("/row", "http2", "kept"))


@case("HTTP/2")
def bodies_and_trailers_pass_both_ways(env):
    with dial(env) as client:
        post = [(":method", "POST"), (":scheme", "http"), (":path", "/trailers"), (":authority", "http2"), ("content-length", "5")]
        client.send(headers(post, end=False) + data(b"he", end=False) + data(b"", end=False) + data(b"llo", end=False) + headers([("x-sum", "5")]))
        response = client.response()
        got = seen(response)
        equal((got["length"], got["trailers"]), (5, [["x-sum", "5"]]))
        equal(dict(response[3]), {"x-sum": "7", "grpc-status": "0"})


@case("HTTP/2")
def a_head_in_many_pieces_is_understood(env):
    fields = block(GET + [("x-long", "v" * 3000)])
    parts = [fields[at:at + 1000] for at in range(0, len(fields), 1000)]
    middle = b"".join(frame(CONTINUATION, 0, 1, part) for part in parts[1:-1])
    with dial(env) as client:
        client.dribble(headers(parts[0], flags=0) + middle + frame(CONTINUATION, END_HEADERS, 1, parts[-1]))
        equal(len(dict(seen(client.response())["headers"])["x-long"]), 3000)


@case("HTTP/2")
def requests_to_head_have_no_body(env):
    with dial(env) as client:
        client.send(headers([(":method", "HEAD"), *GET[1:]]))
        status, fields, content, _ = client.response()
        equal((status, content), (200, b""))
        assert int(dict(fields)["content-length"]) > 0


@case("HTTP/2")
def a_download_waits_for_its_window(env):
    with Client(env.addresses["http2"], start=False) as client:
        client.send(PREFACE + settings((4, 1000)) + headers([*GET[:2], (":path", "/bytes/5000"), GET[3]]))
        got = 0
        while got < 1000:
            kind, _, _, payload = client.next()
            got += len(payload) if kind == DATA else 0
        equal(got, 1000, "bytes before the window is opened")
        client.sock.settimeout(0.3)
        try:
            equal(client.next()[0], None, "a frame beyond the window")
        except TimeoutError:
            pass
        client.sock.settimeout(wire.TIMEOUT)
        client.send(window(100_000, 1))
        while got < 5000:
            kind, _, _, payload = client.next()
            got += len(payload) if kind == DATA else 0
        equal(got, 5000)


@case("HTTP/2")
def data_above_every_window_ends_the_stream_or_the_connection(env):
    before = env.forget_memory_peak()
    with dial(env) as client:
        client.send(headers([(":method", "POST"), (":scheme", "http"), (":path", "/stall"), (":authority", "http2")], end=False))
        client.quietly(data(b"x" * 16384, end=False) * 1100)
        try:
            client.response()
        except (Reset, GoneAway) as error:
            equal(error.code, FLOW_CONTROL_ERROR)
        except (wire.Closed, ConnectionResetError):
            pass
        else:
            raise AssertionError("it was taken")
    check_served(env)
    grown = env.memory_peak() - before
    assert grown < 24 * MIB, f"memory grew by {grown / MIB:.0f} MiB"


@case("HTTP/2")
def one_slow_stream_does_not_hold_up_the_others(env):
    with dial(env) as client:
        client.send(headers([*GET[:2], (":path", "/never"), GET[3]], 1) + headers(POST, 3, end=False) + headers(GET, 5))
        equal(client.response(5)[0], 200)
        client.send(data(b"late", 3))
        equal(seen(client.response(3))["length"], 4)


@case("HTTP/2")
def a_request_that_the_client_gives_up_is_given_up_at_the_app(env):
    env.apps.http2.reset()
    with dial(env) as client:
        client.send(headers([*GET[:2], (":path", "/never/given-up"), GET[3]], 1))
        eventually("the app has the request", lambda: "/never/given-up" in env.apps.http2.begun)
        client.send(reset() + headers(GET, 3))
        equal(client.response(3)[0], 200)
        eventually("the app is told", lambda: "/never/given-up" in env.apps.http2.resets)


@case("HTTP/2")
def proxy_errors_have_their_status(env):
    for service, status in (("down", 502), ("none", 503)):
        with Client(env.addresses[service]) as client:
            client.send(headers(GET))
            got, fields, content, _ = client.response()
            equal(got, status)
            assert content.endswith(b"\n") and b"shop" not in content, content


@case("HTTP/2 floods")
def headers_without_end_are_cut_off(env):
    before = env.forget_memory_peak()
    part = frame(CONTINUATION, 0, 1, block([("x-flood", "v" * 1000)]) * 15)
    with dial(env) as client:
        client.send(headers(block(GET), flags=0))
        try:
            for _ in range(6400):  # 100 MiB
                client.send(part)
        except OSError:
            pass
        else:
            raise AssertionError("100 MiB of headers were taken")
    check_served(env)
    grown = env.memory_peak() - before
    assert grown < 32 * MIB, f"memory grew by {grown / MIB:.0f} MiB"


@case("HTTP/2 floods")
def empty_continuations_without_end_are_cut_off(env):
    with dial(env) as client:
        client.send(headers(block(GET), flags=0))
        try:
            for _ in range(200):
                client.send(frame(CONTINUATION, 0, 1) * 1000)
        except OSError:
            pass
        else:
            client.sock.settimeout(2)
            client.end()
    check_served(env)


@case("HTTP/2 floods")
def streams_opened_and_reset_without_end_are_cut_off_or_bounded(env):
    before = env.forget_memory_peak()
    with dial(env) as client:
        try:
            for first in range(1, 40_000, 200):
                client.send(b"".join(headers(GET, stream) + reset(stream=stream) for stream in range(first, first + 200, 2)))
        except OSError:
            pass
        check_served(env)
    grown = env.memory_peak() - before
    assert grown < 48 * MIB, f"memory grew by {grown / MIB:.0f} MiB"


@case("HTTP/2 floods")
def more_streams_than_allowed_are_refused_one_by_one(env):
    with dial(env) as client:
        paths = [*GET[:2], (":path", "/never"), GET[3]]
        client.quietly(b"".join(headers(paths, stream) for stream in range(1, 4001, 2)))
        time.sleep(0.2)
        check_served(env)


@case("HTTP/2 floods")
def pings_and_settings_without_end_do_no_harm(env):
    before = env.forget_memory_peak()
    for flood in (frame(PING, 0, 0, b"\0" * 8), settings((4, 70_000)), window(1), data(b"", 1, end=False)):
        with dial(env) as client:
            client.sock.settimeout(2)
            client.send(headers(POST, end=False))
            try:
                for _ in range(50):
                    client.send(flood * 1000)
            except OSError:
                pass
    check_served(env)
    grown = env.memory_peak() - before
    assert grown < 48 * MIB, f"memory grew by {grown / MIB:.0f} MiB"


@case("HTTP/2 floods")
def a_header_list_that_is_too_large_is_refused(env):
    env.apps.http2.reset()
    with dial(env) as client:
        fields = block(GET + [(f"x-{number}", "v" * 10_000) for number in range(20)])
        parts = [fields[at:at + 16_000] for at in range(0, len(fields), 16_000)]
        client.quietly(headers(parts[0], flags=0) + b"".join(frame(CONTINUATION, 0, 1, part) for part in parts[1:]) + frame(CONTINUATION, END_HEADERS, 1))
        try:
            equal(client.response()[0], 431)
        except (Reset, GoneAway, wire.Closed, ConnectionResetError):
            pass
    check_served(env)
    equal([request for request in env.apps.http2.requests if "x-0" in dict(request.headers)], [])
