"""What `decide` gives back: records to write, inputs of decisions to keep, and when to call again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpufleet.model.placement import Assignment, AssignmentColumns, Placement, Version
from gpufleet.model.values import value

if TYPE_CHECKING:
    from services.scheduler.core.witness import Witness


@value(frozen=True, slots=True)
class PlacementWrite:
    """A record for the placements topic; None is a tombstone. ``version`` goes into the headers of both."""

    workload: str
    version: Version
    placement: Placement | None


@value(frozen=True, slots=True)
class AssignmentWrite:
    """A record for the assignments topic; None is a tombstone. ``version`` goes into the headers of both."""

    workload: str
    cluster: str
    version: Version
    assignment: Assignment | None


@value(frozen=True, slots=True)
class HistoryEntry:
    """A decision with what it was derived from, which compaction would erase. Nothing in it is a copy.

    ``mode`` is Fill, Steady or Fresh. ``because`` names the workload whose decision this is a consequence of; then
    there is no witness.
    """

    placement: Placement
    at: float
    mode: str = ""
    witness: Witness | None = None
    because: str = ""

    @property
    def workload(self) -> str:
        """The workload's key."""
        return self.placement.workload

    @property
    def version(self) -> Version:
        """The version that was decided."""
        return self.placement.version


@dataclass(slots=True)
class Outputs:
    """Write placements first, then assignments: a crash between the two is healed on start.

    ``wake_at`` (epoch seconds): send a Tick then, if nothing else comes before; None: only events matter.
    ``deposed_by``: a record of this higher epoch was read, so another instance decides; stop sending.
    ``counters``: increments for metrics: decisions, placed, partial, unschedulable, retries, rewritten, deleted…
    """

    _placements: dict[str, PlacementWrite] = field(default_factory=dict)
    # By workload: one by one, or as columns where all of them are new.
    _assignments: dict[str, dict[str, AssignmentWrite] | AssignmentColumns] = field(default_factory=dict)
    history: list[HistoryEntry] = field(default_factory=list)
    wake_at: float | None = None
    deposed_by: int | None = None
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def placements(self) -> list[PlacementWrite]:
        """The placements to write: one per workload, the last of the batch."""
        return list(self._placements.values())

    @property
    def assignments(self) -> list[AssignmentWrite]:
        """The assignments to write: one per workload and cluster, the last of the batch."""
        found: list[AssignmentWrite] = []
        for written in self._assignments.values():
            if isinstance(written, AssignmentColumns):
                found += _writes(written)
            else:
                found += written.values()
        return found

    def written(self) -> Iterator[AssignmentWrite | AssignmentColumns]:
        """Yields the assignments to write as they were decided: what is the same for many is there once."""
        for written in self._assignments.values():
            if isinstance(written, AssignmentColumns):
                yield written
            else:
                yield from written.values()

    def place(self, write: PlacementWrite) -> None:
        """Adds a placement, in place of an earlier one of the same workload."""
        self._placements[write.workload] = write

    def assign(self, write: AssignmentWrite) -> None:
        """Adds an assignment, in place of an earlier one of the same workload and cluster."""
        self._one_by_one(write.workload)[write.cluster] = write

    def assign_all(self, columns: AssignmentColumns) -> None:
        """Adds the assignments of a decision, in place of earlier ones of the same workload and clusters."""
        workload = columns.common.workload
        if workload not in self._assignments:
            self._assignments[workload] = columns
        else:
            self._one_by_one(workload).update((write.cluster, write) for write in _writes(columns))

    def _one_by_one(self, workload: str) -> dict[str, AssignmentWrite]:
        known = self._assignments.get(workload)
        if not isinstance(known, dict):
            known = {} if known is None else {write.cluster: write for write in _writes(known)}
            self._assignments[workload] = known
        return known

    def count(self, name: str, by: int = 1) -> None:
        """Adds to a counter."""
        self.counters[name] = self.counters.get(name, 0) + by


def _writes(columns: AssignmentColumns) -> list[AssignmentWrite]:
    return [AssignmentWrite(a.workload, a.cluster, a.version, a) for a in columns]
