"""How many replicas each cluster gets (specification 2.3, 6): exact, deterministic, free of any state.

Rounding is Webster's method (Sainte-Lague), as upstream Karmada rounds: seats go one by one to the greatest
``weight / (2 * seats + 1)``; ties to fewer seats, then by name, in an order that depends on the workload's UID.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TypeVar

import numpy as np
import numpy.typing as npt

_EXACT = 2**52
# What weights belong to: clusters by name, or by their place among the names.
Name = TypeVar("Name", str, int)
Weights = npt.NDArray[np.int64]


class Mode(StrEnum):
    """What a decision may do with the replicas that are placed already.

    Fill places only what is missing. Steady pours the total anew, own replicas counted as room: scaling up keeps
    them, scaling down shrinks. Fresh ignores where they are.
    """

    FILL = "Fill"
    STEADY = "Steady"
    FRESH = "Fresh"


@dataclass(slots=True)
class Option:
    """A candidate cluster: its tier, replicas that it has (``assigned``), and further room.

    ``coming`` is how much of the stock is on nodes that somebody needs anyway; it goes first.
    """

    cluster: str
    tier: int
    assigned: int
    running: int
    stock: int = 0
    weight: int = 0
    coming: int = 0


def descending(uid: str) -> bool:
    """Returns whether ties go to the last name instead of the first, for a workload's UID (empty: the first).

    They do if its 32-bit FNV-1a hash is odd: the hash begins odd, is multiplied by an odd number only, and so turns
    with every odd byte.
    """
    return bool(uid) and sum(uid.encode()) % 2 == 0


def webster(seats: int, weights: Mapping[Name, int], last_first: bool = False) -> dict[Name, int]:
    """Returns ``seats`` divided in proportion to ``weights``; clusters of weight 0 get none.

    With all weights 0 nothing is given. Monotone in ``seats``: one seat more takes none away.
    """
    names = sorted((name for name, weight in weights.items() if weight > 0), reverse=last_first)
    total = sum(weights[name] for name in names)
    given = dict.fromkeys(names, 0)
    if not names or seats <= 0:
        return given
    # Every seat whose quotient is at least total / (2 * seats - k), k clusters, is certain to be given: there are
    # at most `seats` of them and they all come before any other. The rest, at most k, are given one by one.
    certain = 2 * seats - len(names)
    if certain > 0:
        for name in names:
            given[name] = (weights[name] * certain + total) // (2 * total)
    left = seats - sum(given.values())
    # A quotient of two integers below 2**52 in product is told apart from every other by its double; else exact.
    if max(weights[name] for name in names) * (2 * seats + 1) < _EXACT:
        heap = [(-weights[n] / (2 * given[n] + 1), given[n], rank, n) for rank, n in enumerate(names)]
        heapq.heapify(heap)
        for _ in range(left):
            _, count, rank, name = heap[0]
            given[name] = count = count + 1
            heapq.heapreplace(heap, (-weights[name] / (2 * count + 1), count, rank, name))
        return given
    for _ in range(left):
        rank, name = min(enumerate(names), key=lambda item: _quotient(weights, given, item[1], item[0]))
        given[name] += 1
    return given


def _quotient(
    weights: Mapping[Name, int], given: Mapping[Name, int], name: Name, rank: int
) -> tuple[Fraction, int, int]:
    return (Fraction(-weights[name], 2 * given[name] + 1), given[name], rank)


def webster_column(seats: int, weights: Weights, last_first: bool = False) -> dict[int, int]:
    """Returns what `webster` gives, by place, for weights in order of name; only places that get something."""
    if seats <= 0:
        return {}
    if seats < len(weights):
        # Nobody gets a seat before all that weigh more have one, nor before those of equal weight and earlier name.
        ordered = weights.copy()
        ordered.partition(len(weights) - seats)
        least = int(ordered[len(weights) - seats])
        if least > 0:
            chosen = (weights > least).nonzero()[0].tolist()
            equal = (weights == least).nonzero()[0].tolist()
            missing = seats - len(chosen)
            chosen += equal[len(equal) - missing :] if last_first else equal[:missing]
            if 3 * least >= int(np.maximum.reduce(weights)):
                return dict.fromkeys(chosen, 1)  # a second seat weighs a third
        else:
            chosen = weights.nonzero()[0].tolist()
    else:
        chosen = weights.nonzero()[0].tolist()
    given = webster(seats, {place: int(weights[place]) for place in chosen}, last_first)
    return {place: count for place, count in given.items() if count}


def pour_columns(
    tiers: Sequence[tuple[Weights, Weights | None, Weights | None]],
    replicas: int,
    *,
    last_first: bool = False,
    existing_first: bool = False,
) -> list[dict[int, int]]:
    """Returns what `pour` gives, by tier and place in it, where nothing is placed yet.

    ``tiers`` are running capacity, stock (None: it does not count) and how much of that is on nodes that somebody needs
    anyway (None: nothing), in order of name.
    """
    running = [int(np.add.reduce(here)) for here, _, _ in tiers]
    stock = [0 if more is None else int(np.add.reduce(more)) for _, more, _ in tiers]
    coming = [0 if first is None else int(np.add.reduce(first)) for _, _, first in tiers]
    wanted = [0] * len(tiers)
    left = replicas
    for most in ([0] * len(tiers), coming, stock) if existing_first else (stock,):
        for i in range(len(tiers)):
            more = min(left, running[i] + most[i] - wanted[i])
            wanted[i] += more
            left -= more
    found = []
    for i, (here, beside, on_the_way) in enumerate(tiers):
        first = min(wanted[i], running[i])
        counts = webster_column(first, here, last_first)
        more = wanted[i] - first
        if beside is not None and more and on_the_way is not None and coming[i]:
            _add(counts, webster_column(min(more, coming[i]), on_the_way, last_first))
            more -= min(more, coming[i])
            beside = beside - on_the_way
        if beside is not None and more:
            _add(counts, webster_column(more, beside, last_first))
        found.append(counts)
    return found


def _add(counts: dict[int, int], more: Mapping[int, int]) -> None:
    for place, count in more.items():
        counts[place] = counts.get(place, 0) + count


def pour(
    options: Sequence[Option],
    replicas: int,
    mode: Mode,
    *,
    last_first: bool = False,
    existing_first: bool = False,
) -> dict[str, int]:
    """Returns replicas by cluster: tier after tier as many as fit, running capacity before stock.

    With ``existing_first`` the running capacity of every tier goes before any stock, and nodes that are created anyway
    before further ones. The sum may be less than
    ``replicas`` if there is no more room. ``options`` are ordered by tier.
    """
    tiers = _tiers(options)
    placed = [sum(o.assigned for o in tier) for tier in tiers]
    fill = mode is Mode.FILL and sum(placed) <= replicas
    wanted = list(placed) if fill else [0] * len(tiers)
    left = replicas - sum(wanted)
    for level in range(len(_LEVELS)) if existing_first else (len(_LEVELS) - 1,):
        for i, tier in enumerate(tiers):
            more = min(left, max(0, placed[i] + _room(tier, level) - wanted[i]))
            wanted[i] += more
            left -= more
    counts: dict[str, int] = {}
    for tier, count in zip(tiers, wanted, strict=True):
        counts.update(_within(tier, count, last_first))
    return counts


# Further room of a cluster in the order in which it is used: nodes that run, that are created anyway, and others.
_LEVELS: tuple[Callable[[Option], int], ...] = (lambda o: o.running, lambda o: o.coming, lambda o: o.stock - o.coming)


def _room(tier: Iterable[Option], level: int) -> int:
    return sum(sum(room(o) for o in tier) for room in _LEVELS[: level + 1])


def _tiers(options: Sequence[Option]) -> list[list[Option]]:
    tiers: dict[int, list[Option]] = {}
    for option in options:
        tiers.setdefault(option.tier, []).append(option)
    return [tiers[number] for number in sorted(tiers)]


def _within(tier: Sequence[Option], count: int, last_first: bool) -> dict[str, int]:
    """Divides a tier's count over its clusters: shrink in proportion, or add only the difference."""
    assigned = {o.cluster: o.assigned for o in tier}
    total = sum(assigned.values())
    if count < total:
        return {**dict.fromkeys(assigned, 0), **webster(count, assigned, last_first)}
    counts = assigned
    extra = count - total
    for level in _LEVELS:
        room = {o.cluster: level(o) for o in tier}
        more = min(extra, sum(room.values()))
        if more > 0:
            for cluster, seats in webster(more, room, last_first).items():
                counts[cluster] += seats
            extra -= more
    return counts


def static(options: Sequence[Option], replicas: int, *, last_first: bool = False) -> dict[str, int]:
    """Returns all replicas divided by static weight, from scratch; capacity does not count."""
    weights = {o.cluster: o.weight for o in options}
    if not any(weights.values()):
        weights = dict.fromkeys(weights, 1)
    return webster(replicas, weights, last_first)


def aggregated(options: Sequence[Option], replicas: int, mode: Mode, *, last_first: bool = False) -> dict[str, int]:
    """Returns replicas on as few clusters as possible: those that hold some first, then the largest room first.

    Growing divides only the difference; shrinking keeps the clusters with the most replicas.
    """
    counts = {o.cluster: o.assigned for o in options}
    placed = sum(counts.values())
    if replicas < placed:
        chosen = _prefix(sorted(counts.items(), key=lambda item: (-item[1], item[0])), replicas)
        return {**dict.fromkeys(counts, 0), **webster(replicas, chosen, last_first)}
    extra = replicas - placed
    if extra <= 0:
        return counts
    holding = mode is not Mode.FRESH
    for level in range(len(_LEVELS)):
        room = {o.cluster: _room([o], level) for o in options}
        ordered = sorted(options, key=lambda o: (not (holding and o.assigned), -room[o.cluster], o.cluster))
        chosen = _prefix(((o.cluster, room[o.cluster]) for o in ordered), extra)
        if sum(chosen.values()) >= extra or level == len(_LEVELS) - 1:
            for cluster, seats in webster(min(extra, sum(chosen.values())), chosen, last_first).items():
                counts[cluster] += seats
            break
    return counts


def _prefix(rooms: Iterable[tuple[str, int]], needed: int) -> dict[str, int]:
    chosen: dict[str, int] = {}
    total = 0
    for cluster, room in rooms:
        if total >= needed:
            break
        if room > 0:
            chosen[cluster] = room
            total += room
    return chosen
