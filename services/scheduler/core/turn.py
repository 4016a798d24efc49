"""Whose turn it is: fair between quotas, in order inside one, and nobody overtaken for ever (specification 13.4, 14).

A quota below its guarantee goes before one that borrows; then the higher priority, then the quota with the smaller
dominant share, then who came first. In a blocking queue nobody is placed while somebody before it waits. In any other
the first may be overtaken for a while; then a cluster that can take it is kept for it, and of its quota what it needs,
so that those behind it only fill in beside.
"""

from __future__ import annotations

from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Workload
from services.scheduler.core.draft import Draft
from services.scheduler.core.gang import could_ever_fit, wanted_by_size
from services.scheduler.core.losses import lacking
from services.scheduler.core.preempt import usable
from services.scheduler.core.queue import Line, Order
from services.scheduler.core.state import Entry, State
from services.scheduler.core.trial import scarce

# Borrows, -priority, dominant share, arrival, key: smaller goes first.
Turn = tuple[bool, int, float, int, str]
BEHIND = "behind"


def turn(state: State, entry: Entry) -> Turn:
    """Returns an entry's place among all that have something to be decided now."""
    rank, arrival, key = state.order(entry)
    workload = entry.current
    if state.quotas.root is None or workload is None:
        return (False, rank, 0.0, arrival, key)
    leaf = state.quotas.leaf_of(workload)
    if leaf is None:
        return (True, rank, float("inf"), arrival, key)
    share = leaf.share()
    return (not leaf.min or share >= 1.0, rank, share, arrival, key)


def line_of(state: State, workload: Workload) -> str:
    """Returns the queue that a workload waits in: its quota's, or that of all that have none."""
    leaf = state.quotas.leaf_of(workload) if state.quotas.root is not None else None
    return leaf.name if leaf is not None else ""


def behind(state: State, entry: Entry, workload: Workload) -> Reason | None:
    """Returns why a workload has to wait for others in its queue, if it is a blocking one."""
    name = line_of(state, workload)
    leaf = state.quotas.leaf(name) if name else None
    if not (leaf.quota.blocking if leaf is not None else state.settings.blocking):
        return None
    first = state.queue.line(name).first
    if first is None or first >= state.order(entry):
        return None
    which = f"the queue of quota {name}" if name else "the queue"
    return Reason(Code.QUEUE_BLOCKED, f"{first[2]} is first in {which}, and nobody behind it is placed while it waits")


def keep_off(draft: Draft) -> None:
    """Keeps a draft out of the cluster that is kept for somebody before it."""
    line = kept_before(draft)
    if line is not None and line.kept_for is not None and line.kept:
        reason = Reason(
            Code.CLUSTER_KEPT,
            f"kept for {line.kept_for[2]}, which is first in the queue and has been overtaken for too long",
            line.kept,
        )
        draft.refused.setdefault(line.kept, reason)


def kept_before(draft: Draft) -> Line | None:
    """Returns a draft's queue if something is kept there for somebody before it."""
    line = draft.state.queue.line(line_of(draft.state, draft.workload))
    if line.kept_for is None or line.kept_for >= draft.state.order(draft.entry):
        return None
    return line


def overtaken(draft: Draft, order: Order, *, at_once: bool) -> None:
    """Keeps a cluster for a draft that waits as the first of its queue for too long."""
    state = draft.state
    name = line_of(state, draft.workload)
    line = state.queue.line(name)
    placement = draft.entry.placement
    since = placement.waiting_since if placement is not None else None  # recorded, so that a restart does not end it
    leaf = state.quotas.leaf(name) if name else None
    blocking = leaf.quota.blocking if leaf is not None else state.settings.blocking
    if blocking or since is None or line.first != order or line.kept_for is not None:
        return
    if draft.now - since < state.settings.overtake_after:
        return
    line.kept_for, line.kept, line.unit = order, _nearest(draft, at_once=at_once), draft.unit


def _nearest(draft: Draft, *, at_once: bool) -> str:
    """Returns the cluster that lacks least for it, in the first tier that has one which could ever take it."""
    counts = {c.name: c.replicas if at_once else min(1, c.replicas) for c in draft.workload.components}
    way = usable(draft.ways)
    for tier in draft.candidates.tiers:
        found = [
            member
            for member in tier.members
            if member.name not in draft.refused
            and draft.caps.get(member.name) != 0
            and could_ever_fit(member, draft.ways, counts)
        ]
        if found and way is not None:
            wanted = wanted_by_size(way, counts)
            needed = scarce(wanted)
            for member in found:
                member.settle()
            return min(found, key=lambda m: (max(lacking(m, wanted, needed).values(), default=0), m.name)).name
        if found:
            return found[0].name
    return ""


def queued(draft: Draft) -> bool:
    """Returns whether a draft may hold up those behind it: what could never fit blocks nobody."""
    return not any(r.code in (Code.NEVER_FITS, Code.NO_QUOTA) and not r.cluster for r in draft.reasons)
