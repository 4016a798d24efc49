"""Room that was ordered free, but is not yet: pods of victims that the inventory still shows as bound.

Until they are gone their nodes count as free, so that the preemptor's reservation finds its room there and nobody else
does. A credit is no record: after a restart the reservation is a debt until the pods are gone, which guards it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from gpufleet.model.cluster import FreeBlock, Inventory, NodeClass
from gpufleet.model.resources import resources
from services.scheduler.core.blocks import Blocks
from services.scheduler.core.pool import Pool
from services.scheduler.core.trial import give
from services.scheduler.core.victims import Piece

if TYPE_CHECKING:
    from services.scheduler.core.state import Entry, State


class Credits:
    """By cluster: what the inventory really shows, and the pieces that victims were told to give back."""

    def __init__(self) -> None:
        self._real: dict[str, Inventory] = {}
        self._given: dict[str, dict[str, tuple[Piece, ...]]] = {}

    def add(self, cluster: str, key: str, pieces: Iterable[Piece]) -> None:
        """Notes what a victim was told to give back; `refresh` makes it count."""
        known = self._given.setdefault(cluster, {})
        known[key] = (*known.get(key, ()), *pieces)

    def observed(self, state: State, inventory: Inventory) -> Inventory:
        """Returns an inventory with the credits of its cluster."""
        given = self._given.get(inventory.cluster)
        if not given:
            return inventory
        self._real[inventory.cluster] = inventory
        for key in sorted(given):
            left = _bound_still(state.entries.get(key), inventory.cluster, given[key])
            if left:
                given[key] = left
            else:
                del given[key]
        if not given:
            del self._given[inventory.cluster], self._real[inventory.cluster]
            return inventory
        pieces = [piece for key in sorted(given) for piece in given[key]]
        classes = tuple(_credited(state, c, [p for p in pieces if p.pool == c.name]) for c in inventory.node_classes)
        return replace(inventory, node_classes=classes)

    def refresh(self, state: State, cluster: str) -> None:
        """Brings a cluster's free blocks in step with what is still bound there."""
        if cluster in self._given:
            member = state.fleet.member(cluster)
            real = self._real.get(cluster, member.inventory)
            if real is not None and state.fleet.observed(self.observed(state, real)):
                state.grown[cluster] = None


def _bound_still(entry: Entry | None, cluster: str, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Returns the pieces whose pods are bound beyond what is assigned; those of node classes named first go first."""
    pods = entry.pods.get(cluster) if entry is not None else None
    if entry is None or pods is None:
        return ()
    share = entry.placement.share(cluster) if entry.placement is not None else None
    assigned: Mapping[str, int] = dict(share.components) if share is not None else {}
    over = {name: max(0, here.bound - assigned.get(name, 0)) for name, here in pods.components}
    left = []
    for piece in pieces:
        count = min(piece.pods, over.get(piece.component, 0))
        if count:
            over[piece.component] -= count
            left.append(piece._replace(pods=count))
    return tuple(left)


def _credited(state: State, node_class: NodeClass, pieces: list[Piece]) -> NodeClass:
    if not pieces:
        return node_class
    pool = Pool(node_class, state.fleet.catalog)
    blocks: Blocks = dict(pool.running)
    full = node_class.nodes - sum(block.nodes for block in node_class.free)
    if full > 0:
        nothing = (0,) * len(pool.layout.names)
        blocks[nothing] = blocks.get(nothing, 0) + full
    for piece in pieces:
        give(blocks, pool, piece.shape.fitter(pool.layout), piece.pods)
    names = pool.layout.names
    free = (
        FreeBlock(nodes, resources(dict(zip(names, found, strict=True)))) for found, nodes in sorted(blocks.items())
    )
    return replace(node_class, free=tuple(free))
