"""The step from candidates to options: how many replicas each cluster could take, and in which way."""

from __future__ import annotations

from datetime import UTC, datetime

from gpufleet.model.placement import ClusterShare, Slot, Source
from gpufleet.model.reasons import Code, Reason
from services.scheduler.core import namespace_quota, unit_fill, unit_use
from services.scheduler.core.divide import Mode, Option
from services.scheduler.core.draft import Draft, TierRoom
from services.scheduler.core.member import Member
from services.scheduler.core.units import Way

_FIRST_YEARS = 10.0**8


def eligible(draft: Draft, member: Member) -> bool:
    """Returns whether a candidate may be given new replicas in this decision; notes the reason if not."""
    refusal = draft.refused.get(member.name)
    if refusal is not None:
        draft.reasons.append(refusal)
        return False
    if draft.caps.get(member.name) == 0:
        draft.reasons.append(avoided(draft, member.name))
        return False
    if member.stale(draft.now, draft.state.settings.stale_after):
        limit = f"{draft.state.settings.stale_after:g}"
        draft.reasons.append(
            Reason(
                Code.INVENTORY_STALE,
                f"the inventory is older than {limit} s; no new replicas until there is a new one",
                member.name,
            )
        )
        return False
    return True


def all_eligible(draft: Draft) -> bool:
    """Returns whether every candidate may be given new replicas, as long as that costs no look at each of them."""
    if draft.refused or draft.caps:
        return False
    indexes = [tier.indexes for tier in draft.candidates.tiers]
    return not draft.state.fleet.stale(indexes, draft.now, draft.state.settings.stale_after)


def avoided(draft: Draft, cluster: str) -> Reason:
    """Returns why a cluster is avoided for now."""
    eviction = draft.entry.eviction
    for cap in eviction.caps if eviction is not None else ():
        if cap.cluster == cluster:
            told = f"{cap.message or cap.code}; not tried again before {clock(cap.until)}"
            return Reason(Code.CLUSTER_AVOIDED, told, cluster)
    if cluster in draft.seen.yields:
        message = "the pods that it lost are still there; it gets no others before they are gone"
        return Reason(Code.WAITING_FOR_REMOVAL, message, cluster)
    return Reason(Code.CLUSTER_AVOIDED, "its replicas were taken back", cluster)


def clock(at: float) -> str:
    """Returns a time (epoch seconds) as RFC 3339 text, to the second; a plan has no clock, and begins at 0."""
    if at < _FIRST_YEARS:
        return f"{at:g} s after the start"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def measure(draft: Draft) -> None:
    """Fills in the options of a workload whose replicas may be divided, in order of tier and name."""
    simple = draft.ways[0] if len(draft.ways) == 1 and plain(draft.ways[0]) else None
    if simple is not None and not draft.before and all_eligible(draft) and _all_at_once(draft, simple):
        return
    column = draft.state.fleet.column(simple.parts[0].shape) if simple is not None else None
    fresh = draft.mode is Mode.FRESH
    stock_counts = draft.stock
    total = sum(c.replicas for c in draft.workload.components)
    seen: set[str] = set()
    options = draft.options
    guarded = bool(draft.refused or draft.caps)
    mixed = unit_fill.mixes(draft)
    after = draft.state.settings.stale_after
    for number, tier in enumerate(draft.candidates.tiers):
        for member in tier.members:
            name = member.name
            before = draft.before.get(name)
            assigned = before.replicas if before is not None else 0
            coming = 0
            if (guarded or member.stale(draft.now, after)) and not eligible(draft, member):
                continue
            seen.add(name)
            if column is not None and simple is not None:
                running = int(column.running[member.index])
                stock = int(column.stock[member.index]) if stock_counts else 0
                if stock and column.coming is not None:
                    coming = int(column.coming[member.index])
            elif mixed:
                found = unit_fill.room(draft, member, before.slots if before is not None else ())
                running, stock = found.running, found.stock
            else:
                way, running, stock = _best(draft, member, before, total)
                draft.way_of[name] = way
                if stock and len(way.parts) == 1:
                    coming = member.room_coming(way.parts[0].shape)
            if member.inventory is not None and member.inventory.quotas:
                bound = namespace_quota.most(draft, member)
                running = min(running, bound)
                stock = min(stock, bound - running)
            cap = draft.caps.get(name)
            if fresh:
                running += assigned
                assigned = 0
            if cap is not None:
                running = min(running, max(0, cap - assigned))
                stock = min(stock, max(0, cap - assigned - running))
            options.append(Option(name, number, assigned, running, stock, coming=min(coming, stock)))
    without_pods = not draft.workload.components
    for name, share in draft.before.items():
        # Not eligible for more, but what runs there may stay.
        tier_number = draft.tier_of(name)
        if name not in seen and tier_number is not None and (share.replicas or without_pods):
            assigned = share.replicas
            options.append(Option(name, tier_number, 0 if fresh else assigned, assigned if fresh else 0, 0))
            draft.frozen.add(name)
    if draft.before:
        options.sort(key=lambda o: (o.tier, o.cluster))


def _all_at_once(draft: Draft, way: Way) -> bool:
    """Fills in the room of whole tiers; False if each cluster has to be looked at, because of ResourceQuotas."""
    if draft.candidates.quotas:
        return False
    column = draft.seen.column = draft.state.fleet.column(way.parts[0].shape)
    draft.rooms = [
        TierRoom(
            number,
            tier.members,
            column.running[tier.indexes],
            column.stock[tier.indexes] if draft.stock else None,
            column.coming[tier.indexes] if draft.stock and column.coming is not None else None,
        )
        for number, tier in enumerate(draft.candidates.tiers)
    ]
    return True


def plain(way: Way) -> bool:
    """Returns whether pods of one shape land on nodes, whatever else there is."""
    return way.unit is None and len(way.parts) == 1 and way.parts[0].virtual is None


def way_in(draft: Draft, cluster: str) -> Way:
    """Returns the way that was chosen for a cluster."""
    return draft.way_of.get(cluster, draft.ways[0])


def way_of_share(draft: Draft, share: ClusterShare) -> Way | None:
    """Returns the way that a share was placed in, if it is still there."""
    for slot in share.slots:
        virtual = slot.source is Source.VIRTUAL
        for way in draft.ways:
            part = way.part(slot.component)
            if way.variant == slot.variant and part is not None and (part.virtual is not None) is virtual:
                return way
    return None


def ways_in(draft: Draft, member: Member, count: int) -> tuple[Way, ...]:
    """Returns the ways that so many pods, which land in one way, may try in a cluster."""
    components = draft.workload.components
    if draft.units is None or len(components) != 1:
        return draft.ways
    return unit_fill.tried(draft, member, {components[0].name: count}) or draft.ways[:1]


def _best(draft: Draft, member: Member, before: ClusterShare | None, total: int) -> tuple[Way, int, int]:
    """Returns the first way that takes all, else the first with room for some, and its room."""
    bound = way_of_share(draft, before) if before is not None and draft.mode is not Mode.FRESH else None
    own = before.replicas if before is not None else 0
    slots = before.slots if before is not None and bound is not None else ()
    first: tuple[Way, int, int] | None = None
    for way in (bound,) if bound is not None else ways_in(draft, member, total):
        running, stock = room_in(draft, member, way, own if bound is not None else 0, slots)
        if running + stock >= total - own:
            return way, running, stock
        if first is None and running + stock > 0:
            first = (way, running, stock)
    return first or (bound or draft.ways[0], 0, 0)


def room_in(draft: Draft, member: Member, way: Way, own: int, slots: tuple[Slot, ...] = ()) -> tuple[int, int]:
    """Returns room for one more replica of every part, times, in one way: running (or virtual), and stock.

    ``own`` pods are there already, in ``slots``.
    """
    running = stock = 10**9
    for part in way.parts:
        here, more = member.counts_of(part)
        running, stock = min(running, here), min(stock, more)
    left = min(max(0, way.limit - own), unit_use.left(draft, member.name, way, slots))
    running = min(running, left)
    return running, min(stock, left - running) if draft.stock else 0
