"""Records of the scheduler's own topics, read back: echoes, and what a stale writer has written (rule 5).

A standby follows them. The active scheduler is the only one who may write: an echo changes nothing, a record of a
lower epoch is overwritten with what is true, a record of a higher epoch ends its term.
"""

from __future__ import annotations

from dataclasses import replace

from gpufleet.model.placement import Version
from services.scheduler.core import commit
from services.scheduler.core.divide import Mode
from services.scheduler.core.events import AssignmentRead, PlacementRead
from services.scheduler.core.outputs import AssignmentWrite, Outputs, PlacementWrite
from services.scheduler.core.state import Entry, State


def placement_read(state: State, event: PlacementRead, now: float, out: Outputs) -> None:
    """Applies a record of the placements topic."""
    entry = state.entry(event.workload)
    known = entry.placement
    if not _deciding(state, event.version, out):
        if known is not None and event.version < known.version:
            entry.rewrite = True  # should this instance come to decide
        else:
            entry.rewrite = False
            commit.put(state, entry, event.placement, now)
            entry.applied = event.edition
            if event.placement is not None:
                entry.arrival = event.placement.arrival
    elif event.version.epoch < state.epoch:
        if known is None:
            if event.placement is not None and not state.pending.get(entry.key):
                out.place(PlacementWrite(entry.key, state.next_version(), None))
                out.count("rewritten")
        elif event.version != known.version:
            _restore(state, entry, event.version, now, out)
    state.forget(entry)


def assignment_read(state: State, event: AssignmentRead, now: float, out: Outputs) -> None:
    """Applies a record of the assignments topic."""
    entry = state.entry(event.workload)
    cluster = event.cluster
    known = entry.assignments.get(cluster)
    if not _deciding(state, event.version, out):
        if known is not None and event.version < known.version:
            entry.overwritten.add(cluster)
        else:
            entry.overwritten.discard(cluster)
            entry.assignments.pop(cluster, None)
            if event.assignment is not None:
                entry.assignments[cluster] = event.assignment
    elif event.version.epoch < state.epoch:
        if known is not None and event.version != known.version:
            if event.version > known.version:
                known = replace(known, version=state.next_version())
                entry.assignments[cluster] = known
            out.assign(AssignmentWrite(entry.key, cluster, known.version, known))
            out.count("rewritten")
        elif known is None and event.assignment is not None:
            # A copy that nobody ordered under this epoch: taken back, by a decision above the one that ordered it.
            entry.assignments[cluster] = event.assignment
            entry.gone.discard(cluster)
            if entry.placement is not None and entry.placement.version < event.version:
                _restore(state, entry, event.version, now, out)
            state.ask(entry.key, Mode.FILL)
    state.forget(entry)


def _deciding(state: State, version: Version, out: Outputs) -> bool:
    if state.active and version.epoch > state.epoch:
        state.active = False
        out.deposed_by = max(version.epoch, out.deposed_by or 0)
    return state.active


def _restore(state: State, entry: Entry, overwritten_by: Version, now: float, out: Outputs) -> None:
    """Writes a placement again; under a new version if readers would take the stale one for newer."""
    known = entry.placement
    if known is None:
        return
    if overwritten_by > known.version:
        known = replace(known, version=state.next_version())
        commit.put(state, entry, known, now)
    out.place(PlacementWrite(entry.key, known.version, known))
    out.count("rewritten")
