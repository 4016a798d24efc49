"""The free blocks of one node class, less what placements hold of them; and a virtual node's stock."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from gpufleet.model.cluster import NodeClass, VirtualNode
from gpufleet.model.devices import devices_of
from gpufleet.model.placement import Source
from services.scheduler.core.blocks import Blocks, room, take
from services.scheduler.core.shapes import UNBOUNDED, Catalog, Fitter, Free, Identity, Layout, Shape
from services.scheduler.core.stock import Stock

# What the cluster's scheduler gives the node that it takes for a pod, what the pod costs, what the block is worth.
Bid = tuple[int, int, int]
# What others have computed of the room of a cluster as it is, each under a key of its own (`Member.note`).
Notes = dict[Hashable, Any]
# For how many kinds of requests a pool remembers its room.
_KNOWN = 256


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why no more nodes of a class are counted on, and until when (epoch seconds).

    ``refused``: the cluster said that it has no stock, so that stock which comes back ends it.
    """

    until: float
    message: str
    refused: bool = False


class Pool:
    """One node class of one cluster, less the reservations.

    Pods of equal requests take the same room in whatever order they come, because the tightest node stays the
    tightest until it is full. So while only one kind of requests has taken room, a count stands for the blocks, and
    giving room back is a subtraction; the blocks are computed when somebody asks for them. With several kinds the order
    matters: what was taken is replayed (`reserve`).
    """

    __slots__ = (
        "_base",
        "_base_rooms",
        "_fresh",
        "_mixed",
        "_nodes",
        "_rooms",
        "_running",
        "_taken",
        "allocatable",
        "booked",
        "cell",
        "costs",
        "debt",
        "doubt",
        "elastic",
        "identity",
        "layout",
        "name",
        "node_class",
        "notes",
        "order",
        "ordered",
        "potential_nodes",
        "retired",
        "sole",
        "stock",
    )

    def __init__(self, node_class: NodeClass, catalog: Catalog) -> None:
        self.node_class = node_class
        self.name = node_class.name
        self.layout: Layout = catalog.layout((n for n, _ in node_class.allocatable), devices_of(node_class))
        self.identity: Identity = catalog.identity(node_class.labels, node_class.taints)
        self.allocatable = self.layout.whole(node_class.allocatable)
        self._base: Blocks = {}
        for block in node_class.free:
            if block.nodes > 0:
                free = self.layout.block(block)
                self._base[free] = self._base.get(free, 0) + block.nodes
        self._nodes: dict[int, Free] | None = None
        elastic = node_class.elastic
        self.elastic = elastic is not None  # whether nodes may be created, if there is stock
        self.stock = Stock(self.allocatable, elastic.nodes if elastic else 0)
        self.doubt: Doubt | None = None
        self.potential_nodes = node_class.nodes + (max(0, elastic.max_nodes) if elastic else 0)
        # Nodes with few GPUs first: what needs none, or few, leaves the large ones alone.
        self.order = (self.layout.gpus(self.allocatable), self.name)
        self.cell = -1  # where the fleet's columns have it
        self.retired = False  # another one is in its place
        self._base_rooms: dict[Fitter, int] = {}
        self.costs: dict[Fitter, tuple[int, Bid | None]] = {}  # `fragmentation`'s notes on the room as it is
        self.notes: Notes = {}  # those on its cluster (`Member.set_pools`)
        self._fresh = False  # True: nothing was taken, so what was computed of the room still holds
        self.forget()

    def forget(self) -> None:
        """Forgets every reservation, and what is booked."""
        self.booked: dict[Fitter, int] = {}  # pods on running nodes, by requests
        self.ordered = 0  # pods whose order matters even among equals: they may use stock
        self.reset()

    def reset(self) -> None:
        """Forgets what was taken, but not what is booked."""
        if self._fresh and not self.booked:
            self.debt = 0
            return
        self._fresh = not self.elastic
        self.sole: Fitter | None = None  # the only kind of requests that has taken room
        self._taken = 0
        self._mixed = False
        self._running: Blocks | None = None
        if self.elastic:
            self.stock.reset()
        self._rooms: dict[Fitter, tuple[int, int]] = {}
        self.debt = 0
        self._unnoted()

    def _unnoted(self) -> None:
        """Forgets what was noted of the room as it was, and what others have noted of it."""
        if self._rooms:
            self._rooms = {}
        if self.costs:
            self.costs.clear()
        if self.notes:
            self.notes.clear()

    @property
    def running(self) -> Blocks:
        """What is left on running nodes."""
        if self._running is None:
            blocks = self._running = dict(self._base)
            if self.sole is not None:
                take(blocks, self.sole, self._taken)
        return self._running

    @property
    def shown(self) -> Blocks:
        """What is left on running nodes without any reservation; not to be changed."""
        return self._base

    @property
    def nodes(self) -> dict[int, Free]:
        """What the inventory shows as left of the nodes that it calls by a number; not to be changed."""
        if self._nodes is None:
            self._nodes = {}
            for block in self.node_class.free:
                if block.numbers:
                    self._nodes.update(dict.fromkeys(block.numbers, self.layout.block(block)))
        return self._nodes

    @property
    def plain(self) -> bool:
        """Whether all that is taken of running nodes is booked, and of one kind of requests."""
        if self.ordered or self._mixed:
            return False
        return not self.booked if self.sole is None else self.booked == {self.sole: self._taken}

    def set_doubt(self, doubt: Doubt | None) -> None:
        """Says whether nodes that could be created count as room; what is placed on them stays there."""
        self.doubt = doubt
        self._rooms = {}
        self._unnoted()

    @property
    def counts_stock(self) -> bool:
        """Whether there are nodes, on their way or in stock, that count as room."""
        return self.elastic and self.doubt is None and bool(self.stock.fresh or self.stock.coming)

    def left(self) -> tuple[Blocks | None, tuple[int, Blocks] | None]:
        """Returns copies of what is left: on running nodes (None: all), in stock and coming (None: there is none)."""
        touched = self._mixed or self.sole is not None
        stock = (self.stock.fresh, dict(self.stock.coming)) if self.elastic else None
        return (dict(self.running) if touched else None, stock)

    def recall(self, running: Blocks | None, stock: tuple[int, Blocks] | None) -> None:
        """Takes what a past decision saw for what the inventory shows; None leaves it as it is."""
        if running is not None:
            self._base = dict(running)
            self._base_rooms.clear()
        if stock is not None:
            self.stock.recall(*stock)
        self.forget()

    def counts(self, shape: Shape) -> tuple[int, int]:
        """Returns for how many pods there is room: on running nodes, and on nodes that could be created."""
        if not shape.admitted(self.identity):
            return (0, 0)
        return self.rooms(shape.fitter(self.layout))

    def rooms(self, fitter: Fitter) -> tuple[int, int]:
        """Returns room for pods of some requests, on running nodes and in stock, whatever nodes they select."""
        sole = fitter is self.sole and not self._mixed
        if sole and not self.elastic:
            return (self._left(fitter), 0)
        known = self._rooms.get(fitter)
        if known is None:
            if len(self._rooms) >= _KNOWN:
                self._rooms.clear()
            stock = self.stock.room(fitter) if self.elastic and self.counts_stock else 0
            known = self._rooms[fitter] = (self._left(fitter) if sole else room(self.running, fitter), stock)
        return known

    def _left(self, fitter: Fitter) -> int:
        """Returns room on running nodes for the only kind of requests that has taken any."""
        known = self._base_rooms.get(fitter)
        if known is None:
            known = self._base_room(fitter)
        return known - self._taken if fitter.columns else known

    def _base_room(self, fitter: Fitter) -> int:
        known = self._base_rooms.get(fitter)
        if known is None:
            if len(self._base_rooms) >= _KNOWN:
                self._base_rooms.clear()
            known = self._base_rooms[fitter] = room(self._base, fitter)
        return known

    def settle(self) -> bool:
        """Brings the room in step with what is booked, if its order does not matter; returns whether it does not.

        What does not fit is the debt.
        """
        if self.ordered or len(self.booked) > 1:
            return False
        self.reset()
        for fitter, count in self.booked.items():
            self._fresh = False
            self.sole, self._taken = fitter, min(count, self._base_room(fitter))
            self.debt = count - self._taken
        return True

    def book(self, fitter: Fitter, count: int) -> None:
        """Notes pods (a negative count: gives them back) that are placed on running nodes; takes nothing."""
        total = self.booked.get(fitter, 0) + count
        if total:
            self.booked[fitter] = total
        else:
            self.booked.pop(fitter, None)

    def give_back(self, fitter: Fitter, count: int) -> bool:
        """Gives back pods that are booked, if that is a subtraction; returns False, and does nothing, if it is not."""
        if fitter is not self.sole or self._mixed or self.ordered or self.debt or len(self.booked) != 1:
            return False
        booked = self.booked[fitter] - count
        if booked:
            self.booked[fitter] = booked
        else:
            self.booked, self.sole = {}, None
        self._taken -= count
        self._running = None
        if self._rooms or self.costs or self.notes:
            self._unnoted()
        return True

    def take_whole(self, fitter: Fitter, count: int) -> int:
        """Takes room on running nodes for all of ``count`` pods, and books it, if that leaves room for so many less.

        Returns ``count``; 0, if there is no room at all; -1, if it is not that simple, and nothing was taken.
        """
        if (self.sole is not fitter and self.sole is not None) or self._mixed or not fitter.columns:
            return -1
        base = self._base_rooms.get(fitter)
        left = (self._base_room(fitter) if base is None else base) - self._taken
        if left < count:
            return -1 if left else 0
        if self.sole is None:
            self.sole, self._fresh = fitter, False
        self._taken += count
        self.booked[fitter] = self.booked.get(fitter, 0) + count
        self._running = None
        if self._rooms or self.costs or self.notes:
            self._unnoted()
        return count

    def take_running(self, shape: Shape, count: int) -> int:
        """Takes room on running nodes for up to ``count`` pods; returns for how many there was some."""
        if count <= 0 or not shape.admitted(self.identity):
            return 0
        fitter = shape.fitter(self.layout)
        if not self._mixed and (self.sole is None or self.sole is fitter):
            taken = min(count, self._left(fitter))
            if taken:
                self.sole, self._fresh = fitter, False
                self._taken += taken
                self._running = None
                self._unnoted()
            return taken
        taken = take(self.running, fitter, count)
        if taken:
            self._fresh = False
            self._mixed = True
            self._unnoted()
        return taken

    def room_coming(self, fitter: Fitter) -> int:
        """Returns how much of the room in stock is on nodes that somebody needs anyway."""
        return self.stock.room_coming(fitter) if self.stock.coming and self.counts_stock else 0

    def take_coming(self, shape: Shape, count: int) -> int:
        """Takes room on nodes that somebody needs anyway for up to ``count`` pods; returns for how many."""
        if count <= 0 or not self.stock.coming or not self.counts_stock or not shape.admitted(self.identity):
            return 0
        self._rooms = {}
        return self.stock.take_coming(shape.fitter(self.layout), count)

    def take_stock(self, shape: Shape, count: int) -> int:
        """Takes room on nodes that could be created for up to ``count`` pods; returns for how many there was some."""
        return self.hold_stock(shape, count) if self.counts_stock else 0

    def hold_stock(self, shape: Shape, count: int) -> int:
        """Does as `take_stock`, in doubt too: for pods that are placed there already."""
        if count <= 0 or not self.elastic or not shape.admitted(self.identity):
            return 0
        self._rooms = {}
        return self.stock.take(shape.fitter(self.layout), count)

    def bring(self, shape: Shape, count: int) -> None:
        """Notes pods that are placed here and whose nodes are being created."""
        if count > 0 and self.elastic and shape.admitted(self.identity):
            self._rooms = {}
            self.stock.bring(shape.fitter(self.layout), count)

    def potential(self, shape: Shape) -> int:
        """Returns how many pods the class could hold if all of its nodes, now and ever, were empty."""
        if not shape.admitted(self.identity):
            return 0
        return shape.fitter(self.layout).fit(self.allocatable) * self.potential_nodes


# Where new pods go in a cluster, in order: nodes that run, nodes that are created anyway, further ones.
SOURCES: tuple[tuple[Source, Callable[[Pool, Shape, int], int]], ...] = (
    (Source.RUNNING, Pool.take_running),
    (Source.ELASTIC, Pool.take_coming),
    (Source.ELASTIC, Pool.take_stock),
)


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

    def recall(self, left: dict[str, int]) -> None:
        """Takes what a past decision saw for what the inventory shows."""
        self._base = left
        self.reset()

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
