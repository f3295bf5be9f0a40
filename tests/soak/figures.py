"""Memory, descriptors, threads and tasks of each process, second by second, and whether they stay what they are."""

import statistics
from pathlib import Path

GROWTH_MAX = 0.05  # of memory, after the warm-up
LONG = 600  # seconds of a real soak
NOISE_KIB = 400  # less than that in a real soak is a few pages of buffers, not a leak; more in a shorter one, which has not seen its busiest moment
WARM_UP = 1 / 3  # of the time
DESCRIPTORS = 8  # more than at the busiest second before


class Figures:
    def __init__(self, mesh):
        self.mesh, self.samples = mesh, {name: [] for name in mesh.watched}

    def sample(self, at):
        for name, pid in self.mesh.watched.items():
            tasks = self.mesh.metric(name.removeprefix("proxy "), "leno_worker_tasks ") if name.startswith("proxy ") else 0
            self.samples[name].append((at, memory_kib(pid), descriptors(pid), threads(pid), tasks))

    def parts(self, name, seconds):
        """What was seen in the first and in the last third after the warm-up."""
        warm = [it for it in self.samples[name] if it[0] >= seconds * WARM_UP]
        third = max(1, len(warm) // 3)
        return warm[:third], warm[-third:]

    def problems(self, seconds):
        found = []
        for name in self.samples:
            early, late = self.parts(name, seconds)
            before, after = (statistics.median(it[1] for it in part) for part in (early, late))
            if after - before > max(GROWTH_MAX * before, NOISE_KIB * max(1, LONG / seconds)):
                found.append(f"{name}: memory grew from {before:.0f} to {after:.0f} KiB")
            for place, what in ((2, "descriptors"), (3, "threads"), (4, "tasks")):
                most, now = (max(it[place] for it in part) for part in (early, late))
                if now > most * (1 + GROWTH_MAX) + DESCRIPTORS:
                    found.append(f"{name}: {what} grew from {most:.0f} to {now:.0f}")
        return found

    def table(self, seconds):
        lines = [f"{'after the warm-up':<18}{'KiB first':>10}{'last third':>11}{'change':>8}{'descriptors':>14}{'tasks':>12}"]
        for name in self.samples:
            early, late = self.parts(name, seconds)
            before, after = (statistics.median(it[1] for it in part) for part in (early, late))
            pairs = ["/".join(f"{max(it[place] for it in part):.0f}" for part in (early, late)) for place in (2, 4)]
            lines.append(f"{name:<18}{before:>10.0f}{after:>11.0f}{100 * (after / before - 1):>+7.1f}%{pairs[0]:>14}{pairs[1]:>12}")
        return "\n".join(lines)


def memory_kib(pid):
    """Proportional set size: what would be free without the process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
