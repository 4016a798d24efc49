"""Placements put into words and taken back from there: shares that are alike but for their counts are columns."""

from __future__ import annotations

from dataclasses import replace

from gpufleet.model.placement import ClusterShare, Placement, Slot
from services.scheduler.core.evidence import ShareColumn


def told(placement: Placement) -> tuple[Placement, tuple[ShareColumn, ...]]:
    """Returns a placement without the shares that are pods of one component on one node class, and these."""
    names = [share.cluster for share in placement.shares]
    if names != sorted(names):
        return placement, ()  # their order would be lost
    rest: list[ClusterShare] = []
    columns: dict[Slot, list[tuple[str, int]]] = {}
    for share in placement.shares:
        slot = share.slots[0] if len(share.slots) == 1 else None
        if slot is not None and share.components == ((slot.component, slot.count),):
            columns.setdefault(replace(slot, count=0), []).append((share.cluster, slot.count))
        else:
            rest.append(share)
    alike = (
        ShareColumn(slot, tuple(cluster for cluster, _ in found), tuple(count for _, count in found))
        for slot, found in columns.items()
    )
    return replace(placement, shares=tuple(rest)), tuple(alike)


def placement_of(placement: Placement, columns: tuple[ShareColumn, ...]) -> Placement:
    """Returns the placement with all of its shares. Raises ValueError for columns that are none."""
    if not columns:
        return placement
    shares = list(placement.shares)
    for column in columns:
        name = column.slot.component
        for cluster, count in zip(column.clusters, column.counts, strict=True):
            shares.append(ClusterShare(cluster, ((name, count),), (replace(column.slot, count=count),)))
    return replace(placement, shares=tuple(sorted(shares, key=lambda share: share.cluster)))
