"""Free blocks: how many nodes have which free amounts, and what taking pods out of them leaves."""

from __future__ import annotations

from services.scheduler.core.shapes import Fitter, Free

# How many nodes have exactly these free amounts.
Blocks = dict[Free, int]


def tightest(blocks: Blocks, fitter: Fitter) -> tuple[int, Free] | None:
    """Returns the free amounts of the node that takes the fewest pods, and how many; None if no node takes any.

    Best fit, so that large free blocks stay whole; ties by the free amounts themselves.
    """
    best: tuple[int, Free] | None = None
    for free in blocks:
        fits = fitter.fit(free)
        if fits and (best is None or (fits, free) < best):
            best = (fits, free)
    return best


def take(blocks: Blocks, fitter: Fitter, count: int) -> int:
    """Takes room for up to ``count`` pods out of blocks, tightest node first; returns for how many there was room."""
    left = count
    while left > 0:
        best = tightest(blocks, fitter)
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
