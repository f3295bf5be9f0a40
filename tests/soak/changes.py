"""What changes while the traffic goes on: weights and other fields of routes, and who the endpoints are."""

import random
import threading

from mesh import SERVERS

EVERY = 0.25  # seconds from one change to the next


class Changes:
    def __init__(self, mesh):
        self.mesh, self.count, self.error = mesh, 0, None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join(10)

    def work(self):
        draw = random.Random(7)
        try:
            while not self.done.wait(EVERY):
                self.count += 1
                if self.count % 2:
                    present = set(draw.sample(sorted(SERVERS), draw.choice([1, 2])))  # never nobody
                    self.mesh.write("endpoints", *self.mesh.endpoints(present, nobody=draw.random() < 0.3))
                else:
                    v1 = draw.randint(0, 100)
                    self.mesh.write("routes", self.mesh.versions(), self.mesh.policy(v1, 100 - v1, turn=self.count))
        except OSError as error:
            self.error = error

    def problems(self):
        return [f"changes stopped: {self.error}"] if self.error else []
