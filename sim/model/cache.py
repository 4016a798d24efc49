"""The objects of a cluster that is somewhere else, as far as they are known here: a View that is kept by changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sim.model.api import Event, Json, Kind, Ref, ref_of
from sim.model.objects import POD, node_of

Events = list[Event]


class Cache:
    """Objects by kind and name, with the indexes of a View.

    Changes may come twice (an answer to a write, and later the watch) and out of order between the two: an object
    with a resourceVersion below the known one is ignored.
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._objects: dict[Kind, dict[tuple[str, str], Json]] = {kind: {} for kind in kinds}
        self._owned: dict[str, dict[Ref, None]] = {}
        self._on_node: dict[str, dict[Ref, None]] = {}
        self._gone: dict[str, int] = {}  # the last version of deleted objects by uid, until the next list

    # View

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Json | None:
        """One object, or None."""
        return self._objects.get((api_version, kind), {}).get((namespace, name))

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Json]:
        """All objects of a kind, of one namespace if given, with all of the labels if given."""
        found = sorted(self._objects.get((api_version, kind), {}).items())
        return [
            obj
            for (place, _), obj in found
            if (namespace is None or place == namespace)
            and (not labels or labels.items() <= (obj["metadata"].get("labels") or {}).items())
        ]

    def owned_by(self, uid: str, api_version: str, kind: str) -> Sequence[Json]:
        """Objects of a kind with an owner reference to `uid`."""
        refs = sorted(ref for ref in self._owned.get(uid, ()) if (ref.api_version, ref.kind) == (api_version, kind))
        return [obj for ref in refs if (obj := self.get(*ref)) is not None]

    def pods_on(self, node: str) -> Sequence[Json]:
        """Pods bound to a node."""
        return [obj for ref in sorted(self._on_node.get(node, ())) if (obj := self.get(*ref)) is not None]

    def count(self, kind: Kind) -> int:
        """How many objects of a kind are known."""
        return len(self._objects.get(kind, ()))

    # Changes

    def clear(self, kind: Kind) -> None:
        """Forgets the objects of a kind that nobody watches."""
        for (namespace, name), obj in self._objects.get(kind, {}).items():
            self._unindex(Ref(*kind, namespace, name), obj)
        self._objects[kind] = {}

    def put(self, obj: Json) -> Events:
        """Takes over an object; what that changes, nothing if it is known already.

        Another object of the same name counts as the old one's deletion and the new one's addition.
        """
        ref = ref_of(obj)
        kind = (ref.api_version, ref.kind)
        objects = self._objects.setdefault(kind, {})
        old = objects.get((ref.namespace, ref.name))
        version, uid = _version(obj), obj["metadata"].get("uid", "")
        if version <= self._gone.get(uid, -1) or (old is not None and version <= _version(old)):
            return []
        events: Events = []
        if old is not None and old["metadata"].get("uid") != uid:
            events, old = self.remove(old), None
        if old is not None and _index_keys(old) != _index_keys(obj):
            self._unindex(ref, old)
        objects[ref.namespace, ref.name] = obj
        self._index(ref, obj)
        return [*events, Event(kind, obj, old)]

    def remove(self, obj: Json) -> Events:
        """Forgets an object, given its last state; nothing if another of its name is known, or none."""
        ref = ref_of(obj)
        kind = (ref.api_version, ref.kind)
        objects = self._objects.get(kind, {})
        old = objects.get((ref.namespace, ref.name))
        uid = obj["metadata"].get("uid", "")
        self._gone[uid] = max(_version(obj), self._gone.get(uid, -1))
        if old is None or old["metadata"].get("uid") != uid:
            return []
        del objects[ref.namespace, ref.name]
        self._unindex(ref, old)
        return [Event(kind, None, old)]

    def replace(self, kind: Kind, items: Iterable[Json], version: int) -> Events:
        """Takes over a whole list as of a version; objects that it lacks and that are not newer are gone."""
        listed = {(o["metadata"].get("namespace", ""), o["metadata"]["name"]): o for o in items}
        known = self._objects.setdefault(kind, {})
        events: Events = []
        for key, old in sorted(known.items()):
            same = key in listed and listed[key]["metadata"].get("uid") == old["metadata"].get("uid")
            if not same and _version(old) <= version:
                events += self.remove(old)
        for _, obj in sorted(listed.items()):
            events += self.put(obj)
        self._gone = {uid: at for uid, at in self._gone.items() if at > version}
        return events

    def _index(self, ref: Ref, obj: Json) -> None:
        owners, node = _index_keys(obj)
        for uid in owners:
            self._owned.setdefault(uid, {})[ref] = None
        if node:
            self._on_node.setdefault(node, {})[ref] = None

    def _unindex(self, ref: Ref, obj: Json) -> None:
        owners, node = _index_keys(obj)
        for index, keys in ((self._owned, owners), (self._on_node, (node,) if node else ())):
            for key in keys:
                refs = index.get(key, {})
                refs.pop(ref, None)
                if not refs:
                    index.pop(key, None)


def _index_keys(obj: Json) -> tuple[tuple[str, ...], str]:
    owners = tuple(owner.get("uid", "") for owner in obj["metadata"].get("ownerReferences") or ())
    return owners, node_of(obj) if (obj["apiVersion"], obj["kind"]) == POD else ""


def _version(obj: Json) -> int:
    """The resourceVersion as a number; API servers compare them so themselves since Kubernetes 1.35."""
    text = str(obj["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0
