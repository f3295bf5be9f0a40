"""Turns samples into one table: medians with their range, and ratios to the floor and to the best peer."""

import statistics
from dataclasses import dataclass

from harness import machine
from harness.scenarios import SCENARIOS

FLOOR = "fwd"
CONTENDERS = ["envoy", "haproxy", "nginx", "pingora"]  # the best of these is what Leno is compared with


@dataclass(frozen=True)
class Column:
    """A figure of each sample. `better` ("less" or "more") is given where ratios make sense."""

    key: str
    title: str
    digits: int
    better: str = ""
    has_floor: bool = True  # whether what the bare forwarder needs says something about a proxy


CPU = [Column("requests_per_cpu_second", "req/CPU-s", 0, "more"), Column("cpu_us_per_request", "CPU µs/req", 2)]
LATENCY = [Column("p50_us", "p50 µs", 0, "less"), Column("p99_us", "p99 µs", 0, "less")]
MEMORY = [Column("memory_mib", "MiB", 1, "less", has_floor=False)]
RATE = [*LATENCY, Column("proxy_cores", "cores", 3, "less"), *MEMORY]
COST = [*CPU, Column("requests_per_second", "req/s", 0), *MEMORY]
BODIES = [Column("cpu_seconds_per_gb", "CPU s/GB", 3, "less"), Column("requests_per_second", "bodies/s", 0), *MEMORY]
NEW = [Column("cpu_us_per_request", "CPU µs/connection", 0, "less"), Column("requests_per_second", "connections/s", 0),
       Column("p50_us", "p50 µs", 0, "less")]
IDLE = [Column("memory_start_mib", "MiB at start", 1, "less", has_floor=False), *MEMORY,
        Column("kib_per_connection", "KiB/connection", 2, "less", has_floor=False)]
COLUMNS = {
    **dict.fromkeys(["h1-1k", "h2-1k", "mtls-h1-1k", "mtls-h2-1k"], RATE),
    **dict.fromkeys(["h1-max", "h2-max", "h2-long", "mtls-h1", "mtls-h2", "mtls-h2-long", "l4"], COST),
    **dict.fromkeys(["bodies", "l4-bodies"], BODIES),
    **dict.fromkeys(["new", "handshake", "l4-new"], NEW),
    **dict.fromkeys(["idle", "mtls-idle"], IDLE),
    "start": [Column("start_ms", "ms to the first answer", 1, "less"), Column("configured_ms", "ms since it was configured", 2)],
}


def table(samples: list[dict]) -> str:
    """The whole comparison as text. Samples of one scenario must come from one run."""
    parts = [_section(name, [_derived(s) for s in samples if s["scenario"] == name]) for name in SCENARIOS]
    return "\n".join(part for part in parts if part)


def _derived(sample: dict) -> dict:
    """A sample with the figures that follow from the others; what does not apply is left out."""
    derived = dict(sample)
    if sample["memory_kib"]:
        derived["memory_mib"] = sample["memory_kib"] / 1024
        derived["memory_start_mib"] = sample["memory_start_kib"] / 1024
        if sample.get("open"):
            derived["kib_per_connection"] = (sample["memory_kib"] - sample["memory_start_kib"]) / sample["open"]
    else:
        derived.pop("proxy_cores", None)
    return derived


def _section(name: str, samples: list[dict]) -> str:
    if not samples:
        return ""
    columns = COLUMNS[name]
    names = list(dict.fromkeys(sample["peer"] for sample in samples))
    values = {peer: _medians(columns, [s for s in samples if s["peer"] == peer]) for peer in names}
    rows = [["peer", *(title for column in columns for title in _titles(column)), "errors", "noise"]]
    for peer in names:
        own = [sample for sample in samples if sample["peer"] == peer]
        cells = [cell for column in columns for cell in _cells(column, peer, own, values)]
        rows.append([peer, *cells, str(sum(s["errors"] + s["unserved"] for s in own)), _noise(own)])
    return f"\n{name}: {SCENARIOS[name].title}\n{_aligned(rows)}"


def _medians(columns: list[Column], samples: list[dict]) -> dict[str, float]:
    found = {column.key: [s[column.key] for s in samples if column.key in s] for column in columns}
    return {key: statistics.median(values) for key, values in found.items() if values}


def _titles(column: Column) -> list[str]:
    floor = [f"×{FLOOR}"] if column.has_floor else []
    return [column.title, *floor, "×best"] if column.better else [column.title]


def _cells(column: Column, peer: str, samples: list[dict], values: dict[str, dict[str, float]]) -> list[str]:
    found = [sample[column.key] for sample in samples if column.key in sample]
    if not found:
        return ["–"] * len(_titles(column))
    text = f"{statistics.median(found):,.{column.digits}f}"
    if len(found) > 1:
        text += f" [{min(found):,.{column.digits}f}–{max(found):,.{column.digits}f}]"
    if not column.better:
        return [text]
    own = values[peer][column.key]
    floor = [_ratio(own, values.get(FLOOR, {}).get(column.key))] if column.has_floor else []
    return [text, *floor, _ratio(own, _best(column, values))]


def _best(column: Column, values: dict[str, dict[str, float]]) -> float | None:
    """The best median among the peers that others run in production."""
    found = [values[peer][column.key] for peer in CONTENDERS if column.key in values.get(peer, {})]
    if not found:
        return None
    return max(found) if column.better == "more" else min(found)


def _ratio(own: float, other: float | None) -> str:
    return f"{own / other:.2f}" if other else "–"


def _noise(samples: list[dict]) -> str:
    """How many samples were taken while others used the cores, although they were repeated."""
    noisy = sum(sample["foreign_cores"] > machine.QUIET_CORES for sample in samples)
    return f"{noisy}/{len(samples)}" if noisy else ""


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
