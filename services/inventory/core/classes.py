"""Nodes alike as one class: how many of them have exactly which free resources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpufleet.model.cluster import FreeBlock, NodeClass
from gpufleet.model.devices import Devices
from gpufleet.model.resources import Labels, Resources, resources
from gpufleet.model.selectors import Taint
from services.inventory.core.objects import Node, Pod, Pool
from services.inventory.core.sharing import free_gpus

ClassKey = tuple[Labels, tuple[Taint, ...], Resources]
_Block = tuple[Resources, tuple[int, ...]]  # what is free, in all and of each shared GPU


@dataclass(slots=True)
class Held:
    """A node, its number, what its pods take (by resource), and the free block that it is counted in."""

    node: Node
    key: ClassKey
    number: int
    used: dict[str, int] = field(default_factory=dict)
    block: _Block | None = None
    devices: Devices | None = None


@dataclass(slots=True)
class Class:
    """Nodes of one class: all of them, how many usable ones have exactly which free resources, and which of these have
    pods of the fleet's workloads."""

    name: str
    nodes: set[str] = field(default_factory=set)
    free: Counter[_Block] = field(default_factory=Counter)
    ours: dict[_Block, set[int]] = field(default_factory=dict)
    pool: Pool | None = None

    def count(self, held: Held, on_gpus: Iterable[Pod], *, ours: bool) -> None:
        """Puts a node into the free block that it belongs to; ``ours``: workloads of the fleet have pods there.

        Unusable nodes are in none, nor are those full of pods, unless workloads of the fleet could make room there.
        """
        self.uncount(held)
        if not held.node.usable:
            return
        left = {name: amount - held.used.get(name, 0) for name, amount in held.node.allocatable}
        if left.get("pods", 1) <= 0 and not ours:
            return
        gpus = free_gpus(held.devices, on_gpus) if held.devices is not None else ()
        held.block = resources({name: max(0, amount) for name, amount in left.items()}), gpus
        self.free[held.block] += 1
        if ours:
            self.ours.setdefault(held.block, set()).add(held.number)

    def uncount(self, held: Held) -> None:
        """Takes a node out of its free block, if it is in one."""
        block = held.block
        if block is None:
            return
        held.block = None
        self.free[block] -= 1
        if self.free[block] <= 0:
            del self.free[block]
        ours = self.ours.get(block)
        if ours is not None:
            ours.discard(held.number)
            if not ours:
                del self.ours[block]

    def told(self, key: ClassKey) -> NodeClass:
        """Returns the class as it is published."""
        marks, taints, allocatable = key
        free = tuple(
            FreeBlock(count, block[0], block[1], tuple(sorted(self.ours.get(block, ()))))
            for block, count in sorted(self.free.items(), reverse=True)
            if count
        )
        elastic = self.pool.elastic if self.pool else None
        return NodeClass(self.name, allocatable, len(self.nodes), marks, taints, free, elastic)
