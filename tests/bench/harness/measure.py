"""Starts one peer with its backend and takes samples: a burst of load and what it cost."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness import machine, peers

START_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Scenario:
    """One way to load a peer. `load` are arguments of the load generator."""

    title: str
    mode: str
    load: str
    seconds: float
    to: str = "http1"  # which address of the peer
    chain: bool = False  # two proxies of the peer, one behind the other, with mutual TLS between them


SCENARIOS = {
    "h1-max": Scenario("HTTP/1.1, 1 KiB, 64 connections, as fast as it goes", "h1", "-c 64 -p /b/1024", 1.0),
    "h1-1k": Scenario("HTTP/1.1, 1 KiB, 1,000 requests/s on 16 connections", "h1", "-c 16 -r 1000 -p /b/1024", 3.0),
    "h2-max": Scenario("h2 gRPC-like unary, 4 connections of 16 streams, as fast as it goes", "h2",
                       "-c 4 -m 16 -p /bench.Echo/Say", 1.0, to="http2"),
    "h2-1k": Scenario("h2 gRPC-like unary, 1,000 requests/s on 4 connections", "h2",
                      "-c 4 -m 64 -r 1000 -p /bench.Echo/Say", 3.0, to="http2"),
    "idle": Scenario("4,000 idle HTTP/1.1 connections", "idle", "-c 4000 -p /b/64", 1.0),
    "mtls-h1": Scenario("two proxies, mTLS between: HTTP/1.1, 1 KiB, 64 connections, as fast as it goes", "h1",
                        "-w 1 -c 64 -p /b/1024", 1.0, chain=True),
    "mtls-h2": Scenario("two proxies, mTLS between: h2 unary, 4 connections of 16 streams, as fast as it goes", "h2",
                        "-w 1 -c 4 -m 16 -p /bench.Echo/Say", 1.0, to="http2", chain=True),
    "mtls-h1-1k": Scenario("two proxies, mTLS between: HTTP/1.1, 1 KiB, 1,000 requests/s on 16 connections", "h1",
                           "-c 16 -r 1000 -p /b/1024", 3.0, chain=True),
    "mtls-new": Scenario("two proxies, a new mTLS connection for each request of 64 bytes, 16 at a time", "new",
                         "-c 16 -p /b/64", 1.0, to="tcp", chain=True),
}


@dataclass(frozen=True)
class Reading:
    """CPU seconds so far, of everyone whose use must be told apart."""

    at: float
    proxy: float
    tools: float
    cores: float


class Bench:
    """A running peer with its backend, ready to be loaded. Use it as a context."""

    def __init__(self, peer: peers.Peer, tools: Path, folder: Path):
        self._peer, self._tools, self._folder = peer, tools, folder
        self._backend: subprocess.Popen | None = None
        self._proxy: subprocess.Popen | None = None
        self._beside: subprocess.Popen | None = None

    def __enter__(self) -> "Bench":
        try:
            self._backend = machine.start([f"{self._tools}/backend", peers.BACKEND], machine.LOAD_CORE)
            self._wait_for(self._backend, peers.BACKEND)
            if self._peer.command:
                with open(self._log, "w") as log:
                    if self._peer.beside:
                        for stale in self._folder.glob("*-ca.pem"):
                            stale.unlink()  # of the round before: the peer waits for this round's
                        self._beside = machine.start(list(self._peer.beside), machine.LOAD_CORE, stdout=log, stderr=log)
                    self._proxy = machine.start(self._peer.command, machine.PROXY_CORE, stdout=log, stderr=log)
                for address in filter(None, (self._peer.http1, self._peer.http2, self._peer.tcp)):
                    self._wait_for(self._proxy, address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._proxy, self._beside, self._backend):
            if process:
                machine.stop(process)

    @property
    def _log(self) -> Path:
        return self._folder / f"{self._peer.name}.log"

    def _wait_for(self, process: subprocess.Popen, address: str) -> None:
        """Waits until someone listens at the address inside the namespace."""
        _, port = address.split(":")
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if int(port) in _listening_ports(process.pid):
                return
            time.sleep(0.02)
        log = self._log.read_text() if self._log.exists() else ""
        raise RuntimeError(f"{self._peer.name} does not listen on {address}:\n{log[-2000:]}")

    def memory_kib(self) -> int:
        return machine.memory_kib(self._proxy.pid) if self._proxy else 0

    def sample(self, scenario: Scenario, quick: bool) -> dict:
        """Loads the peer once. Besides the generator's own figures: CPU, memory and what others used."""
        address = getattr(self._peer, scenario.to)
        seconds = scenario.seconds / 2 if quick else scenario.seconds
        command = [f"{self._tools}/load", scenario.mode, "-t", address, "-H", peers.HOST,
                   "-d", str(seconds), "-w", "0.3", *scenario.load.split()]
        load = machine.start(command, machine.LOAD_CORE, stdout=subprocess.PIPE, text=True)
        try:
            readings, memory, result = [], 0, None
            for line in load.stdout:
                if line.startswith("{"):
                    result = json.loads(line)
                    continue
                readings.append(self._read(load.pid))
                memory = self.memory_kib()
            if load.wait() or result is None or len(readings) != 2:
                raise RuntimeError(f"the load generator failed against {self._peer.name}")
        finally:
            machine.stop(load)
        return {**result, **_costs(readings[0], readings[1], result["ok"]), "memory_kib": memory}

    def _read(self, load_pid: int) -> Reading:
        return Reading(
            at=time.monotonic(),
            proxy=machine.cpu_seconds(self._proxy.pid) if self._proxy else 0,
            tools=machine.cpu_seconds(load_pid) + machine.cpu_seconds(self._backend.pid),
            cores=machine.busy_seconds())


def _costs(before: Reading, after: Reading, requests: int) -> dict:
    """What happened between two readings. `foreign_cores` is work of nobody in this benchmark."""
    elapsed = after.at - before.at
    proxy, tools = after.proxy - before.proxy, after.tools - before.tools
    costs = {
        "proxy_cores": round(proxy / elapsed, 4),
        "tool_cores": round(tools / elapsed, 4),
        "foreign_cores": round(max(0.0, after.cores - before.cores - proxy - tools) / elapsed, 3),
    }
    if proxy > 0 and requests:
        costs["cpu_us_per_request"] = round(proxy / requests * 1e6, 3)
        costs["requests_per_cpu_second"] = round(requests / proxy, 1)
    return costs


def _listening_ports(pid: int) -> set[int]:
    """TCP ports somebody listens on in a process's network namespace, once it has left ours."""
    try:
        if Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            return set()
        rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return set()
    listen = "0A"
    return {int(row.split()[1].split(":")[1], 16) for row in rows if row.split()[3] == listen}
