"""Keeps the garbage collector from stopping a process for long.

A full collection looks at every object, most of which came with the imported modules and never go away: in a service
that has just started it takes 100 ms, during which no record is read and no request is answered.
"""

from __future__ import annotations

import gc

# Objects that are made until the youngest are looked at; Python's 700 is soon reached when records come in hundreds.
_YOUNGEST = 10_000

_own = False


def own() -> None:
    """Says that this process is ours, so that `settle` may act; a program that uses a part of gpufleet is not."""
    global _own  # noqa: PLW0603
    _own = True
    gc.set_threshold(_YOUNGEST, *gc.get_threshold()[1:])


def settle() -> None:
    """Leaves what is there now out of all later collections; for when much has been loaded that stays."""
    if _own:
        gc.collect()
        gc.freeze()
