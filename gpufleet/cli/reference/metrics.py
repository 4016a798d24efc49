"""Every metric of every service, from their registries; nothing is connected to."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.registry import Collector

from gpufleet.bus.runner import ServiceRunner
from gpufleet.bus.service import Bus, Service
from gpufleet.bus.settings import KafkaSettings
from gpufleet.cli.reference.markdown import code, page, table
from gpufleet.cli.system import SERVICES

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. ``series`` are the names that it is scraped under, ``labels`` those of its own."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its time series."""
        return tuple(self.name + suffix for suffix in _SUFFIXES.get(self.type, ("",)))

    @property
    def shown(self) -> str:
        """The name as people write it."""
        return self.name + ("_total" if self.type == "counter" else "")


def build(name: str) -> Service:
    """Returns a service with its default settings."""
    service: Service = importlib.import_module(f"services.{name}.bootstrap").build()
    return service


@cache
def families(service: str) -> tuple[Family, ...]:
    """Returns the metrics of a service by name."""
    metrics = asyncio.run(wired(service)).metrics
    collectors: set[Collector] = set(metrics.registry._collector_to_names)
    return tuple(sorted((f for c in collectors for f in _families(c)), key=lambda f: f.name))


def scrape(service: str) -> str:
    """Returns what `/metrics` of a service says before anything has happened."""
    return generate_latest(asyncio.run(wired(service)).metrics.registry).decode()


async def wired(name: str) -> Bus:
    """Returns the bus of a service with everything wired and nothing connected."""
    runner = ServiceRunner(build(name), kafka=KafkaSettings(bootstrap="127.0.0.1:1"))
    return runner._build()  # what `run` does first


def _families(collector: Any) -> Iterator[Family]:
    labels = getattr(collector, "_labelnames", getattr(collector, "_labels", ()))
    for metric in collector.describe():
        yield Family(metric.name, metric.type, tuple(labels), metric.documentation)


def metrics_table(service: str) -> str:
    """Returns the table of a service."""
    rows = [(code(f.shown), f.type, ", ".join(map(code, f.labels)), f.meaning) for f in families(service)]
    return table(("metric", "type", "labels", "meaning"), rows)


def metrics_page() -> str:
    """Returns the page of all metrics."""
    return page(
        "Metrics",
        "Every service serves them in the Prometheus format at `/metrics` of its HTTP address. Label values are "
        "bounded: clusters, resources, topics and reasons, never workloads. Histograms have the series `_bucket`, "
        "`_count` and `_sum`. Alert rules are in `deploy/prometheus`, a Grafana board is in `deploy/grafana`.",
        *(f"## {name.capitalize()}\n\n{metrics_table(name)}" for name in SERVICES),
    )
