"""Which node a cluster's own scheduler will take for a pod, as far as it can be told from outside.

kube-scheduler takes the node with the highest score, of equal ones any. What tells nodes of a class apart is how much
of them is allocated (NodeResourcesFit with LeastAllocated or MostAllocated; what operators say of a cluster is its
`Scoring`). A rule that took the tightest node where the cluster takes the emptiest would weigh the wrong places.
"""

from __future__ import annotations

from gpufleet.model.cluster import Scoring
from services.scheduler.core.blocks import Blocks
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Fitter, Free

_MEMO_LIMIT = 100_000
# Resources that count for pods, too, that do not ask for them.
_ALWAYS = ("cpu", "memory")

# The score of a node, and what the pod leaves of it; None: it does not fit.
_Scored = tuple[int, Free] | None


class Binder:
    """A cluster's scheduler, before nodes of one layout and size."""

    __slots__ = ("_columns", "_known", "_packs", "_size")

    def __init__(self, scoring: Scoring, pool: Pool) -> None:
        self._packs = scoring.packs
        index = {name: i for i, name in enumerate(pool.layout.names)}
        self._columns = tuple(
            (index[name], weight, pool.allocatable[index[name]], name in _ALWAYS)
            for name, weight in scoring.looked_at
            if name in index and pool.allocatable[index[name]] > 0
        )
        self._known: dict[Fitter, dict[Free, _Scored]] = {}
        self._size = 0

    def choose(self, blocks: Blocks, fitter: Fitter) -> tuple[int, Free, Free] | None:
        """Returns the score of the node that is taken, its free amounts, and what the pod leaves; None: none fits."""
        known = self._known.get(fitter)
        if known is None:
            known = self._known[fitter] = {}
        best: tuple[int, Free, Free] | None = None
        for free in blocks:
            if free in known:
                scored = known[free]
            else:
                scored = known[free] = self._scored(fitter, free)
                self._size += 1
            if scored is not None and (
                best is None or scored[0] > best[0] or (scored[0] == best[0] and free < best[1])
            ):
                best = (scored[0], free, scored[1])
        if self._size > _MEMO_LIMIT:
            self._known, self._size = {}, 0
        return best

    def _scored(self, fitter: Fitter, free: Free) -> _Scored:
        if not fitter.fit(free):
            return None
        after = fitter.after(free, 1)
        total = weights = 0
        for column, weight, whole, always in self._columns:
            if always or free[column] != after[column]:
                taken = whole - after[column] if self._packs else after[column]
                total += weight * (taken * 100 // whole)
                weights += weight
        return (total // weights if weights else 0, after)
