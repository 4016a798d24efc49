"""Which of the places that fit leaves the most room for what is asked for (fragmentation, counted over a mix).

The mix is what the submissions on the log ask for: pods by shape, of shapes with GPUs. A block of free capacity is
worth the pods of the mix that it has room for, each shape weighted by how often it is asked for (`worth`); what a
placement costs is the worth that it takes away. Fragmentation gradient descent (Weng et al., USENIX ATC 2023) looks at
the GPUs that cannot be used by a random pod of the mix; here the pods that still fit are counted, so that cpu and
memory that GPUs will need count too, and a choice is compared where the pod will really go: on the node that the
cluster's own scheduler takes (`binding`), of the class that a preference sends it to, if one goes along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpufleet.model.cluster import Scoring
from gpufleet.model.devices import SHARED
from gpufleet.model.workload import Workload
from services.scheduler.core.binding import Binder
from services.scheduler.core.blocks import Blocks
from services.scheduler.core.columns import Counts
from services.scheduler.core.fleet import Fleet
from services.scheduler.core.member import Member
from services.scheduler.core.pool import Bid, Pool
from services.scheduler.core.shapes import Catalog, Free, Shape
from services.scheduler.core.units import Part, Way
from services.scheduler.core.worth import Worth

# The mix is the shapes asked for most often; the rarer ones hardly change a sum.
_SHAPES = 64
# It is ranked anew when one part in so many has changed; at once while there are few.
_CHANGED = 2
_FEW = 64
# At most so many clusters are compared; the tightest come first.
_COMPARED = 128
_BINDERS = 4096
_SCORING = Scoring()

Tier = Sequence[tuple[Member, Sequence[Way]]]


class Mix:
    """Pods asked for, by shape."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._counts: dict[Shape, int] = {}
        self._total = 0
        self._changed = 0
        self._ranked: tuple[tuple[Shape, int], ...] = ()
        self._worth: dict[tuple[int, int], Worth] = {}
        self._binders: dict[tuple[Scoring, int, Free], Binder] = {}
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
            known = self._worth[kind] = Worth(self._ranked, pool)
        return known.of(free)

    def bid(self, member: Member, pool: Pool, shape: Shape) -> Bid | None:
        """Returns what one pod costs a pool's running nodes, on the node that the cluster's scheduler will take.

        First comes that scheduler's score of the node, last what the block is worth that it is taken of: of places
        that cost as much the one in the block worth least is the better. None if the pod does not fit there.
        """
        if not shape.admitted(pool.identity):
            return None
        fitter = shape.fitter(pool.layout)
        noted = pool.costs.get(fitter)
        if noted is not None and noted[0] == self.generation:
            return noted[1]
        bid: Bid | None = None
        taken = self._binder(member, pool).choose(pool.running, fitter)
        if taken is not None:
            score, free, after = taken
            worth = self.worth(pool, free)
            bid = (score, worth - self.worth(pool, after), worth)
        pool.costs[fitter] = (self.generation, bid)
        return bid

    def _binder(self, member: Member, pool: Pool) -> Binder:
        scoring = (member.spec.scoring_strategy if member.spec is not None else None) or _SCORING
        kind = (scoring, pool.layout.id, pool.allocatable)
        binder = self._binders.get(kind)
        if binder is None:
            if len(self._binders) >= _BINDERS:
                self._binders.clear()
            binder = self._binders[kind] = Binder(scoring, pool)
        return binder

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


@dataclass(frozen=True, slots=True)
class Weighing:
    """By what places are compared; ``prefers``: pods go along with a preference for the node class counted on."""

    mix: Mix
    prefers: bool = False


def order(by: Weighing | None, member: Member, part: Part, *, single: bool) -> Sequence[Pool]:
    """Returns a cluster's pools, those first where pods are to be counted.

    A ``single`` pod is where the cluster's scheduler will take it, or where a preference sends it: in the class that it
    costs least. Several pods are counted where they cost least.
    """
    pools = member.pools
    if by is None or len(pools) < 2 or by.mix.one:
        return pools
    mix, prefers = by.mix, by.prefers
    ranked: list[tuple[int, tuple[int, ...], int, Pool]] = []
    for rank, pool in enumerate(pools):
        bid = mix.bid(member, pool, part.shape)
        if bid is None:
            ranked.append((2, (), rank, pool))
        elif not single or (prefers and member.marks(pool) is not None):
            ranked.append((0, bid[1:], rank, pool))
        else:
            ranked.append((1, (-bid[0], *bid[1:]), rank, pool))
    ranked.sort(key=lambda item: item[:3])
    return [pool for _, _, _, pool in ranked]


def _bid(by: Weighing, member: Member, part: Part) -> Bid | None:
    """Returns the bid of the class that a pod will go to in a cluster, or None if it fits none."""
    mix, prefers = by.mix, by.prefers
    key = (part.shape.id, part.classes, prefers)
    noted: tuple[int, Bid | None] | None = member.notes.get(key)
    if noted is not None and noted[0] == mix.generation:
        return noted[1]
    preferred: Bid | None = None
    taken: Bid | None = None
    for pool in member.pools:
        bid = mix.bid(member, pool, part.shape) if part.takes(pool.node_class) else None
        if bid is None:
            continue
        if prefers and (preferred is None or bid[1:] < preferred[1:]) and member.marks(pool) is not None:
            preferred = bid
        if taken is None or (-bid[0], *bid[1:]) < (-taken[0], *taken[1:]):
            taken = bid
    found = preferred or taken
    member.notes[key] = (mix.generation, found)
    return found


def narrow(by: Weighing | None, fleet: Fleet, tier: Tier, counts: Mapping[str, int]) -> Tier:
    """Returns the clusters of a tier where a single pod costs least, of those with room on running nodes.

    Where several pods go together, or there are several ways, or nothing is to be compared, it is the tier itself.
    """
    if by is None or len(tier) < 2 or sum(counts.values()) != 1 or by.mix.one:
        return tier
    wanted = next(name for name, count in counts.items() if count)
    found: list[tuple[int, int, Member, Sequence[Way], Part]] = []
    shape: Shape | None = None
    running: Counts = np.zeros(0, np.int64)
    for rank, (member, ways) in enumerate(tier):
        part = ways[0].part(wanted) if len(ways) == 1 else None
        if part is None or part.virtual is not None:
            return tier
        if part.shape is not shape:
            shape = part.shape
            running = fleet.column(shape).running
        room = int(running[member.index])
        if room > 0 and ways[0].limit > 0:
            found.append((room, rank, member, ways, part))
    if len(found) > _COMPARED:
        found = sorted(found, key=lambda item: item[:2])[:_COMPARED]
    cheapest: list[tuple[Member, Sequence[Way]]] = []
    least: tuple[int, ...] | None = None
    for _, _, member, ways, part in found:
        bid = _bid(by, member, part)
        if bid is None:
            continue
        cost = bid[1:]
        if least is None or cost < least:
            cheapest, least = [(member, ways)], cost
        elif cost == least:
            cheapest.append((member, ways))
    return cheapest or tier
