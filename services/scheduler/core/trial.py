"""One cluster as it would be without some of its pods: what would fit then, and on which nodes.

On which node a pod runs is not known, only how many nodes have which free amounts. Pods that are taken away are put
back where they could have been: pods of one workload together, on the fullest nodes first, the largest first. Where a
pod that comes is no larger than one that goes, this is exact; else it is an estimate, and the inventory shows the truth
afterwards. What is put back counts by kind, so that the order in which victims are looked at does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpufleet.model.placement import Slot, Source
from services.scheduler.core.blocks import Blocks, room, take
from services.scheduler.core.capacity import Member
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Fitter, Free, Shape, is_gpu
from services.scheduler.core.units import Part, Way

# Pods that run together: their node class, their shape, and how many they are.
Kind = tuple[str, Shape, int]


def give(blocks: Blocks, pool: Pool, fitter: Fitter, count: int, times: int = 1) -> None:
    """Puts back what so many pods use, ``times`` over, as far as it can have been used: a node's GPUs decide.

    Documents may leave out of `free` what they do not care for.
    """
    whole, layout = pool.allocatable, pool.layout
    gpus = [(i, a) for i, a in fitter.columns if i in layout.gpu_columns and a]
    left = count
    while times > 0:
        best = _fullest(blocks, *gpus[0], whole) if len(gpus) == 1 else _fullest_of(blocks, gpus, fitter, pool)
        if best is None:
            return
        free, most = best
        if left == count <= most:  # all of them on one node, and the next ones on another that is as full
            pods = count
            nodes = min(blocks[free], times)
            times -= nodes
        else:
            pods = min(most, left)
            nodes = min(blocks[free], left // pods)
            left -= nodes * pods
            if not left:
                left = count
                times -= 1
        if blocks[free] == nodes:
            del blocks[free]
        else:
            blocks[free] -= nodes
        back = list(free)
        for i, amount in fitter.columns:
            back[i] = min(whole[i], back[i] + amount * pods)
        after = tuple(back)
        blocks[after] = blocks.get(after, 0) + nodes


def _fullest(blocks: Blocks, column: int, amount: int, whole: Free) -> tuple[Free, int] | None:
    """Returns the fullest nodes that can have had such a pod, and how many, for pods that ask for one kind of GPU."""
    most = whole[column] - amount
    best: Free | None = None
    for free in blocks:
        gpus = free[column]
        if gpus <= most and (best is None or gpus < best[column] or (gpus == best[column] and free < best)):
            best = free
    return None if best is None else (best, (whole[column] - best[column]) // amount)


def _fullest_of(blocks: Blocks, gpus: Sequence[tuple[int, int]], fitter: Fitter, pool: Pool) -> tuple[Free, int] | None:
    whole = pool.allocatable
    best: tuple[int, Free, int] | None = None
    for free in blocks:
        used = gpus or [(i, a) for i, a in fitter.columns if a and free[i] < whole[i]]
        pods = min(((whole[i] - free[i]) // a for i, a in used), default=0)
        if pods > 0 and (best is None or (pool.layout.gpus(free), free) < best[:2]):
            best = (pool.layout.gpus(free), free, pods)
    return None if best is None else best[1:]


class Trial:
    """A cluster without some of its pods. The cluster itself is not touched."""

    __slots__ = ("_base", "_blocks", "_gone", "_member", "_rooms")

    def __init__(self, member: Member) -> None:
        member.settle()
        self._member = member
        self._base: dict[str, Blocks] = {}
        self._gone: dict[str, dict[tuple[Shape, int], int]] = {}
        self._blocks: dict[str, Blocks] = {}
        self._rooms: dict[tuple[str, int], int] = {}

    def occupy(self, wanted: Sequence[tuple[Part, int]]) -> bool:
        """Puts some pods where they would go as the cluster is, before any are taken away; returns whether they fit."""
        copies = {pool.name: dict(pool.running) for pool in self._member.pools}
        if self._pack(wanted, None, copies) is None:
            return False
        self._base = copies
        return True

    def change(self, kind: Kind, times: int) -> None:
        """Takes away so many more of a kind; a negative number puts them where they were."""
        name, shape, pods = kind
        gone = self._gone.setdefault(name, {})
        total = gone.get((shape, pods), 0) + times
        if total:
            gone[shape, pods] = total
        else:
            del gone[shape, pods]
        if self._blocks.pop(name, None) is not None or self._rooms:
            self._rooms = {known: here for known, here in self._rooms.items() if known[0] != name}

    def _of(self, pool: Pool) -> Blocks:
        """Returns a pool's blocks without the pods; not to be changed."""
        blocks = self._blocks.get(pool.name)
        if blocks is None:
            gone = self._gone.get(pool.name)
            base = self._base.get(pool.name, pool.running)
            if not gone:
                return base
            blocks = self._blocks[pool.name] = dict(base)
            # Nodes that the inventory does not list are full.
            full = pool.node_class.nodes - sum([block.nodes for block in pool.node_class.free])
            if full > 0:
                nothing = (0,) * len(pool.layout.names)
                blocks[nothing] = blocks.get(nothing, 0) + full
            for shape, pods in sorted(gone, key=_largest_first) if len(gone) > 1 else gone:
                give(blocks, pool, shape.fitter(pool.layout), pods, gone[shape, pods])
        return blocks

    def room(self, part: Part) -> int:
        """Returns for how many pods of a part there is room."""
        total, shape = 0, part.shape
        for pool in self._member.pools:
            if shape.admitted(pool.identity):
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
                if left and part.shape.admitted(pool.identity):
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


def _largest_first(kind: tuple[Shape, int]) -> tuple[int, int, int]:
    shape, pods = kind
    return (-shape.gpus, -pods, shape.id)


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
    shapes = [part.shape for part, _ in wanted]
    for pool in member.pools:
        for shape in shapes:
            if shape.admitted(pool.identity):
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
