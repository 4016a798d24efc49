"""Places in the queues, counted from the placements of those that wait.

A placement says which queue it waits in, its priority and its arrival, and that is its place among all others. The
position in its record is that of the time when it was decided: whoever leaves the queue moves everybody behind, and
writing all of their records again would cost more the longer the queue is. So who shows positions counts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from gpufleet.model.placement import Placement


class Place(Protocol):
    """What a placement says of its place in a queue; it waits if it has a position."""

    @property
    def workload(self) -> str:
        """The workload's key."""

    @property
    def queue(self) -> str:
        """The quota in whose queue it waits, or empty."""

    @property
    def priority(self) -> int:
        """The priority that it waits with."""

    @property
    def arrival(self) -> int:
        """Its place among those of equal priority."""

    @property
    def queue_position(self) -> int | None:
        """Its position when it was decided, from 1."""


def in_order(placements: Iterable[Place]) -> dict[str, list[str]]:
    """Returns the workloads that wait by queue (a quota's name; empty: of what has none), the first first."""
    queues: dict[str, list[tuple[int, int, str]]] = {}
    for placement in placements:
        if placement.queue_position is not None:
            order = (-placement.priority, placement.arrival, placement.workload)
            queues.setdefault(placement.queue, []).append(order)
    return {name: [workload for _, _, workload in sorted(queue)] for name, queue in sorted(queues.items())}


def counted(placements: Iterable[Placement]) -> list[Placement]:
    """Returns the placements with the positions that those which wait have now."""
    known = list(placements)
    place = {w: n for queue in in_order(known).values() for n, w in enumerate(queue, 1)}
    return [
        p if place.get(p.workload) == p.queue_position else replace(p, queue_position=place[p.workload]) for p in known
    ]
