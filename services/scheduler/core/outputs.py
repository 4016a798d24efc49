"""What `decide` gives back: records to write, inputs of decisions to keep, and when to call again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpufleet.model.placement import Assignment, Placement, Version


@dataclass(frozen=True, slots=True)
class PlacementWrite:
    """A record for the placements topic; None is a tombstone. ``version`` goes into the headers of both."""

    workload: str
    version: Version
    placement: Placement | None


@dataclass(frozen=True, slots=True)
class AssignmentWrite:
    """A record for the assignments topic; None is a tombstone. ``version`` goes into the headers of both."""

    workload: str
    cluster: str
    version: Version
    assignment: Assignment | None


@dataclass(frozen=True, slots=True)
class ClusterNumbers:
    """What the division saw of one candidate: counts of this workload's pods (``assigned``) and of further room."""

    cluster: str
    tier: int
    assigned: int
    running: int
    stock: int
    weight: int = 0  # static weight


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """The inputs of one decision, which compaction would erase.

    ``numbers`` are what the candidates had when it was decided; ``mode`` is Fill, Steady or Fresh; ``document`` holds
    the rest as plain JSON values (policy key and digest, replicas per component, uid, division, caps).
    """

    workload: str
    version: Version
    at: float
    mode: str
    numbers: tuple[ClusterNumbers, ...] = ()
    placement: Placement | None = None
    document: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Outputs:
    """Write placements first, then assignments: a crash between the two is healed on start.

    ``wake_at`` (epoch seconds): send a Tick then, if nothing else comes before; None: only events matter.
    ``deposed_by``: a record of this higher epoch was read, so another instance decides; stop sending.
    ``counters``: increments for metrics: decisions, placed, partial, unschedulable, retries, rewritten, deleted…
    """

    placements: list[PlacementWrite] = field(default_factory=list)
    assignments: list[AssignmentWrite] = field(default_factory=list)
    history: list[HistoryEntry] = field(default_factory=list)
    wake_at: float | None = None
    deposed_by: int | None = None
    counters: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, by: int = 1) -> None:
        """Adds to a counter."""
        self.counters[name] = self.counters.get(name, 0) + by
