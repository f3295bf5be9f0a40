"""What Leno must reach, row by row, and whether it does: the table that goes to RESULTS.md.

Absolute figures move from machine to machine, ratios hold: so goals are ratios, to the floor (`fwd`) or to the best of the other
peers in the same run. What does not move, memory, has absolute goals.
"""

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import machine
from harness.report import CONTENDERS, FLOOR
from harness.results import versions

RESULTS = Path(__file__).resolve().parent.parent / "RESULTS.md"
BEGIN, END = "<!-- data plane: written by tests/bench/run --write-results -->", "<!-- end of data plane -->"
TITLES = {"fwd": "floor (`fwd`)", "haproxy": "HAProxy", "nginx": "nginx", "envoy": "Envoy", "pingora": "pingora", "leno": "**Leno**"}
Figure = Callable[[dict], float | None]


@dataclass(frozen=True)
class Goal:
    """`times` the floor or the best peer, or `times` as it is."""

    times: float
    of: str = ""  # "floor", "best"; empty: absolute

    def text(self, unit: str) -> str:
        return f"≤ {self.times:g} × {self.of}" if self.of else f"≤ {self.times:g} {unit}".rstrip()


@dataclass(frozen=True)
class Row:
    """A figure of one scenario. `figure` gives it for a sample, where the sample has it; `over_direct`: less what the same load takes alone."""

    title: str
    scenario: str
    figure: Figure
    digits: int
    goal: Goal | None
    unit: str = ""
    over_direct: bool = False


def key(name: str, factor: float = 1) -> Figure:
    return lambda sample: sample[name] * factor if name in sample else None


def kib_per_connection(sample: dict) -> float | None:
    return (sample["memory_kib"] - sample["memory_start_kib"]) / sample["open"] if sample.get("open") else None


CPU, PER_GB, CORE, P50 = key("cpu_us_per_request"), key("cpu_seconds_per_gb"), key("proxy_cores", 100), key("p50_us")
ROWS = [
    Row("one hop, HTTP/1.1, CPU µs/request", "h1-max", CPU, 1, Goal(1.25, "floor")),
    Row("two hops, mTLS, HTTP/1.1, CPU µs/request", "mtls-h1", CPU, 1, Goal(0.6, "best")),
    Row("one hop, h2 unary, CPU µs/request", "h2-max", CPU, 1, Goal(0.79, "best")),
    Row("two hops, mTLS, h2 unary, CPU µs/request", "mtls-h2", CPU, 1, Goal(0.68, "best")),
    Row("one hop, h2 unary of 1 KiB, CPU µs/request", "h2-long", CPU, 1, None),
    Row("two hops, mTLS, h2 unary of 1 KiB, CPU µs/request", "mtls-h2-long", CPU, 1, None),
    Row("added p50 at 1,000 req/s, one hop, HTTP/1.1, µs", "h1-1k", P50, 0, Goal(1, "floor"), over_direct=True),
    Row("added p50 at 1,000 req/s, two hops, HTTP/1.1, µs", "mtls-h1-1k", P50, 0, Goal(0.73, "best"), over_direct=True),
    Row("added p50 at 1,000 req/s, one hop, h2, µs", "h2-1k", P50, 0, Goal(1, "best"), over_direct=True),
    Row("added p50 at 1,000 req/s, two hops, h2, µs", "mtls-h2-1k", P50, 0, Goal(1, "best"), over_direct=True),
    Row("CPU at 1,000 req/s, one hop, HTTP/1.1, % of a core", "h1-1k", CORE, 1, Goal(1.12, "floor")),
    Row("CPU at 1,000 req/s, two hops, HTTP/1.1, % of a core", "mtls-h1-1k", CORE, 1, Goal(0.65, "best")),
    Row("CPU at 1,000 req/s, one hop, h2, % of a core", "h2-1k", CORE, 1, Goal(1, "best")),
    Row("CPU at 1,000 req/s, two hops, h2, % of a core", "mtls-h2-1k", CORE, 1, Goal(1, "best")),
    Row("L4 through mTLS, CPU µs/request", "l4", CPU, 1, Goal(0.83, "best")),
    Row("L4 through mTLS, CPU s/GB", "l4-bodies", PER_GB, 2, Goal(0.69, "best")),
    Row("L4 through mTLS, CPU µs/new connection", "l4-new", CPU, 0, Goal(0.32, "best")),
    Row("1 MiB bodies over HTTP, one hop, CPU s/GB", "bodies", PER_GB, 2, Goal(1.12, "floor")),
    Row("new plain connection, CPU µs", "new", CPU, 1, Goal(1.08, "best")),
    Row("full mTLS handshake and a request, CPU µs", "handshake", CPU, 0, Goal(0.77, "best")),
    Row("memory at start, MiB", "h1-1k", key("memory_start_kib", 1 / 1024), 1, Goal(8), "MiB"),
    Row("memory after 1,000 req/s, MiB", "h1-1k", key("memory_kib", 1 / 1024), 1, Goal(10), "MiB"),
    Row("memory per idle connection, plain, KiB", "idle", kib_per_connection, 2, Goal(1), "KiB"),
    Row("memory per idle connection, two hops, mTLS, KiB", "mtls-idle", kib_per_connection, 2, Goal(5), "KiB"),
    Row("from the start of the process to the first answer, ms", "start", key("start_ms"), 0, None),
    Row("from the arrival of the last of its configuration to the first answer, ms", "start", key("configured_ms"), 1, Goal(50), "ms"),
]


def values_of(row: Row, samples: list[dict]) -> dict[str, list[float]]:
    """The row's figure of each round, by peer."""
    own = [sample for sample in samples if sample["scenario"] == row.scenario and (sample["peer"] == "direct" or sample["memory_kib"])]
    direct = {sample["round"]: row.figure(sample) for sample in own if sample["peer"] == "direct"} if row.over_direct else {}
    found: dict[str, list[float]] = {}
    for sample in own:
        value = row.figure(sample)
        if sample["peer"] == "direct" or value is None or (row.over_direct and sample["round"] not in direct):
            continue
        found.setdefault(sample["peer"], []).append(value - direct.get(sample["round"], 0))
    return found


def table(samples: list[dict]) -> str:
    """The goals' table, in Markdown."""
    names = [name for name in TITLES if any(sample["peer"] == name for sample in samples)]
    lines = ["| | " + " | ".join(TITLES[name] for name in names) + " | × floor | × best | goal | met |",
             "|---|" + "--:|" * (len(names) + 4)]
    for row in ROWS:
        values = values_of(row, samples)
        if not values:
            continue
        cells = [cell(values.get(name), row.digits) for name in names]
        lines.append(f"| {row.title} | {' | '.join(cells)} | {' | '.join(judged(row, values))} |")
    return "\n".join(lines)


def cell(values: list[float] | None, digits: int) -> str:
    if not values:
        return "–"
    text = f"{statistics.median(values):,.{digits}f}"
    return text if len(values) == 1 else f"{text} [{min(values):,.{digits}f}–{max(values):,.{digits}f}]"


def judged(row: Row, values: dict[str, list[float]]) -> list[str]:
    """The ratios to floor and best peer, the goal, and whether it is met."""
    median = {name: statistics.median(found) for name, found in values.items()}
    own, floor = median.get("leno"), median.get(FLOOR)
    best = min((median[name] for name in CONTENDERS if name in median), default=None)
    ratio = lambda other: f"{own / other:.2f}" if own is not None and other and other > 0 else "–"
    if row.goal is None:
        return [ratio(floor), ratio(best), "–", "–"]
    reference = {"floor": floor, "best": best, "": 1.0}[row.goal.of]
    met = "–" if own is None or reference is None else "yes" if own <= row.goal.times * reference else "**no**"
    return [ratio(floor), ratio(best), row.goal.text(row.unit), met]


def write_section(heads: list[dict], samples: list[dict]) -> None:
    """Puts the section of the data plane into RESULTS.md; what else stands there stays."""
    text = RESULTS.read_text() if RESULTS.exists() else "# What was measured\n"
    section = f"{BEGIN}\n{section_of(heads, samples)}\n{END}"
    if BEGIN in text:
        text = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: section, text, flags=re.DOTALL)
    else:
        title, _, rest = text.partition("\n")
        text = f"{title}\n\n{section}\n{rest}"
    RESULTS.write_text(text)


def section_of(heads: list[dict], samples: list[dict]) -> str:
    head, rounds = heads[0], len({sample["round"] for sample in samples})
    noisy = sum(sample["foreign_cores"] > machine.QUIET_CORES for sample in samples)
    wrong = sum(sample["errors"] + sample["unserved"] for sample in samples)
    stated = "; ".join(f"{name}: {version}" for name, version in versions(heads).items())
    return f"""\
## Data plane

`{head['command']}`, begun {head['utc']} UTC{f' and continued {len(heads) - 1} times' if len(heads) > 1 else ''}: {rounds} rounds, peers interleaved;
medians [min–max]. {head['cpu']}, {head['cores']} cores, Linux {head['kernel']}; load and backend on one core, the proxy or both proxies on the other.
{len(samples)} samples, {wrong} requests that failed, {noisy} samples with more than {machine.QUIET_CORES} cores of other work although repeated.

{stated}.

Leno's features are on: metrics, routes, timeout, in two hops Strict mode and rules of who may call. Access logs are off. × best: against the
best of {', '.join(TITLES[name] for name in CONTENDERS)}. What is measured how: [README.md](README.md).

{table(samples)}
"""
