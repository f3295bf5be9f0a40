"""Starts the servers and the proxy, runs the cases, reports. Arguments: the proxy's binary, then words that cases must hold."""

import pathlib
import sys
import tempfile
import time

from . import check, mesh
from . import http1, smuggling, upstream, tools, rpc, http2, drain  # in this order they run


def main():
    binary, *wanted = sys.argv[1:]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leno-conformance-") as folder:
        folder = pathlib.Path(folder)
        apps = mesh.Apps(folder)
        env = mesh.Proxy(binary, folder, apps)
        try:
            passed, failed = check.run(env, wanted)
        finally:
            env.process.kill()
            apps.nginx.process.kill()
    print(f"in {time.monotonic() - began:.0f} s: {passed} passed, {failed} failed", flush=True)
    sys.stdout.flush()
    # Threads of the servers still wait for connections.
    import os
    os._exit(1 if failed or not passed else 0)


main()
