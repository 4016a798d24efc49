"""One cluster as it would be without some of its pods: what would fit then, and on which node classes.

What its nodes have left then is known as far as it is known where the pods are (`gone`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gpufleet.model.placement import Slot, Source
from services.scheduler.core.blocks import Blocks, room, take
from services.scheduler.core.gone import At, Emptied, Gone, Kind, give_all, vacate
from services.scheduler.core.member import Member
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Shape, is_gpu
from services.scheduler.core.units import Part, Way

# Nodes without some pods, by node class: as of which pool.
Vacated = dict[str, tuple[Pool, Blocks]]


class Trial:
    """A cluster without some of its pods. The cluster itself is not touched."""

    __slots__ = ("_blocks", "_changed", "_emptied", "_gone", "_member", "_occupied", "_rooms", "_vacated")

    def __init__(self, member: Member) -> None:
        member.settle()
        self._member = member
        self._occupied: dict[str, Blocks] = {}
        self._gone = Gone()
        # Nodes without the pods that are gone, and the numbers of those where that has changed since.
        self._emptied: dict[str, Emptied] = {}
        self._changed: dict[str, set[int]] = {}
        self._blocks: dict[str, Blocks] = {}
        self._rooms: dict[tuple[str, int], int] = {}
        self._vacated: Vacated | None = None

    def occupy(self, wanted: Sequence[tuple[Part, int]]) -> bool:
        """Puts some pods where they would go as the cluster is, before any are taken away; returns whether they fit."""
        copies = {pool.name: dict(pool.running) for pool in self._member.pools}
        if self._pack(wanted, None, copies) is None:
            return False
        self._occupied = copies
        return True

    def change(self, kind: Kind, times: int) -> None:
        """Takes away so many more of a kind; a negative number puts them where they were."""
        self._gone.add(kind, times)
        name, _, _, number = kind
        self._changed.setdefault(name, set()).add(number)
        if self._blocks.pop(name, None) is not None or self._rooms:
            self._rooms = {known: here for known, here in self._rooms.items() if known[0] != name}

    def without(self, gone: Gone, vacated: Vacated) -> None:
        """Takes away some pods, and no others: the trial is not to be changed afterwards.

        ``vacated`` keeps what that makes of nodes, from one trial to the next.
        """
        self._gone, self._vacated = gone, vacated

    def _of(self, pool: Pool) -> Blocks:
        """Returns a pool's blocks without the pods; not to be changed."""
        blocks = self._blocks.get(pool.name)
        if blocks is None:
            occupied = self._occupied.get(pool.name)
            at = self._gone.at.get(pool.name)
            somewhere, not_yet = self._gone.somewhere.get(pool.name), self._gone.not_yet.get(pool.name)
            if not (at or somewhere or not_yet):
                return pool.running if occupied is None else occupied
            # What is reserved is taken afresh where its order does not matter.
            afresh = occupied is None and pool.plain and not self._member.loose
            blocks = dict(pool.shown if afresh else pool.running if occupied is None else occupied)
            if at and afresh:
                blocks = dict(self._without_pods(pool, at))
            elif at:
                vacate(blocks, pool, at)
            if somewhere:
                give_all(blocks, pool, somewhere)
            if afresh:
                not_yet = _reserve(blocks, pool, not_yet or {})
            if not_yet:
                give_all(blocks, pool, {(shape, 1): pods for shape, pods in not_yet.items()})
            self._blocks[pool.name] = blocks
        return blocks

    def _without_pods(self, pool: Pool, at: At) -> Blocks:
        """Returns what a pool's nodes would have left without reservations and some pods; not to be changed."""
        if self._vacated is not None:
            known = self._vacated.get(pool.name)
            if known is None or known[0] is not pool:
                blocks = dict(pool.shown)
                vacate(blocks, pool, at)
                known = self._vacated[pool.name] = (pool, blocks)
            return known[1]
        emptied = self._emptied.get(pool.name)
        if emptied is None:
            emptied = self._emptied[pool.name] = Emptied(pool)
        for number in self._changed.pop(pool.name, ()):
            emptied.take_away(number, at.get(number, {}))
        return emptied.blocks

    def room(self, part: Part) -> int:
        """Returns for how many pods of a part there is room."""
        total, shape = 0, part.shape
        for pool in self._member.pools:
            if shape.admitted(pool.identity) and part.takes(pool.node_class):
                known = self._rooms.get((pool.name, shape.id))
                if known is None:
                    known = room(self._of(pool), shape.fitter(pool.layout))
                    self._rooms[pool.name, shape.id] = known
                total += known
        return total

    def fits(self, wanted: Sequence[tuple[Part, int]]) -> bool:
        """Returns whether some pods fit together."""
        for part, count in wanted:
            if self.room(part) < count:
                return False
        return len(wanted) == 1 or self.pack(wanted, None) is not None

    def pack(self, wanted: Sequence[tuple[Part, int]], unit: int | None) -> tuple[Slot, ...] | None:
        """Returns where some pods would go, largest first, or None if they do not fit. Nothing is taken."""
        return self._pack(wanted, unit, {})

    def _pack(
        self, wanted: Sequence[tuple[Part, int]], unit: int | None, copies: dict[str, Blocks]
    ) -> tuple[Slot, ...] | None:
        slots: list[Slot] = []
        for part, count in wanted:
            left = count
            for pool in self._member.pools:
                if left and part.shape.admitted(pool.identity) and part.takes(pool.node_class):
                    blocks = copies.get(pool.name)
                    if blocks is None:
                        blocks = copies[pool.name] = dict(self._of(pool))
                    taken = take(blocks, part.shape.fitter(pool.layout), left)
                    if taken:
                        slots.append(Slot(part.component, pool.name, taken, Source.RUNNING, unit))
                        left -= taken
            if left:
                return None
        return tuple(slots)


def _reserve(blocks: Blocks, pool: Pool, without: Mapping[Shape, int]) -> dict[Shape, int]:
    """Takes what is reserved out of a pool's blocks, without some of it; returns of what there was no reservation."""
    booked, rest = dict(pool.booked), {}
    for shape, pods in without.items():
        fitter = shape.fitter(pool.layout)
        known = min(booked.get(fitter, 0), pods)
        if known:
            booked[fitter] -= known
        if pods > known:
            rest[shape] = pods - known
    for fitter, count in booked.items():
        take(blocks, fitter, count)
    return rest


def scarce(wanted: Sequence[tuple[Part, int]]) -> dict[str, int]:
    """Returns what some pods need in all of what decides: their GPUs, or everything if they have none."""
    needed: dict[str, int] = {}
    for part, count in wanted:
        for name, amount in part.shape.pod.requests:
            needed[name] = needed.get(name, 0) + amount * count
    gpus = {name: amount for name, amount in needed.items() if is_gpu(name)}
    return gpus or {name: amount for name, amount in needed.items() if name != "pods"}


def free_of(member: Member, wanted: Sequence[tuple[Part, int]], names: Iterable[str]) -> dict[str, int]:
    """Returns what is free of some resources, over all nodes that may run one of some pods."""
    totals = dict.fromkeys(names, 0)
    parts = [part for part, _ in wanted]
    for pool in member.pools:
        for part in parts:
            if part.shape.admitted(pool.identity) and part.takes(pool.node_class):
                break
        else:
            continue
        columns, running = pool.layout.names, pool.running
        for name in totals:
            if name in columns:
                i, total = columns.index(name), 0
                for free, nodes in running.items():
                    total += free[i] * nodes
                totals[name] += total
    return totals


def real(way: Way) -> bool:
    """Returns whether a way lands on nodes: on virtual ones nobody makes room for anybody."""
    return all(part.virtual is None for part in way.parts)
