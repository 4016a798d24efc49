"""The division of a workload by replicas: as its policy divides, and within what the quota grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Reason
from services.scheduler.core import fresh, spread
from services.scheduler.core.divide import Mode, Option, descending, pour, static
from services.scheduler.core.draft import Draft
from services.scheduler.core.filter import static_weights
from services.scheduler.core.job_parts import grows_in_place, kept, settled
from services.scheduler.core.overflow import aggregated_tiers
from services.scheduler.core.room import measure


def divide(draft: Draft, total: int, granted: int) -> None:
    """Decides replicas by cluster; of ``total`` wanted, the quota has room for ``granted``."""
    placement = draft.policy.placement
    measure(draft)
    if draft.blocked:
        keep(draft)
        return
    parts, rest = settled(draft, total)
    if parts and not rest:
        draft.counts = parts
        return
    total, granted = rest, max(0, rest - (total - granted))
    if placement.exclusive and not grows_in_place(draft):
        _first_group(draft, total)
    elif placement.spread:
        _keep_to_spread(draft)
    if draft.unmet:
        keep(draft)
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
                keep(draft)
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
        keep(draft)
    else:
        draft.counts = {**counts, **parts} if parts else counts


def without_pods(draft: Draft) -> None:
    """What has no pods goes to every cluster that the policy means, however it divides replicas (as upstream)."""
    measure(draft)
    if draft.policy.placement.exclusive:
        _first_group(draft, 0)
    elif draft.policy.placement.spread and not draft.blocked:
        _keep_to_spread(draft)
    if draft.unmet:
        draft.counts = dict.fromkeys(draft.before, 0)
        return
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


def keep(draft: Draft) -> None:
    """What does not fit keeps what it has, and no more than is wanted."""
    parts = kept(draft, draft.workload.replicas)
    if parts is not None:
        draft.counts = parts
        return
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


def _keep_to_spread(draft: Draft) -> None:
    narrowed, reasons = spread.narrow(draft, draft.options)
    draft.reasons.extend(reasons)
    draft.unmet = narrowed is None
    draft.options = narrowed or []


def _first_group(draft: Draft, total: int) -> None:
    """Without dynamic weights groups do not overflow: the first one that fits whole takes all (specification 1.4).

    What is placed stays in the group that serves it, as long as that fits, then come those after it (as upstream).
    """
    tiers: dict[int, list[Option]] = {}
    for option in draft.options:
        for number in draft.candidates.shared.get(option.cluster, (option.tier,)):
            tiers.setdefault(number, []).append(option if number == option.tier else replace(option, tier=number))
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

    placed = {number: sum(o.assigned for o in tiers[number]) for number in tiers}
    most = max(placed.values())
    serving = _serving(draft)
    holding = sorted((number for number in tiers if placed[number]), key=lambda n: (placed[n] < most, n))
    if serving is None:
        order = [*holding, *(number for number in sorted(tiers) if number not in holding)]
    else:
        order = sorted(tiers, key=lambda number: (number < serving, number))
        holding = [serving] if serving in tiers else holding
    chosen = next((number for number in order if fits(tiers[number])), None)
    if chosen is None:
        # Nowhere whole: where it is, else the group with the most room, else the first.
        room = {n: sum(o.assigned + o.running + o.stock for o in tiers[n]) for n in tiers}
        chosen = holding[0] if holding else min(tiers, key=lambda n: (-room[n], n))
    draft.options = tiers[chosen]
    draft.group = draft.policy.placement.groups[chosen].name


def _serving(draft: Draft) -> int | None:
    """Returns the number of the group that serves the workload; None if none does, or if it may move anyway."""
    before = draft.entry.placement
    if before is None or not before.group or before.policy != draft.policy.key or draft.mode is Mode.FRESH:
        return None
    names = [group.name for group in draft.policy.placement.groups]
    return names.index(before.group) if before.group in names else None


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
