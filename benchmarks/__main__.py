"""`python -m benchmarks [scheduler] [quality] [plan] [simulation] [idle] [pipeline]`: all by default
but `quality`, which takes half an hour.

GPUFLEET_BENCH_KAFKA=host:port measures the pipeline on that broker too; `apache` starts Apache Kafka for it, as the
tests on real parts do (Java and Maven are needed).
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from benchmarks import idle, pipeline, planning, quality, scheduler, simulation
from benchmarks.report import Report
from gpufleet.telemetry import logs

NAMES = ("scheduler", "quality", "plan", "simulation", "idle", "pipeline")


def main() -> None:
    """Runs what was asked for, prints a table and writes build/bench.json."""
    logs.configure(level="CRITICAL", format_="console")
    wanted = sys.argv[1:] or [name for name in NAMES if name != "quality"]
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        sys.exit(f"unknown benchmark {unknown[0]}; there are {', '.join(NAMES)}")
    report = Report()
    if "scheduler" in wanted:
        scheduler.measure(report)
    if "quality" in wanted:
        quality.measure(report)
    if "plan" in wanted:
        planning.measure(report)
    if "simulation" in wanted:
        asyncio.run(simulation.measure(report))
    if "idle" in wanted:
        asyncio.run(idle.measure(report))
    if "pipeline" in wanted:
        asyncio.run(pipeline.measure(report, "embedded"))
        _on_kafka(report, os.environ.get("GPUFLEET_BENCH_KAFKA", ""))
    report.write(Path("build") / "bench.json")


def _on_kafka(report: Report, bootstrap: str) -> None:
    if bootstrap == "apache":
        from tests.support.kafka import ApacheKafka

        with ApacheKafka() as kafka:
            asyncio.run(pipeline.measure(report, "Apache Kafka", kafka.bootstrap, kafka.pid))
    elif bootstrap:
        asyncio.run(pipeline.measure(report, "Kafka", bootstrap))


if __name__ == "__main__":
    main()
