"""One decision: the steps from a workload and its policy to shares, each in a module of its own.

A step takes the draft and changes it. A rule that comes later (quota, preemption, spread) is a further step in
`_STEPS`, between those that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gpufleet.model.placement import ClusterShare, Slot, Source
from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Division, Workload
from services.scheduler.core import explain, fresh, gang, namespace_quota, spread, unit_fill, unit_reasons, unit_use
from services.scheduler.core.capacity import Member
from services.scheduler.core.divide import Mode, Option, descending, pour, static
from services.scheduler.core.draft import Draft
from services.scheduler.core.filter import static_weights
from services.scheduler.core.job_parts import may_divide, settled
from services.scheduler.core.overflow import aggregated_tiers
from services.scheduler.core.room import avoided, eligible, measure, way_in, way_of_share
from services.scheduler.core.slots import build
from services.scheduler.core.units import Way

# The clusters of a tier that may be tried, each with the ways to try.
Tried = list[tuple[Member, tuple[Way, ...]]]


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


def place(draft: Draft) -> None:
    """Runs the steps: options, division, shares, reasons."""
    for step in _STEPS:
        step(draft)


def _divide(draft: Draft) -> None:
    """Decides replicas by cluster and component, and how many are wanted over all."""
    placement = draft.policy.placement
    workload = draft.workload
    total = workload.replicas
    draft.replicas = total
    if not workload.components and not workload.job:
        _without_pods(draft)
        return
    granted = total if draft.limit is None else min(total, draft.limit)
    if whole(workload, placement.division, is_gang=placement.gang):
        if granted < total:
            _keep(draft)
        else:
            _divide_whole(draft)
        return
    measure(draft)
    if placement.exclusive:
        _first_group(draft, total)
    elif placement.spread and not draft.blocked:
        narrowed, reasons = spread.narrow(draft, draft.options)
        draft.reasons.extend(reasons)
        draft.unmet = narrowed is None
        draft.options = narrowed or []
    if draft.blocked or draft.unmet:
        _keep(draft)
        return
    parts = settled(draft)
    total, granted = total - sum(parts.values()), granted - sum(parts.values())
    if parts and total <= 0:
        draft.counts = parts
        return
    last_first = descending(draft.uid)
    match placement.division:
        case DivisionType.DUPLICATED:
            # A cluster that may get nothing new keeps the copies that it has.
            draft.counts = {
                o.cluster: min(total, o.assigned) if o.cluster in draft.frozen else total for o in draft.options
            }
            draft.replicas = total * max(1, len(draft.counts))
            if draft.limit is not None:
                _fewer_copies(draft, draft.limit)
            return
        case DivisionType.STATIC:
            if granted < total:
                _keep(draft)
            else:
                draft.counts = {**_static(draft, total, last_first), **parts}
            return
        case DivisionType.DYNAMIC if draft.rooms is not None:
            counts = fresh.divide(draft, draft.rooms, granted, last_first=last_first)
        case DivisionType.DYNAMIC:
            counts = pour(
                draft.options,
                granted,
                draft.mode,
                last_first=last_first,
                existing_first=draft.policy.existing_capacity_first,
            )
        case DivisionType.AGGREGATED:
            counts = aggregated_tiers(draft.options, granted, draft.mode, last_first=last_first)
    if sum(counts.values()) < total and not partial(draft):
        _keep(draft)
    else:
        draft.counts = {**counts, **parts} if parts else counts


def _without_pods(draft: Draft) -> None:
    """What has no pods goes to every cluster that the policy means, however it divides replicas (as upstream)."""
    measure(draft)
    if draft.policy.placement.exclusive:
        _first_group(draft, 0)
    draft.counts = {o.cluster: 0 for o in draft.options if not draft.blocked or o.cluster in draft.before}


def _fewer_copies(draft: Draft, limit: int) -> None:
    """Leaves out the copies that the quota has no room for: those that are there stay, then by name."""
    counts, left = dict(draft.counts or {}), limit
    for cluster in sorted(counts, key=lambda name: (name not in draft.before, name)):
        if counts[cluster] > left:
            before = draft.before.get(cluster)
            counts[cluster] = min(counts[cluster], before.replicas) if before is not None else 0
        left -= counts[cluster]
    draft.counts = counts


def partial(draft: Draft) -> bool:
    """Returns whether some replicas may run while others wait (specification 5)."""
    kind = draft.workload.kind
    return kind == "Deployment" or (kind == "StatefulSet" and draft.policy.partial_statefulsets)


def _keep(draft: Draft) -> None:
    """What does not fit keeps what it has, and no more than is wanted."""
    options = [Option(c, 0, share.replicas, 0) for c, share in sorted(draft.before.items())]
    total = draft.workload.replicas
    if draft.policy.placement.division is DivisionType.DUPLICATED:
        draft.counts = {o.cluster: min(o.assigned, total) for o in options}
        draft.replicas = total * max(1, len(options))
    else:
        draft.counts = pour(options, min(total, sum(o.assigned for o in options)), Mode.STEADY)


def _static(draft: Draft, total: int, last_first: bool) -> dict[str, int]:
    placed = {o.cluster: o.assigned for o in draft.options}
    if draft.mode is Mode.FILL and sum(placed.values()) == total:
        return placed
    static_weights(draft.policy, draft.state.fleet, draft.options)
    counts = static(draft.options, total, last_first=last_first)
    for option in draft.options:
        bound = option.assigned if option.cluster in draft.frozen else draft.caps.get(option.cluster)
        if bound is not None and counts.get(option.cluster, 0) > max(bound, option.assigned):
            counts[option.cluster] = max(bound, option.assigned)
    return counts


def _first_group(draft: Draft, total: int) -> None:
    """Without dynamic weights groups do not overflow: the first one that fits whole takes all (specification 1.4)."""
    tiers: dict[int, list[Option]] = {}
    for option in draft.options:
        tiers.setdefault(option.tier, []).append(option)
    if not tiers:
        return
    if draft.policy.placement.spread and not draft.blocked:
        tiers = _narrowed(draft, tiers)
        if not tiers:
            return

    def fits(options: list[Option]) -> bool:
        if draft.policy.placement.division is DivisionType.DUPLICATED:
            return all(o.assigned + o.running + o.stock >= total for o in options)
        if draft.policy.placement.division is DivisionType.STATIC:
            static_weights(draft.policy, draft.state.fleet, options)
            counts = static(options, total, last_first=descending(draft.uid))
            return all(o.assigned + o.running + o.stock >= counts.get(o.cluster, 0) for o in options)
        return sum(o.assigned + o.running + o.stock for o in options) >= total

    holding = [number for number in sorted(tiers) if any(o.assigned for o in tiers[number])]
    order = [*holding, *(number for number in sorted(tiers) if number not in holding)]
    chosen = next((number for number in order if fits(tiers[number])), None)
    if chosen is None:
        # Nowhere whole: where it is, else the group with the most room, else the first.
        room = {n: sum(o.assigned + o.running + o.stock for o in tiers[n]) for n in tiers}
        chosen = holding[0] if holding else min(tiers, key=lambda n: (-room[n], n))
    draft.options = tiers[chosen]


def _narrowed(draft: Draft, tiers: Mapping[int, list[Option]]) -> dict[int, list[Option]]:
    """Returns the groups in which the spread constraints can be met, each with the clusters chosen there."""
    found: dict[int, list[Option]] = {}
    reasons: list[Reason] = []
    for number, options in sorted(tiers.items()):
        narrowed, told = spread.narrow(draft, options)
        reasons.extend(told)
        if narrowed is not None:
            found[number] = narrowed
    draft.unmet = not found
    draft.reasons.extend(r for r in reasons if draft.unmet or r.cluster)
    if draft.unmet:
        draft.options = []
    return found


def _divide_whole(draft: Draft) -> None:
    counts = {c.name: c.replicas for c in draft.workload.components}
    tiers = _members_by_tier(draft)
    before = next(iter(sorted(draft.before.items())), None)
    if before is not None:
        _stay_or_move(draft, before[0], before[1], counts, tiers)
        return
    if draft.blocked:
        draft.counts = {}
        return
    packing = gang.choose(
        draft.state.fleet,
        tiers,
        counts,
        stock=draft.stock,
        existing_first=draft.policy.existing_capacity_first,
        needed=gang.least(draft.workload),
        mix=draft.state.mix,
    )
    _settle_on(draft, packing)


def _members_by_tier(draft: Draft) -> list[Tried]:
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
            mix=draft.state.mix,
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


def _shares(draft: Draft) -> None:
    """Turns counts into shares with slots."""
    if draft.divided is not None and draft.counts == draft.divided[0]:
        draft.shares = fresh.shares(draft, draft.divided[1])
        return
    components = draft.workload.components
    one = len(components) == 1
    wanted: dict[str, dict[str, int]] = {}
    for cluster, count in (draft.counts or {}).items():
        before = draft.before.get(cluster)
        if one:
            wanted[cluster] = {components[0].name: count}
        elif count == draft.workload.replicas or before is None:
            wanted[cluster] = {c.name: c.replicas for c in components}
        else:
            wanted[cluster] = dict(before.components)  # does not fit as it is wanted: stays as it was
    draft.shares = build(draft, wanted)
    draft.unit_waits = unit_fill.note_waits(draft, draft.replicas - sum((draft.counts or {}).values()))


def _explain(draft: Draft) -> None:
    """Adds why clusters did not take (more of) it; costs nothing where everything went where it should."""
    draft.reasons.extend(draft.candidates.reasons)
    counts = draft.counts or {}
    if draft.limit is not None and sum(counts.values()) >= draft.limit:
        return  # the quota is what it waits for
    missing = draft.replicas - sum(counts.values())
    division = draft.policy.placement.division
    at_once = whole(draft.workload, division, is_gang=draft.policy.placement.gang)
    if draft.blocked or draft.unmet or (not at_once and division in (DivisionType.DUPLICATED, DivisionType.STATIC)):
        return  # capacity was not looked at
    used = {cluster for cluster, count in counts.items() if count}
    last = max((draft.tier_of(cluster) or 0 for cluster in used), default=-1)
    if missing <= 0 and (len(draft.candidates.tiers) == 1 or not used):
        return
    spoken = {reason.cluster for reason in draft.reasons}
    if missing <= 0:
        # Room in a higher group that nothing is moved back to needs no excuse.
        spoken |= draft.with_room(last, counts)
    stays = at_once and missing <= 0 and any(draft.before.get(cluster) is not None for cluster in used)
    limit = budget = draft.state.settings.reason_clusters
    named = sum(bool(reason.cluster) for reason in draft.reasons)
    for number, tier in enumerate(draft.candidates.tiers):
        if (missing <= 0 and number == last) or (stays and number < last):
            continue
        needless = missing <= 0 and number > last
        for place, member in enumerate(tier.members):
            if named >= limit and (needless or budget <= 0):
                # More are only counted, by code.
                code = Code.HIGHER_GROUP_TOOK_ALL if needless else Code.INSUFFICIENT_RESOURCES
                rest = len(tier.members) - place
                rest -= sum([m.name in spoken for m in tier.members[place:]]) if spoken else 0
                if rest:
                    draft.unnamed[code] = draft.unnamed.get(code, 0) + rest
                break
            if member.name in spoken:
                continue
            if needless:
                reason = _not_needed(draft, member.name, last)
            elif budget > 0:
                budget -= 1
                reason = _full(draft, member, counts, one=not at_once)
            else:
                reason = Reason(Code.INSUFFICIENT_RESOURCES, "no room", member.name)
            draft.reasons.append(reason)
            named += 1
    if missing > 0 and not used:
        _never(draft, at_once=at_once)


def _full(draft: Draft, member: Member, counts: Mapping[str, int], *, one: bool) -> Reason:
    before = draft.before.get(member.name)
    new = counts.get(member.name, 0) - (before.replicas if before is not None else 0)
    cap = draft.caps.get(member.name)
    if cap is not None and counts.get(member.name, 0) >= cap:
        return avoided(draft, member.name)
    if new > 0 and member.dirty:
        return Reason(Code.INSUFFICIENT_RESOURCES, f"had room for {new} more, which it was given", member.name)
    if one and new <= 0:
        room = draft.room_of(member)
        if room > 0:
            return Reason(Code.INSUFFICIENT_RESOURCES, f"has room for {room} more, which is not enough", member.name)
    if member.inventory is not None and member.inventory.quotas:
        counts_here = {c.name: min(1, c.replicas) for c in draft.workload.components}
        quota = namespace_quota.why(draft, member, counts_here if one else gang.least(draft.workload))
        if quota is not None:
            return quota
    if draft.units is not None:
        return unit_reasons.why(draft, member, one=one)
    return explain.shortage(member, draft.wanted(way_in(draft, member.name), one=one), stock=draft.stock)


def _not_needed(draft: Draft, cluster: str, last: int) -> Reason:
    group = draft.candidates.tiers[last].name or "a higher group"
    return Reason(Code.HIGHER_GROUP_TOOK_ALL, f"not needed: the groups up to {group} took all", cluster)


def _never(draft: Draft, *, at_once: bool) -> None:
    """Says so if no candidate could take it even when empty."""
    members = [member for tier in draft.candidates.tiers for member in tier.members]
    if not members or draft.blocked:
        return
    needed = gang.least(draft.workload)
    counts = {c.name: needed[c.name] if at_once else min(1, c.replicas) for c in draft.workload.components}
    if any(gang.could_ever_fit(member, draft.ways, counts) for member in members):
        return
    pods = sum(counts.values())
    what = f"all {pods} pods of it" if at_once and pods > 1 else "a pod of it"
    draft.reasons.insert(
        0, Reason(Code.NEVER_FITS, f"no cluster could take {what} even if it were empty and had all of its stock")
    )


Step = Callable[[Draft], None]
_STEPS: tuple[Step, ...] = (_divide, _shares, _explain)
