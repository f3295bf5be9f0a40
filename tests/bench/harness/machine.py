"""What the benchmark asks of the machine: two cores, a closed network namespace, CPU time, memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NAMESPACE_PREFIX = "leno-bench-"
NAMESPACE = f"{NAMESPACE_PREFIX}{os.getpid()}"
QUIET_CORES = 0.2  # a sample is taken again when others used more than this of our two cores
_USABLE = sorted(os.sched_getaffinity(0))
LOAD_CORE, PROXY_CORE = _USABLE[0], _USABLE[-1]


def check() -> None:
    """Ends the program where the benchmark cannot run."""
    if os.geteuid() != 0:
        sys.exit("The benchmark makes a network namespace: run it as root.")
    if LOAD_CORE == PROXY_CORE:
        sys.exit("The benchmark needs two cores: one for the load, one for the proxy.")


class Namespace:
    """A network namespace with nothing in it but loopback, so that no packet can leave."""

    def __enter__(self) -> "Namespace":
        for name in _left_behind():
            _remove(name)
        subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
        subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
        # Below these are the ports of the peers and the backend.
        ports = "net.ipv4.ip_local_port_range=20000 65000"
        subprocess.run(["ip", "netns", "exec", NAMESPACE, "sysctl", "-qw", ports], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        _remove(NAMESPACE)


def _left_behind() -> list[str]:
    """Namespaces of runs that ended without removing them."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    names = [line.split()[0] for line in listed.splitlines() if line.startswith(NAMESPACE_PREFIX)]
    return [name for name in names if not Path("/proc", name.removeprefix(NAMESPACE_PREFIX)).exists()]


def _remove(name: str) -> None:
    """Removes a namespace, with what runs in it."""
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    for pid in listed.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)


def start(command: list[str], core: int, **options) -> subprocess.Popen:
    """Starts a command inside the namespace, on one core, in a process group of its own."""
    inside = ["ip", "netns", "exec", NAMESPACE, "taskset", "-c", str(core)]
    return subprocess.Popen(inside + command, start_new_session=True, **options)


def stop(process: subprocess.Popen) -> None:
    """Ends a started command with all its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            pids += family(int(child))
    return pids


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants, with nanosecond accuracy."""
    total_ns = 0
    for member in family(pid):
        for task in Path(f"/proc/{member}/task").glob("*/schedstat"):
            try:
                total_ns += int(task.read_text().split()[0])
            except OSError:
                pass
    return total_ns / 1e9


def memory_kib(pid: int) -> int:
    """Proportional set size of a process and its descendants: shared pages are counted once."""
    total = 0
    for member in family(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def busy_seconds() -> float:
    """What our two cores have worked since boot, for whomever."""
    cores = {f"cpu{LOAD_CORE}", f"cpu{PROXY_CORE}"}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in cores:
            user, nice, system, _idle, _iowait, *others = map(int, ticks[:8])
            busy += user + nice + system + sum(others)
    return busy / os.sysconf("SC_CLK_TCK")


def wait_until_quiet(patience_seconds: float) -> None:
    """Waits until others leave our cores alone for a quarter of a second, or patience ends."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        before = busy_seconds()
        time.sleep(0.25)
        if (busy_seconds() - before) / 0.25 < QUIET_CORES:
            return


def describe() -> dict:
    """The facts without which a figure means nothing."""
    models = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")]
    return {"cpu": models[0] if models else "unknown", "cores": os.cpu_count(), "kernel": os.uname().release}
