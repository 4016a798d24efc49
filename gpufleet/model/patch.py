"""JSON patch operations (RFC 6902: add, replace, remove) on manifests that are shared, so copied where they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class PatchError(ValueError):
    """An operation that cannot be applied to an object."""


def steps(path: str) -> tuple[str, ...]:
    """Returns the parts of a JSON pointer. Raises PatchError."""
    if not path.startswith("/"):
        raise PatchError(f"path {path!r} is no JSON pointer: it starts with /")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))


def apply_patch(obj: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """Applies one operation in place, copying what it changes.

    Unlike the RFC, maps that are missing on the way of an ``add`` are created. Raises PatchError.
    """
    op, path = patch.get("op"), patch.get("path")
    if op not in ("add", "replace", "remove") or not isinstance(path, str) or not path.startswith("/"):
        raise PatchError(f"patch {dict(patch)}: op must be add, replace or remove, and path a JSON pointer")
    try:
        _patch(obj, op, steps(path), patch.get("value"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise PatchError(f"patch {op} {path}: {_reason(error)}") from error


def value_at(obj: Any, path: str) -> Any:
    """Returns what is at a JSON pointer. Raises PatchError where there is nothing."""
    here = obj
    for part in steps(path):
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif isinstance(here, list | tuple) and part.isdecimal() and int(part) < len(here):
            here = here[int(part)]
        else:
            raise PatchError(f"{path}: {part} does not exist")
    return here


def _reason(error: Exception) -> str:
    if isinstance(error, AttributeError):
        return "leads through a value that is neither a map nor a list"
    return f"{error.args[0]} does not exist" if isinstance(error, KeyError) and error.args else str(error)


def _index(part: str) -> int:
    if not part.isdecimal():
        raise ValueError(f"{part} is no index of a list")
    return int(part)


def _patch(obj: dict[str, Any], op: str, keys: Sequence[str], value: Any) -> None:
    parent: Any = obj
    for key in keys[:-1]:
        index: Any = _index(key) if isinstance(parent, list) else key
        child = parent[index] if isinstance(parent, list) else parent.get(index)
        if child is None and op != "add":
            raise KeyError(key)
        child = list(child) if isinstance(child, list | tuple) else dict(child or {})
        parent[index] = child
        parent = child
    last = keys[-1]
    if isinstance(parent, list):
        at = len(parent) if last == "-" and op == "add" else _index(last)
        if op == "add":
            if at > len(parent):
                raise IndexError(f"the list has {len(parent)} items")
            parent.insert(at, value)
        elif op == "replace":
            parent[at] = value
        else:
            del parent[at]
    elif op == "remove":
        del parent[last]
    else:
        if op == "replace" and last not in parent:
            raise KeyError(last)
        parent[last] = value
