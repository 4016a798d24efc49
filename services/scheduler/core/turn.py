"""Whose turn it is: fair between quotas, in order inside one, and nobody overtaken for ever (specification 13.4, 14).

A queue of higher priority goes first, then a quota below its guarantee before one that borrows; then the higher
priority of the workload, then the quota with the smaller dominant share, then who came first. In a blocking queue
nobody is placed while somebody before it waits. In any other the first may be overtaken for a while; then room is kept
for it (`keeping`).
"""

from __future__ import annotations

from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Workload
from services.scheduler.core.draft import Draft
from services.scheduler.core.state import Entry, State

# -priority of the queue, borrows, -priority, dominant share, arrival, key: smaller goes first.
Turn = tuple[int, bool, int, float, int, str]
BEHIND = "behind"


def turn(state: State, entry: Entry) -> Turn:
    """Returns an entry's place among all that have something to be decided now."""
    rank, arrival, key = state.order(entry)
    workload = entry.current
    if state.quotas.root is None or workload is None:
        return (0, False, rank, 0.0, arrival, key)
    leaf = state.quotas.leaf_of(workload)
    if leaf is None:
        return (0, True, rank, float("inf"), arrival, key)
    share = leaf.share()
    return (-leaf.priority, not leaf.min or share >= 1.0, rank, share, arrival, key)


def line_of(state: State, workload: Workload) -> str:
    """Returns the queue that a workload waits in: its quota's, or that of all that have none."""
    leaf = state.quotas.leaf_of(workload) if state.quotas.root is not None else None
    return leaf.name if leaf is not None else ""


def behind(state: State, entry: Entry, workload: Workload) -> Reason | None:
    """Returns why a workload has to wait for others in its queue, if it is a blocking one."""
    name = line_of(state, workload)
    leaf = state.quotas.leaf(name) if name else None
    if not (leaf.blocking if leaf is not None else state.settings.blocking):
        return None
    first = state.queue.line(name).first
    if first is None or first >= state.order(entry):
        return None
    which = f"the queue of quota {name}" if name else "the queue"
    return Reason(Code.QUEUE_BLOCKED, f"{first[2]} is first in {which}, and nobody behind it is placed while it waits")


def queued(draft: Draft) -> bool:
    """Returns whether a draft may hold up those behind it: what could never fit blocks nobody."""
    return not any(r.code in (Code.NEVER_FITS, Code.NO_QUOTA) and not r.cluster for r in draft.reasons)
