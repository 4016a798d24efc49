"""Which of the places that fit leaves the most room for what is asked for (fragmentation, counted over a mix).

The mix is what the submissions on the log ask for: pods by shape, of shapes with GPUs. A block of free capacity is
worth the pods of the mix that it has room for, each shape weighted by how often it is asked for; what a placement
costs is the worth that it takes away. Fragmentation gradient descent (Weng et al., USENIX ATC 2023) looks at the GPUs
that cannot be used by a random pod of the mix; here the pods that still fit are counted, so that cpu and memory that
GPUs will need count too, and a choice is compared where the pod will really go: on the tightest block of each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gpufleet.model.devices import SHARED
from gpufleet.model.workload import Workload
from services.scheduler.core.blocks import Blocks, tightest
from services.scheduler.core.capacity import Fleet, Member
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Catalog, Fitter, Free, Shape
from services.scheduler.core.units import Part, Way

# The mix is the shapes asked for most often; the rarer ones hardly change a sum.
_SHAPES = 24
# It is ranked anew when one part in so many has changed; at once while there are few.
_CHANGED = 2
_FEW = 64
# At most so many clusters are compared; the tightest come first.
_COMPARED = 128
_MEMO_LIMIT = 100_000

# What a pod costs, and the worth of the block that it takes of.
Cost = tuple[int, int]
_NOWHERE: Cost = (2**62, 0)
Tier = Sequence[tuple[Member, Sequence[Way]]]


class _Worth:
    """What free blocks of pools alike in labels, taints and layout are worth."""

    __slots__ = ("_fits", "_known")

    def __init__(self, mix: Iterable[tuple[Shape, int]], pool: Pool) -> None:
        self._fits = [(s.fitter(pool.layout).fit, weight) for s, weight in mix if s.admitted(pool.identity)]
        self._known: dict[Free, int] = {}

    def of(self, free: Free) -> int:
        """Returns what a free block is worth."""
        worth = self._known.get(free)
        if worth is None:
            if len(self._known) >= _MEMO_LIMIT:
                self._known.clear()
            worth = 0
            for fit, weight in self._fits:
                worth += weight * fit(free)
            self._known[free] = worth
        return worth


class Mix:
    """Pods asked for, by shape."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._counts: dict[Shape, int] = {}
        self._total = 0
        self._changed = 0
        self._ranked: tuple[tuple[Shape, int], ...] = ()
        self._worth: dict[tuple[int, int], _Worth] = {}
        self.generation = 0

    def replace(self, before: Workload | None, after: Workload | None) -> None:
        """Counts a submission in place of an earlier one."""
        if before is after:
            return
        for workload, sign in ((before, -1), (after, 1)):
            for component in workload.components if workload is not None else ():
                shape = self._catalog.shape(component.shape)
                if component.replicas <= 0 or not (shape.gpus or _shares(shape)):
                    continue
                count = self._counts.get(shape, 0) + sign * component.replicas
                if count > 0:
                    self._counts[shape] = count
                else:
                    self._counts.pop(shape, None)
                self._total += sign * component.replicas
                self._changed += component.replicas

    def shapes(self) -> tuple[tuple[Shape, int], ...]:
        """Returns the shapes asked for most often with their weights; ``generation`` counts the changes of it."""
        if self._changed * _CHANGED > self._total or (self._changed and self._total < _FEW):
            self._changed = 0
            ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0].id))[:_SHAPES]
            if tuple(ranked) != self._ranked:
                self._ranked = tuple(ranked)
                self._worth.clear()
                self.generation += 1
        return self._ranked

    @property
    def ranked(self) -> tuple[tuple[Shape, int], ...]:
        """The shapes with their weights as they were ranked last."""
        return self._ranked

    def recall(self, ranked: tuple[tuple[Shape, int], ...]) -> None:
        """Weighs by what a past decision weighed by, until another submission is counted."""
        self._ranked, self._changed = ranked, 0
        self._total = _FEW
        self._worth.clear()
        self.generation += 1

    @property
    def one(self) -> bool:
        """Whether there are fewer than two shapes to weigh against each other, so that nothing is to be compared."""
        return len(self.shapes()) < 2

    def worth(self, pool: Pool, free: Free) -> int:
        """Returns what a free block of a pool is worth."""
        kind = (pool.identity.id, pool.layout.id)
        known = self._worth.get(kind)
        if known is None:
            known = self._worth[kind] = _Worth(self._ranked, pool)
        return known.of(free)

    def cost(self, pool: Pool, shape: Shape) -> Cost | None:
        """Returns what one pod costs a pool's running nodes, and what the block that it takes of is worth.

        None if it does not fit there. Of places that cost as much the one in the block worth least is the better.
        """
        fitter = shape.fitter(pool.layout)
        noted = pool.costs.get(fitter)
        if noted is not None and noted[0] == self.generation:
            return noted[1]
        return self._note(pool, shape, fitter)

    def _note(self, pool: Pool, shape: Shape, fitter: Fitter) -> Cost | None:
        cost: Cost | None = None
        if shape.admitted(pool.identity):
            block = tightest(pool.running, fitter)
            if block is not None:
                worth = self.worth(pool, block[1])
                cost = (worth - self.worth(pool, fitter.after(block[1], 1)), worth)
            pool.costs[fitter] = (self.generation, cost)
        return cost

    def cost_of(self, member: Member, after: Mapping[str, Blocks]) -> int:
        """Returns what a packing costs, of which ``after`` is what it leaves by pool."""
        cost = 0
        for name, blocks in after.items():
            pool = member.pool(name)
            if pool is not None:
                for free, change in _differences(pool.running, blocks):
                    cost += change * self.worth(pool, free)
        return cost


def _shares(shape: Shape) -> bool:
    return any(name in SHARED for name, _ in shape.pod.requests)


def _differences(before: Blocks, after: Blocks) -> Iterator[tuple[Free, int]]:
    for free, nodes in before.items():
        if nodes != after.get(free, 0):
            yield free, nodes - after.get(free, 0)
    for free, nodes in after.items():
        if free not in before:
            yield free, -nodes


def order(mix: Mix | None, member: Member, part: Part) -> Sequence[Pool]:
    """Returns a cluster's pools, those that a pod costs least first."""
    pools = member.pools
    if mix is None or len(pools) < 2 or mix.one:
        return pools
    costs = ((mix.cost(pool, part.shape), rank, pool) for rank, pool in enumerate(pools))
    return [pool for _, _, pool in sorted((c if c is not None else _NOWHERE, rank, pool) for c, rank, pool in costs)]


def narrow(mix: Mix | None, fleet: Fleet, tier: Tier, counts: Mapping[str, int]) -> Tier:
    """Returns the clusters of a tier where a single pod costs least, of those with room on running nodes.

    Where several pods go together, or there are several ways, or nothing is to be compared, it is the tier itself.
    """
    if mix is None or len(tier) < 2 or sum(counts.values()) != 1 or mix.one:
        return tier
    wanted = next(name for name, count in counts.items() if count)
    found: list[tuple[int, int, Member, Sequence[Way], Part]] = []
    for rank, (member, ways) in enumerate(tier):
        part = ways[0].part(wanted) if len(ways) == 1 else None
        if part is None or part.virtual is not None:
            return tier
        room = int(fleet.column(part.shape).running[member.index])
        if room > 0 and ways[0].limit > 0:
            found.append((room, rank, member, ways, part))
    if len(found) > _COMPARED:
        found = sorted(found, key=lambda item: item[:2])[:_COMPARED]
    cheapest: list[tuple[Member, Sequence[Way]]] = []
    least: Cost | None = None
    for _, _, member, ways, part in found:
        costs = [c for p in member.pools if part.takes(p.node_class) and (c := mix.cost(p, part.shape)) is not None]
        cost = min(costs, default=None)
        if cost is None:
            continue
        if least is None or cost < least:
            cheapest, least = [(member, ways)], cost
        elif cost == least:
            cheapest.append((member, ways))
    return cheapest or tier
