"""HTTP/1.1 as RFC 9110 and RFC 9112 have it, seen from raw sockets and Python's own client."""

import http.client
import json
import socket
import struct
import threading
import time

from . import backend, wire
from .check import case, equal, eventually

MIB = 1 << 20
LARGE = 256 * MIB
# Heads, blocks and sockets of a few connections; a body that was held would be far above.
MEMORY_MARGIN = 24 * MIB


def dial(env, service="echo"):
    return wire.Client(env.addresses[service])


def seen(response):
    return json.loads(response.body)


def names(response):
    return [name.lower() for name, _ in seen(response)["fields"]]


def value(response, name):
    values = [value for key, value in seen(response)["fields"] if key.lower() == name]
    return values[0] if len(values) == 1 else values


@case("connections")
def requests_of_one_connection_are_answered_in_order(env):
    with dial(env) as client:
        for number in range(20):
            equal(seen(client.get(f"/{number}"))["first"], f"GET /{number} HTTP/1.1")


@case("connections")
def pipelined_requests_are_answered_in_order(env):
    with dial(env) as client:
        client.send("".join(f"POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n{'x' * n}" for n in range(50)))
        for number in range(50):
            got = seen(client.response())
            equal((got["first"], got["length"]), (f"POST /{number} HTTP/1.1", number))


@case("connections")
def pipelined_requests_of_every_kind_keep_their_framing(env):
    chunked = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n"
    with dial(env) as client:
        client.send("HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n" + chunked + "GET /status/204 HTTP/1.1\r\nHost: a\r\n\r\n\r\n"
                    + "GET /status/304 HTTP/1.1\r\nHost: a\r\n\r\nGET /chunks HTTP/1.1\r\nHost: a\r\n\r\n" + "GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
        equal((client.response(to="HEAD").status, seen(client.response())["length"]), (200, 5))
        equal([client.response().status for _ in range(2)], [204, 304])
        equal(client.response().body, b"onethreeseven!!")
        equal(seen(client.response())["first"], "GET /last HTTP/1.1")


@case("connections")
def a_client_that_says_close_is_closed_after_its_answer(env):
    with dial(env) as client:
        equal(client.get("/x", "Connection: close").field("connection"), "close")
        assert client.is_closed()


@case("connections")
def a_server_that_says_close_does_not_close_the_client(env):
    with dial(env) as client:
        response = client.get("/close")
        equal((response.body, response.field("connection")), (b"bye", None))
        equal(client.get("/next").status, 200)


@case("connections")
def an_http_1_0_client_is_closed_unless_it_asks_to_be_kept(env):
    with dial(env) as client:
        kept = client.ask("GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        equal(kept.field("connection"), "keep-alive")
        closed = client.ask("GET /b HTTP/1.0\r\n\r\n")
        equal((closed.field("connection"), seen(closed)["first"]), ("close", "GET /b HTTP/1.1"))
        assert client.is_closed()


@case("connections")
def an_http_1_0_client_gets_a_chunked_body_without_chunks(env):
    with dial(env) as client:
        response = client.ask("GET /chunks HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        equal((response.body, response.field("transfer-encoding")), (b"onethreeseven!!", None))


@case("connections")
def a_body_that_ends_with_the_connection_arrives_whole(env):
    with dial(env) as client:
        equal(client.get("/until-close").body, b"all there is")


@case("connections")
def a_head_that_comes_byte_by_byte_is_understood(env):
    with dial(env) as client:
        client.dribble(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        equal(seen(client.response())["length"], 5)


@case("connections")
def a_client_that_goes_away_mid_body_leaves_no_request_behind(env):
    env.apps.recorder.reset()
    with dial(env) as client:
        client.send("POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    with dial(env) as client:
        equal(seen(client.get("/next"))["first"], "GET /next HTTP/1.1")
    equal(([request.target for request in env.apps.recorder.requests], env.apps.recorder.malformed), (["/next"], []))


@case("connections")
def a_client_that_breaks_off_while_the_app_thinks_is_forgotten(env):
    with dial(env) as client:
        client.send("GET /sleep/8 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually("the proxy has closed it too", lambda: env.open_connections() == 0)


@case("connections")
def a_half_closed_client_still_gets_its_answer(env):
    with dial(env) as client:
        client.send("GET /sleep/0.2 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        equal(client.response().body, b"slept")


@case("bodies")
def chunked_bodies_pass_both_ways_with_trailers(env):
    with dial(env) as client:
        got = seen(client.ask("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"))
        equal((got["length"], got["trailers"]), (5, [["X-Sum", "5"]]))
        response = client.get("/chunks")
        equal((response.body, response.trailers), (b"onethreeseven!!", [("x-sum", "15")]))


@case("bodies")
def a_client_that_expects_100_gets_it_from_the_app(env):
    with dial(env) as client:
        client.send("POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        equal(client.head(wire.STATUS_LINE).status, 100)
        client.send("hello")
        equal(seen(client.response())["length"], 5)
        equal(client.get("/next").status, 200)


@case("bodies")
def early_hints_reach_the_client_before_the_answer(env):
    interim = []
    with dial(env) as client:
        client.send("GET /hints HTTP/1.1\r\nHost: a\r\n\r\n")
        equal(client.response(interim=interim).body, b"ok")
        equal([(hint.status, hint.field("link")) for hint in interim], [(103, "</a>")])
        client.send("GET /hints HTTP/1.0\r\nHost: a\r\n\r\n")
        interim.clear()
        equal((client.response(interim=interim).body, interim), (b"ok", []), "HTTP/1.0 knows no interim responses")


@case("bodies")
def responses_without_a_body_leave_the_connection_usable(env):
    with dial(env) as client:
        for path in ("/bytes/100", "/chunks"):
            response = client.ask(f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n") if path != "/chunks" else None
            if response:
                equal(response.field("content-length"), "100")
        for status in (204, 304, 404, 500):
            equal(client.get(f"/status/{status}").first, f"HTTP/1.1 {status} Some Phrase")
        equal(client.get("/next").status, 200)


@case("bodies")
def an_answer_before_the_end_of_the_upload_reaches_the_client(env):
    with dial(env) as client:
        client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + "x" * 10000)
        response = client.response()
        equal((response.status, response.body), (403, b"early"))
        assert client.is_closed(), "what follows could not be told from the rest of the body"


@case("bodies")
def a_download_of_256_mib_is_streamed(env):
    before = env.forget_memory_peak()
    with dial(env) as client:
        client.send(f"GET /bytes/{LARGE} HTTP/1.1\r\nHost: a\r\n\r\n")
        client.head(wire.STATUS_LINE)
        got, wrong = len(client.buffer), 0
        block = memoryview(bytearray(MIB))
        while got < LARGE:
            count = client.sock.recv_into(block)
            assert count, f"cut after {got} bytes"
            at = got % len(backend.BLOCK)
            wrong += block[0] != backend.BLOCK[at]
            got += count
        equal((got, wrong), (LARGE, 0))
    grown = env.memory_peak() - before
    assert grown < MEMORY_MARGIN, f"memory grew by {grown / MIB:.0f} MiB"


@case("bodies")
def an_upload_of_256_mib_is_streamed_with_and_without_chunks(env):
    before = env.forget_memory_peak()
    block = b"x" * MIB
    with dial(env) as client:
        client.send(f"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE // 2}\r\n\r\n")
        for _ in range(LARGE // 2 // MIB):
            client.send(block)
        equal(client.response().status, 200)
        client.send("POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(LARGE // 2 // MIB):
            client.send(b"%x\r\n" % MIB + block + b"\r\n")
        client.send("0\r\n\r\n")
        equal(client.response().status, 200)
    grown = env.memory_peak() - before
    assert grown < MEMORY_MARGIN, f"memory grew by {grown / MIB:.0f} MiB"


@case("bodies")
def a_client_that_does_not_read_holds_up_its_server_and_not_the_proxy(env):
    before = env.forget_memory_peak()
    with dial(env) as client:
        client.send(f"GET /bytes/{LARGE} HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)
        with dial(env) as other:
            equal(other.get("/meanwhile").status, 200)
    grown = env.memory_peak() - before
    assert grown < MEMORY_MARGIN, f"memory grew by {grown / MIB:.0f} MiB"


@case("targets")
def all_forms_of_targets_reach_the_app(env):
    with dial(env) as client:
        equal(seen(client.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"))["first"], "OPTIONS * HTTP/1.1")
        got = client.ask("GET http://echo/abs?q=1 HTTP/1.1\r\nHost: echo\r\n\r\n")
        assert seen(got)["first"] in ("GET http://echo/abs?q=1 HTTP/1.1", "GET /abs?q=1 HTTP/1.1"), seen(got)["first"]
        equal(value(got, "host"), "echo")
        odd = "/a//b/../c/./%2e%2F;p=1?x=%00&y[]=[]&z={}|\\^`\"<>"
        equal(seen(client.get(odd))["first"], f"GET {odd} HTTP/1.1", "a path is passed on as it is")
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "X-OWN", "QUERY"):
            equal(seen(client.ask(f"{method} /m HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))["first"], f"{method} /m HTTP/1.1")


@case("Python's client")
def http_client_talks_as_it_does_to_a_server(env):
    connection = http.client.HTTPConnection(*env.addresses["echo"], timeout=10)
    for _ in range(3):
        connection.request("POST", "/p", body=iter([b"one", b"two"]), headers={"Transfer-Encoding": "chunked"}, encode_chunked=True)
        equal(json.load(connection.getresponse())["length"], 6)
        connection.request("GET", "/chunks")
        equal(connection.getresponse().read(), b"onethreeseven!!")
        connection.request("HEAD", "/bytes/77")
        response = connection.getresponse()
        equal((response.headers["content-length"], response.read()), ("77", b""))
    connection.close()


@case("Python's client")
def forty_clients_at_once_each_get_their_own_answers(env):
    wrong = []

    def work(me):
        connection = http.client.HTTPConnection(*env.addresses["echo"], timeout=20)
        for turn in range(20):
            connection.request("POST", f"/{me}/{turn}", body=b"x" * me)
            got = json.load(connection.getresponse())
            if (got["first"], got["length"]) != (f"POST /{me}/{turn} HTTP/1.1", me):
                wrong.append(got)
        connection.close()
    threads = [threading.Thread(target=work, args=(me,)) for me in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    equal(wrong, [])


@case("retries")
def a_rested_connection_that_the_server_closed_costs_no_request(env):
    with dial(env) as client:
        for _ in range(30):
            equal(client.get("/hangup").body, b"bye")
        for _ in range(10):
            equal(client.get("/hangup").body, b"bye")
            time.sleep(0.02)  # the close has arrived: a request that may not be sent twice must not meet it
            equal(client.ask("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").status, 200)
