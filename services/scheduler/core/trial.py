"""One cluster as it would be without some of its pods: what would fit then, and on which nodes.

On which node a pod runs is not known, only how many nodes have which free amounts. Pods that are taken away are put
back where they could have been: pods of one workload together, on the fullest nodes first. Where a pod that comes is
no larger than one that goes, this is exact; else it is an estimate, and the inventory shows the truth afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpufleet.model.placement import Slot, Source
from services.scheduler.core.capacity import Member
from services.scheduler.core.pool import Blocks, Pool, room, take
from services.scheduler.core.shapes import Fitter, Free, Shape, is_gpu
from services.scheduler.core.units import Part, Way


def give(blocks: Blocks, pool: Pool, fitter: Fitter, count: int) -> None:
    """Puts back what so many pods use, as far as it can have been used: a node's GPUs, if they have some, decide.

    Documents may leave out of `free` what they do not care for.
    """
    left, whole, layout = count, pool.allocatable, pool.layout
    gpus = [(i, a) for i, a in fitter.columns if i in layout.gpu_columns and a]
    while left > 0:
        best = _fullest(blocks, *gpus[0], whole) if len(gpus) == 1 else _fullest_of(blocks, gpus, fitter, pool)
        if best is None:
            return
        free, pods = best
        pods = min(pods, left)
        nodes = min(blocks[free], left // pods)
        left -= nodes * pods
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
    """A cluster's free blocks, to take pods from and give pods back to. The cluster itself is not touched."""

    __slots__ = ("_blocks", "_pools")

    def __init__(self, member: Member) -> None:
        member.settle()
        self._pools = {pool.name: pool for pool in member.pools}
        self._blocks: dict[str, Blocks] = {}

    def copy(self) -> Trial:
        """Returns another one in the same state."""
        other = object.__new__(Trial)
        other._pools = self._pools
        other._blocks = {name: dict(blocks) for name, blocks in self._blocks.items()}
        return other

    def _of(self, pool: Pool) -> Blocks:
        blocks = self._blocks.get(pool.name)
        if blocks is None:
            blocks = self._blocks[pool.name] = dict(pool.running)
            # Nodes that the inventory does not list are full.
            full = pool.node_class.nodes - sum(block.nodes for block in pool.node_class.free)
            if full > 0:
                nothing = (0,) * len(pool.layout.names)
                blocks[nothing] = blocks.get(nothing, 0) + full
        return blocks

    def give(self, name: str, shape: Shape, count: int) -> None:
        """Takes away so many pods of a node class."""
        pool = self._pools.get(name)
        if pool is not None:
            give(self._of(pool), pool, shape.fitter(pool.layout), count)

    def room(self, part: Part) -> int:
        """Returns for how many pods of a part there is room."""
        return sum(
            room(self._of(pool), part.shape.fitter(pool.layout))
            for pool in self._pools.values()
            if part.shape.admitted(pool.identity)
        )

    def fits(self, wanted: Sequence[tuple[Part, int]]) -> bool:
        """Returns whether some pods fit together."""
        if len(wanted) == 1:
            return self.room(wanted[0][0]) >= wanted[0][1]
        return self.pack(wanted, None) is not None

    def pack(self, wanted: Sequence[tuple[Part, int]], unit: int | None) -> tuple[Slot, ...] | None:
        """Returns where some pods would go, largest first, or None if they do not fit. Nothing is taken."""
        copies: dict[str, Blocks] = {}
        slots: list[Slot] = []
        for part, count in wanted:
            left = count
            for pool in self._pools.values():
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
    for pool in member.pools:
        if any(part.shape.admitted(pool.identity) for part, _ in wanted):
            for name in totals:
                if name in pool.layout.names:
                    i = pool.layout.names.index(name)
                    totals[name] += sum([free[i] * nodes for free, nodes in pool.running.items()])
    return totals


def real(way: Way) -> bool:
    """Returns whether a way lands on nodes: on virtual ones nobody makes room for anybody."""
    return all(part.virtual is None for part in way.parts)
