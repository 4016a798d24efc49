"""What free blocks are worth: how many pods of a mix of shapes they have room for, each shape by its weight.

The shapes are columns, so that a block is held against all of them at once. A pod counts a thousand times what the
same amounts count that are no whole pod: blocks with room for as many pods differ by how near they are to one more.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gpufleet.model.devices import WHOLE
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Free, Shape

# What a pod counts; a thousandth of one that fits in part counts 1.
POD = 1_000_000
_PARTS = 1_000
_MEMO_LIMIT = 100_000
# No more of anything is looked at, so that thousandths of it are whole numbers of 64 bits.
_MOST = 2**52
_UNBOUNDED = 2**30


class Worth:
    """What free blocks of pools alike in labels, taints and layout are worth."""

    __slots__ = ("_amounts", "_columns", "_count", "_devices", "_known", "_part", "_unasked", "_unshared", "_weights")

    def __init__(self, mix: Iterable[tuple[Shape, int]], pool: Pool) -> None:
        fitters = [(s.fitter(pool.layout), weight) for s, weight in mix if s.admitted(pool.identity)]
        fitters = [(fitter, weight) for fitter, weight in fitters if not fitter.impossible]
        self._known: dict[Free, int] = {}
        self._weights = np.array([weight for _, weight in fitters], np.int64)
        self._columns = sorted({i for fitter, _ in fitters for i, amount in fitter.others if amount > 0})
        at = {column: n for n, column in enumerate(self._columns)}
        self._amounts = np.ones((len(fitters), len(at)), np.int64)
        self._unasked = np.ones(self._amounts.shape, np.bool_)
        for row, (fitter, _) in enumerate(fitters):
            for column, amount in fitter.others:
                if amount > 0:
                    self._amounts[row, at[column]] = min(amount, _MOST)
                    self._unasked[row, at[column]] = False
        self._devices = pool.layout.resources
        shares = [fitter.share for fitter, _ in fitters]
        self._part = np.array([[share.thousandths or WHOLE] for share in shares], np.int64)
        self._count = np.array([max(1, share.count) for share in shares], np.int64)
        self._unshared = np.array([not share.count for share in shares], np.bool_)

    def of(self, free: Free) -> int:
        """Returns what a free block is worth, in millionths of a pod."""
        worth = self._known.get(free)
        if worth is None:
            if len(self._known) >= _MEMO_LIMIT:
                self._known.clear()
            worth = self._known[free] = self._compute(free)
        return worth

    def _compute(self, free: Free) -> int:
        if not len(self._weights):
            return 0
        left = np.array([max(0, min(free[i], _MOST)) for i in self._columns], np.int64)
        parts = left * _PARTS // self._amounts
        parts[self._unasked] = _UNBOUNDED
        least = np.minimum.reduce(parts, axis=1, initial=_UNBOUNDED)
        if len(free) > self._devices:
            devices = np.array(free[self._devices :], np.int64)
            room = np.add.reduce(devices // self._part, axis=1) // self._count * _PARTS
            room[self._unshared] = _UNBOUNDED
            least = np.minimum(least, room)
        return int((least // _PARTS * POD + least) @ self._weights)
