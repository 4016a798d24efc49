"""Pods that are taken away from a cluster, by how much is known of where they are, and what their nodes have left then.

Of pods that the inventory tells the nodes of this is exact. Others are put back where they could have been: pods of one
workload together, on the fullest nodes first, the largest first; where a pod that comes is no larger than one that goes
that is exact too, else an estimate, and the inventory shows the truth afterwards. Of pods that are placed but not bound
the reservation goes. Everything counts by kind, so that the order in which pods are taken away does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.scheduler.core.blocks import Blocks
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Fitter, Free, Shape

# In place of a node's number: pods that are bound, but where is not told; pods that are placed and not bound yet.
SOMEWHERE, NOT_YET = 0, -1
# Pods that are together: their node class, their shape, how many they are, and the number of their node.
Kind = tuple[str, Shape, int, int]
# How many pods of which shapes, by number of the node; how often so many pods of a shape.
At = dict[int, dict[Shape, int]]
Somewhere = dict[tuple[Shape, int], int]


@dataclass(slots=True)
class Gone:
    """Pods that are taken away, by node class."""

    at: dict[str, At] = field(default_factory=dict)
    somewhere: dict[str, Somewhere] = field(default_factory=dict)
    not_yet: dict[str, dict[Shape, int]] = field(default_factory=dict)

    def add(self, kind: Kind, times: int) -> None:
        """Takes away so many more of a kind; a negative number puts them where they were."""
        name, shape, pods, number = kind
        if not pods:
            return
        if number == SOMEWHERE:
            alike = self.somewhere.setdefault(name, {})
            total = alike.get((shape, pods), 0) + times
            if total:
                alike[shape, pods] = total
            else:
                del alike[shape, pods]
            return
        if number == NOT_YET:
            shapes = self.not_yet.setdefault(name, {})
        else:
            shapes = self.at.setdefault(name, {}).setdefault(number, {})
        total = shapes.get(shape, 0) + pods * times
        if total:
            shapes[shape] = total
            return
        del shapes[shape]
        if number != NOT_YET and not shapes:
            del self.at[name][number]


def together(parts: Iterable[Gone]) -> Gone:
    """Returns what some take away together. Nothing may be added to it: it shares with them what only one has."""
    total = Gone()
    own: dict[str, set[int]] = {}
    for part in parts:
        for name, at in part.at.items():
            here = total.at.get(name)
            if here is None:
                total.at[name] = dict(at)
                continue
            mine = own.setdefault(name, set())
            for number, shapes in at.items():
                known = here.get(number)
                if known is None:
                    here[number] = shapes
                    continue
                if number not in mine:
                    mine.add(number)
                    known = here[number] = known.copy()
                for shape, pods in shapes.items():
                    known[shape] = known.get(shape, 0) + pods
        for name, alike in part.somewhere.items():
            kinds = total.somewhere.setdefault(name, {})
            for kind, times in alike.items():
                kinds[kind] = kinds.get(kind, 0) + times
        for name, shapes in part.not_yet.items():
            waiting = total.not_yet.setdefault(name, {})
            for shape, pods in shapes.items():
                waiting[shape] = waiting.get(shape, 0) + pods
    return total


def vacate(blocks: Blocks, pool: Pool, at: At) -> list[tuple[int, Free]]:
    """Puts back what pods use on nodes that are known, and returns what these nodes have left then, by number.

    A node that no free block lists gains nothing: it is cordoned, or not ready. Where reservations have made blocks of
    others than the inventory shows, pods count as on nodes that are not known.
    """
    nodes, whole, layout = pool.nodes, pool.allocatable, pool.layout
    alike: dict[tuple[Free, tuple[tuple[Shape, int], ...]], list[int]] = {}
    for number, shapes in at.items():
        free = nodes.get(number)
        if free is not None:
            alike.setdefault((free, tuple(shapes.items())), []).append(number)
    found: list[tuple[int, Free]] = []
    for (free, gone), numbers in alike.items():
        there = blocks.get(free, 0)
        moved = min(there, len(numbers))
        if moved:
            after = free
            for shape, pods in gone:
                after = shape.fitter(layout).before(after, pods, whole)
            if moved == there:
                del blocks[free]
            else:
                blocks[free] = there - moved
            blocks[after] = blocks.get(after, 0) + moved
            found += [(number, after) for number in numbers[:moved]]
        if moved < len(numbers):
            for shape, pods in gone:
                give(blocks, pool, shape.fitter(layout), pods, len(numbers) - moved)
    return found


class Emptied:
    """The nodes of a class as the inventory shows them, without pods that are taken away and put back node by node."""

    __slots__ = ("_left", "_pool", "blocks")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._left: dict[int, Free] = {}
        self.blocks: Blocks = dict(pool.shown)

    def take_away(self, number: int, shapes: Mapping[Shape, int]) -> None:
        """Takes so many pods away from a node in place of those before. A node that no block lists gains nothing."""
        pool, blocks = self._pool, self.blocks
        shown = pool.nodes.get(number)
        if shown is None:
            return
        before, after = self._left.get(number, shown), shown
        for shape, pods in shapes.items():
            after = shape.fitter(pool.layout).before(after, pods, pool.allocatable)
        there = blocks.get(before, 0)
        if after == before or not there:
            return
        if there == 1:
            del blocks[before]
        else:
            blocks[before] = there - 1
        blocks[after] = blocks.get(after, 0) + 1
        self._left[number] = after


def give_all(blocks: Blocks, pool: Pool, gone: Somewhere) -> None:
    """Puts back what pods use of which is not known where they are, the largest first."""
    full = pool.node_class.nodes - sum([block.nodes for block in pool.node_class.free])
    if full > 0:  # nodes that the inventory does not list
        nothing = (0,) * len(pool.layout.names)
        blocks[nothing] = blocks.get(nothing, 0) + full
    for shape, pods in sorted(gone, key=_largest_first) if len(gone) > 1 else gone:
        give(blocks, pool, shape.fitter(pool.layout), pods, gone[shape, pods])


def shown_without(pool: Pool, gone: Gone) -> tuple[Blocks, list[tuple[int, Free]]]:
    """Returns what nodes have left without reservations and without some bound pods, all and by number as `vacate`."""
    blocks = dict(pool.shown)
    numbered = vacate(blocks, pool, gone.at.get(pool.name, {}))
    if somewhere := gone.somewhere.get(pool.name):
        give_all(blocks, pool, somewhere)
    return blocks, numbered


def _largest_first(kind: tuple[Shape, int]) -> tuple[int, int, int]:
    shape, pods = kind
    return (-shape.gpus, -pods, shape.id)


def give(blocks: Blocks, pool: Pool, fitter: Fitter, count: int, times: int = 1) -> None:
    """Puts back what so many pods use, ``times`` over, as far as it can have been used: a node's GPUs decide.

    Documents may leave out of `free` what they do not care for.
    """
    whole, layout = pool.allocatable, pool.layout
    gpus = [(i, a) for i, a in fitter.columns if i in layout.gpu_columns and a]
    left = count
    while times > 0:
        best = _fullest(blocks, *gpus[0], whole) if len(gpus) == 1 else _fullest_of(blocks, gpus, fitter, pool)
        if best is None:
            return
        free, most = best
        if left == count <= most:  # all of them on one node, and the next ones on another that is as full
            pods = count
            nodes = min(blocks[free], times)
            times -= nodes
        else:
            pods = min(most, left)
            nodes = min(blocks[free], left // pods)
            left -= nodes * pods
            if not left:
                left = count
                times -= 1
        if blocks[free] == nodes:
            del blocks[free]
        else:
            blocks[free] -= nodes
        after = fitter.before(free, pods, whole)
        blocks[after] = blocks.get(after, 0) + nodes


def _fullest(blocks: Blocks, column: int, amount: int, whole: Free) -> tuple[Free, int] | None:
    """Returns the fullest nodes that can have had such a pod, and how many, for pods that ask for one kind of GPU."""
    most = whole[column] - amount
    best: Free | None = None
    for free in blocks:
        gpus = free[column]
        if gpus <= most and (best is None or gpus < best[column] or (gpus == best[column] and free < best)):
            best = free
    return None if best is None else (best, (whole[column] - best[column]) // amount)


def _fullest_of(
    blocks: Iterable[Free], gpus: Sequence[tuple[int, int]], fitter: Fitter, pool: Pool
) -> tuple[Free, int] | None:
    whole = pool.allocatable
    best: tuple[int, Free, int] | None = None
    for free in blocks:
        used = gpus or [(i, a) for i, a in fitter.columns if a and free[i] < whole[i]]
        pods = min(((whole[i] - free[i]) // a for i, a in used), default=0)
        if pods > 0 and (best is None or (pool.layout.gpus(free), free) < best[:2]):
            best = (pool.layout.gpus(free), free, pods)
    return None if best is None else best[1:]
