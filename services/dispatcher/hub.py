"""What a cluster's worker is given by the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter, Histogram

from gpufleet.model.placement import Observation
from gpufleet.telemetry.metrics import Metrics


class Hub(Protocol):
    """The service as a worker sees it."""

    @property
    def frozen(self) -> bool:
        """Whether nothing may be written to clusters."""

    @property
    def log_id(self) -> str:
        """The id of the log; empty while it has none."""

    def may_write(self, cluster: str) -> bool:
        """Whether the cluster's shard is this instance's, so far as it can know at this moment."""

    def publish(self, observation: Observation) -> None:
        """Sends an observation."""


@dataclass(frozen=True, slots=True)
class Meters:
    """Metrics of what is done at clusters."""

    applies: Counter
    deletes: Counter
    conflicts: Counter
    drift: Counter
    refused: Counter
    failures: Counter
    apply_seconds: Histogram


def meters(metrics: Metrics) -> Meters:
    """Registers the metrics."""

    def counter(noun: str, text: str) -> Counter:
        return metrics.counter(noun, text, ("cluster",))

    return Meters(
        applies=counter("applies", "Objects created or updated"),
        deletes=counter("deletes", "Objects deleted or released"),
        conflicts=counter("conflicts", "Writes that lost against another writer and were decided anew"),
        drift=counter("drift_corrections", "Writes that took back what somebody else had changed"),
        refused=counter("refused", "Assignments that a cluster does not take"),
        failures=counter("failures", "Attempts that failed and are made again"),
        apply_seconds=metrics.histogram(
            "apply_seconds", "From the record of an assignment to its object in the cluster"
        ),
    )


Clock = Callable[[], float]
