"""Notes of a decision in the making, for `witness`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpufleet.model.cluster import Inventory
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.values import value
from services.scheduler.core.blocks import Blocks
from services.scheduler.core.columns import Column
from services.scheduler.core.divide import Option
from services.scheduler.core.evidence import Other, QuotaUse, Taking
from services.scheduler.core.pool import Pool
from services.scheduler.core.reserve import Holding


@value(frozen=True, slots=True)
class Left:
    """What a cluster had left: of each class blocks on running nodes, None: as the inventory shows; and the stock.

    ``holds`` are its reservations where somebody had to yield: then the blocks are those without any. Decisions that
    saw the same share one.
    """

    inventory: Inventory | None
    debt: int
    pools: Sequence[tuple[Pool, Blocks | None, tuple[int, Blocks] | None]]
    virtual: list[tuple[str, dict[str, int]]]
    held: Mapping[str, int]
    holds: tuple[tuple[str, Holding], ...] = ()


@dataclass(slots=True)
class Seen:
    """Notes of a decision in the making. ``ignored`` are further policies that select the workload, ``beside``
    how many of its pods fit beside the one that a cluster is kept for.

    ``column`` is the room of every cluster where the division looked at nothing else; else ``left`` has what the
    clusters that matter had left, and ``options`` the room as it was measured.
    """

    column: Column | None = None
    left: dict[str, Left] = field(default_factory=dict)
    options: list[Option] | None = None
    others: list[Other] = field(default_factory=list)
    taking: Taking | None = None
    yields: Mapping[str, int] = field(default_factory=dict)  # where it has yet to give up pods, and what it keeps
    use: dict[str, QuotaUse] = field(default_factory=dict)
    ignored: tuple[PropagationPolicy, ...] = ()
    beside: int | None = None
