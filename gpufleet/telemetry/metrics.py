"""One registry of metrics per service, with names `gpufleet_<service>_<noun>_<unit>[_total]`."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; fine around the targets of 25, 40 and 100 ms."""

_LAG_INTERVAL: Final = 0.5

Samples = Iterable[tuple[Sequence[str], float]]
"""(label values, value) of each series, read at the moment of the scrape."""


class Metrics:
    """The metrics of one service.

    Values that are a view of some state are read from it at each scrape (`gauge_of`, `counter_of`): they cannot drift
    and series disappear with what they describe. Label values must be bounded: clusters and reasons, never workloads.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self.loop_lag = 0.0
        build = self.gauge("build_info", "1; the labels say what is running", ("version", "python"))
        build.labels(_version(), platform.python_version()).set(1)
        self.gauge_of("event_loop_lag_seconds", "How late the event loop woke up last", lambda: [((), self.loop_lag)])

    def name(self, noun: str) -> str:
        return f"gpufleet_{self.service}_{noun}"

    def counter(self, noun: str, help_: str, labels: Sequence[str] = ()) -> Counter:
        """`noun` ends in its unit, without `_total`."""
        return Counter(self.name(noun), help_, labels, registry=self.registry)

    def gauge(self, noun: str, help_: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(self.name(noun), help_, labels, registry=self.registry)

    def histogram(
        self, noun: str, help_: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_BUCKETS
    ) -> Histogram:
        return Histogram(self.name(noun), help_, labels, buckets=buckets, registry=self.registry)

    def gauge_of(self, noun: str, help_: str, read: Callable[[], Samples], labels: Sequence[str] = ()) -> None:
        """A gauge whose series are what `read` gives at the scrape."""
        self.registry.register(_View(self.name(noun), help_, labels, read, GaugeMetricFamily))

    def counter_of(self, noun: str, help_: str, read: Callable[[], Samples], labels: Sequence[str] = ()) -> None:
        """A counter whose series are what `read` gives at the scrape; the values must not go down."""
        self.registry.register(_View(self.name(noun), help_, labels, read, CounterMetricFamily))

    async def watch_loop(self) -> None:
        """Measure the lag of the event loop until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_INTERVAL)
            self.loop_lag = max(0.0, time.monotonic() - before - _LAG_INTERVAL)


class _View(Collector):
    def __init__(
        self,
        name: str,
        help_: str,
        labels: Sequence[str],
        read: Callable[[], Samples],
        family: type[GaugeMetricFamily] | type[CounterMetricFamily],
    ) -> None:
        self._name, self._help, self._labels, self._read, self._family = name, help_, labels, read, family

    def collect(self) -> Iterable[Metric]:
        family = self._family(self._name, self._help, labels=self._labels)
        for labels, value in self._read():
            family.add_metric(labels, value)
        yield family

    def describe(self) -> Iterable[Metric]:
        # Without it the registry would read the state once at registration, before it is there.
        return [self._family(self._name, self._help, labels=self._labels)]


def values(mapping: Mapping[str, float]) -> Samples:
    """Samples of a metric with one label."""
    return [((label,), value) for label, value in sorted(mapping.items())]


def _version() -> str:
    try:
        return version("gpufleet")
    except PackageNotFoundError:
        return "unknown"
