"""The end of a proxy: it says so, and finishes what runs."""

from . import frames, wire
from .check import case, equal, eventually


@case("end")
def a_proxy_that_is_told_to_end_says_so_and_finishes_what_runs(env):
    with wire.Client(env.addresses["echo"]) as busy, wire.Client(env.addresses["echo"]) as idle, frames.Client(env.addresses["http2"]) as http2:
        equal(idle.get("/x").status, 200)
        busy.send("GET /sleep/1 HTTP/1.1\r\nHost: a\r\n\r\n")
        http2.send(frames.headers(frames.POST, end=False) + frames.data(b"he", end=False))
        eventually("the app has the request", lambda: any(request.target == "/sleep/1" for request in env.apps.recorder.requests))
        env.process.terminate()
        assert idle.is_closed(), "a connection at rest is closed at once"
        http2.send(frames.data(b"llo"))
        equal(http2.response()[0], 200)
        response = busy.response()
        equal((response.body, response.field("connection")), (b"slept", "close"))
        assert busy.is_closed()
    equal(env.process.wait(10), 0, "exit code")
    env.alive, env.open_connections = lambda: True, lambda: 0
