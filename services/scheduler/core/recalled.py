"""What a decision that is made again is told of other workloads, in place of everything that is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.scheduler.core.evidence import Taking
from services.scheduler.core.unit_use import Usage


@dataclass(frozen=True, slots=True)
class Recalled:
    """``usage`` and ``terminating`` are others' pods in units of a ResourcePolicy, by cluster and unit.

    ``beside`` is how many pods fit beside the one that a cluster is kept for (`keeping`), None: as many as you like.
    ``taking`` is whose place it took, None: nobody's. ``yields`` is where it had yet to give up pods (`yielding`).
    """

    usage: Usage
    terminating: Mapping[tuple[str, str], int]
    beside: int | None = None
    taking: Taking | None = None
    yields: Mapping[str, int] = field(default_factory=dict)

    def loses(self, workload: str, cluster: str) -> bool:
        """Returns whether a workload lost something in a cluster; nobody else is looked at."""
        return self.taking is not None and (workload, cluster) in self.taking.losses
