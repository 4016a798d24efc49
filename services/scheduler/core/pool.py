"""The free blocks of one node class, less what placements hold of them; and a virtual node's stock."""

from __future__ import annotations

from gpufleet.model.cluster import NodeClass, VirtualNode
from services.scheduler.core.shapes import UNBOUNDED, Catalog, Fitter, Free, Identity, Layout, Shape

# How many nodes have exactly these free amounts.
Blocks = dict[Free, int]


def take(blocks: Blocks, fitter: Fitter, count: int) -> int:
    """Takes room for up to ``count`` pods out of blocks and returns for how many there was room.

    Tightest node first (best fit), so that large free blocks stay whole; ties by the free amounts themselves.
    """
    left = count
    while left > 0:
        best: tuple[int, Free] | None = None
        for free in blocks:
            fits = fitter.fit(free)
            if fits and (best is None or (fits, free) < best):
                best = (fits, free)
        if best is None:
            break
        fits, free = best
        pods = min(fits, left)
        nodes = min(blocks[free], left // pods)
        _move(blocks, free, fitter.after(free, pods), nodes)
        left -= nodes * pods
    return count - left


def _move(blocks: Blocks, before: Free, after: Free, nodes: int) -> None:
    rest = blocks[before] - nodes
    if rest:
        blocks[before] = rest
    else:
        del blocks[before]
    blocks[after] = blocks.get(after, 0) + nodes


def room(blocks: Blocks, fitter: Fitter) -> int:
    """Returns for how many pods blocks have room."""
    return sum(fitter.fit(free) * nodes for free, nodes in blocks.items())


class Pool:
    """One node class of one cluster. ``running`` and ``stock`` are what is left after the reservations."""

    __slots__ = (
        "_base",
        "_counts",
        "_stock_nodes",
        "allocatable",
        "identity",
        "layout",
        "name",
        "node_class",
        "order",
        "potential_nodes",
        "running",
        "stock",
    )

    def __init__(self, node_class: NodeClass, catalog: Catalog) -> None:
        self.node_class = node_class
        self.name = node_class.name
        self.layout: Layout = catalog.layout(name for name, _ in node_class.allocatable)
        self.identity: Identity = catalog.identity(node_class.labels, node_class.taints)
        self.allocatable = self.layout.free(node_class.allocatable)
        self._base: Blocks = {}
        for block in node_class.free:
            if block.nodes > 0:
                free = self.layout.free(block.free)
                self._base[free] = self._base.get(free, 0) + block.nodes
        elastic = node_class.elastic
        self._stock_nodes = elastic.nodes if elastic else 0
        self.potential_nodes = node_class.nodes + (max(0, elastic.max_nodes) if elastic else 0)
        # Nodes with few GPUs first: what needs none, or few, leaves the large ones alone.
        self.order = (self.layout.gpus(self.allocatable), self.name)
        self.reset()

    def reset(self) -> None:
        """Forgets every reservation."""
        self.running: Blocks = dict(self._base)
        self.stock: Blocks = {self.allocatable: self._stock_nodes} if self._stock_nodes else {}
        self._counts: dict[int, tuple[int, int]] = {}

    def counts(self, shape: Shape) -> tuple[int, int]:
        """Returns for how many pods there is room: on running nodes, and on nodes that could be created."""
        known = self._counts.get(shape.id)
        if known is None:
            if shape.admitted(self.identity):
                fitter = shape.fitter(self.layout)
                known = (room(self.running, fitter), room(self.stock, fitter))
            else:
                known = (0, 0)
            self._counts[shape.id] = known
        return known

    def take_running(self, shape: Shape, count: int) -> int:
        """Takes room on running nodes for up to ``count`` pods; returns for how many there was some."""
        if count <= 0 or not shape.admitted(self.identity):
            return 0
        taken = take(self.running, shape.fitter(self.layout), count)
        if taken:
            self._counts = {}
        return taken

    def take_stock(self, shape: Shape, count: int) -> int:
        """Takes room on nodes that could be created for up to ``count`` pods; returns for how many there was some."""
        if count <= 0 or not self.stock or not shape.admitted(self.identity):
            return 0
        taken = take(self.stock, shape.fitter(self.layout), count)
        if taken:
            self._counts = {}
        return taken

    def potential(self, shape: Shape) -> int:
        """Returns how many pods the class could hold if all of its nodes, now and ever, were empty."""
        if not shape.admitted(self.identity):
            return 0
        return shape.fitter(self.layout).fit(self.allocatable) * self.potential_nodes


class VirtualPool:
    """One virtual node: room by GPU model series, or without bound."""

    __slots__ = ("_base", "identity", "left", "name", "node")

    def __init__(self, node: VirtualNode, catalog: Catalog) -> None:
        self.node = node
        self.name = node.name
        self.identity: Identity = catalog.identity(node.labels, node.taints)
        self._base: dict[str, int] | None = None
        if node.stock is not None:
            self._base = {}
            for stock in node.stock:
                self._base[stock.model] = self._base.get(stock.model, 0) + max(0, stock.gpus)
        self.reset()

    def reset(self) -> None:
        """Forgets every reservation."""
        self.left: dict[str, int] | None = None if self._base is None else dict(self._base)

    def copy(self) -> VirtualPool:
        """Returns a copy from which can be taken without taking from this one."""
        other = object.__new__(VirtualPool)
        other.node, other.name, other.identity, other._base = self.node, self.name, self.identity, self._base
        other.left = None if self.left is None else dict(self.left)
        return other

    def room(self, model: str, gpus: int) -> int:
        """Returns for how many pods with ``gpus`` GPUs of a model series there is room."""
        if self.left is None or gpus == 0:
            return UNBOUNDED
        return self.left.get(model, 0) // gpus

    def take(self, model: str, gpus: int, count: int) -> int:
        """Takes room for up to ``count`` pods; returns for how many there was some."""
        taken = min(count, self.room(model, gpus))
        if self.left is not None and gpus and taken:
            self.left[model] -= taken * gpus
        return taken

    def potential(self, model: str, gpus: int) -> int:
        """Returns whether the region has the model at all (stock comes and goes): 0, or no bound."""
        return UNBOUNDED if self._base is None or gpus == 0 or model in self._base else 0
