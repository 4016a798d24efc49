"""Results of a run: printed as a table, written to build/bench.json as a list of {name, value, unit, goal}."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured number; ``goal`` says what it should be, empty where there is none."""

    name: str
    value: float
    unit: str
    goal: str = ""


@dataclass
class Report:
    """All figures of a run, in order."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, goal: str = "") -> None:
        """Adds a figure and prints it at once."""
        figure = Figure(name, round(value, 3), unit, goal)
        self.figures.append(figure)
        print(f"  {figure.name:<62} {figure.value:>12,.3f} {figure.unit:<10} {figure.goal}", flush=True)

    def latencies(self, name: str, seconds: Sequence[float], goal: str = "") -> None:
        """Adds median and 99th percentile of latencies, in milliseconds; the goal is the percentile's."""
        self.add(f"{name}, p50", percentile(seconds, 50) * 1000, "ms")
        self.add(f"{name}, p99", percentile(seconds, 99) * 1000, "ms", goal)

    def write(self, path: Path) -> None:
        """Writes the figures as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(figure) for figure in self.figures], indent=2) + "\n", encoding="utf-8")


def percentile(values: Sequence[float], rank: float) -> float:
    """Returns the nearest-rank percentile of values that are not empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(rank / 100 * len(ordered)) - 1)]
