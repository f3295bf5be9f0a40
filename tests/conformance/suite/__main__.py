"""Starts the servers and the proxies, runs the cases, reports.

Arguments: the binaries `leno-proxy` and `leno`, then words: only cases whose mesh, group and name hold all of them run."""

import os
import pathlib
import sys
import tempfile
import time

from . import check, mesh
from . import (http1, http1_fields, smuggling, upstream, tools, rpc, websocket, opaque, explicit, http2, h2spec, abuse, upstream2,
               traces, drain)  # in this order they run


def run_all(folder, binaries, wanted):
    passed = failed = 0
    apps = mesh.Apps(folder)
    try:
        for under_test, binary in zip((mesh.Proxy, mesh.Up), binaries):
            env = under_test(binary, folder, apps)
            try:
                counts = check.run(env, wanted)
            finally:
                env.process.kill()
            passed, failed = passed + counts[0], failed + counts[1]
    finally:
        apps.nginx.process.kill()
    return passed, failed


def main():
    proxy, leno, *wanted = sys.argv[1:]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leno-conformance-") as folder:
        passed, failed = run_all(pathlib.Path(folder), (proxy, leno), wanted)
    print(f"took {time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {failed} failed", flush=True)
    # Threads of the servers still wait for connections, so nothing short of this ends the process.
    os._exit(1 if failed or not passed else 0)


main()
