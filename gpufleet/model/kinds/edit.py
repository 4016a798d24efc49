"""Changing one field of a manifest without touching the rest of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def editable(manifest: dict[str, Any], *path: str | int) -> dict[str, Any]:
    """Returns the map at a path, copied on the way there, so that only ``manifest`` itself changes.

    A missing map on the way is created. Raises KeyError or IndexError where a list on the way is too short.
    """
    here: Any = manifest
    for key in path:
        value: Any = here[key] if not isinstance(here, dict) else here.get(key)
        copy: Any = (
            list(value) if isinstance(value, list | tuple) else dict(value if isinstance(value, Mapping) else {})
        )
        here[key] = copy
        here = copy
    return here  # type: ignore[no-any-return]
