"""All clusters, and the columns over them: how many pods of a shape fit where."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from gpufleet.model.cluster import ClusterSpec, Inventory
from gpufleet.model.placement import ClusterShare
from services.scheduler.core.columns import Column, Grid, Indexes
from services.scheduler.core.member import Member
from services.scheduler.core.pool import Doubt, Pool, VirtualPool
from services.scheduler.core.reserve import Hold, Holding
from services.scheduler.core.shapes import Catalog, Shape

_INCARNATION = attrgetter("incarnation")
# Of shares that are taken from one pool: cluster, pool, count, component and shape.
ShareKey = tuple[str, str, int, str, int]
# A share and its holds.
Given = tuple[ClusterShare, tuple[Hold, ...]]


class Fleet:
    """Every cluster that is registered or was spoken of. ``generation`` counts changes of who is a candidate."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.members: dict[str, Member] = {}
        self.by_index: list[Member] = []
        self.generation = 0
        self.given: dict[ShareKey, Given] = {}  # shares that were given before
        self.alike: dict[tuple[str, int, str, int], Given] = {}  # what they have in common in different clusters
        self.seen: npt.NDArray[np.float64] = np.full(16, -np.inf)  # by member index: when its inventory was taken
        self._oldest: dict[int, tuple[Indexes, float]] = {}  # of groups of members, until an inventory comes
        self._grid = Grid(self.by_index)

    def member(self, name: str) -> Member:
        """Returns a cluster, which need not be registered."""
        member = self.members.get(name)
        if member is None:
            member = self.members[name] = Member(name, len(self.by_index))
            self.by_index.append(member)
            if member.index >= len(self.seen):
                self.seen = np.concatenate([self.seen, np.full(len(self.seen), -np.inf)])
        return member

    def incarnations(self, clusters: Sequence[str]) -> tuple[str, ...]:
        """Returns the incarnations of some clusters, as far as they are known."""
        found = list(map(self.members.get, clusters))
        if None in found:
            return tuple([member.incarnation if member is not None else "" for member in found])
        return tuple(map(_INCARNATION, found))

    def touch(self, member: Member) -> None:
        """Notes that all of a member's room has to be computed afresh."""
        if not member.dirty:
            member.dirty = True
            for pool in member.pools:
                self._grid.changed(pool)

    def hold(self, member: Member, workload: str, held: Holding | None, *, taken: bool) -> None:
        """Sets what a workload holds in a cluster; ``taken``: its room was taken from the pools already."""
        pools = member.hold(workload, held, taken=taken)
        if pools is None:
            self.touch(member)
            return
        for pool in pools:
            self._grid.changed(pool)

    def moved(self, shape: Shape, pools: Sequence[Pool], counts: Sequence[int], sign: int) -> None:
        """Notes that each of some pools has room for so many pods of a shape more (``sign`` -1: less)."""
        self._grid.moved(shape, pools, counts, sign)

    def set_doubt(self, member: Member, node_class: str, doubt: Doubt | None) -> None:
        """Says whether nodes of a class that could be created count as room."""
        if doubt is None:
            member.doubts.pop(node_class, None)
        else:
            member.doubts[node_class] = doubt
        member.changed()
        pool = member.pool(node_class)
        if pool is not None:
            pool.set_doubt(doubt)
            self._grid.changed(pool)

    def stale(self, indexes: Sequence[Indexes], now: float, after: float) -> bool:
        """Returns whether the inventory of some member, of these, is too old for new replicas."""
        for group in indexes:
            key = id(group)
            known = self._oldest.get(key)
            if known is None or known[0] is not group:
                oldest = float(np.minimum.reduce(self.seen[group], initial=np.inf))
                known = self._oldest[key] = (group, oldest)
            if now - known[1] > after:
                return True
        return False

    def column(self, shape: Shape) -> Column:
        """Returns room for a shape by member index, up to date."""
        return self._grid.column(shape)

    def registered(self, spec: ClusterSpec) -> None:
        """Applies a registration."""
        member = self.member(spec.name)
        if member.spec == spec:
            return
        member.spec = spec
        member.notes.clear()
        for pool in member.pools:
            pool.costs.clear()
        member.removed = False
        member.changed()
        self.generation += 1
        self.touch(member)

    def removed(self, name: str) -> None:
        """Applies the deletion of a registration."""
        member = self.member(name)
        if member.removed:
            return
        member.spec = None
        member.removed = True
        member.changed()
        self.generation += 1
        self.touch(member)

    def observed(self, inventory: Inventory) -> bool:
        """Applies a snapshot; returns whether anything but its time is new."""
        member = self.member(inventory.cluster)
        before = member.inventory
        if before is not None and older(inventory, before):
            return False
        member.inventory = inventory
        member.incarnation = inventory.snapshot.incarnation
        member.changed()
        self.seen[member.index] = inventory.observed_at
        self._oldest.clear()
        if before is None or _eligibility(before) != _eligibility(inventory):
            self.generation += 1
        elif (
            before.node_classes == inventory.node_classes
            and before.virtual_nodes == inventory.virtual_nodes
            and before.quotas == inventory.quotas
        ):
            return False
        catalog = self.catalog
        known = {pool.name: pool for pool in member.pools}
        member.set_pools(
            sorted(
                (
                    known[c.name] if c.name in known and known[c.name].node_class == c else Pool(c, catalog)
                    for c in inventory.node_classes
                ),
                key=lambda pool: pool.order,
            )
        )
        self._grid.replaced(member)
        member.virtual = sorted((VirtualPool(v, catalog) for v in inventory.virtual_nodes), key=lambda v: v.name)
        member.dirty = False  # so that touch logs it even if it was dirty and unread
        self.touch(member)
        return True

    def vanished(self, name: str) -> None:
        """Applies the deletion of an inventory."""
        member = self.member(name)
        if member.inventory is not None:
            member.inventory = None
            member.incarnation = ""
            member.set_pools([])
            member.virtual = []
            self._grid.replaced(member)
            self.seen[member.index] = -np.inf
            self._oldest.clear()
            self.generation += 1
            self.touch(member)


def older(inventory: Inventory, known: Inventory) -> bool:
    """Returns whether a snapshot was overtaken by the one that is known: it says nothing any more."""
    # Another incarnation is another cluster, whose counters begin anew.
    new, old = inventory.snapshot, known.snapshot
    return new.incarnation == old.incarnation and (new.epoch, new.n) < (old.epoch, old.n)


def _eligibility(inventory: Inventory) -> tuple[object, ...]:
    bounded = frozenset(quota.namespace for quota in inventory.quotas)
    # The message is what a refusal of the cluster says.
    told = (inventory.health, inventory.message)
    return (told, inventory.apis, inventory.namespaces, bounded, inventory.snapshot.incarnation)
