"""What the proxy does to HTTP/1.1 messages and says itself: fields, upgrades, limits, its own answers, detection."""

import re
import socket
import time

from . import wire
from .check import case, equal
from .http1 import MEMORY_MARGIN, MIB, dial, names, seen, value


@case("fields")
def hop_by_hop_fields_end_at_the_proxy(env):
    with dial(env) as client:
        response = client.get("/hops", "Connection: x-hop, keep-alive", "X-Hop: 1", "Keep-Alive: 5", "Proxy-Connection: x", "TE: gzip",
                              "Upgrade: h2c", "HTTP2-Settings: AAMAAABk", "x-leno-undelivered: connect", "X-Kept: yes")
        equal(sorted(names(response)), ["host", "x-forwarded-for", "x-forwarded-proto", "x-kept", "x-request-id"])
        back = [name.lower() for name, _ in response.fields]
        equal(sorted(back), ["content-length", "x-app"])


@case("fields")
def te_trailers_goes_on_alone(env):
    with dial(env) as client:
        response = client.get("/x", "TE: trailers")
        equal((value(response, "te"), value(response, "connection").lower()), ("trailers", "te"))


@case("fields")
def lines_of_the_client_keep_their_spelling_and_order(env):
    with dial(env) as client:
        sent = [["X-B", "2"], ["x-a", "1"], ["X-B", "3"], ["X-Empty", ""], ["X-Odd", "a\tb  c;\"d, e\""]]
        response = client.get("/x", *(f"{name}: {value}" for name, value in sent))
        equal([line for line in seen(response)["fields"] if line[0].lower().startswith("x-") and line[0].lower() in ("x-a", "x-b", "x-empty", "x-odd")], sent)


@case("fields")
def a_request_id_is_added_where_there_is_none(env):
    with dial(env) as client:
        made = [value(client.get("/x"), "x-request-id") for _ in range(2)]
        assert made[0] != made[1] and all(re.fullmatch("[0-9a-f-]{36}", id) for id in made), made
        equal(value(client.get("/x", "X-Request-Id: mine"), "x-request-id"), "mine")


@case("fields")
def the_first_hop_is_named_and_the_chain_is_kept(env):
    with dial(env) as client:
        response = client.get("/x")
        equal((value(response, "x-forwarded-for"), value(response, "x-forwarded-proto")), ("127.0.0.1", "http"))
        response = client.get("/x", "X-Forwarded-For: 192.0.2.7, 198.51.100.9", "X-Forwarded-Proto: https")
        chain = value(response, "x-forwarded-for")
        assert chain.startswith("192.0.2.7, 198.51.100.9"), chain
        equal(value(response, "x-forwarded-proto"), "https")


@case("fields")
def trace_contexts_pass_untouched(env):
    sent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1,b=2",
            "b3": "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1", "X-B3-TraceId": "463ac35c9f6413ad48485a3953bb6124",
            "X-B3-SpanId": "a2fb4a1d1a96d312", "X-B3-Sampled": "1", "baggage": "k=v"}
    with dial(env) as client:
        got = dict(seen(client.get("/x", *(f"{name}: {text}" for name, text in sent.items())))["fields"])
        equal({name: got.get(name) for name in sent}, sent)


@case("upgrades")
def a_protocol_that_both_sides_agree_on_takes_over(env):
    with dial(env) as client:
        client.send("GET /switch HTTP/1.1\r\nHost: a\r\nUpgrade: shout\r\nConnection: keep-alive, Upgrade\r\n\r\nsent early,")
        response = client.head(wire.STATUS_LINE)
        equal((response.status, response.field("upgrade"), response.field("connection").lower()), (101, "shout", "upgrade"))
        equal(client.exactly(len("ready:SENT EARLY,")), b"ready:SENT EARLY,")
        client.send("GET /x HTTP/1.1\r\n\r\n")
        equal(client.exactly(len("GET /X HTTP/1.1\r\n\r\n")), b"GET /X HTTP/1.1\r\n\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.is_closed()


@case("upgrades")
def a_change_that_the_app_declines_leaves_http(env):
    with dial(env) as client:
        response = client.get("/declined", "Connection: upgrade", "Upgrade: shout")
        equal((response.status, value(response, "upgrade"), value(response, "connection").lower()), (200, "shout", "upgrade"))
        equal(client.get("/next").status, 200)


@case("upgrades")
def a_change_with_a_body_or_to_http_2_is_not_offered_to_the_app(env):
    with dial(env) as client:
        body = client.ask("POST /x HTTP/1.1\r\nHost: a\r\nUpgrade: shout\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello")
        equal((seen(body)["length"], value(body, "upgrade")), (5, []))
        h2c = client.get("/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        equal((value(h2c, "upgrade"), value(h2c, "http2-settings")), ([], []))


@case("limits")
def what_is_too_large_is_refused_with_its_own_status(env):
    rows = [
        (414, f"GET /{'a' * 17_000} HTTP/1.1\r\nHost: a\r\n\r\n"),
        (431, f"GET / HTTP/1.1\r\nHost: a\r\nX: {'a' * 70_000}\r\n\r\n"),
        (431, "GET / HTTP/1.1\r\nHost: a\r\n" + "".join(f"X-{n}: {'a' * 700}\r\n" for n in range(99)) + "\r\n"),
        (431, "GET / HTTP/1.1\r\nHost: a\r\n" + "X: 1\r\n" * 1000 + "\r\n"),
        (431, "GET / HTTP/1.1\r\nHost: a\r\n" + "X: 1\r\n" * 100 + "\r\n"),
    ]
    for status, request in rows:
        with dial(env) as client:
            response = client.ask(request)
            equal((response.status, response.field("connection")), (status, "close"), request[:30])
            assert client.is_closed()


@case("limits")
def what_is_just_below_the_limits_passes(env):
    with dial(env) as client:
        # Each proxy on the way adds its own few fields.
        equal(client.get(f"/{'a' * 16_000}").status, 200)
        equal(client.get("/x", *(f"X-{n}: {'a' * 600}" for n in range(90))).status, 200)
        equal(client.get("/x", f"X: {'a' * 60_000}").status, 200)


@case("limits")
def a_line_without_an_end_is_refused_before_it_fills_memory(env):
    before = env.forget_memory_peak()
    with dial(env) as client:
        try:
            client.send(b"GET /" + b"a" * (64 * MIB))
        except OSError:
            pass  # it takes no more
        try:
            equal(client.response().status, 414)
        except ConnectionResetError:
            pass  # it closed while much was still being sent
    grown = env.memory_peak() - before
    assert grown < MEMORY_MARGIN, f"memory grew by {grown / MIB:.0f} MiB"


@case("answers of the proxy")
def an_app_that_is_down_is_a_502(env):
    check_own_answer(env, "down", 502)


@case("answers of the proxy")
def a_service_without_endpoints_is_a_503(env):
    check_own_answer(env, "none", 503)


@case("answers of the proxy")
def an_app_that_is_too_slow_is_a_504(env):
    began = time.monotonic()
    check_own_answer(env, "slow", 504, "/sleep/3")
    took = time.monotonic() - began
    assert 0.9 < took < 2.5, f"{took:.1f} s for a limit of one second"


def check_own_answer(env, service, status, path="/"):
    with dial(env, service) as client:
        response = client.get(path)
        equal((response.status, response.field("content-type")), (status, "text/plain; charset=utf-8"))
        text = response.body.decode()
        assert text.endswith("\n") and 10 < len(text) < 300 and "shop" not in text, text
        equal(client.ask(f"HEAD {path if status != 504 else '/'} HTTP/1.1\r\nHost: a\r\n\r\n").status, status if status != 504 else 200)
        posted = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        equal(posted.status, status if status != 504 else 200, "the connection is usable after it, body and all")


@case("detection")
def what_is_no_http_passes_as_it_is_and_http_is_found(env):
    with dial(env, "any") as client:
        equal(seen(client.get("/found"))["first"], "GET /found HTTP/1.1")
        assert "x-request-id" in names(client.get("/found"))
    env.apps.recorder.reset()
    with dial(env, "any") as client:
        client.send(b"\x16\x03\x01 not http\r\n\r\n")
        assert client.is_closed(), "the app closed"
    equal(env.apps.recorder.bytes, b"\x16\x03\x01 not http\r\n\r\n")
