"""The rescheduler's memory: a cache of topics, and its limits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from gpufleet.model.cluster import Health, WorkloadPods
from gpufleet.model.placement import Eviction, Observation, Placement


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds unless the name says otherwise. The first two are ACK One's (specification 7.1).

    ``check_every``: how often pods are looked at. ``pending_after``: how long a pod may be unschedulable.
    ``cool_down``: how long a cluster that lost replicas may not have them back. ``max_redispatch``: how often a job
    is sent elsewhere after an infrastructure failure. ``moves_per_minute``: bound over the fleet.
    ``preemption_grace``: how long a preemptor's pods may wait for those of its victims to stop, before they count as
    unschedulable.
    """

    check_every: float = 120.0
    pending_after: float = 30.0
    cool_down: float = 300.0
    max_redispatch: int = 3
    backoff_first: float = 10.0
    backoff_most: float = 300.0
    moves_per_minute: int = 120
    history: int = 20
    preemption_grace: float = 120.0


@dataclass(slots=True)
class Tracked:
    """One workload: its placement, what its clusters say, and the last word about it."""

    placement: Placement | None = None
    pods: dict[str, WorkloadPods] = field(default_factory=dict)
    observations: dict[str, Observation] = field(default_factory=dict)
    eviction: Eviction | None = None
    since: dict[str, float] = field(default_factory=dict)  # cluster: when its share began, for the history

    @property
    def forgotten(self) -> bool:
        """Whether nothing is known any more."""
        return self.placement is None and not self.pods and not self.observations and self.eviction is None


@dataclass(slots=True)
class State:
    """All tracked workloads, and which of them may need a move."""

    limits: Limits = field(default_factory=Limits)
    started: float | None = None
    last_check: float = 0.0
    frozen: bool = False
    unfrozen: bool = False  # since the last decision
    tracked: dict[str, Tracked] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    by_cluster: dict[str, set[str]] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)  # have unschedulable pods: looked at at the next check
    urgent: set[str] = field(default_factory=set)  # failed or lost: looked at at once
    loose: set[str] = field(default_factory=set)  # the topic has a word about them, but they are gone
    moves: deque[float] = field(default_factory=deque)  # times of the last moves, for the fleet-wide rate

    def of(self, workload: str) -> Tracked:
        """Returns what is known of a workload."""
        return self.tracked.setdefault(workload, Tracked())
