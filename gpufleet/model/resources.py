"""Amounts of several resources, and labels, as small immutable values that can be compared and hashed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet.model import quantity

# Sorted by resource name, no zero amounts; units as in `gpufleet.model.quantity`.
Resources = tuple[tuple[str, int], ...]
# Sorted by key.
Labels = tuple[tuple[str, str], ...]


def resources(amounts: Mapping[str, int]) -> Resources:
    """Returns the canonical form of a mapping of amounts."""
    return tuple(sorted((name, amount) for name, amount in amounts.items() if amount))


def parse_resources(quantities: Mapping[str, Any] | None, *, round_up: bool = True) -> Resources:
    """Returns parsed Kubernetes quantities by resource. Raises QuantityError that names the resource."""
    amounts: dict[str, int] = {}
    for name, text in (quantities or {}).items():
        try:
            amounts[name] = quantity.parse(text, name, round_up=round_up)
        except quantity.QuantityError as error:
            raise quantity.QuantityError(f"{name}: {error}") from None
    return resources(amounts)


def render_resources(amounts: Resources) -> dict[str, str]:
    """Returns Kubernetes quantity strings by resource name."""
    return {name: quantity.render(amount, name) for name, amount in amounts}


def add(*many: Resources) -> Resources:
    """Returns the sum by resource."""
    total: dict[str, int] = {}
    for amounts in many:
        for name, amount in amounts:
            total[name] = total.get(name, 0) + amount
    return resources(total)


def scale(amounts: Resources, factor: int) -> Resources:
    """Returns every amount times a factor."""
    return tuple((name, amount * factor) for name, amount in amounts) if factor else ()


def labels(mapping: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> Labels:
    """Returns the canonical form of a mapping of labels."""
    return tuple(sorted(dict(mapping or {}).items()))
