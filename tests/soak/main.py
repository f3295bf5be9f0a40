"""A soak: traffic of every kind through a mesh that changes all the time, and what becomes of memory, descriptors and tasks."""

import subprocess
import sys
import time
from pathlib import Path

from changes import Changes
from figures import Figures
from mesh import Mesh
from traffic import Traffic


def main():
    binaries, folder, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    mesh = Mesh(binaries, folder)
    mesh.start()
    print(f"{len(mesh.watched)} processes under watch for {seconds} s", flush=True)
    figures = Figures(mesh)
    with Changes(mesh) as changes, Traffic(mesh) as traffic:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(1)
            figures.sample(time.monotonic() - began)
            mesh.assert_alive()
            traffic.assert_alive()
    problems = [*traffic.problems(), *changes.problems(), *figures.problems(seconds)]
    print(figures.table(seconds))
    print(f"{changes.count} changes of routes and endpoints; {traffic.summary()}")
    if problems:
        sys.exit("\n".join(["the soak failed:", *problems, mesh.complaints()]))
    print("the soak passed: 1 passed")


if __name__ == "__main__":
    main()
