"""Editing a request's own document in place: sections, defaults, quantities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sim.api.quantity import canonical

Json = dict[str, Any]


def section(obj: Json, key: str) -> Json:
    """The object at `key`, a copy that belongs to `obj`; other types are left to validation."""
    value = obj.get(key)
    found: Json = dict(value) if isinstance(value, dict) else {}
    if value is None or isinstance(value, dict):
        obj[key] = found
    return found


def fill(section: Json, **values: Any) -> None:
    """Set the fields that are missing."""
    for key, value in values.items():
        if section.get(key) is None:
            section[key] = value


def objects(section: Json, key: str) -> list[Json]:
    """The objects of the list at `key`, as copies that belong to `section`."""
    items = section.get(key)
    if not isinstance(items, list):
        return []
    section[key] = [dict(item) if isinstance(item, dict) else item for item in items]
    return [item for item in section[key] if isinstance(item, dict)]


def quantities(section: Json, keys: Iterable[str]) -> None:
    """Bring the maps of quantities at `keys` to canonical form; what cannot be read is left to validation."""
    for key in keys:
        amounts = section.get(key)
        if isinstance(amounts, dict):
            section[key] = {name: canonical_or_same(value) for name, value in amounts.items()}


def canonical_or_same(value: Any) -> Any:
    """A quantity in canonical form; what is none, as it is."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    try:
        return canonical(str(value))
    except ValueError:
        return value
