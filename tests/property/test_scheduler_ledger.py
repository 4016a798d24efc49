"""What the scheduler caches of a fleet's room equals a recomputation from the inventories and the holds alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.cluster import Inventory, ModelStock, NodeClass, VirtualNode
from gpufleet.model.placement import Source, Version
from gpufleet.model.resources import resources
from gpufleet.model.workload import PodShape
from services.scheduler.core import booking, explain
from services.scheduler.core.blocks import Blocks, take
from services.scheduler.core.fleet import Fleet
from services.scheduler.core.member import Member
from services.scheduler.core.pool import Doubt, Pool
from services.scheduler.core.reserve import Hold, Holding
from services.scheduler.core.shapes import Shape
from services.scheduler.core.units import Part, VirtualNeed
from tests.support.scheduling import GPU, amounts, inventory, node_class

SHAPES = (
    PodShape(resources(amounts(gpu=1, cpu=8_000))),
    PodShape(resources(amounts(gpu=1, cpu=8_000)), node_selector=(("gpu", "big"),)),
    PodShape(resources(amounts(gpu=2, cpu=4_000))),
    PodShape(resources(amounts(cpu=10_000))),
    PodShape(()),
)
NAMES = ("big", "small", "gone")


@dataclass(frozen=True)
class Put:
    """A workload's holds in a cluster; none: it holds nothing any more. ``forward``: the room was just taken."""

    cluster: str
    workload: str
    holds: tuple[tuple[int, str, int, Source, int], ...]
    forward: bool


@dataclass(frozen=True)
class Decide:
    """A workload takes room in some clusters at once, as a decision does; none: gives back what it has everywhere."""

    workload: str
    shape: int
    counts: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Mistrust:
    """Nodes of a class do not count for a while, or do again."""

    cluster: str
    name: str
    doubt: Doubt | None


@dataclass(frozen=True)
class Observe:
    """A snapshot of a cluster."""

    inventory: Inventory


def _classes() -> st.SearchStrategy[tuple[NodeClass, ...]]:
    def made(name: str) -> st.SearchStrategy[NodeClass]:
        free = st.lists(
            st.fixed_dictionaries({GPU: st.integers(0, 8), "cpu": st.sampled_from([4_000, 96_000])}), max_size=4
        )
        stock = st.one_of(st.none(), st.integers(0, 2))
        return st.builds(
            lambda free, stock: node_class(name, free=free, stock=stock, node_labels={"gpu": name}), free, stock
        )

    return st.tuples(made("big"), made("small")).flatmap(lambda both: st.sampled_from([both, both[:1], both[::-1], ()]))


def _observe() -> st.SearchStrategy[Observe]:
    nodes = (VirtualNode("vk", stock=(ModelStock("T4", 3),)),)
    return st.builds(
        lambda cluster, classes, virtual: Observe(inventory(cluster, *classes, virtual_nodes=nodes if virtual else ())),
        st.sampled_from(["a", "b"]),
        _classes(),
        st.booleans(),
    )


def _put() -> st.SearchStrategy[Put]:
    hold = st.tuples(
        st.sampled_from([0, 0, 0, 1, 2, 3, 4]),
        st.sampled_from([*NAMES, "big", "big", ""]),
        st.integers(1, 6),
        st.sampled_from([Source.RUNNING, Source.RUNNING, Source.RUNNING, Source.ELASTIC, Source.VIRTUAL]),
        st.integers(0, 2),
    )
    return st.builds(
        Put,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["w1", "w2", "w3", "w4", "w5"]),
        st.lists(hold, max_size=2).map(tuple),
        st.booleans(),
    )


def _hold(fleet: Fleet, shape: int, name: str, count: int, source: Source, provisioning: int) -> Hold:
    virtual = VirtualNeed("", "T4", 1, pinned=False) if source is Source.VIRTUAL else None
    part = Part("main", fleet.catalog.shape(SHAPES[shape]), virtual)
    return Hold(part, "vk" if virtual else name, count, source, provisioning)


def _forward(member: Member, put: Put, fleet: Fleet) -> tuple[Hold, ...]:
    """Takes room as a decision does, and returns what was really there as the holds."""
    member.settle()
    taken = []
    for shape, name, count, source, provisioning in put.holds:
        pool = member.pool(name)
        hold = _hold(fleet, shape, name, count, source, provisioning)
        if pool is None or source is Source.VIRTUAL:
            continue
        got = (pool.take_running if source is Source.RUNNING else pool.take_stock)(hold.part.shape, count)
        # What stock gave is held as elastic only if running nodes have no room: else a refit would use those first.
        if got and source is Source.RUNNING:
            taken.append(Hold(hold.part, name, got, source))
        elif got:
            fleet.touch(member)
            taken.append(Hold(hold.part, name, got, source))
    return tuple(taken)


def _check(fleet: Fleet) -> None:
    for member in fleet.by_index:
        member.settle()
        pools = [Pool(pool.node_class, fleet.catalog) for pool in member.pools]
        expected, debt = _recomputed(fleet, member, pools)
        assert [(p.running, p.stock.coming, p.stock.fresh) for p in member.pools] == expected
        assert member.debt == debt
        _check_notes(fleet, member)
    for pod in SHAPES:
        shape = fleet.catalog.shape(pod)
        column = fleet.column(shape)
        for member in fleet.by_index:
            counts = (int(column.running[member.index]), int(column.stock[member.index]))
            assert counts == member.counts(shape)
            coming = int(column.coming[member.index]) if column.coming is not None else 0
            assert coming == member.room_coming(shape)
            if not member.debt:
                assert (*counts, coming) == _counts(member, shape)


def _check_notes(fleet: Fleet, member: Member) -> None:
    """What was noted of a cluster's room, in an earlier step or just now, is what follows from it as it is."""
    for pod in SHAPES:
        wanted = [(Part("main", fleet.catalog.shape(pod)), 10**6)]
        noted = explain.shortage(member, wanted, stock=True)
        notes, member.notes = member.notes, {}
        assert noted == explain.shortage(member, wanted, stock=True)
        member.notes = notes


def _counts(member: Member, shape: Any) -> tuple[int, int, int]:
    running = fresh = coming = 0
    for pool in member.pools:
        if shape.admitted(pool.identity):
            fitter = shape.fitter(pool.layout)
            running += sum(fitter.fit(free) * nodes for free, nodes in pool.running.items())
            if pool.name not in member.doubts and pool.node_class.elastic is not None:
                fresh += fitter.fit(pool.allocatable) * pool.stock.fresh
                coming += sum(fitter.fit(free) * nodes for free, nodes in pool.stock.coming.items())
    return running, fresh + coming, coming


def _recomputed(fleet: Fleet, member: Member, pools: Sequence[Pool]) -> tuple[list[Any], int]:
    """Refits a cluster the plain way: every hold in (epoch, version) order out of fresh blocks."""
    running = [dict(pool.running) for pool in pools]
    stock = [_Nodes(pool) for pool in pools]
    virtual = {n.name: 3 for n in (member.inventory.virtual_nodes if member.inventory is not None else ())}
    debt = 0
    late: list[tuple[Hold, int, list[int]]] = []
    lent: set[str] = set()
    for _, held in sorted(member.held.items(), key=lambda item: (item[1].version, item[0])):
        for hold in held.holds:
            left = hold.count
            if hold.source is Source.VIRTUAL:
                taken = min(left, virtual.get(hold.pool, 0))
                virtual[hold.pool] = virtual.get(hold.pool, 0) - taken
                debt += left - taken
                continue
            named = [i for i, pool in enumerate(pools) if pool.name == hold.pool] or list(range(len(pools)))
            shape = hold.part.shape
            for i in named:
                if shape.admitted(pools[i].identity):
                    left -= take(running[i], shape.fitter(pools[i].layout), left)
            known = any(pool.name == hold.pool for pool in pools)
            if known and hold.source is Source.ELASTIC and left < hold.count:
                lent.add(hold.pool)
            if hold.pool and (hold.source is Source.ELASTIC or (known and (hold.provisioning or hold.pool in lent))):
                late.append((hold, left, named))
            elif hold.pool:
                debt += left
    # First who waits for a node that is being created, so that all others may go beside them.
    for hold, left, named in late:
        if named and pools[named[0]].name == hold.pool:
            stock[named[0]].place(hold.part.shape, min(left, hold.provisioning), beyond=True)
    for hold, left, named in late:
        left -= min(left, hold.provisioning)
        for i in named:
            left -= stock[i].place(hold.part.shape, left)
        debt += left
    return [(r, s.coming, s.fresh) for r, s in zip(running, stock, strict=True)], debt


class _Nodes:
    """Nodes of a class that are not there yet; pods go one by one, beside others first, then on a node of their own."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.coming: Blocks = {}
        self.fresh = pool.node_class.elastic.nodes if pool.node_class.elastic is not None else 0

    def place(self, shape: Shape, count: int, *, beyond: bool = False) -> int:
        if self.pool.node_class.elastic is None or not shape.admitted(self.pool.identity):
            return 0
        fitter = shape.fitter(self.pool.layout)
        for placed in range(count):
            if take(self.coming, fitter, 1):
                continue
            if not fitter.fit(self.pool.allocatable) or not (beyond or self.fresh):
                return placed
            rest = fitter.after(self.pool.allocatable, 1)
            self.coming[rest] = self.coming.get(rest, 0) + 1
            self.fresh -= not beyond
        return count


class Room:
    """Takes room for workloads as decisions do, where no cluster has to give it from several pools."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.booked: dict[str, booking.Booked] = {}

    def decide(self, step: Decide, version: Version) -> None:
        fleet = self.fleet
        known = self.booked.pop(step.workload, None)
        if known is not None:
            booking.release(fleet, step.workload, known)
        for member in fleet.by_index:
            if step.workload in member.held:
                fleet.hold(member, step.workload, None, taken=False)
        shape = fleet.catalog.shape(SHAPES[step.shape])
        booked, _ = booking.take(fleet, shape, [(fleet.member(cluster), count) for cluster, count in step.counts])
        holds: list[tuple[Hold, ...]] = [
            (Hold(Part("main", shape), pool.name, count, Source.RUNNING),) for _, pool, _, count in booked.rows
        ]
        found = booking.reserve(fleet, step.workload, version, booking.Made(booked, holds, []))
        if found is not None:
            self.booked[step.workload] = found


DECIDE = st.builds(
    Decide,
    st.sampled_from(["w1", "w2", "w3", "w4", "w5"]),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 4)), unique_by=lambda item: item[0]).map(tuple),
)
Step = Observe | Put | Decide | Mistrust | None
MISTRUST = st.builds(
    Mistrust, st.sampled_from(["a", "b"]), st.sampled_from(NAMES[:2]), st.sampled_from([None, Doubt(1.0, "")])
)


@given(st.lists(st.one_of(_observe(), _put(), _put(), DECIDE, DECIDE, MISTRUST, st.just(None)), max_size=25))
@settings(deadline=None)
def test_incremental_caches_equal_a_recomputation_from_scratch(
    steps: list[Observe | Put | Decide | Mistrust | None],
) -> None:
    fleet = Fleet()
    for name in ("a", "b"):
        fleet.observed(inventory(name, node_class("big", nodes=3, node_labels={"gpu": "big"})))
    room = Room(fleet)
    for number, step in enumerate(steps):
        match step:
            case None:
                _check(fleet)
            case Observe():
                fleet.observed(step.inventory)
            case Decide():
                room.decide(step, Version(1, number))
            case Mistrust():
                fleet.set_doubt(fleet.member(step.cluster), step.name, step.doubt)
            case Put():
                room.booked.pop(step.workload, None)
                member = fleet.member(step.cluster)
                forward = step.forward and step.workload not in member.held
                holds = _forward(member, step, fleet) if forward else tuple(_hold(fleet, *hold) for hold in step.holds)
                held = Holding(Version(1, number), holds) if holds else None
                if held is not None or step.workload in member.held:
                    fleet.hold(member, step.workload, held, taken=forward)
    _check(fleet)


@given(st.lists(DECIDE, max_size=8))
@settings(deadline=None)
def test_decisions_correct_the_columns_as_a_recomputation_would(steps: list[Decide]) -> None:
    """Columns that are read after every decision, so that each corrects them."""
    fleet = Fleet()
    for name in ("a", "b"):
        classes = (node_class("big", nodes=2, node_labels={"gpu": "big"}), node_class("small", nodes=1))
        fleet.observed(inventory(name, *classes))
    room = Room(fleet)
    for number, step in enumerate(steps):
        _check(fleet)
        room.decide(step, Version(1, number))
    _check(fleet)
