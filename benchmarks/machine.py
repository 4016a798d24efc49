"""What processes use of the machine, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int) -> int:
    """Returns the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def others(pids: Iterable[int]) -> Callable[[], float]:
    """Returns a function that tells what all other processes have used since now, in % of a core.

    A latency that is measured while others use the machine is theirs as well.
    """
    own = [*pids, os.getpid()]
    begun, before = time.monotonic(), _busy() - sum(map(cpu_seconds, own))

    def used() -> float:
        spent = _busy() - sum(map(cpu_seconds, own)) - before
        return max(0.0, spent / (time.monotonic() - begun) * 100)

    return used


def _busy() -> float:
    """CPU time of the whole machine that was not idle, in seconds."""
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS
