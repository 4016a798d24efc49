"""Room that was ordered free, but is not yet: pods of victims that the inventory still shows, bound or being deleted.

Until they are gone their nodes count as free, so that the preemptor's reservation finds its room there and nobody else
does. A credit is no record: after a restart the reservation is a debt until the pods are gone, which guards it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from gpufleet.model.cluster import FreeBlock, Inventory, NodeClass
from gpufleet.model.resources import resources
from services.scheduler.core.blocks import Blocks
from services.scheduler.core.gone import NOT_YET, SOMEWHERE, Gone, shown_without
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Free
from services.scheduler.core.whereabouts import Here, Piece, by_unit, first

if TYPE_CHECKING:
    from services.scheduler.core.state import Entry, State


class Credits:
    """By cluster: what the inventory really shows, and the pieces that victims were told to give back."""

    def __init__(self) -> None:
        self._real: dict[str, Inventory] = {}
        self._given: dict[str, dict[str, tuple[Piece, ...]]] = {}

    def add(self, cluster: str, key: str, pieces: Iterable[Piece]) -> None:
        """Notes what a victim was told to give back; `refresh` makes it count."""
        bound = [piece for piece in pieces if piece.pool and piece.number != NOT_YET]
        if bound:
            known = self._given.setdefault(cluster, {})
            known[key] = (*known.get(key, ()), *bound)

    def observed(self, state: State, inventory: Inventory) -> Inventory:
        """Returns an inventory with the credits of its cluster."""
        given = self._given.get(inventory.cluster)
        if not given:
            return inventory
        self._real[inventory.cluster] = inventory
        gone = Gone()
        for key in sorted(given):
            left = tuple(_bound_still(state.entries.get(key), inventory.cluster, given[key]))
            if left:
                given[key] = left
                for piece in left:
                    gone.add(piece.kind, 1)
            else:
                del given[key]
        if not given:
            del self._given[inventory.cluster], self._real[inventory.cluster]
            return inventory
        return replace(inventory, node_classes=tuple(_credited(state, c, gone) for c in inventory.node_classes))

    def vanished(self, cluster: str) -> None:
        """Forgets what the inventory of a cluster showed: it was deleted."""
        self._real.pop(cluster, None)

    def refresh(self, state: State, cluster: str) -> None:
        """Brings a cluster's free blocks in step with what is still bound there."""
        if cluster in self._given:
            member = state.fleet.member(cluster)
            real = self._real.get(cluster, member.inventory)
            if real is not None and state.fleet.observed(self.observed(state, real)):
                state.grown[cluster] = None


def _bound_still(entry: Entry | None, cluster: str, pieces: tuple[Piece, ...]) -> Iterator[Piece]:
    """Yields what is bound beyond what is assigned: where the inventory tells it, else where it was taken to be."""
    if entry is None or cluster not in entry.pods:
        return
    share = entry.placement.share(cluster) if entry.placement is not None else None
    assigned: dict[tuple[str, str], int] = {}
    for slot in share.slots if share is not None else ():
        assigned[slot.component, slot.variant] = assigned.get((slot.component, slot.variant), 0) + slot.count
    known = by_unit(entry.pods[cluster])
    left = {name: 0 for name, _ in known}
    told: dict[str, list[Piece]] = {}
    shapes = {piece.component: piece.shape for piece in pieces}
    for (name, unit), here in known.items():
        mine = assigned.get((name, unit), 0) if unit is not None else _rest(assigned, known, name)
        over = max(0, here.bound - mine)
        left[name] += over
        if name in shapes:
            nodes = first(here.nodes, over)
            told.setdefault(name, []).extend(
                Piece(name, n.node_class, shapes[name], n.pods, n.number) for n in nodes if n.number
            )
    for name, found in told.items():
        left[name] -= sum(piece.pods for piece in found)
        yield from found
    for name, pods in entry.pods[cluster].components:
        if name in shapes:
            yield from (Piece(name, n.node_class, shapes[name], n.pods, n.number) for n in pods.leaving if n.number)
    for piece in pieces:
        count = min(piece.pods, left.get(piece.component, 0))
        if count:
            left[piece.component] -= count
            yield piece._replace(pods=count, number=SOMEWHERE)


def _rest(assigned: dict[tuple[str, str], int], known: dict[tuple[str, str | None], Here], name: str) -> int:
    """Returns how many pods are assigned to units that the inventory does not tell apart."""
    return sum(
        count for (component, unit), count in assigned.items() if component == name and (name, unit) not in known
    )


def _credited(state: State, node_class: NodeClass, gone: Gone) -> NodeClass:
    """Returns a class with what its pods give back."""
    name = node_class.name
    if not gone.at.get(name) and not gone.somewhere.get(name):
        return node_class
    pool = Pool(node_class, state.fleet.catalog)
    blocks, numbered = shown_without(pool, gone)
    return replace(node_class, free=tuple(_blocks(pool, blocks, pool.nodes | dict(numbered))))


def _blocks(pool: Pool, blocks: Blocks, nodes: dict[int, Free]) -> Iterator[FreeBlock]:
    """Yields free blocks; which nodes they are is said as long as there are as many of them."""
    numbers: dict[Free, list[int]] = {}
    for number, free in sorted(nodes.items()):
        numbers.setdefault(free, []).append(number)
    names = pool.layout.names[: pool.layout.resources]
    for free, count in sorted(blocks.items()):
        amounts = resources(dict(zip(names, free, strict=False)))
        devices = tuple(sorted(free[pool.layout.resources :], reverse=True))
        yield FreeBlock(count, amounts, devices, tuple(numbers.get(free, ())[:count]))
