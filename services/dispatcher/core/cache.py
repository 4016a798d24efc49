"""The objects of one kind in a cluster, from list, watch and the answers to our own writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]
Place = tuple[str, str]


def place_of(obj: Mapping[str, Any]) -> Place:
    """Returns namespace and name."""
    metadata = obj.get("metadata", {})
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


class ObjectCache:
    """The newest state known of each object, by namespace and name.

    An answer to a write may be newer than what the watch has told so far, so what is older than the known state of
    the same object is passed over. Resource versions are compared as numbers, which Kubernetes guarantees since 1.35;
    where they are none, what comes last counts.
    """

    def __init__(self) -> None:
        self._objects: dict[Place, Json] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, place: Place) -> Json | None:
        """Returns an object, or None."""
        return self._objects.get(place)

    def put(self, obj: Json) -> bool:
        """Takes a state; returns whether it is news."""
        place = place_of(obj)
        known = self._objects.get(place)
        if known is not None and _uid(known) == _uid(obj) and _not_older(known, obj):
            return False
        self._objects[place] = obj
        return True

    def drop(self, place: Place, uid: str = "") -> bool:
        """Forgets an object (of that uid, if given); returns whether it was known."""
        known = self._objects.get(place)
        if known is None or (uid and _uid(known) != uid):
            return False
        del self._objects[place]
        return True

    def replace(self, objects: Iterable[Json], resource_version: str) -> set[Place]:
        """Takes everything that exists as of a version; returns what changed. Younger answers to our writes stay."""
        found = {place_of(obj): obj for obj in objects}
        changed = {place for place, obj in found.items() if self.put(obj)}
        as_of = _number(resource_version)
        for place in [p for p in self._objects if p not in found]:
            version = _number(self._objects[place].get("metadata", {}).get("resourceVersion"))
            if as_of is None or version is None or version <= as_of:
                del self._objects[place]
                changed.add(place)
        return changed


def _uid(obj: Json) -> str:
    return str(obj.get("metadata", {}).get("uid", ""))


def _number(version: Any) -> int | None:
    return int(version) if isinstance(version, str) and version.isdecimal() else None


def _not_older(known: Json, obj: Json) -> bool:
    ours, theirs = (_number(o.get("metadata", {}).get("resourceVersion")) for o in (known, obj))
    return ours is not None and theirs is not None and ours >= theirs
