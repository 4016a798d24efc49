"""Which groups of clusters are chosen under a spread constraint, as Karmada's scheduler chooses them.

A group has a value (how many clusters it has) and a weight (its score). Wanted is a set of groups, neither fewer nor
more than allowed, whose values reach a target: of those the heaviest, then the one with the greatest value, then the
first one found; and of that set the heaviest first groups alone, if they are enough by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Sets are tried exhaustively, as upstream, up to so many steps; beyond, the heaviest groups are taken one by one.
_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class Group:
    """A group of clusters."""

    name: str
    value: int
    weight: int


Path = tuple[Group, ...]


def select_groups(groups: Sequence[Group], least: int, most: int, target: int, held: Path = ()) -> Path | None:
    """Returns the groups that are chosen, heaviest first, or None if no set of them will do.

    ``most`` 0 is no bound. ``held`` are chosen already, whatever the bounds.
    """
    most = most or len(groups) + len(held)
    names = {group.name for group in held}
    rest = sorted((g for g in groups if g.name not in names), key=lambda g: (g.value, -g.weight, g.name))
    if _enough(held, least, target) and held:
        return _sorted(held)
    paths = _feasible(rest, least, max(most, len(held)), target, held)
    if paths is None:
        return _heaviest(rest, least, max(most, len(held)), target, held)
    if not paths:
        return None
    ranked = sorted(
        (-sum(g.weight for g in path), -sum(g.value for g in path), number, path) for number, path in enumerate(paths)
    )
    best = _sorted(ranked[0][3])
    for *_, path in ranked[1:]:
        found = _sorted(path)
        if len(found) < len(best) and best[: len(found)] == found:
            best = found
    return best


def _sorted(path: Sequence[Group]) -> Path:
    return tuple(sorted(path, key=lambda g: (-g.weight, g.name)))


def _enough(path: Sequence[Group], least: int, target: int) -> bool:
    return len(path) >= least and sum(g.value for g in path) >= target


def _feasible(groups: Sequence[Group], least: int, most: int, target: int, held: Path) -> list[Path] | None:
    """Returns the sets that are enough, in the order in which they are found; None if there are too many to try."""
    found: list[Path] = []
    path = list(held)
    steps = 0

    def extend(begin: int, value: int) -> bool:
        nonlocal steps
        steps += 1
        if steps > _STEPS:
            return False
        if value >= target and least <= len(path) <= most:
            found.append(tuple(path))
            return True
        if len(path) >= most:
            return True
        for index in range(begin, len(groups)):
            path.append(groups[index])
            if not extend(index + 1, value + groups[index].value):
                return False
            path.pop()
        return True

    return found if extend(0, sum(g.value for g in held)) else None


def _heaviest(groups: Sequence[Group], least: int, most: int, target: int, held: Path) -> Path | None:
    for order in (
        sorted(groups, key=lambda g: (-g.weight, -g.value, g.name)),
        sorted(groups, key=lambda g: (-g.value, -g.weight, g.name)),
    ):
        path = list(held)
        for group in order:
            if _enough(path, least, target) or len(path) >= most:
                break
            path.append(group)
        if _enough(path, least, target):
            return _sorted(path)
    return None
