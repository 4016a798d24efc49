"""The objects of one kind in a cluster, from list, watch and the answers to our own writes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]
Place = tuple[str, str]
# Removals that are kept in mind, for answers that are still on their way.
_REMOVALS = 4096


def place_of(obj: Mapping[str, Any]) -> Place:
    """Returns namespace and name."""
    metadata = obj.get("metadata", {})
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


class ObjectCache:
    """The newest state known of each object, by namespace and name.

    The watch and the answers to our own requests come in any order: what is older than the known state of the same
    object, or than its removal, is passed over. Resource versions are compared as numbers, which Kubernetes
    guarantees since 1.35; where they are none, what comes last counts.
    """

    def __init__(self) -> None:
        self._objects: dict[Place, Json] = {}
        self._removed: dict[Place, tuple[str, float]] = {}  # uid, and up to which version its states are passed over

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, place: Place) -> Json | None:
        """Returns an object, or None."""
        return self._objects.get(place)

    def put(self, obj: Json) -> bool:
        """Takes a state; returns whether it is news."""
        place = place_of(obj)
        known, version = self._objects.get(place), _version(obj)
        if known is not None and _uid(known) == _uid(obj) and _not_older(_version(known), version):
            return False
        uid, until = self._removed.get(place, ("", 0))
        if uid == _uid(obj) and _not_older(until, version):
            return False
        self._removed.pop(place, None)
        self._objects[place] = obj
        return True

    def removed(self, obj: Json) -> bool:
        """Takes the last state of an object that was deleted, or left the selection; returns whether it was known."""
        place, version = place_of(obj), _version(obj)
        self._remember(place, _uid(obj), math.inf if version is None else version)
        known = self._objects.get(place)
        if known is None or _uid(known) != _uid(obj):
            return False
        later = _version(known)
        if version is not None and later is not None and later > version:
            return False  # it has come back since
        del self._objects[place]
        return True

    def absent(self, place: Place) -> bool:
        """There is no such object; returns whether one was known."""
        known = self._objects.pop(place, None)
        if known is None:
            return False
        self._remember(place, _uid(known), math.inf)
        return True

    def _remember(self, place: Place, uid: str, until: float) -> None:
        before = self._removed.pop(place, ("", 0))
        self._removed[place] = (uid, max(until, before[1]) if before[0] == uid else until)
        while len(self._removed) > _REMOVALS:
            del self._removed[next(iter(self._removed))]

    def replace(self, objects: Iterable[Json], resource_version: str) -> set[Place]:
        """Takes everything that exists as of a version; returns what changed. Younger answers to our writes stay."""
        found = {place_of(obj): obj for obj in objects}
        changed = {place for place, obj in found.items() if self.put(obj)}
        as_of = _number(resource_version)
        for place in [p for p in self._objects if p not in found]:
            version = _version(self._objects[place])
            if as_of is None or version is None or version <= as_of:
                self._remember(place, _uid(self._objects.pop(place)), math.inf if as_of is None else as_of)
                changed.add(place)
        return changed


def _uid(obj: Json) -> str:
    return str(obj.get("metadata", {}).get("uid", ""))


def _number(version: Any) -> int | None:
    return int(version) if isinstance(version, str) and version.isdecimal() else None


def _version(obj: Mapping[str, Any]) -> int | None:
    return _number(obj.get("metadata", {}).get("resourceVersion"))


def _not_older(known: float | None, version: int | None) -> bool:
    return known is not None and version is not None and known >= version
