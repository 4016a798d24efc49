"""Nobody is overtaken for ever: what is kept for the first of a queue that has waited too long (specification 14).

A cluster that can take it is kept for it, and of its quota what it needs. Those behind it may fill in there only as
far as it still fits beside them once everybody has gone who was there before: as in backfilling, but without knowing
when anybody ends. Who came since then is told by the records, so that a restart changes nothing.
"""

from __future__ import annotations

from gpufleet.model.placement import Placement, pods_of
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Workload
from services.scheduler.core import ledger
from services.scheduler.core.divide_whole import whole
from services.scheduler.core.draft import Draft
from services.scheduler.core.gang import could_ever_fit, wanted_by_size
from services.scheduler.core.gone import Kind
from services.scheduler.core.losses import Wanted, lacking
from services.scheduler.core.member import Member
from services.scheduler.core.preempt import usable
from services.scheduler.core.queue import Line, Order
from services.scheduler.core.state import Entry, State
from services.scheduler.core.trial import Trial, scarce
from services.scheduler.core.turn import line_of
from services.scheduler.core.whereabouts import pieces


def kept_before(draft: Draft) -> Line | None:
    """Returns a draft's queue if something is kept there for somebody before it."""
    line = draft.state.queue.line(line_of(draft.state, draft.workload))
    if line.kept_for is None or line.kept_for >= draft.state.order(draft.entry):
        return None
    return line


def keep_off(draft: Draft) -> None:
    """Bounds what a draft may have in the cluster that is kept for somebody before it."""
    line = kept_before(draft)
    if line is None or line.kept_for is None or not line.kept or line.kept in draft.refused:
        return
    here = draft.before.get(line.kept)
    have = here.replicas if here is not None else 0
    recalled = draft.state.recalled
    if recalled is not None:
        more = recalled.beside
    else:
        more = _beside(draft, draft.state.entry(line.kept_for[2]), draft.state.fleet.member(line.kept))
    draft.seen.beside = more
    if more is None:
        return
    beside = f"; {have + more} pods of this one fit beside it" if more else ""
    reason = Reason(
        Code.CLUSTER_KEPT,
        f"kept for {line.kept_for[2]}, which is first in the queue and has been overtaken for too long{beside}",
        line.kept,
    )
    draft.kept = reason
    if more:
        draft.caps[line.kept] = min(draft.caps.get(line.kept, have + more), have + more)
    else:
        draft.refused[line.kept] = reason


def _beside(draft: Draft, head: Entry, member: Member) -> int | None:
    """Returns how many more pods of a draft leave the head its place in a cluster; None: as many as you like."""
    way, wanted = usable(draft.ways), _wanted(draft.state, head)
    if way is None or not draft.workload.components:
        return None
    if wanted is None:
        return 0
    gone = _there_before(draft.state, head, member)

    def fits(counts: dict[str, int]) -> bool:
        trial = Trial(member)
        if not trial.occupy(wanted_by_size(way, counts)):
            return False
        for kind in gone:
            trial.change(kind, 1)
        return trial.fits(wanted)

    counts = {c.name: c.replicas for c in draft.workload.components}
    missing = sum(counts.values()) - pods_of(tuple(draft.before.values()))
    if missing <= 0:
        return None
    if whole(draft.workload, draft.policy.placement.division, is_gang=draft.policy.placement.gang):
        return None if fits(counts) else 0
    (name,) = counts
    low, high = 0, missing
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits({name: middle}) else (low, middle - 1)
    return low if low < missing else None


def _wanted(state: State, head: Entry) -> Wanted | None:
    """Returns the pods of a head that have to find room together, or None if it has none on nodes (any more)."""
    workload, placement = head.current, head.placement
    way = usable(ledger.ways_of(state, head))
    rule = state.policies.get(placement.policy) if placement is not None else None
    if workload is None or way is None or rule is None:
        return None
    at_once = whole(workload, rule.placement.division, is_gang=rule.placement.gang)
    return wanted_by_size(way, _counts(workload, at_once=at_once))


def _counts(workload: Workload, *, at_once: bool) -> dict[str, int]:
    return {c.name: c.replicas if at_once else min(1, c.replicas) for c in workload.components}


def _there_before(state: State, head: Entry, member: Member) -> list[Kind]:
    """Returns the pods in a cluster of everybody but those behind the head who came since it is kept."""
    since = _since(state, head.placement)
    order = state.order(head)
    found: list[Kind] = []
    for key in sorted(state.on_cluster.get(member.name, ())):
        entry = state.entries[key]
        placement = entry.placement
        share = placement.share(member.name) if placement is not None else None
        if placement is None or share is None or (placement.decided_at >= since and state.order(entry) > order):
            continue
        found += [piece.kind for piece in pieces(state, entry, member, share)]
    return found


def _since(state: State, placement: Placement | None) -> float:
    waiting = placement.waiting_since if placement is not None else None
    return (waiting if waiting is not None else 0.0) + state.settings.overtake_after


def overtaken(draft: Draft, order: Order, *, at_once: bool) -> None:
    """Keeps a cluster for a draft that waits as the first of its queue for too long."""
    state = draft.state
    name = line_of(state, draft.workload)
    line = state.queue.line(name)
    leaf = state.quotas.leaf(name) if name else None
    blocking = leaf.blocking if leaf is not None else state.settings.blocking
    placement = draft.entry.placement
    # The time is that of the record, so that a restart does not begin it anew.
    waits = placement is not None and placement.waiting_since is not None
    if blocking or not waits or line.first != order or line.kept_for is not None:
        return
    if draft.now < _since(state, placement):
        return
    line.kept_for, line.kept, line.unit = order, _nearest(draft, at_once=at_once), draft.unit


def _nearest(draft: Draft, *, at_once: bool) -> str:
    """Returns the cluster that lacks least for it, in the first tier that has one which could ever take it."""
    counts = _counts(draft.workload, at_once=at_once)
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
