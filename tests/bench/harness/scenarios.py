"""How peers are loaded. Scenarios of one block run one after the other against one start of a peer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """One way to load a peer. `load` are arguments of the load generator."""

    title: str
    mode: str
    load: str
    seconds: float
    block: str
    to: str = "http1"  # which address of the peer
    warm_up_seconds: float = 0.3

    @property
    def chain(self) -> bool:
        """Whether two proxies of the peer stand one behind the other, with mutual TLS between them."""
        return self.block.startswith("two-")

    @property
    def tells_of_direct(self) -> bool:
        """Whether the load without any proxy says something: latency counts as what a proxy adds to it."""
        return "-r " in self.load


H1, H2, CALL = "-c 64 -p /b/1024", "-c 4 -m 16 -p /bench.Echo/Say", "-c 4 -m 64 -r 1000 -p /bench.Echo/Say"
H1_RATE, BODIES = "-c 16 -r 1000 -p /b/1024", "-c 4 -p /b/1048576"

SCENARIOS = {
    "h1-1k": Scenario("HTTP/1.1, 1 KiB, 1,000 requests/s on 16 connections", "h1", H1_RATE, 2.0, "one-requests"),
    "h2-1k": Scenario("h2 gRPC-like unary, 1,000 requests/s on 4 connections", "h2", CALL, 2.0, "one-requests", to="http2"),
    "h1-max": Scenario("HTTP/1.1, 1 KiB, 64 connections, as fast as it goes", "h1", H1, 1.0, "one-requests"),
    "h2-max": Scenario("h2 gRPC-like unary, 4 connections of 16 streams, as fast as it goes", "h2", H2, 1.0, "one-requests", to="http2"),
    "h2-long": Scenario("the same with messages of 1 KiB both ways", "h2", f"{H2} -s 1024", 1.0, "one-requests", to="http2"),
    "bodies": Scenario("HTTP/1.1, bodies of 1 MiB, 4 connections", "h1", BODIES, 1.0, "one-connections"),
    "new": Scenario("a new connection for each HTTP/1.1 request of 64 bytes, 32 at a time", "new", "-c 32 -p /b/64", 1.0, "one-connections"),
    "idle": Scenario("9,000 idle HTTP/1.1 connections", "idle", "-c 9000 -p /b/64", 3.0, "one-idle"),
    "start": Scenario("from the start of the process to the first answer", "first", "-p /b/64", 10.0, "one-start"),
    "mtls-h1-1k": Scenario("two proxies, mTLS: HTTP/1.1, 1 KiB, 1,000 requests/s on 16 connections", "h1", H1_RATE, 2.0, "two-requests"),
    "mtls-h2-1k": Scenario("two proxies, mTLS: h2 unary, 1,000 requests/s on 4 connections", "h2", CALL, 2.0, "two-requests", to="http2"),
    "mtls-h1": Scenario("two proxies, mTLS: HTTP/1.1, 1 KiB, 64 connections, as fast as it goes", "h1", H1, 1.0, "two-requests",
                        warm_up_seconds=0.6),
    "mtls-h2": Scenario("two proxies, mTLS: h2 unary, 4 connections of 16 streams, as fast as it goes", "h2", H2, 1.0, "two-requests",
                        to="http2", warm_up_seconds=0.6),
    "mtls-h2-long": Scenario("the same with messages of 1 KiB both ways", "h2", f"{H2} -s 1024", 1.0, "two-requests", to="http2",
                             warm_up_seconds=0.6),
    "handshake": Scenario("a full mTLS handshake with the proxy of the server and one request, 16 at a time", "tls", "-c 16 -p /b/64", 1.0,
                          "two-connections", to="tls"),
    "l4": Scenario("connections carried as they are through mTLS: 64 of them, 1 KiB an answer", "h1", H1, 1.0, "two-connections", to="tcp",
                   warm_up_seconds=0.6),
    "l4-bodies": Scenario("connections carried as they are through mTLS: answers of 1 MiB on 4 of them", "h1", BODIES, 1.0,
                          "two-connections", to="tcp"),
    "l4-new": Scenario("a new connection, carried as it is through mTLS, for each answer of 64 bytes, 16 at a time", "new",
                       "-c 16 -p /b/64", 1.0, "two-connections", to="tcp"),
    "mtls-idle": Scenario("two proxies, mTLS: 9,000 idle HTTP/1.1 connections", "idle", "-c 9000 -p /b/64", 3.0, "two-idle"),
}
BLOCKS = list(dict.fromkeys(scenario.block for scenario in SCENARIOS.values()))


def seconds_of(names: list[str], quick: bool) -> float:
    """About how long one peer takes for these scenarios, its start included."""
    chosen = [SCENARIOS[name] for name in names]
    load = sum(1.0 if scenario.mode == "first" else scenario.seconds / (2 if quick else 1) + scenario.warm_up_seconds + 0.6 for scenario in chosen)
    return 1.5 + load
