"""Deletion and its consequences: finalizers, grace periods, garbage collection by owners, namespace termination.

Upstream does this in the API server (registry/generic), the garbage collector and the namespace controller, all
asynchronously; here the consequences of a write run to their end before the write returns.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from sim.api.changelog import Change
from sim.api.defaults import CRD_FINALIZER
from sim.api.metadata import FOREGROUND, ORPHAN
from sim.api.resources import CUSTOM_RESOURCE_DEFINITIONS, JOBS, NAMESPACES, PODS
from sim.api.values import rfc3339

if TYPE_CHECKING:
    from sim.api.bucket import Bucket
    from sim.api.store import Propagation, Store

Json = dict[str, Any]


class Collector:
    """Works off what writes leave to do; belongs to one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._work: deque[tuple[str, str]] = deque()
        self._running = False

    # What the store calls

    def delete(
        self, bucket: Bucket, obj: Json, now: float, grace: int | None, propagation: Propagation | None
    ) -> tuple[Json, bool]:
        """Begin a deletion: answers the object's state after it and whether it is gone."""
        metadata = obj["metadata"]
        finalizers = self._finalizers(bucket, metadata, propagation)
        seconds = self._grace(bucket, obj, grace)
        if bucket.resource == NAMESPACES:
            return self._terminate_namespace(bucket, obj, now), False
        if not finalizers and seconds == 0:
            return self._erase(bucket, obj), True
        marked = dict(metadata)
        if "deletionTimestamp" not in metadata:
            marked["deletionTimestamp"] = rfc3339(now + seconds)
            marked["deletionGracePeriodSeconds"] = seconds
            if "generation" in metadata:
                marked["generation"] = metadata["generation"] + 1
        elif seconds < metadata.get("deletionGracePeriodSeconds", 0):
            marked["deletionTimestamp"] = rfc3339(now + seconds)
            marked["deletionGracePeriodSeconds"] = seconds
        _set_finalizers(marked, finalizers)
        if marked == metadata:
            return obj, False
        return self._store.commit("MODIFIED", bucket, {**obj, "metadata": marked}, obj), False

    def replace(self, bucket: Bucket, new: Json, old: Json) -> Json:
        """Commit an update; an object whose last finalizer goes with it goes too."""
        metadata = new["metadata"]
        pending = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" in metadata and not pending and not _holds_content(bucket, new):
            return self._erase(bucket, new)
        return self._store.commit("MODIFIED", bucket, new, old)

    def note(self, change: Change, bucket: Bucket) -> None:
        """Remember what a change may have consequences for."""
        metadata = change.obj["metadata"]
        if change.type == "DELETED":
            self._work.append(("orphaned", metadata["uid"]))
            self._note_unblocked(metadata)
            namespace = metadata.get("namespace")
            if namespace:
                self._note_container(NAMESPACES.storage, namespace)
            if bucket.resource.custom:
                self._note_container(CUSTOM_RESOURCE_DEFINITIONS.storage, bucket.resource.group_resource)
            return
        old = change.old["metadata"] if change.old else {}
        if metadata.get("ownerReferences") != old.get("ownerReferences"):
            self._work.append(("dependent", metadata["uid"]))
            self._note_unblocked(old)
        if "deletionTimestamp" in metadata:
            self._work.append(("finalise", metadata["uid"]))

    def _note_unblocked(self, metadata: Json) -> None:
        for reference in metadata.get("ownerReferences", ()):
            if reference.get("blockOwnerDeletion"):
                self._work.append(("unblock", reference["uid"]))

    def run(self, now: float) -> None:
        """Work until nothing is left; a nested call leaves the work to the outer one."""
        if self._running:
            return
        self._running = True
        try:
            while self._work:
                what, uid = self._work.popleft()
                if what == "orphaned":
                    for dependent in self._store.owned_by(uid):
                        self._check_owners(dependent["metadata"]["uid"], now)
                elif what == "dependent":
                    self._check_owners(uid, now)
                elif what == "unblock":
                    self._unblock(uid)
                else:
                    self._finalise(uid, now)
        finally:
            self._running = False

    # Deletion

    def _erase(self, bucket: Bucket, obj: Json) -> Json:
        metadata = obj["metadata"]
        old = bucket.get(metadata.get("namespace", ""), metadata["name"])
        return self._store.commit("DELETED", bucket, obj, old)

    def _finalizers(self, bucket: Bucket, metadata: Json, propagation: Propagation | None) -> list[str]:
        finalizers = list(metadata.get("finalizers") or ())
        if propagation is None and bucket.resource == JOBS:
            propagation = None if {ORPHAN, FOREGROUND} & set(finalizers) else "Orphan"
        if propagation is not None:
            wanted = {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(propagation)
            finalizers = [f for f in finalizers if f not in {ORPHAN, FOREGROUND}]
            if wanted and (wanted == FOREGROUND or self._store.owned_by(metadata["uid"])):
                finalizers.append(wanted)
        return finalizers

    def _grace(self, bucket: Bucket, obj: Json, grace: int | None) -> int:
        """Seconds that a pod's kubelet has: none where no kubelet runs it or it has finished."""
        if bucket.resource != PODS or not self._store.graceful_pods:
            return 0
        spec, phase = obj["spec"], obj.get("status", {}).get("phase")
        if not spec.get("nodeName") or phase in {"Succeeded", "Failed"}:
            return 0
        if grace is None:
            grace = spec.get("terminationGracePeriodSeconds", 30)
        return max(0, int(grace))

    # Owners

    def _check_owners(self, uid: str, now: float) -> None:
        """Collect an object that has no owner left; drop references to owners that are gone if others remain."""
        found = self._locate(uid)
        if found is None:
            return
        bucket, obj = found
        metadata = obj["metadata"]
        references = metadata.get("ownerReferences", ())
        if not references:
            return
        solid, waiting, dangling = [], [], []
        for reference in references:
            owner = self._owner(reference, metadata.get("namespace", ""))
            if owner is None:
                dangling.append(reference)
            elif reference.get("blockOwnerDeletion") and _deletes_foreground(owner):
                waiting.append(reference)
            else:
                solid.append(reference)
        if solid:
            if dangling or waiting:
                self._write_metadata(bucket, obj, ownerReferences=solid)
        elif "deletionTimestamp" not in metadata:
            nested = bool(waiting and self._store.owned_by(uid))
            self.delete(bucket, obj, now, None, "Foreground" if nested else "Background")

    def _owner(self, reference: Json, namespace: str) -> Json | None:
        """The live owner; None only if it is certainly absent. An unserved kind proves nothing: `{}`."""
        resource = self._store.registry.by_kind(reference["apiVersion"], reference["kind"])
        if resource is None:
            return {}
        owner = self._store.find(resource, namespace if resource.namespaced else "", reference["name"])
        if owner is None or owner["metadata"]["uid"] != reference["uid"]:
            return None
        return owner

    def _finalise(self, uid: str, now: float) -> None:
        """Do what the garbage collector's and the built-in finalizers of a terminating object stand for."""
        found = self._locate(uid)
        if found is None or "deletionTimestamp" not in found[1]["metadata"]:
            return
        bucket, obj = found
        if bucket.resource == NAMESPACES:
            self._empty_namespace(bucket, obj, now)
            return
        finalizers = obj["metadata"].get("finalizers") or ()
        if ORPHAN in finalizers:
            for dependent in self._store.owned_by(uid):
                self._disown(dependent, uid)
            self._drop_finalizer(uid, ORPHAN)
        elif FOREGROUND in finalizers:
            self._delete_dependents(uid, now)
        elif CRD_FINALIZER in finalizers:
            self._empty_crd(uid, obj, now)

    def _delete_dependents(self, uid: str, now: float) -> None:
        for dependent in self._store.owned_by(uid):
            self._check_owners(dependent["metadata"]["uid"], now)
        self._unblock(uid)

    def _unblock(self, uid: str) -> None:
        """End a foreground deletion that no dependent blocks any more."""
        found = self._locate(uid)
        if found is None or not _deletes_foreground(found[1]):
            return
        blocking = any(
            reference["uid"] == uid and reference.get("blockOwnerDeletion")
            for dependent in self._store.iterate_owned_by(uid)
            for reference in dependent["metadata"].get("ownerReferences", ())
        )
        if not blocking:
            self._drop_finalizer(uid, FOREGROUND)

    def _disown(self, dependent: Json, uid: str) -> None:
        found = self._locate(dependent["metadata"]["uid"])
        if found is None:
            return
        bucket, obj = found
        references = [r for r in obj["metadata"]["ownerReferences"] if r["uid"] != uid]
        self._write_metadata(bucket, obj, ownerReferences=references)

    # Namespaces and CustomResourceDefinitions: gone when their content is

    def _note_container(self, storage: str, name: str) -> None:
        resource = NAMESPACES if storage == NAMESPACES.storage else CUSTOM_RESOURCE_DEFINITIONS
        container = self._store.find(resource, "", name)
        if container is not None and "deletionTimestamp" in container["metadata"]:
            self._work.append(("finalise", container["metadata"]["uid"]))

    def _terminate_namespace(self, bucket: Bucket, obj: Json, now: float) -> Json:
        metadata = obj["metadata"]
        if "deletionTimestamp" in metadata:
            return obj
        marked = {**metadata, "deletionTimestamp": rfc3339(now)}
        new = {**obj, "metadata": marked, "status": {**obj.get("status", {}), "phase": "Terminating"}}
        return self._store.commit("MODIFIED", bucket, new, obj)

    def _empty_namespace(self, bucket: Bucket, obj: Json, now: float) -> None:
        namespace = obj["metadata"]["name"]
        left = False
        for content in self._store.namespaced_buckets():
            for key in content.keys(namespace):
                found = content.get(*key)
                if found is not None and "deletionTimestamp" not in found["metadata"]:
                    self.delete(content, found, now, None, "Background")
                left = left or content.get(*key) is not None
        current = bucket.get("", namespace)
        if not left and current is not None and not current["metadata"].get("finalizers"):
            self._erase(bucket, {**current, "spec": {}})

    def _empty_crd(self, uid: str, crd: Json, now: float) -> None:
        spec = crd["spec"]
        content = self._store.storage(f"{spec['names']['plural']}.{spec['group']}")
        for key in list(content.keys()) if content else ():
            assert content is not None
            found = content.get(*key)
            if found is not None and "deletionTimestamp" not in found["metadata"]:
                self.delete(content, found, now, None, "Background")
        if not content:
            self._drop_finalizer(uid, CRD_FINALIZER)

    # Small writes

    def _locate(self, uid: str) -> tuple[Bucket, Json] | None:
        found = self._store.by_uid(uid)
        return None if found is None else (self._store.bucket(found[0]), found[1])

    def _drop_finalizer(self, uid: str, finalizer: str) -> None:
        found = self._locate(uid)
        if found is None:
            return
        bucket, obj = found
        left = [f for f in obj["metadata"].get("finalizers", ()) if f != finalizer]
        self._write_metadata(bucket, obj, finalizers=left)

    def _write_metadata(self, bucket: Bucket, obj: Json, **changed: list[Any]) -> None:
        metadata = {**obj["metadata"], **changed}
        for key, value in changed.items():
            if not value:
                del metadata[key]
        self.replace(bucket, {**obj, "metadata": metadata}, obj)


def _set_finalizers(metadata: Json, finalizers: list[str]) -> None:
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def _holds_content(bucket: Bucket, obj: Json) -> bool:
    return bucket.resource == NAMESPACES and bool(obj.get("spec", {}).get("finalizers"))


def _deletes_foreground(owner: Json) -> bool:
    metadata = owner.get("metadata") or {}
    return "deletionTimestamp" in metadata and FOREGROUND in (metadata.get("finalizers") or ())
