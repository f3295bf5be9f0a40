"""A file of samples: the head says what was measured, each further line is a sample. A run that is told of a file goes on where it ended."""

import json
import sys
from pathlib import Path
from typing import TextIO

# Heads of one file must agree in these, or its samples cannot be compared.
SAME = ("cpu", "cores", "kernel")


class Results:
    """The samples so far, and the file they go to. Use it as a context."""

    def __init__(self, path: Path):
        self._path = path
        self._file: TextIO | None = None
        self.heads, self.samples = read(path) if path.exists() else ([], [])

    def __enter__(self) -> "Results":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "a")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self, head: dict) -> None:
        """Notes what is measured now. It must be what the file is about."""
        for before in self.heads:
            differs = [key for key in SAME if before[key] != head[key]]
            versions = head["versions"]
            differs += [name for name, version in before["versions"].items() if versions.get(name, version) != version]
            if differs:
                sys.exit(f"{self._path} is of another {', '.join(differs)}: name a new file with --out.")
        self.heads.append(head)
        self._write(head)

    def add(self, sample: dict) -> None:
        self.samples.append(sample)
        self._write(sample)

    def has(self, number: int, peer: str, scenario: str) -> bool:
        """Whether the sample was taken already, or found to be impossible."""
        return any((s["round"], s["peer"], s["scenario"]) == (number, peer, scenario) for s in self.samples)

    def _write(self, record: dict) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


def read(path: Path) -> tuple[list[dict], list[dict]]:
    """The heads and the samples of a file."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [r for r in records if "versions" in r], [r for r in records if "scenario" in r]


def versions(heads: list[dict]) -> dict[str, str]:
    """The versions of everything that any of the heads names."""
    return {name: version for head in heads for name, version in head["versions"].items()}
