"""Nodes of one class that are not there yet: those on their way, or to be created, for somebody; and those in stock.

A node that is created for some pods has room for others beside them, so what is left of it counts: it is filled before
another node is created.
"""

from __future__ import annotations

from services.scheduler.core.blocks import Blocks, room, take
from services.scheduler.core.shapes import Fitter, Free


class Stock:
    """``coming`` are the rests of nodes that somebody needs, ``fresh`` nodes nobody does; one is ``whole`` at first."""

    __slots__ = ("_begun", "coming", "fresh", "nodes", "whole")

    def __init__(self, whole: Free, nodes: int) -> None:
        self.whole = whole
        self.nodes = self.fresh = nodes
        self.coming: Blocks = {}
        self._begun: Blocks = {}  # what there was of it at first: nothing but in a replay

    def reset(self) -> None:
        """Forgets everything that was taken."""
        self.fresh = self.nodes
        if self.coming or self._begun:
            self.coming = dict(self._begun)

    def recall(self, fresh: int, coming: Blocks) -> None:
        """Begins with what a past decision saw."""
        self.nodes, self._begun = fresh, coming
        self.reset()

    def copy(self) -> Stock:
        """Returns a copy from which can be taken without taking from this one."""
        other = Stock(self.whole, self.nodes)
        other.fresh, other.coming = self.fresh, dict(self.coming)
        return other

    def room(self, fitter: Fitter) -> int:
        """Returns for how many pods there is room in all."""
        fresh = fitter.fit(self.whole) * self.fresh if self.fresh else 0
        return fresh + self.room_coming(fitter) if self.coming else fresh

    def room_coming(self, fitter: Fitter) -> int:
        """Returns for how many pods there is room on nodes that somebody needs anyway."""
        return room(self.coming, fitter) if self.coming else 0

    def take(self, fitter: Fitter, count: int) -> int:
        """Takes room for up to ``count`` pods, without a further node if possible; returns for how many there was."""
        taken = self.take_coming(fitter, count)
        return taken + self._open(fitter, count - taken, self.fresh, stocked=True)

    def take_coming(self, fitter: Fitter, count: int) -> int:
        """Takes room on nodes that somebody needs anyway; returns for how many pods there was some."""
        return take(self.coming, fitter, count) if self.coming and count > 0 else 0

    def bring(self, fitter: Fitter, count: int) -> None:
        """Notes pods whose nodes are being created: their instances are out of stock already."""
        self._open(fitter, count - self.take_coming(fitter, count), count, stocked=False)

    def _open(self, fitter: Fitter, count: int, nodes: int, *, stocked: bool) -> int:
        """Begins up to ``nodes`` further nodes for some pods; returns for how many pods there is room."""
        fits = fitter.fit(self.whole)
        left = count
        while left > 0 and nodes > 0 and fits > 0:
            pods = min(fits, left)
            begun = min(nodes, left // pods)
            rest = fitter.after(self.whole, pods)
            self.coming[rest] = self.coming.get(rest, 0) + begun
            left -= begun * pods
            nodes -= begun
            if stocked:
                self.fresh -= begun
        return count - left
