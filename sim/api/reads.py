"""Reading a store: objects, pages, indexes, and the changes behind watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sim.api import errors
from sim.api.bucket import Bucket, Key
from sim.api.changelog import Change, Feed, Subscriber
from sim.api.resources import NAMESPACES, PODS, Registry, Resource
from sim.api.selectors import FieldSelector, LabelSelector
from sim.api.values import as_served

Json = dict[str, Any]
Objects = list[Json]
Buckets = list[Bucket]
Changes = list[Change]


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list: `next` is the key to go on after (None at the end), `remaining` how many follow."""

    items: Objects
    version: int
    next: Key | None = None
    remaining: int = 0


class StoreReads:
    """The state of a store and all that looks at it without changing it."""

    def __init__(self, log_capacity: int) -> None:
        self.registry = Registry()
        self._log_capacity = log_capacity
        self._version = 0
        self._compacted = 0
        self._buckets: dict[str, Bucket] = {}
        self._by_uid: dict[str, tuple[Bucket, Key]] = {}
        self._dependents: dict[str, dict[tuple[str, Key], None]] = {}
        self._subscribers: list[Subscriber] = []
        self._pending: deque[Change] = deque()

    @property
    def version(self) -> int:
        """The resourceVersion of the last write."""
        return self._version

    @property
    def incarnation(self) -> str:
        """The uid of the namespace kube-system, which tells one life of a cluster from the next."""
        uid: str = self.get(NAMESPACES, "", "kube-system")["metadata"]["uid"]
        return uid

    def find(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """The object, or None."""
        obj = self.bucket(resource).get(namespace, name)
        return None if obj is None else as_served(resource, obj)

    def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """The object; ApiError 404."""
        obj = self.find(resource, namespace, name)
        if obj is None:
            raise errors.not_found(resource, name)
        return obj

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: LabelSelector | None = None,
        fields: FieldSelector | None = None,
    ) -> Objects:
        """The matching objects, ordered by namespace and name; `namespace=None` is all namespaces."""
        return self.page(resource, namespace, labels=labels, fields=fields).items

    def page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: LabelSelector | None = None,
        fields: FieldSelector | None = None,
        limit: int = 0,
        after: Key | None = None,
        version: int | None = None,
    ) -> Page:
        """At most `limit` (0: all) matching objects behind the key `after`.

        With `version` as they were then; ApiError 410 if that is forgotten, 504 if it is still to come.
        """
        bucket = self.bucket(resource)
        if version is None or version == self._version:
            found = [as_served(resource, obj) for obj in bucket.select(namespace, labels, fields, after)]
        elif version > self._version:
            raise errors.future_version(version, self._version)
        else:
            found = self._as_of(resource, version, namespace, labels, fields, after)
        version = self._version if version is None else version
        if not limit or len(found) <= limit:
            return Page(found, version)
        last = found[limit - 1]["metadata"]
        remaining = len(found) - limit
        return Page(found[:limit], version, (last.get("namespace", ""), last["name"]), remaining)

    def _as_of(
        self,
        resource: Resource,
        version: int,
        namespace: str | None,
        labels: LabelSelector | None,
        fields: FieldSelector | None,
        after: Key | None,
    ) -> Objects:
        """The objects as they were: today's, with the changes since then undone."""
        bucket = self.bucket(resource)
        before: dict[Key, Json | None] = {}
        for change in bucket.log.since(version):
            before.setdefault(change.key, change.old)
        found = {}
        for obj in bucket.select(namespace, labels, fields, after):
            key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
            if key not in before:
                found[key] = obj
        for key, old in before.items():
            if old is None or (namespace is not None and key[0] != namespace) or (after and key <= after):
                continue
            if labels is not None and not labels.matches(old["metadata"].get("labels")):
                continue
            if fields is None or fields.matches(old):
                found[key] = old
        return [as_served(resource, obj) for _, obj in sorted(found.items(), key=lambda item: item[0])]

    def count(self, resource: Resource) -> int:
        """How many objects there are."""
        return len(self.bucket(resource))

    def pods_on_node(self, node: str) -> Objects:
        """The pods bound to a node, finished ones included; `""`: the pods that are not bound."""
        return self.bucket(PODS).on_node(node)

    def owned_by(self, uid: str, resource: Resource | None = None) -> Objects:
        """The objects that name `uid` in their ownerReferences, of one resource or of all."""
        storage = resource.storage if resource else None
        return [obj for obj, kept in self._iterate_dependents(uid) if storage in {None, kept}]

    def iterate_owned_by(self, uid: str) -> Iterator[Json]:
        """The same, lazily: do not write while you iterate."""
        return (obj for obj, _ in self._iterate_dependents(uid))

    def _iterate_dependents(self, uid: str) -> Iterator[tuple[Json, str]]:
        for storage, key in self._dependents.get(uid, ()):
            obj = self._buckets[storage].get(*key)
            if obj is not None:
                yield obj, storage

    def by_uid(self, uid: str) -> tuple[Resource, Json] | None:
        """The live object with this uid."""
        place = self._by_uid.get(uid)
        if place is None:
            return None
        obj = place[0].get(*place[1])
        return None if obj is None else (place[0].resource, obj)

    def changes_since(self, resource: Resource, version: int) -> Changes:
        """The changes of a resource after `version`; ApiError 410 if they are forgotten."""
        return self.bucket(resource).log.since(version)

    def compact(self, resource: Resource | None = None) -> None:
        """Forget the changes up to now, so that older watches must list again."""
        if resource is None:
            self._compacted = self._version
        buckets = list(self._buckets.values()) if resource is None else [self.bucket(resource)]
        for bucket in buckets:
            bucket.log.forget(self._version)

    def subscribe(self, callback: Subscriber) -> None:
        """Call back after each change, in order; the change is committed already."""
        self._subscribers.append(callback)

    def unsubscribe(self, callback: Subscriber) -> None:
        """End a subscription."""
        self._subscribers.remove(callback)

    def feed(self) -> Feed:
        """A subscription that collects changes until they are drained."""
        feed = Feed()
        self.subscribe(feed)
        return feed

    def bucket(self, resource: Resource) -> Bucket:
        """The storage of a resource (for the modules of this package)."""
        bucket = self._buckets.get(resource.storage)
        if bucket is None:
            stored = self.registry.find("", "v1", "events") if resource.storage == "events" else resource
            bucket = self._buckets[resource.storage] = Bucket(stored or resource, self._log_capacity)
            bucket.log.forget(self._compacted)
        return bucket

    def storage(self, name: str) -> Bucket | None:
        """The storage of a group resource such as `pytorchjobs.kubeflow.org`, if anything was ever kept there."""
        return self._buckets.get(name)

    def namespaced_buckets(self) -> Buckets:
        """All storages of namespaced kinds, in order of their names (package-internal)."""
        return [b for _, b in sorted(self._buckets.items()) if b.resource.namespaced]
