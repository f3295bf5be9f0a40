"""Starts one peer with its backend and takes samples: a burst of load and what it cost."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness import machine, peers
from harness.scenarios import Scenario

START_TIMEOUT_SECONDS = 10
GIGABYTE = 1e9


@dataclass(frozen=True)
class Reading:
    """CPU seconds so far, of everyone whose use must be told apart."""

    at: float
    proxy: float
    tools: float
    cores: float


class Bench:
    """A running peer with its backend, ready to be loaded. Use it as a context; `starts_proxy`: or else a sample does."""

    def __init__(self, peer: peers.Peer, tools: Path, folder: Path, starts_proxy: bool = True):
        self._peer, self._tools, self._folder, self._starts_proxy = peer, tools, folder, starts_proxy
        self._backend: subprocess.Popen | None = None
        self._proxy: subprocess.Popen | None = None
        self._beside: subprocess.Popen | None = None

    def __enter__(self) -> "Bench":
        try:
            self._backend = machine.start([f"{self._tools}/backend", peers.BACKEND], machine.LOAD_CORE)
            self._wait_for(self._backend, peers.BACKEND)
            self._log.write_text("")
            if self._peer.beside:
                self._beside = self._start(list(self._peer.beside), machine.LOAD_CORE)
                self._wait_for(self._beside, self._peer.beside_at)
            if self._peer.command and self._starts_proxy:
                self._proxy = self._start(self._peer.command, machine.PROXY_CORE)
                for address in filter(None, (self._peer.http1, self._peer.http2, self._peer.tcp, self._peer.tls)):
                    self._wait_for(self._proxy, address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, command: list[str], core: int) -> subprocess.Popen:
        with open(self._log, "a") as log:
            return machine.start(command, core, stdout=log, stderr=log)

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

    def family(self) -> list[int]:
        """The peer's processes."""
        return machine.family(self._proxy.pid) if self._proxy else []

    def memory_kib(self) -> int:
        return machine.memory_kib(self._proxy.pid) if self._proxy else 0

    def takes(self, scenario: Scenario) -> bool:
        """Whether the peer has what the scenario loads, and what comes of it says something."""
        return bool(getattr(self._peer, scenario.to)) and (bool(self._peer.command) or scenario.tells_of_direct)

    def sample(self, scenario: Scenario, quick: bool) -> dict:
        """Loads the peer once. Besides the generator's own figures: CPU, memory and what others used."""
        if scenario.mode == "first":
            return self._first_answer(scenario)
        seconds = scenario.seconds / 2 if quick else scenario.seconds
        load = self._start_load(scenario, seconds)
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
        return {**result, **_costs(*readings, result["ok"], result["bytes"]), "memory_kib": memory}

    def _start_load(self, scenario: Scenario, seconds: float) -> subprocess.Popen:
        command = [f"{self._tools}/load", scenario.mode, "-t", getattr(self._peer, scenario.to), "-H", peers.HOST,
                   "-d", str(seconds), "-w", str(scenario.warm_up_seconds), *scenario.load.split()]
        if scenario.mode == "tls":
            command += self._peer.credentials()
        return machine.start(command, machine.LOAD_CORE, stdout=subprocess.PIPE, text=True)

    def _first_answer(self, scenario: Scenario) -> dict:
        """Starts the peer while somebody asks all the time; ends it again."""
        watcher = self._start(list(self._peer.watcher), machine.LOAD_CORE) if self._peer.watched else None
        load = None
        try:
            if watcher:
                self._wait_for(watcher, self._peer.watcher_at)
            load = self._start_load(scenario, scenario.seconds)
            began = time.monotonic()
            self._proxy = self._start(self._peer.watched or self._peer.command, machine.PROXY_CORE)
            told, _ = load.communicate()
            if load.returncode:
                raise RuntimeError(f"{self._peer.name} answers nothing:\n{self._log.read_text()[-2000:]}")
            first = json.loads(told)["first_ns"]
            return {"start_ms": round(first / 1e6 - began * 1e3, 2), **self._since_configured(first), "errors": 0, "unserved": 0,
                    "memory_kib": self.memory_kib(), "foreign_cores": 0.0}
        finally:
            for process in filter(None, (load, watcher)):
                machine.stop(process)
            if self._proxy:
                machine.stop(self._proxy)
                self._proxy = None

    def _since_configured(self, first: int) -> dict:
        """How long before the first answer the last piece came of what configures the peer, where that is to be seen."""
        if not self._peer.told_at:
            return {}
        told = [at for at in map(int, self._peer.told_at.read_text().split()) if at < first]
        return {"configured_ms": round((first - max(told)) / 1e6, 3)} if told else {}

    def _read(self, load_pid: int) -> Reading:
        return Reading(
            at=time.monotonic(),
            proxy=machine.cpu_seconds(self._proxy.pid) if self._proxy else 0,
            tools=machine.cpu_seconds(load_pid) + machine.cpu_seconds(self._backend.pid),
            cores=machine.busy_seconds())


def _costs(before: Reading, after: Reading, requests: int, octets: int) -> dict:
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
    if proxy > 0 and octets > GIGABYTE / 20:
        costs["cpu_seconds_per_gb"] = round(proxy / (octets / GIGABYTE), 4)
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
