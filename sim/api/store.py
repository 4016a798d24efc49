"""One cluster's objects, with the semantics of kube-apiserver and the garbage collector, and nothing else.

The store is pure: no clock (writes take `now`, epoch seconds), no I/O, no randomness (uids come from the seed and a
counter). Objects are plain JSON dicts and **immutable once stored**: reads return the stored dict itself, a write
replaces it. Never change what a read returned.

Every write is followed at once by its consequences (owners' garbage collection, namespace termination), then by the
subscribers. A subscriber may write; its changes are delivered after the present one, so all see one order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sim.api import defaults, errors, managed, structural, validation
from sim.api.bucket import Bucket, Key
from sim.api.changelog import Change, ChangeType
from sim.api.collector import Collector
from sim.api.metadata import (
    check_preconditions,
    check_version,
    kept_metadata,
    new_metadata,
    wants_new_generation,
)
from sim.api.patches import json_patch, merge_patch, strategic_merge_patch
from sim.api.reads import Objects, Page, StoreReads
from sim.api.resources import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    PODS,
    PRIORITY_CLASSES,
    Resource,
)
from sim.api.schema import Struct, root_schema
from sim.api.values import as_served, as_stored, copy_json, make_suffix, make_uid, rfc3339

Json = dict[str, Any]
Propagation = Literal["Background", "Foreground", "Orphan"]
PatchType = Literal["merge", "strategic", "json"]

SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


@dataclass(frozen=True, slots=True)
class Deleted:
    """Outcome of a delete: the last state, and whether the object is gone or only marked."""

    obj: Json
    gone: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """Outcome of a server-side apply."""

    obj: Json
    created: bool


class Store(StoreReads):
    """The objects of one cluster.

    `name` and `seed` fix all uids and generated names. `log_capacity` is how many changes per resource watches can
    resume over. With `graceful_pods` a bound pod that is deleted gets a deletionTimestamp and stays until its
    kubelet deletes it with `grace_period=0`, as on a real cluster; without, it goes at once.
    """

    def __init__(
        self,
        name: str,
        *,
        now: float,
        seed: int = 0,
        log_capacity: int = 4096,
        graceful_pods: bool = True,
    ) -> None:
        super().__init__(log_capacity)
        self.name = name
        self.graceful_pods = graceful_pods
        self._seed = f"{seed}/{name}"
        self._counter = 0
        self._schemas: dict[Resource, Struct] = {}
        self._notifying = False
        self._collector = Collector(self)
        for namespace in SYSTEM_NAMESPACES:
            self.create(
                NAMESPACES,
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
                now=now,
            )
        for priority_class, value in SYSTEM_PRIORITIES.items():
            self.create(PRIORITY_CLASSES, _priority_class(priority_class, value), now=now)

    def create(
        self,
        resource: Resource,
        obj: Json,
        *,
        now: float,
        namespace: str | None = None,
        manager: str = "",
        dry_run: bool = False,
    ) -> Json:
        """Create an object and return it with its system fields.

        `manager` names who owns the fields (managedFields); without it ownership is not tracked, which is what
        controllers in this process use. ApiError 404 (namespace), 409 (exists), 403 (namespace terminating),
        400/422 (malformed, invalid).
        """
        given = obj.get("metadata") if isinstance(obj, dict) else None
        if isinstance(given, dict) and given.get("resourceVersion"):
            raise errors.ApiError(500, "", "resourceVersion should not be set on objects to be created")
        return self._create(resource, obj, now, namespace, manager, dry_run, None)

    def _create(
        self,
        resource: Resource,
        obj: Json,
        now: float,
        namespace: str | None,
        manager: str,
        dry_run: bool,
        managed_fields: Objects | None,
    ) -> Json:
        new = as_stored(resource, validation.well_formed(resource, copy_json(obj), namespace))
        metadata = new["metadata"]
        self._counter += 1
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + make_suffix(self._seed, self._counter)
        namespace = metadata.get("namespace", "")
        if resource.custom:
            new = structural.complete(self._openapi(resource), new)
        self._check_namespace(resource, namespace, metadata.get("name", ""))
        new["metadata"] = new_metadata(resource, metadata, make_uid(self._seed, self._counter), now)
        if resource.custom:
            structural.check(resource, self._openapi(resource), new)
        defaults.for_create(resource, new)
        validation.check_create(resource, new, self.registry)
        if managed_fields is not None:
            new["metadata"]["managedFields"] = managed_fields
        elif manager:
            new = managed.track_update(self.schema(resource), resource, None, new, manager, "", now)
        defaults.admit(resource, new, self)
        key = (namespace, new["metadata"]["name"])
        bucket = self.bucket(resource)
        if bucket.get(*key) is not None:
            raise errors.already_exists(resource, key[1])
        if dry_run:
            return as_served(resource, new)
        new = self.commit("ADDED", bucket, new, None)
        self.settle(now)
        return as_served(resource, new)

    def update(
        self,
        resource: Resource,
        obj: Json,
        *,
        now: float,
        namespace: str | None = None,
        subresource: str = "",
        manager: str = "",
        dry_run: bool = False,
    ) -> Json:
        """Replace an object (PUT); with `subresource="status"` only its status.

        A resourceVersion in `obj` must be the current one (409); custom resources demand it (422).
        """
        new = validation.well_formed(resource, copy_json(obj), namespace)
        metadata = new["metadata"]
        name = metadata.get("name", "")
        old = self.get(resource, metadata.get("namespace", ""), name)
        if metadata.get("uid") and metadata["uid"] != old["metadata"]["uid"]:
            why = (
                f"Precondition failed: UID in precondition: {metadata['uid']}, "
                f"UID in object meta: {old['metadata']['uid']}"
            )
            raise errors.conflict(resource, name, why)
        check_version(resource, name, metadata.get("resourceVersion"), old, required=resource.custom)
        return self._replace(resource, new, old, subresource, manager, now, dry_run)

    def update_status(
        self, resource: Resource, namespace: str, name: str, status: Json, *, now: float, manager: str = ""
    ) -> Json:
        """Replace the status of an object, whatever its resourceVersion is: the controllers' short way."""
        old = self.get(resource, namespace, name)
        return self._replace(resource, {**old, "status": status}, old, "status", manager, now, False)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        *,
        now: float,
        type: PatchType = "merge",
        subresource: str = "",
        manager: str = "",
        dry_run: bool = False,
    ) -> Json:
        """Change an object by a merge patch, a strategic merge patch (builtin kinds) or a JSON patch (a list)."""
        old = self.get(resource, namespace, name)
        if type == "json":
            new = json_patch(old, patch)
        elif type == "strategic":
            new = strategic_merge_patch(resource, old, patch)
        else:
            new = merge_patch(old, patch)
        new = validation.well_formed(resource, new, namespace, name)
        self._check_patched(resource, new, old)
        return self._replace(resource, new, old, subresource, manager, now, dry_run)

    def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        config: Json,
        *,
        now: float,
        manager: str,
        force: bool = False,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Applied:
        """Server-side apply by `manager`: create the object, or make it what `config` says.

        409 with FieldManagerConflict causes if another manager owns a field that would change, unless `force`.
        A resourceVersion in `config` must be that of an existing object (409), and does not matter for a new one; a
        uid in `config` forbids creation (409) and must be that of an existing object (422). So "1" as
        resourceVersion means create only, and uid with resourceVersion means update only.
        """
        validation.check_applied(resource, config, name)
        config = validation.well_formed(resource, config, namespace or None, name)
        live = self.find(resource, namespace, name)
        schema = self.schema(resource)
        if live is None and subresource:
            raise errors.not_found(resource, name)
        if live is None and config["metadata"].get("uid"):
            uid = config["metadata"]["uid"]
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise errors.conflict(resource, name, why)
        merged = managed.apply(schema, resource, live, config, manager, subresource, now, force=force)
        if live is None:
            entries = merged["metadata"].get("managedFields", [])
            obj = self._create(resource, merged, now, namespace or None, manager, dry_run, entries)
            return Applied(obj, created=True)
        version = config["metadata"].get("resourceVersion")
        if version:
            merged["metadata"]["resourceVersion"] = version
        self._check_patched(resource, merged, live)
        return Applied(self._replace(resource, merged, live, subresource, "", now, dry_run), created=False)

    def _openapi(self, resource: Resource) -> Json:
        return structural.openapi_schema(self.registry.crd_version(resource))

    def schema(self, resource: Resource) -> Struct:
        """How the fields of a resource merge."""
        schema = self._schemas.get(resource)
        if schema is None:
            schema = root_schema(resource, self.registry.crd_version(resource))
            self._schemas[resource] = schema
        return schema

    def bind(self, namespace: str, name: str, node: str, *, now: float) -> Json:
        """Bind a pod to a node (the `binding` subresource); 409 if it is bound already."""
        old = self.get(PODS, namespace, name)
        bound = old["spec"].get("nodeName")
        if bound:
            raise errors.conflict(PODS, name, f'pod {name} is already assigned to node "{bound}"')
        if old["metadata"].get("deletionTimestamp"):
            raise errors.conflict(PODS, name, f"pod {name} is being deleted, cannot be assigned to a host")
        status = dict(old.get("status") or {})
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(now)}
        others = [c for c in status.get("conditions", ()) if c["type"] != "PodScheduled"]
        status["conditions"] = [*others, scheduled]
        new = {**old, "spec": {**old["spec"], "nodeName": node}, "status": status}
        new = self.commit("MODIFIED", self.bucket(PODS), new, old)
        self.settle(now)
        return new

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        now: float,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period: int | None = None,
        propagation: Propagation | None = None,
        dry_run: bool = False,
    ) -> Deleted:
        """Delete an object, or mark it where finalizers or a pod's grace period hold it.

        `uid` and `resource_version` are preconditions (409). `propagation` says what becomes of the dependents;
        None is the kind's default (Background; Orphan for batch/v1 Job, as upstream).
        """
        old = self.get(resource, namespace, name)
        check_preconditions(resource, old, uid, resource_version)
        if dry_run:
            return Deleted(old, gone=False)
        obj, gone = self._collector.delete(self.bucket(resource), old, now, grace_period, propagation)
        self.settle(now)
        return Deleted(as_served(resource, obj), gone)

    # Inside

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        if not resource.namespaced:
            return
        owner = self.find(NAMESPACES, "", namespace)
        if owner is None:
            raise errors.not_found(NAMESPACES, namespace)
        if owner["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = errors.cause(
                "NamespaceTerminating", "metadata.namespace", f"namespace {namespace} is being terminated"
            )
            raise errors.forbidden(resource, name, why, [cause])

    def _check_patched(self, resource: Resource, new: Json, old: Json) -> None:
        name = old["metadata"]["name"]
        check_version(resource, name, new["metadata"].get("resourceVersion"), old, required=False)
        uid = new["metadata"].get("uid", old["metadata"]["uid"])
        if uid != old["metadata"]["uid"]:
            message = f'Invalid value: "{uid}": field is immutable'
            raise errors.invalid(resource, name, [errors.cause("FieldValueInvalid", "metadata.uid", message)])

    def _replace(
        self,
        resource: Resource,
        new: Json,
        old: Json,
        subresource: str,
        manager: str,
        now: float,
        dry_run: bool,
    ) -> Json:
        if resource.custom:
            new = structural.complete(self._openapi(resource), new)
            structural.check(resource, self._openapi(resource), new)
        new = validation.restrict(resource, new, old, subresource)
        new["metadata"] = kept_metadata(new["metadata"], old["metadata"])
        if subresource == "status":
            defaults.for_status(resource, new)
        else:
            defaults.for_update(resource, new, old)
            validation.check_update(resource, new, old)
            if wants_new_generation(resource, new, old):
                new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if manager:
            schema = self.schema(resource)
            new = managed.track_update(schema, resource, old, new, manager, subresource, now)
        return self._store_changed(resource, new, old, now, dry_run)

    def _store_changed(self, resource: Resource, new: Json, old: Json, now: float, dry_run: bool) -> Json:
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if new == old or managed.same_but_times(new, old):
            return old
        if dry_run:
            return new
        bucket = self.bucket(resource)
        stored = bucket.get(old["metadata"].get("namespace", ""), old["metadata"]["name"])
        assert stored is not None
        new = self._collector.replace(bucket, as_stored(resource, new), stored)
        self.settle(now)
        return as_served(resource, new)

    def commit(self, type: ChangeType, bucket: Bucket, obj: Json, old: Json | None) -> Json:
        """Give the object the next resourceVersion, store (or erase) it and queue the change (package-internal)."""
        self._version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        if type == "DELETED":
            bucket.remove(key)
            del self._by_uid[metadata["uid"]]
            self._index_owners(bucket, key, (), metadata.get("ownerReferences", ()))
        else:
            bucket.put(key, obj, old)
            self._by_uid[metadata["uid"]] = (bucket, key)
            before = old["metadata"].get("ownerReferences", ()) if old else ()
            after = metadata.get("ownerReferences", ())
            if before != after:
                self._index_owners(bucket, key, after, before)
        change = Change(type, bucket.resource, obj, old, self._version)
        bucket.log.append(change)
        self._pending.append(change)
        if bucket.resource.storage == CUSTOM_RESOURCE_DEFINITIONS.storage:
            self._serve_crd(change)
        self._collector.note(change, bucket)
        return obj

    def _serve_crd(self, change: Change) -> None:
        self._schemas.clear()
        if change.type == "DELETED":
            for resource in self.registry.remove_crd(change.obj):
                self._buckets.pop(resource.storage, None)
        elif change.old is None or change.old["spec"] != change.obj["spec"]:
            self.registry.add_crd(change.obj)

    def _index_owners(self, bucket: Bucket, key: Key, after: Iterable[Json], before: Iterable[Json]) -> None:
        place = (bucket.resource.storage, key)
        for reference in before:
            dependents = self._dependents.get(reference["uid"])
            if dependents is not None:
                dependents.pop(place, None)
                if not dependents:
                    del self._dependents[reference["uid"]]
        for reference in after:
            self._dependents.setdefault(reference["uid"], {})[place] = None

    def settle(self, now: float) -> None:
        """Run the collector to its end, then tell the subscribers (package-internal)."""
        self._collector.run(now)
        if self._notifying:
            return
        self._notifying = True
        try:
            while self._pending:
                change = self._pending.popleft()
                for callback in tuple(self._subscribers):
                    callback(change)
        finally:
            self._notifying = False


def _priority_class(name: str, value: int) -> Json:
    return {
        "apiVersion": PRIORITY_CLASSES.api_version,
        "kind": PRIORITY_CLASSES.kind,
        "metadata": {"name": name},
        "value": value,
    }


__all__ = ["Applied", "Deleted", "Page", "PatchType", "Propagation", "Store"]
