"""What the log says about one cluster: its assignments and their observations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from gpufleet.model.placement import Assignment, AssignmentState, Observation, ObservedPhase, Version

# Removals that are kept in mind after their tombstone, so that a copy which comes late is removed too.
FAREWELLS = 10_000


@dataclass(slots=True)
class ClusterTable:
    """One cluster's part of the topics, by workload key.

    ``published`` is what this instance said last about a workload, ``seen`` what the log holds. They differ for a
    moment after each record, or because another instance has written late (`unheard`).
    """

    cluster: str
    assignments: dict[str, Assignment] = field(default_factory=dict)
    seen: dict[str, Observation] = field(default_factory=dict)
    published: dict[str, Observation] = field(default_factory=dict)
    sent_at: dict[str, float] = field(default_factory=dict)
    farewells: dict[str, Assignment] = field(default_factory=dict)
    # Further objects of a workload, written as a key of their own: the workload's key.
    objects: dict[str, str] = field(default_factory=dict)
    # Observations that were tombstoned, with the tombstone's version and when it was sent, until the log has it.
    erased: dict[str, tuple[Version, float]] = field(default_factory=dict)
    _buried: dict[str, Version] = field(default_factory=dict)
    _unheard: set[str] = field(default_factory=set)  # of what was published: the log holds something else

    def take(self, assignment: Assignment) -> bool:
        """Takes an assignment unless one of its version or a later one is known; returns whether it was taken."""
        workload = assignment.workload
        known = self.assignments.get(workload)
        newest = known.version if known is not None else self._buried.get(workload)
        if newest is not None and assignment.version <= newest:
            return False
        self.assignments[workload] = assignment
        kind = workload.rpartition("/")[0]
        self.objects.update({f"{kind}/{variant.name}": workload for variant in assignment.variants})
        self._buried.pop(workload, None)
        self.erased.pop(workload, None)
        self.farewells.pop(workload, None)
        return True

    def bury(self, workload: str, version: Version | None) -> bool:
        """Takes a tombstone unless a later assignment is known; returns whether something was forgotten.

        A tombstone without a version is somebody's who sweeps by hand, and counts.
        """
        known = self.assignments.get(workload)
        if known is not None and version is not None and version < known.version:
            return False
        newest = [v for v in (version, known.version if known else None, self._buried.get(workload)) if v is not None]
        if newest:
            self._buried[workload] = max(newest)
        if known is None:
            return False
        del self.assignments[workload]
        kind = workload.rpartition("/")[0]
        for variant in known.variants:
            self.objects.pop(f"{kind}/{variant.name}", None)
        last = self.last(workload)
        if known.state is AssignmentState.REMOVING and last is not None and last.phase is ObservedPhase.GONE:
            manifest = {key: known.manifest[key] for key in ("apiVersion", "kind") if key in known.manifest}
            self.farewells[workload] = replace(known, manifest=manifest, version=max(newest))
            while len(self.farewells) > FAREWELLS:
                del self.farewells[next(iter(self.farewells))]
        return True

    def note(self, workload: str, observation: Observation | None) -> None:
        """Takes what the observations topic holds (None: a tombstone)."""
        if observation is None:
            self.seen.pop(workload, None)
            self.erased.pop(workload, None)
        else:
            self.seen[workload] = observation
            buried = self._buried.get(workload)
            if buried is not None and workload not in self.erased and workload not in self.published:
                self.erased[workload] = max(observation.version, buried), -math.inf  # written late
        self._compare(workload)

    def last(self, workload: str) -> Observation | None:
        """Returns the last word about a workload."""
        return self.published.get(workload) or self.seen.get(workload)

    def news(self, observation: Observation) -> bool:
        """Returns whether an observation says something else than the last one; when it was looked does not count."""
        last = self.last(observation.workload)
        return last is None or replace(last, observed_at=observation.observed_at) != observation

    def said(self, observation: Observation, at: float) -> None:
        """Notes that an observation was sent at a time (seconds of any clock)."""
        self.published[observation.workload] = observation
        self.sent_at[observation.workload] = at
        self._compare(observation.workload)

    def _compare(self, workload: str) -> None:
        said = self.published.get(workload)
        if said is None or said == self.seen.get(workload):
            self._unheard.discard(workload)
        else:
            self._unheard.add(workload)

    def unheard(self, before: float) -> list[Observation]:
        """Returns what was sent before a time and is not what the log holds: it was lost, or overwritten."""
        return [
            self.published[workload] for workload in sorted(self._unheard) if self.sent_at.get(workload, 0.0) < before
        ]

    def forget(self, workload: str) -> Version | None:
        """Forgets the observation of an assignment that is no more; returns its version if the log holds one."""
        last = self.last(workload)
        self.published.pop(workload, None)
        self.sent_at.pop(workload, None)
        self.seen.pop(workload, None)
        self._unheard.discard(workload)
        return None if last is None else last.version

    def erase(self, workload: str, at: float) -> Version | None:
        """Forgets an observation; returns the version of the tombstone to send, None where the log holds nothing.

        ``at`` is when it is sent (seconds of any clock).
        """
        known = (self.forget(workload), self._buried.get(workload), self.erased.get(workload, (None, at))[0])
        if known[0] is None and known[2] is None:
            return None
        version = max(found for found in known if found is not None)
        self.erased[workload] = version, at
        return version

    def unerased(self, before: float) -> list[str]:
        """Returns whose tombstones were sent before a time and are not in the log: lost, or overwritten."""
        return [workload for workload, (_, at) in sorted(self.erased.items()) if at < before]

    def buried(self, workload: str) -> Version | None:
        """Returns the version of a tombstone, if one was seen."""
        return self._buried.get(workload)

    def lookup(self, workload: str) -> Assignment | None:
        """Returns what is to be done about a workload, a removal that was buried included."""
        return self.assignments.get(workload) or self.farewells.get(workload)
