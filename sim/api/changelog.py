"""What changed, in order: the bounded log behind watches, and the feed for drivers in the same process."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sim.api.errors import expired
from sim.api.resources import Resource

Json = dict[str, Any]
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(slots=True, eq=False)
class Change:
    """One committed write.

    `obj` is the object after it (for DELETED: its last state, with the resourceVersion of the deletion), `old` the
    object before (None for ADDED). Both are the stored objects: never change them.
    """

    type: ChangeType
    resource: Resource
    obj: Json
    old: Json | None
    version: int
    encodings: dict[str, bytes] = field(default_factory=dict)
    """Watch lines by form, filled by the server, so that a change is encoded once for all watchers."""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace (empty for cluster-scoped kinds) and name."""
        metadata = self.obj["metadata"]
        return metadata.get("namespace", ""), metadata["name"]


class ChangeLog:
    """The last changes of one resource, from which watches resume.

    It keeps between `capacity` and twice as many changes; `floor` is the version up to which they are forgotten.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = max(1, capacity)
        self._changes: list[Change] = []
        self._versions: list[int] = []
        self.floor = 0

    def append(self, change: Change) -> None:
        """Remember a change; versions must come in order."""
        self._changes.append(change)
        self._versions.append(change.version)
        if len(self._changes) > 2 * self._capacity:
            self.forget(self._versions[-self._capacity - 1])

    def forget(self, version: int) -> None:
        """Drop the changes up to and including `version`, as etcd's compaction does."""
        cut = bisect_right(self._versions, version)
        del self._changes[:cut]
        del self._versions[:cut]
        self.floor = max(self.floor, version)

    def since(self, version: int) -> list[Change]:
        """The changes after `version`; ApiError 410 if some of them are forgotten."""
        if version < self.floor:
            raise expired(f"too old resource version: {version} ({self.floor + 1})")
        return self._changes[bisect_right(self._versions, version) :]


class Feed:
    """Collects changes for a driver that works them off in its own time."""

    def __init__(self) -> None:
        self._changes: list[Change] = []

    def __call__(self, change: Change) -> None:
        self._changes.append(change)

    def __len__(self) -> int:
        return len(self._changes)

    def drain(self) -> list[Change]:
        """All changes since the last call, in order of their versions."""
        changes, self._changes = self._changes, []
        return changes


Subscriber = Callable[[Change], None]
