"""The scheduler's core by itself: decisions per second, what waits, and memory. One core, nothing does I/O.

A decision is an arrival that gets its placement: what is timed is `decide` for the arrival and for the finish of an
older workload, with the bytes of all placements and assignments that follow. `python -m benchmarks.scheduler 100 1`
prints the profile of a fleet of 100 clusters in one group.
"""

from __future__ import annotations

import cProfile
import gc
import os
import pstats
import subprocess
import sys
import time
from collections.abc import Iterable

from benchmarks import preemption, queueing, steady
from benchmarks.machine import memory
from benchmarks.report import Report
from benchmarks.steady import Steady, half_full
from gpufleet.model.cluster import FreeBlock, Inventory, NodeClass, SnapshotId
from gpufleet.model.resources import resources
from gpufleet.telemetry import memory as collector
from services.scheduler.core import State, decide
from services.scheduler.core.events import Event, InventoryChanged, WorkloadSubmitted
from services.scheduler.core.settings import Settings

WARM_UP = 50
PENDING = 100_000
PLACED = 100_000
_PROFILED = 40


def measure(report: Report) -> None:
    """Measures one fleet after the other."""
    for clusters, steps, goal in ((100, 2_000, ">= 10,000"), (1_000, 1_000, ">= 4,000")):
        for groups in (1, 3):
            _steady(report, clusters, groups, steps, goal)
    _growth(report)
    _pending(report)
    queueing.measure(report)
    preemption.measure(report)
    # In a process of its own, so that nothing else is counted.
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.scheduler", "memory"], check=True, capture_output=True, text=True
    )
    report.add("scheduler: memory, 100,000 placed on 1,000 clusters", float(found.stdout), "MiB", "<= 1,024 MiB")


def _steady(report: Report, clusters: int, groups: int, steps: int, goal: str) -> None:
    name = f"scheduler: {clusters:,} clusters, {groups} group{'s' if groups > 1 else ''}"
    fleet = _warm(clusters, groups)
    fleet.run(steps)
    report.add(f"{name}: decisions", steps / sum(fleet.seconds), "per s", goal)
    report.latencies(f"{name}: a decision", fleet.seconds)


def _warm(clusters: int, groups: int) -> Steady:
    fleet = half_full(clusters, prioritized=groups > 1)
    fleet.run(WARM_UP)
    fleet.seconds.clear()
    # As in a service that has been up for a while: what is old is not looked at again and again.
    collector.own()
    collector.settle()
    return fleet


def _growth(report: Report) -> None:
    """Compares medians, so that a pause does not count."""
    costs = []
    for clusters in (10, 1_000):
        fleet = _warm(clusters, 1)
        fleet.run(500)
        costs.append(sorted(fleet.seconds)[len(fleet.seconds) // 2])
    report.add("scheduler: cost of a decision, 1,000 clusters against 10", costs[1] / costs[0], "times", "<= 5")


def _pending(report: Report) -> None:
    """100,000 workloads wait in a full fleet of 100 clusters; one of these gets room for one."""
    state = State(Settings())
    names = steady.cluster_names(100)
    decide(state, steady.fleet(100), steady.NOW)
    decide(state, [InventoryChanged(_snapshot(name, 2, free=0)) for name in names], steady.NOW)
    for first in range(0, PENDING, 1_000):
        arrivals = [WorkloadSubmitted(steady.workload(first + i)) for i in range(1_000)]
        decide(state, arrivals, steady.NOW)
    if len(state.queue) != PENDING:
        raise RuntimeError(f"{len(state.queue)} wait, expected {PENDING}")
    gc.collect()
    gc.freeze()
    seconds = []
    for step in range(100):
        event: list[Event] = [InventoryChanged(_snapshot(names[step], 3, free=2))]
        begun = time.perf_counter()
        out = decide(state, event, steady.NOW)
        steady.encoded(out)
        seconds.append(time.perf_counter() - begun)
        if not any(write.placement is not None and write.placement.placed for write in out.placements):
            raise RuntimeError("nothing was placed")
    report.latencies(f"scheduler: {PENDING:,} pending, an event lets some fit", seconds, "<= 5 ms")


def _snapshot(cluster: str, n: int, *, free: int) -> Inventory:
    """Returns a snapshot in which so many nodes of one class are empty, and all others full."""
    known = steady.inventory(cluster, full=True)
    classes = list(known.node_classes)
    if free:
        first = classes[0]
        block = FreeBlock(free, resources(steady.NODE))
        classes[0] = NodeClass(first.name, first.allocatable, first.nodes, first.labels, free=(block,))
    snapshot = SnapshotId(known.snapshot.incarnation, 1, n)
    return Inventory(cluster, snapshot, steady.NOW, node_classes=tuple(classes))


def _placed_memory() -> float:
    """Returns the MiB of a process that holds 100,000 placed workloads of 4 replicas on 1,000 clusters."""
    fleet = Steady(1_000, replicas=4)
    fleet.fill(PLACED * 4)
    placed = sum(
        entry.placement is not None and entry.placement.unplaced == 0 for entry in fleet.state.entries.values()
    )
    if placed != PLACED:
        raise RuntimeError(f"{placed} are placed, expected {PLACED}")
    gc.collect()
    return memory(os.getpid()) / 2**20


def _profile(clusters: int, groups: int) -> None:
    fleet = _warm(clusters, groups)
    profile = cProfile.Profile()
    fleet.profile = profile
    fleet.run(1_000)
    pstats.Stats(profile).sort_stats("tottime").print_stats(_PROFILED)


def main(arguments: Iterable[str]) -> None:
    """Prints a profile, or the memory of a full fleet."""
    first, *rest = [*arguments, "100"]
    if first == "memory":
        print(_placed_memory())
    else:
        _profile(int(first), int(rest[0]) if len(rest) > 1 else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
