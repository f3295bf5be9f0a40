"""The sidecar as an HTTP proxy: an app sends it requests on purpose, and names the service in each."""

import json

from . import wire
from .check import case, equal
from .mesh import url
from .tools import curl


@case("explicit")
def an_absolute_target_leads_to_its_service(env):
    got = json.loads(curl("-x", url(env.outbound), "http://echo/a?b=c"))
    equal(got["first"], "GET /a?b=c HTTP/1.1")
    equal(dict(got["fields"])["Host"], "echo")
    for host in ("echo.shop", "echo.shop.svc", "echo.shop.svc.cluster.local"):
        equal(json.loads(curl("-x", url(env.outbound), f"http://{host}/"))["first"], "GET / HTTP/1.1", host)


@case("explicit")
def a_host_field_alone_leads_to_its_service(env):
    with wire.Client(env.outbound) as client:
        equal(json.loads(client.get("/a").body)["first"], "GET /a HTTP/1.1")
        equal(client.ask("GET /small HTTP/1.1\r\nHost: files\r\n\r\n").body, b"x" * 1024, "the next request goes elsewhere")


@case("explicit")
def connect_makes_a_tunnel_in_which_requests_are_carried(env):
    got = json.loads(curl("-p", "-x", url(env.outbound), "http://echo:80/in-tunnel"))
    assert "x-request-id" in [name.lower() for name, _ in got["fields"]], "the mesh carries the requests of the tunnel"
    equal(curl("-p", "-x", url(env.outbound), "--http2-prior-knowledge", "-w", "%{http_version}", "-o", "/dev/null", "http://files2:80/small"), b"2")


@case("explicit")
def what_is_no_service_is_refused_in_words(env):
    with wire.Client(env.outbound) as client:
        response = client.ask("GET / HTTP/1.1\r\nHost: nobody-here\r\n\r\n")
        assert 400 <= response.status < 600 and response.body.endswith(b"\n"), (response.status, response.body)
    with wire.Client(env.outbound) as client:
        status = client.ask("CONNECT nobody-here.invalid:80 HTTP/1.1\r\nHost: nobody-here.invalid:80\r\n\r\n").status
        assert 400 <= status < 600, status


@case("explicit")
def the_proxy_does_not_call_itself(env):
    host = "%s:%d" % env.outbound
    with wire.Client(env.outbound) as client:
        assert client.ask(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n").status >= 400
    with wire.Client(env.outbound) as client:
        assert client.ask(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").status >= 400


@case("explicit")
def what_could_be_read_in_two_ways_is_refused(env):
    rows = [
        "GET http://echo/ HTTP/1.1\r\nHost: files\r\n\r\n",
        "GET http://echo:80:80/ HTTP/1.1\r\nHost: echo:80:80\r\n\r\n",
        "GET http://user@echo/ HTTP/1.1\r\nHost: echo\r\n\r\n",
        "CONNECT echo HTTP/1.1\r\nHost: echo\r\n\r\n",
        "CONNECT /echo:80 HTTP/1.1\r\nHost: echo:80\r\n\r\n",
        "CONNECT echo:80 HTTP/1.1\r\nHost: files:80\r\n\r\n",
        "CONNECT echo:80 HTTP/1.1\r\nHost: echo:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ]
    for row in rows:
        with wire.Client(env.outbound) as client:
            response = client.ask(row.encode())
            equal((response.status, response.field("connection")), (400, "close"), row)
            assert client.is_closed()
