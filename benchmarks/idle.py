"""What `gpufleet up` burns when nothing happens: CPU and memory of all its processes."""

from __future__ import annotations

import asyncio
import time

from benchmarks.machine import cpu_seconds, memory, others
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
        foreign = others(pids.values())
        await asyncio.sleep(SECONDS)
        total = 0.0
        for name, pid in sorted(pids.items()):
            share = (cpu_seconds(pid) - before[name]) / SECONDS * 100
            total += share
            report.add(f"gpufleet up, idle: CPU of {name}", share, "% of core")
        report.add("gpufleet up, idle: CPU of all", total, "% of core")
        report.add("gpufleet up, idle: CPU of other programs meanwhile", foreign(), "% of core")
        report.add("gpufleet up, idle: memory of all", sum(map(memory, pids.values())) / 2**20, "MiB")
