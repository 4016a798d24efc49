"""The division of what goes to one cluster as a whole: where it fits at once, or stays, grown or shrunk."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat

from gpufleet.model.placement import ClusterShare, Slot, Source
from gpufleet.model.policy import DivisionType
from gpufleet.model.workload import Division, Workload
from services.scheduler.core import gang, namespace_quota, spread_whole, unit_fill, unit_use
from services.scheduler.core.divide import Mode
from services.scheduler.core.draft import Draft
from services.scheduler.core.fragmentation import Weighing
from services.scheduler.core.job_parts import may_divide
from services.scheduler.core.member import Member
from services.scheduler.core.room import all_eligible, eligible, way_of_share
from services.scheduler.core.spread_whole import Tried
from services.scheduler.core.units import Way


def whole(workload: Workload, division: DivisionType, *, is_gang: bool) -> bool:
    """Returns whether a workload goes to one cluster as a whole."""
    if not workload.components:
        return workload.job
    if may_divide(workload, division, is_gang=is_gang):
        return False
    if workload.job or workload.division is Division.WHOLE:
        return True
    if is_gang and division is not DivisionType.DUPLICATED:
        return True  # copies are gangs of their own, one in each cluster
    return len(workload.components) > 1 and division is not DivisionType.DUPLICATED


def divide(draft: Draft) -> None:
    counts = {c.name: c.replicas for c in draft.workload.components}
    tiers = spread_whole.narrow(draft, _members_by_tier(draft))
    before = next(iter(sorted(draft.before.items())), None)
    if before is not None:
        _stay_or_move(draft, before[0], before[1], counts, tiers)
        return
    if draft.blocked or draft.unmet:
        draft.counts = {}
        return
    packing = gang.choose(
        draft.state.fleet,
        tiers,
        counts,
        stock=draft.stock,
        existing_first=draft.policy.existing_capacity_first,
        needed=gang.least(draft.workload),
        by=Weighing(draft.state.mix, draft.policy.prefer_node_class),
    )
    _settle_on(draft, packing)


def _members_by_tier(draft: Draft) -> list[Tried]:
    if draft.units is None and not draft.candidates.quotas and all_eligible(draft):
        return [list(zip(tier.members, repeat(draft.ways))) for tier in draft.candidates.tiers]
    counts = gang.least(draft.workload)
    return [
        [(m, _tried(draft, m, counts)) for m in tier.members if eligible(draft, m)] for tier in draft.candidates.tiers
    ]


def _tried(draft: Draft, member: Member, counts: dict[str, int]) -> tuple[Way, ...]:
    if member.inventory is not None and member.inventory.quotas:
        before = draft.before.get(member.name)
        have = dict(before.components) if before is not None else {}
        more = {name: max(0, count - have.get(name, 0)) for name, count in counts.items()}
        if not namespace_quota.admits(draft, member, more):
            return ()
    return unit_fill.tried(draft, member, counts)


def _settle_on(draft: Draft, packing: gang.Packing | None) -> None:
    if packing is None:
        draft.counts = {}
        return
    workload = draft.workload
    slots = packing.slots
    if workload.job or len(workload.components) > 1:
        # A job is one object: pods beyond its gang that do not fit yet wait for room in the cluster.
        for component in workload.components:
            bare = component.replicas - sum(slot.count for slot in slots if slot.component == component.name)
            if bare > 0:
                way = packing.way
                slots = (*slots, Slot(component.name, "", bare, Source.RUNNING, way.unit, way.variant))
    draft.counts = {packing.cluster: sum(slot.count for slot in slots)}
    draft.way_of[packing.cluster] = packing.way
    draft.slots[packing.cluster] = slots


def _stay_or_move(
    draft: Draft,
    cluster: str,
    share: ClusterShare,
    counts: Mapping[str, int],
    tiers: list[Tried],
) -> None:
    """What is placed whole stays where it is, grown or shrunk there; only a fresh division may move it."""
    if draft.mode is Mode.FRESH and not draft.blocked:
        running = cluster not in draft.entry.held_in
        here = draft.tier_of(cluster)
        others = [
            [(m, w) for m, w in tier if m.name != cluster]
            for number, tier in enumerate(tiers)
            if not running or here is None or number < here
        ]
        packing = gang.choose(
            draft.state.fleet,
            others,
            dict(counts),
            stock=draft.stock,
            existing_first=draft.policy.existing_capacity_first,
            needed=gang.least(draft.workload),
            by=Weighing(draft.state.mix, draft.policy.prefer_node_class),
        )
        if packing is not None:
            _settle_on(draft, packing)
            return
    have = dict(share.components)
    more = {name: count - have.get(name, 0) for name, count in counts.items() if count > have.get(name, 0)}
    draft.counts = {cluster: sum(counts.values())}
    if not more:
        return
    member = draft.member(cluster)
    way = way_of_share(draft, share) or draft.ways[0]
    allowed = not draft.blocked and any(m.name == cluster for tier in tiers for m, _ in tier)
    allowed = allowed and unit_use.within(draft, cluster, way, more, share.slots)
    if not allowed:
        draft.counts = {cluster: share.replicas}
        return
    have_least = all(have.get(name, 0) >= count for name, count in gang.least(draft.workload).items())
    if have_least and len(counts) == 1 and not draft.workload.job:
        # The gang runs; what is beyond it follows as it fits.
        packing = gang.pack(member, way, {}, draft.stock, more)
        found = sum(slot.count for slot in packing.slots) if packing is not None else 0
        draft.counts = {cluster: share.replicas + found}
    elif gang.pack(member, way, more, draft.stock) is None:
        draft.counts = {cluster: share.replicas}
