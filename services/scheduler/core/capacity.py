"""How many pods of a shape fit where: members with their pools, and one cached column per shape over the fleet.

A column catches up with the log of changed members when it is read, so a decision pays only for what has changed
since the shape was last asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gpufleet.model.cluster import ClusterSpec, Health, Inventory
from services.scheduler.core.pool import Pool, VirtualPool
from services.scheduler.core.reserve import Holding, refit
from services.scheduler.core.shapes import UNBOUNDED, Catalog, Shape, selects
from services.scheduler.core.units import REGION, Part

_COLUMNS = 512


class Member:
    """One cluster: its registration, its inventory, and what placements hold of it. Nothing may be known of either."""

    __slots__ = (
        "debt",
        "dirty",
        "held",
        "index",
        "inventory",
        "name",
        "pools",
        "removed",
        "spec",
        "virtual",
    )

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.spec: ClusterSpec | None = None
        self.inventory: Inventory | None = None
        self.removed = False  # its registration was deleted, which is not the same as never seen
        self.pools: list[Pool] = []
        self.virtual: list[VirtualPool] = []
        self.held: dict[str, Holding] = {}
        self.debt = 0
        self.dirty = False

    def settle(self) -> None:
        """Brings the pools up to date with the holds."""
        if self.dirty:
            self.dirty = False
            refit(self)

    def stale(self, now: float, after: float) -> bool:
        """Returns whether the inventory is too old for new replicas."""
        return self.inventory is None or now - self.inventory.observed_at > after

    @property
    def ready(self) -> bool:
        """Whether the cluster's API answers, as far as known."""
        return self.inventory is not None and self.inventory.health is Health.READY

    @property
    def incarnation(self) -> str:
        """The cluster's incarnation, or empty if it is not known."""
        return self.inventory.snapshot.incarnation if self.inventory is not None else ""

    def counts(self, shape: Shape) -> tuple[int, int]:
        """Returns room for pods of a shape on running nodes and in stock; none while the cluster is in debt."""
        self.settle()
        if self.debt:
            return (0, 0)
        running = stock = 0
        for pool in self.pools:
            on_nodes, in_stock = pool.counts(shape)
            running += on_nodes
            stock += in_stock
        return (running, stock)

    def virtual_nodes(self, part: Part) -> Iterator[VirtualPool]:
        """Yields the virtual nodes that may take a part's pods, by name."""
        need = part.virtual
        if need is None:
            return
        own = self.spec.region if self.spec is not None else ""
        for node in self.virtual:
            region = node.identity.labels.get(REGION, "")
            wanted = need.region or ("" if need.pinned else own)
            if wanted and region and region != wanted:
                continue
            if part.shape.admitted(node.identity):
                yield node

    def virtual_room(self, part: Part) -> int:
        """Returns room for a part's pods on virtual nodes."""
        self.settle()
        if self.debt or part.virtual is None:
            return 0
        need = part.virtual
        return min(UNBOUNDED, sum(node.room(need.model, need.gpus) for node in self.virtual_nodes(part)))

    def potential(self, part: Part) -> int:
        """Returns how many of a part's pods the cluster could hold if it were empty and had all of its stock."""
        if part.virtual is not None:
            need = part.virtual
            return min(UNBOUNDED, sum(node.potential(need.model, need.gpus) for node in self.virtual_nodes(part)))
        return min(UNBOUNDED, sum(pool.potential(part.shape) for pool in self.pools))

    def admits(self, part: Part) -> bool:
        """Returns whether any node class or virtual node may run a part at all."""
        if part.virtual is not None:
            return any(True for _ in self.virtual_nodes(part))
        return any(part.shape.admitted(pool.identity) for pool in self.pools)


class Column:
    """Room for one shape by member index."""

    __slots__ = ("position", "running", "stock")

    def __init__(self) -> None:
        self.running: list[int] = []
        self.stock: list[int] = []
        self.position = -1


class Fleet:
    """Every cluster that is registered or was spoken of. ``generation`` counts changes of who is a candidate."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.members: dict[str, Member] = {}
        self.by_index: list[Member] = []
        self.generation = 0
        self._columns: dict[int, Column] = {}
        self._log: list[int] = []
        self._log_start = 0

    def member(self, name: str) -> Member:
        """Returns a cluster, which need not be registered."""
        member = self.members.get(name)
        if member is None:
            member = self.members[name] = Member(name, len(self.by_index))
            self.by_index.append(member)
        return member

    def touch(self, member: Member, *, refit_needed: bool = True) -> None:
        """Notes that a member's room has changed."""
        if refit_needed:
            if member.dirty:
                return
            member.dirty = True
        self._log.append(member.index)
        if len(self._log) > 4 * len(self.by_index) + 4096:
            drop = len(self._log) // 2
            del self._log[:drop]
            self._log_start += drop

    def column(self, shape: Shape) -> Column:
        """Returns room for a shape by member index, up to date."""
        column = self._columns.get(shape.id)
        if column is None:
            if len(self._columns) >= _COLUMNS:
                del self._columns[next(iter(self._columns))]
            column = self._columns[shape.id] = Column()
        end = self._log_start + len(self._log)
        if column.position < self._log_start:
            self._fill(column, shape, range(len(self.by_index)))
        elif column.position < end:
            changed = self._log[column.position - self._log_start :]
            self._fill(column, shape, set(changed) if len(changed) > 8 else changed)
        # Refitting while filling settles members that were logged as dirty already; the log does not grow.
        column.position = end
        return column

    def _fill(self, column: Column, shape: Shape, indexes: Iterable[int]) -> None:
        missing = len(self.by_index) - len(column.running)
        if missing > 0:
            column.running.extend([0] * missing)
            column.stock.extend([0] * missing)
        for index in indexes:
            column.running[index], column.stock[index] = self.by_index[index].counts(shape)

    def registered(self, spec: ClusterSpec) -> None:
        """Applies a registration."""
        member = self.member(spec.name)
        if member.spec == spec:
            return
        member.spec = spec
        member.removed = False
        self.generation += 1
        self.touch(member)

    def removed(self, name: str) -> None:
        """Applies the deletion of a registration."""
        member = self.member(name)
        if member.removed:
            return
        member.spec = None
        member.removed = True
        self.generation += 1
        self.touch(member)

    def observed(self, inventory: Inventory) -> bool:
        """Applies a snapshot; returns whether anything but its time is new."""
        member = self.member(inventory.cluster)
        before = member.inventory
        if before is not None and _older(inventory, before):
            return False
        member.inventory = inventory
        if before is None or _eligibility(before) != _eligibility(inventory):
            self.generation += 1
        elif before.node_classes == inventory.node_classes and before.virtual_nodes == inventory.virtual_nodes:
            return False
        catalog = self.catalog
        known = {pool.name: pool for pool in member.pools}
        member.pools = sorted(
            (
                known[c.name] if c.name in known and known[c.name].node_class == c else Pool(c, catalog)
                for c in inventory.node_classes
            ),
            key=lambda pool: pool.order,
        )
        member.virtual = sorted((VirtualPool(v, catalog) for v in inventory.virtual_nodes), key=lambda v: v.name)
        member.dirty = False  # so that touch logs it even if it was dirty and unread
        self.touch(member)
        return True

    def vanished(self, name: str) -> None:
        """Applies the deletion of an inventory."""
        member = self.member(name)
        if member.inventory is not None:
            member.inventory = None
            member.pools, member.virtual = [], []
            self.generation += 1
            self.touch(member)


def _older(inventory: Inventory, known: Inventory) -> bool:
    # Another incarnation is another cluster, whose counters begin anew.
    new, old = inventory.snapshot, known.snapshot
    return new.incarnation == old.incarnation and (new.epoch, new.n) < (old.epoch, old.n)


def _eligibility(inventory: Inventory) -> tuple[object, ...]:
    return (inventory.health, inventory.apis, inventory.namespaces, inventory.snapshot.incarnation)


__all__ = ["Column", "Fleet", "Member", "selects"]
