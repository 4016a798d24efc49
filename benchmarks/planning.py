"""`gpufleet plan` of 1,000 workloads on 100 clusters of 100 nodes, start included."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Report

ROUNDS = 3


def measure(report: Report) -> None:
    """Runs the command as a user would, some times, and takes the best."""
    from benchmarks import generate

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input.yaml"
        path.write_text(generate.documents(), encoding="utf-8")
        command = [str(Path(sys.executable).parent / "gpufleet"), "plan", "-f", str(path), "-o", "json"]
        times = []
        for _ in range(ROUNDS):
            begun = time.monotonic()
            done = subprocess.run(command, check=True, capture_output=True)
            times.append(time.monotonic() - begun)
        placements = json.loads(done.stdout)["steps"][0]["placements"]
        if len(placements) != generate.WORKLOADS:
            raise RuntimeError(f"{len(placements)} placements, expected {generate.WORKLOADS}")
    report.add("gpufleet plan: 1,000 workloads, 100 clusters of 100 nodes", min(times), "s", "< 5 s")
