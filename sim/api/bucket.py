"""The objects of one storage (`pods`, `deployments.apps`), with the indexes that make reads cheap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Any

from sim.api.changelog import ChangeLog
from sim.api.resources import Resource
from sim.api.selectors import FieldSelector, LabelSelector

Json = dict[str, Any]
Key = tuple[str, str]


class Bucket:
    """Objects by namespace and name. They are replaced, never changed in place."""

    __slots__ = ("_by_namespace", "_by_node", "_order", "log", "resource")

    def __init__(self, resource: Resource, log_capacity: int) -> None:
        self.resource = resource
        self.log = ChangeLog(log_capacity)
        self._by_namespace: dict[str, dict[str, Json]] = {}
        self._order: list[Key] = []
        self._by_node: dict[str, dict[Key, Json]] | None = {} if resource.storage == "pods" else None

    def __len__(self) -> int:
        return len(self._order)

    def get(self, namespace: str, name: str) -> Json | None:
        """One object; the namespace of cluster-scoped kinds is the empty string."""
        return self._by_namespace.get(namespace, {}).get(name)

    def put(self, key: Key, obj: Json, old: Json | None) -> None:
        """Insert the object or replace `old`."""
        if old is None:
            insort(self._order, key)
        self._by_namespace.setdefault(key[0], {})[key[1]] = obj
        if self._by_node is not None:
            self._index_node(key, obj, old)

    def remove(self, key: Key) -> None:
        """Take an object out; it must be there."""
        objects = self._by_namespace[key[0]]
        old = objects.pop(key[1])
        if not objects:
            del self._by_namespace[key[0]]
        del self._order[bisect_left(self._order, key)]
        if self._by_node is not None:
            self._index_node(key, None, old)

    def _index_node(self, key: Key, obj: Json | None, old: Json | None) -> None:
        assert self._by_node is not None
        before = old["spec"].get("nodeName", "") if old else None
        after = obj["spec"].get("nodeName", "") if obj else None
        if before is not None and before != after:
            pods = self._by_node[before]
            del pods[key]
            if not pods:
                del self._by_node[before]
        if after is not None and obj is not None:
            self._by_node.setdefault(after, {})[key] = obj

    def on_node(self, node: str) -> list[Json]:
        """The pods bound to a node; those of the empty string are not bound yet."""
        return list((self._by_node or {}).get(node, {}).values())

    def keys(self, namespace: str | None = None, after: Key | None = None) -> Iterator[Key]:
        """Keys in order (namespace, name), of one namespace or of all, behind `after` if it is given."""
        start, end = 0, len(self._order)
        if namespace is not None:
            start = bisect_left(self._order, (namespace, ""))
            end = bisect_left(self._order, (namespace + "\0", ""))
        if after is not None:
            start = max(start, bisect_right(self._order, after))
        return iter(self._order[start:end])

    def select(
        self,
        namespace: str | None = None,
        labels: LabelSelector | None = None,
        fields: FieldSelector | None = None,
        after: Key | None = None,
    ) -> Iterator[Json]:
        """The matching objects in key order."""
        by_namespace = self._by_namespace
        for obj in self._candidates(namespace, fields, after):
            metadata = obj["metadata"]
            if labels is not None and not labels.matches(metadata.get("labels")):
                continue
            # A watcher or the caller may have written since the iteration began.
            if by_namespace.get(metadata.get("namespace", ""), {}).get(metadata["name"]) is None:
                continue
            if fields is None or fields.matches(obj):
                yield obj

    def _candidates(self, namespace: str | None, fields: FieldSelector | None, after: Key | None) -> Iterator[Json]:
        if fields is not None and self._by_node is not None:
            node = fields.equal("spec.nodeName")
            if node is not None:
                keys = sorted(self._by_node.get(node, {}))
                pods = self._by_node.get(node, {})
                for key in keys:
                    if (namespace is None or key[0] == namespace) and (after is None or key > after):
                        yield pods[key]
                return
        for ns, name in self.keys(namespace, after):
            obj = self.get(ns, name)
            if obj is not None:
                yield obj
