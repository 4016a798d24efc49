"""Clusters as a decision saw them, put into words and taken back from there: what many have alike is said once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from typing import Generic, TypeVar

from msgspec import structs

from gpufleet.model.cluster import ClusterSpec, ElasticStock, FreeBlock, Inventory, NodeClass, SnapshotId
from services.scheduler.core import evidence as ev
from services.scheduler.core.blocks import Blocks, room
from services.scheduler.core.columns import Column, Counts
from services.scheduler.core.member import Known
from services.scheduler.core.pool import Pool
from services.scheduler.core.seen import Left
from services.scheduler.core.shapes import Shape
from services.scheduler.core.witness import Witness

# Up to so many clusters are told of with their free blocks, which say more than how many pods have room.
_FEW = 12
_KEPT = 4096


_T = TypeVar("_T", bound=Hashable)


class _Memo(Generic[_T]):
    """What was made of values that are the same for many decisions, by identity; equal results are one object."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], tuple[_T, _T]] = {}
        self._alike: dict[_T, _T] = {}

    def of(self, value: _T, make: Callable[..., _T], *more: object) -> _T:
        """Returns what is made of a value, and of what else it depends on."""
        key = (id(value), *more)
        known = self._made.get(key)
        if known is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
                self._alike.clear()
            made = make(value, *more)
            # Kept with the value, so that its identity is not another's.
            known = self._made[key] = (value, self._alike.setdefault(made, made))
        return known[1]


class _Table(Generic[_T]):
    """Values of one record, each said once and numbered."""

    def __init__(self) -> None:
        self._numbers: dict[_T, int] = {}
        self._by_identity: dict[int, tuple[_T, int]] = {}

    def number(self, value: _T) -> int:
        """Returns the number of a value."""
        known = self._by_identity.get(id(value))
        if known is None:
            known = self._by_identity[id(value)] = (value, self._numbers.setdefault(value, len(self._numbers)))
        return known[1]

    def values(self) -> tuple[_T, ...]:
        """Returns the values in the order of their numbers."""
        return tuple(self._numbers)


_SPECS: _Memo[ClusterSpec] = _Memo()
_HEADS: _Memo[Inventory] = _Memo()
_KINDS: _Memo[NodeClass] = _Memo()


class Told:
    """The clusters of one decision, and what is alike of them."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        workload = witness.workload
        self._api = f"{workload.api_version}/{workload.kind}" if workload is not None else ""
        self._namespace = workload.namespace if workload is not None else ""
        self._shape = witness.shape if len(witness.members) > _FEW else None
        self._specs: _Table[ClusterSpec] = _Table()
        self._heads: _Table[Inventory] = _Table()
        self._kinds: _Table[NodeClass] = _Table()
        self.clusters = tuple(map(self._cluster, witness.members))

    @property
    def specs(self) -> tuple[ClusterSpec, ...]:
        """What registrations say, without their names."""
        return self._specs.values()

    @property
    def inventories(self) -> tuple[Inventory, ...]:
        """What inventories say, without what is a cluster's own."""
        return self._heads.values()

    @property
    def kinds(self) -> tuple[NodeClass, ...]:
        """Node classes without their nodes; a free block says how many devices one lists."""
        return self._kinds.values()

    def _cluster(self, known: Known) -> ev.ClusterSeen:
        witness, column = self._witness, self._witness.seen.column
        member, spec, inventory, pools, removed, doubts = known
        left = witness.seen.left.get(member.name)
        classes: Iterable[ev.ClassSeen] = ()
        if left is not None:
            inventory = left.inventory
            classes = self._left(left)
        elif column is not None:
            classes = self._rooms(column, pools, member.index)
        spec_number = head_number = None
        if spec is not None:
            spec_number = self._specs.number(_SPECS.of(spec, _unnamed))
        if inventory is not None:
            head = _HEADS.of(inventory, _head, self._api, self._namespace, witness.drafted)
            head_number = self._heads.number(head)
        return ev.ClusterSeen(
            name=member.name,
            spec=spec_number,
            inventory=head_number,
            incarnation=inventory.snapshot.incarnation if inventory is not None else "",
            observed_at=inventory.observed_at if inventory is not None else 0.0,
            removed=removed,
            classes=tuple(classes),
            debt=left.debt if left is not None else witness.debts.get(member.name, 0),
            virtual=tuple((name, tuple(sorted(models.items()))) for name, models in left.virtual) if left else (),
            doubts=doubts,
            held=tuple(sorted(left.held.items())) if left is not None else (),
            holds=tuple(_holds(left)) if left is not None else (),
        )

    def _left(self, left: Left) -> Iterator[ev.ClassSeen]:
        taken_from = self._witness.seen.taking is not None
        for pool, running, stock in left.pools:
            here = running if running is not None else _as_shown(pool)
            if self._shape is not None:
                yield structs.replace(self._class(pool), rooms=_room(pool, self._shape, here, stock))
                continue
            fresh, coming = stock if stock is not None else (None, {})
            free = pool.node_class.free
            yield structs.replace(
                self._class(pool),
                listed=0 if taken_from else sum([block.nodes for block in free]),
                running=_rows(here),
                fresh=fresh,
                coming=_rows(coming),
                free=free if taken_from else (),
            )

    def _rooms(self, column: Column, pools: list[Pool], index: int) -> Iterator[ev.ClassSeen]:
        for row, pool in enumerate(pools):
            running, stock, coming = (_cell(counts, row, index) for counts in column.pools)
            yield structs.replace(self._class(pool), rooms=(running, stock, coming))

    def _class(self, pool: Pool) -> ev.ClassSeen:
        node_class = pool.node_class
        elastic = node_class.elastic
        bounds = (elastic.max_nodes, elastic.stock) if elastic is not None else None
        return ev.ClassSeen(self._kinds.number(_KINDS.of(node_class, _bare)), node_class.nodes, elastic=bounds)


def _holds(left: Left) -> Iterator[ev.HoldSeen]:
    for key, held in sorted(left.holds):
        for hold in held.holds:
            part = hold.part
            if part.virtual is None:
                yield ev.HoldSeen(
                    key,
                    held.version,
                    part.component,
                    part.shape.pod,
                    hold.pool,
                    hold.count,
                    hold.source,
                    hold.provisioning,
                )


def _cell(counts: Counts | None, row: int, index: int) -> int:
    known = counts is not None and row < counts.shape[0] and index < counts.shape[1]
    return int(counts[row, index]) if counts is not None and known else 0


def spec_of(evidence: ev.Evidence, seen: ev.ClusterSeen) -> ClusterSpec | None:
    """Returns a cluster's registration. Raises ValueError."""
    return None if seen.spec is None else replace(_said(evidence.specs, seen.spec, "registration"), name=seen.name)


def inventory_of(evidence: ev.Evidence, seen: ev.ClusterSeen) -> Inventory | None:
    """Returns a cluster's inventory, with all nodes full that are not told of otherwise. Raises ValueError.

    What was held in the namespace's quotas, but for the holds that are told, is counted as used.
    """
    if seen.inventory is None:
        return None
    head = _said(evidence.inventories, seen.inventory, "inventory")
    held = dict(seen.held)
    for hold in seen.holds:
        if hold.workload.partition("/")[0] == evidence.key.partition("/")[0]:
            for name, amount in hold.shape.requests:
                held[name] = held.get(name, 0) - amount * hold.count
    quotas = []
    for quota in head.quotas:
        used = dict(quota.used)
        for name in quota.bounds:
            used[name] = used.get(name, 0) + held.get(name, 0)
        quotas.append(replace(quota, used=tuple(sorted(used.items()))))
    return replace(
        head,
        cluster=seen.name,
        snapshot=SnapshotId(seen.incarnation),
        observed_at=seen.observed_at,
        node_classes=tuple(_node_class(kind_of(evidence, known), known) for known in seen.classes),
        quotas=tuple(quotas) if held else head.quotas,
    )


def kind_of(evidence: ev.Evidence, seen: ev.ClassSeen) -> NodeClass:
    """Returns what is alike of a node class. Raises ValueError."""
    return _said(evidence.kinds, seen.kind, "node class")


def _said(table: tuple[_T, ...], number: int, what: str) -> _T:
    if not 0 <= number < len(table):
        raise ValueError(f"{what} {number} is named, but the record has {len(table)}")
    return table[number]


def _node_class(kind: NodeClass, seen: ev.ClassSeen) -> NodeClass:
    elastic = kind.elastic
    if elastic is not None and seen.elastic is not None:
        elastic = ElasticStock(*seen.elastic, elastic.provision_seconds)
    listed = (FreeBlock(seen.listed, ()),) if seen.listed else ()
    return replace(kind, nodes=seen.nodes, free=(*kind.free, *seen.free, *listed), elastic=elastic)


def _unnamed(spec: ClusterSpec) -> ClusterSpec:
    return replace(spec, name="")


def _head(inventory: Inventory, api: str, namespace: str, drafted: bool) -> Inventory:
    """Returns what an inventory says about workloads of a kind, without its node classes and what is its own."""
    return replace(
        inventory,
        cluster="",
        snapshot=SnapshotId(),
        observed_at=0.0,
        apis=None if inventory.apis is None else inventory.apis & {api},
        namespaces=None if inventory.namespaces is None else inventory.namespaces & {namespace},
        node_classes=(),
        virtual_nodes=inventory.virtual_nodes if drafted else (),
        quotas=tuple(quota for quota in inventory.quotas if quota.namespace == namespace),
    )


def _bare(node_class: NodeClass) -> NodeClass:
    devices = max((len(block.gpu_free) for block in node_class.free), default=0)
    free = (FreeBlock(0, (), (0,) * devices),) if node_class.free else ()
    elastic = node_class.elastic
    if elastic is not None:
        elastic = ElasticStock(0, 0, elastic.provision_seconds)
    return replace(node_class, nodes=0, free=free, elastic=elastic)


def _as_shown(pool: Pool) -> Blocks:
    found: Blocks = {}
    for block in pool.node_class.free:
        if block.nodes > 0:
            free = pool.layout.block(block)
            found[free] = found.get(free, 0) + block.nodes
    return found


def _room(pool: Pool, shape: Shape, running: Blocks, stock: tuple[int, Blocks] | None) -> tuple[int, int, int]:
    if not shape.admitted(pool.identity):
        return (0, 0, 0)
    fitter = shape.fitter(pool.layout)
    fresh, coming = stock if stock is not None else (0, {})
    arriving = room(coming, fitter)
    return (room(running, fitter), fresh * fitter.fit(pool.allocatable) + arriving, arriving)


def _rows(blocks: Blocks) -> ev.Blocks:
    return tuple((nodes, *free) for free, nodes in sorted(blocks.items()))
