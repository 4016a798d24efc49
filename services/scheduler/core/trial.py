"""One cluster as it would be without some of its pods: what would fit then, and on which nodes.

On which node a pod runs is not known, only how many nodes have which free amounts. Pods that are taken away are put
back where they could have been: pods of one workload together, on the fullest nodes first. Where a pod that comes is
no larger than one that goes, this is exact; else it is an estimate, and the inventory shows the truth afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpufleet.model.placement import Slot, Source
from services.scheduler.core.capacity import Member
from services.scheduler.core.pool import Blocks, Pool, room, take
from services.scheduler.core.shapes import Fitter, Free, Shape
from services.scheduler.core.units import Part, Way


def give(blocks: Blocks, pool: Pool, fitter: Fitter, count: int) -> None:
    """Puts back what so many pods use, as far as it can have been used: a node's GPUs, if they have some, decide.

    Documents may leave out of `free` what they do not care for.
    """
    left, whole, layout = count, pool.allocatable, pool.layout
    gpus = [(i, a) for i, a in fitter.columns if i in layout.gpu_columns and a]
    while left > 0:
        best: tuple[int, Free, int] | None = None
        for free in blocks:
            used = gpus or [(i, a) for i, a in fitter.columns if a and free[i] < whole[i]]
            pods = min(((whole[i] - free[i]) // a for i, a in used), default=0)
            if pods > 0 and (best is None or (layout.gpus(free), free) < best[:2]):
                best = (layout.gpus(free), free, pods)
        if best is None:
            return
        _, free, pods = best
        pods = min(pods, left)
        nodes = min(blocks[free], left // pods)
        left -= nodes * pods
        if blocks[free] == nodes:
            del blocks[free]
        else:
            blocks[free] -= nodes
        after = tuple(map(min, whole, fitter.after(free, -pods)))
        blocks[after] = blocks.get(after, 0) + nodes


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

    def free(self, wanted: Sequence[tuple[Part, int]]) -> Mapping[str, int]:
        """Returns what is free of the resources that some pods need, over all nodes that may run one of them."""
        totals: dict[str, int] = {}
        for pool in self._pools.values():
            if any(part.shape.admitted(pool.identity) for part, _ in wanted):
                for free, nodes in pool.running.items():
                    for name, amount in zip(pool.layout.names, free, strict=True):
                        totals[name] = totals.get(name, 0) + amount * nodes
        return totals


def real(way: Way) -> bool:
    """Returns whether a way lands on nodes: on virtual ones nobody makes room for anybody."""
    return all(part.virtual is None for part in way.parts)
