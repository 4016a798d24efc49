"""Aggregated replicas over priority groups that overflow: as few clusters as possible within each group."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.core.divide import Mode, Option, aggregated


def aggregated_tiers(
    options: Sequence[Option], replicas: int, mode: Mode, *, last_first: bool = False
) -> dict[str, int]:
    """Returns replicas by cluster: group after group as many as fit, each on as few clusters as possible."""
    tiers: dict[int, list[Option]] = {}
    for option in options:
        tiers.setdefault(option.tier, []).append(option)
    placed = {number: sum(o.assigned for o in tier) for number, tier in tiers.items()}
    # What is placed stays in its group while nothing is taken away; else the groups are filled anew from the first.
    fills = mode is Mode.FILL and sum(placed.values()) <= replicas
    left = replicas - (sum(placed.values()) if fills else 0)
    counts: dict[str, int] = {}
    for number in sorted(tiers):
        tier = tiers[number]
        room = sum(o.running + o.stock for o in tier) + (0 if fills else placed[number])
        more = min(left, room)
        left -= more
        counts.update(aggregated(tier, more + (placed[number] if fills else 0), mode, last_first=last_first))
    return counts
