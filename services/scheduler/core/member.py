"""One cluster with its pools: how many pods of a shape fit there."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from gpufleet.model.cluster import ClusterSpec, Health, Inventory
from gpufleet.model.placement import Source
from gpufleet.model.resources import Labels
from services.scheduler.core.class_labels import telling
from services.scheduler.core.pool import Doubt, Notes, Pool, VirtualPool
from services.scheduler.core.reserve import Hold, Holding, enlist, refit, replay
from services.scheduler.core.shapes import UNBOUNDED, Fitter, Shape
from services.scheduler.core.units import REGION, Part

# For how many shapes a cluster remembers which pools admit them.
_KNOWN = 64
_ELASTIC = attrgetter("elastic")


class Known(NamedTuple):
    """A member as it was known at some time; the member goes on changing, this does not."""

    member: Member
    spec: ClusterSpec | None
    inventory: Inventory | None
    pools: list[Pool]
    removed: bool
    doubts: tuple[tuple[str, Doubt], ...]


class Member:
    """One cluster: its registration, its inventory, and what placements hold of it. Nothing may be known of either."""

    __slots__ = (
        "_marks",
        "_named",
        "debt",
        "dirty",
        "doubts",
        "held",
        "incarnation",
        "index",
        "inventory",
        "known",
        "loose",
        "name",
        "notes",
        "on_virtual",
        "other_debt",
        "pools",
        "removed",
        "spec",
        "stale_pools",
        "takers_of",
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
        self.held: dict[str, Holding] = {}  # by workload; changed by `hold` only
        self.loose = 0  # holds that may use any pool
        self.on_virtual = 0  # holds on virtual nodes
        self.debt = 0  # pods held that do not fit
        self.other_debt = 0  # of these, those that no pool owes alone
        self.dirty = False  # every pool has to be refitted
        self.doubts: dict[str, Doubt] = {}  # by node class: why no more nodes of it are counted on
        self.stale_pools: dict[Pool, None] = {}  # these have to be
        self.incarnation = ""  # empty if it is not known
        self._named: dict[str, Pool] = {}
        self.takers_of: dict[int, tuple[tuple[Pool, Fitter], ...]] = {}
        self._marks: dict[int, Labels | None] = {}  # by identity
        self.notes: Notes = {}  # on the room as it is; the pools clear them
        self.changed()

    def changed(self) -> None:
        """Notes that its registration, inventory, pools or doubts are others now."""
        doubts = tuple(self.doubts.items())
        self.known = Known(self, self.spec, self.inventory, self.pools, self.removed, doubts)

    def settle(self) -> None:
        """Brings the pools up to date with the holds."""
        if self.dirty:
            self.dirty = False
            self.stale_pools.clear()
            refit(self)
        elif self.stale_pools:
            stale = list(self.stale_pools)
            self.stale_pools.clear()
            replay(self, stale, virtual=False)

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has anything to do."""
        return self.dirty or bool(self.stale_pools)

    def pool(self, name: str) -> Pool | None:
        """Returns a pool by the name of its node class."""
        return self._named.get(name)

    def marks(self, pool: Pool) -> Labels | None:
        """Returns labels that only the nodes of a pool have in this cluster, or None; nothing if there is no other."""
        number = pool.identity.id
        if number not in self._marks:
            others = [other.identity.labels for other in self.pools if other is not pool]
            self._marks[number] = telling(pool.identity.labels, others)
        return self._marks[number]

    def set_pools(self, pools: list[Pool]) -> None:
        """Replaces the pools; they have to be refitted."""
        if [fresh.identity for fresh in pools] != [known.identity for known in self.pools]:
            self._marks.clear()
        for before in self.pools:
            before.retired = True
        self.pools = pools
        self.changed()
        self._named = {pool.name: pool for pool in pools}
        self.notes.clear()
        for fresh in pools:
            fresh.notes = self.notes
            fresh.retired = False
        for name, doubt in self.doubts.items():
            if (pool := self._named.get(name)) is not None and pool.doubt is not doubt:
                pool.set_doubt(doubt)
        self.takers_of = {}

    def note(self, key: Hashable, found: object) -> None:
        """Notes what was computed of the room on running nodes as it is; nothing where other room counts too."""
        if not self.virtual and not any(map(_ELASTIC, self.pools)):
            self.notes[key] = found

    def takers(self, shape: Shape) -> tuple[tuple[Pool, Fitter], ...]:
        """Returns the pools that admit a shape, in order, and how it fits them."""
        found = self.takers_of.get(shape.id)
        if found is None:
            if len(self.takers_of) >= _KNOWN:
                self.takers_of.clear()
            admitting = (pool for pool in self.pools if shape.admitted(pool.identity))
            found = self.takers_of[shape.id] = tuple((pool, shape.fitter(pool.layout)) for pool in admitting)
        return found

    def hold(self, workload: str, held: Holding | None, *, taken: bool) -> Sequence[Pool] | None:
        """Sets what a workload holds here and returns the pools whose room changes by it; None: all.

        ``taken``: the room was taken from the pools already, last of all.
        """
        before = self.held.pop(workload, None)
        if held is not None:
            self.held[workload] = held
        if self.dirty:
            return None
        if held is None and before is not None and len(before.holds) == 1:
            only = self.give_back(before.holds[0])
            if only is not None:
                return (only,)
        whole = self.loose > 0
        pools: list[Pool] = []
        for holding, sign in ((before, -1), (held, 1)):
            for hold in holding.holds if holding is not None else ():
                pool = enlist(self, hold, sign)
                if pool is None:
                    whole = whole or not taken or self.loose > 0
                    continue
                pools.append(pool)
                if not taken:
                    self.stale_pools[pool] = None
        return None if whole else pools

    def give_back(self, hold: Hold) -> Pool | None:
        """Gives back the room of a hold and returns its pool, if that is a subtraction; else does nothing."""
        pool = self._named.get(hold.pool)
        if (
            pool is None
            or self.loose
            or pool in self.stale_pools
            or hold.source is not Source.RUNNING
            or hold.provisioning
        ):
            return None
        shape = hold.part.shape
        fitter = shape.fitter(pool.layout)
        if not fitter.columns or not shape.admitted(pool.identity):
            return None
        return pool if pool.give_back(fitter, hold.count) else None

    def stale(self, now: float, after: float) -> bool:
        """Returns whether the inventory is too old for new replicas."""
        return self.inventory is None or now - self.inventory.observed_at > after

    @property
    def ready(self) -> bool:
        """Whether the cluster's API answers, as far as known."""
        return self.inventory is not None and self.inventory.health is Health.READY

    def counts(self, shape: Shape) -> tuple[int, int]:
        """Returns room for pods of a shape on running nodes and in stock; none while the cluster is in debt."""
        self.settle()
        if self.debt:
            return (0, 0)
        running = stock = 0
        for pool, fitter in self.takers(shape):
            on_nodes, in_stock = pool.rooms(fitter)
            running += on_nodes
            stock += in_stock
        return (running, stock)

    def counts_of(self, part: Part) -> tuple[int, int]:
        """Returns room for pods of a part, running and in stock: on virtual nodes, or on the node classes it takes."""
        if part.virtual is not None:
            return self.virtual_room(part), 0
        if not part.classes:
            return self.counts(part.shape)
        self.settle()
        if self.debt:
            return (0, 0)
        rooms = [pool.counts(part.shape) for pool in self.pools if part.takes(pool.node_class)]
        return sum(here for here, _ in rooms), sum(more for _, more in rooms)

    def room_coming(self, shape: Shape) -> int:
        """Returns how much of the room in stock is on nodes that somebody needs anyway."""
        self.settle()
        if self.debt:
            return 0
        return sum(pool.room_coming(fitter) for pool, fitter in self.takers(shape))

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
        return min(UNBOUNDED, sum(pool.potential(part.shape) for pool in self.pools if part.takes(pool.node_class)))
