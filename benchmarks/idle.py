"""What `gpufleet up` burns when nothing happens: CPU and memory of all its processes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from benchmarks.report import Report
from gpufleet.cli.system import System
from gpufleet.cli.up import default_fleet

SECONDS = 20.0


async def measure(report: Report) -> None:
    """Starts the default system, lets it settle, and measures for some seconds."""
    begun = time.monotonic()
    async with System(fleet=default_fleet()) as system:
        report.add("gpufleet up: from start to ready", time.monotonic() - begun, "s", "< 20 s")
        await asyncio.sleep(5.0)
        assert system.broker is not None
        pids = {name: child.pid for name, child in system.children.items()} | {"broker": system.broker.pid}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        await asyncio.sleep(SECONDS)
        total = 0.0
        for name, pid in sorted(pids.items()):
            share = (cpu_seconds(pid) - before[name]) / SECONDS * 100
            total += share
            report.add(f"gpufleet up, idle: CPU of {name}", share, "% of core")
        report.add("gpufleet up, idle: CPU of all", total, "% of core")
        report.add("gpufleet up, idle: memory of all", sum(map(memory, pids.values())) / 2**20, "MiB")


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Returns the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
