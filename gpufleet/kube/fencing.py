"""Writes that a late writer cannot win: the rules at the cluster.

Every object carries a :class:`Stamp` (log, epoch, version) in an annotation; whoever writes compares first.
Between reading and writing the object may change, so each write holds the server to what was read:

- create: apply with resourceVersion "1", which no object that exists can have: 409 if there is one;
- update: apply with the uid and the resourceVersion that were read: refused (``stale``) if it has changed, is
  gone or is another one by now. The resourceVersion alone would create a deleted object again;
- delete: uid and resourceVersion as preconditions.

Objects of a job name its fence, a small ConfigMap, as their owner. Taking the job away starts with deleting the
fence: what a late writer creates after that names an owner that does not exist, and the cluster's garbage
collector removes it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gpufleet.kube.client import Json, KubeClient, Propagation
from gpufleet.kube.errors import UNREADABLE, ApiStatusError
from gpufleet.kube.resources import identity
from gpufleet.model.names import VERSION_ANNOTATION

NEVER_EXISTING_VERSION = "1"


class Stamp(msgspec.Struct, frozen=True):
    """Which decision an object stems from: the value of `VERSION_ANNOTATION`, in JSON.

    Stamps of different logs cannot be compared, see :meth:`allows`.
    """

    log: str
    epoch: int
    version: int

    def allows(self, newer: Stamp) -> bool:
        """Whether a write with ``newer`` may replace an object with this stamp (an equal stamp may)."""
        return self.log == newer.log and (self.epoch, self.version) <= (newer.epoch, newer.version)


_stamp_decoder = msgspec.json.Decoder(Stamp)


def stamp_of(obj: Mapping[str, Any]) -> Stamp | None:
    """The stamp in an object's annotations; None if there is none or it cannot be read: then it is not ours."""
    text = (obj.get("metadata", {}).get("annotations") or {}).get(VERSION_ANNOTATION)
    if not isinstance(text, str):
        return None
    try:
        return _stamp_decoder.decode(text)
    except UNREADABLE:
        return None


def stamped(obj: Mapping[str, Any], stamp: Stamp) -> Json:
    """A copy of ``obj`` that carries ``stamp``."""
    metadata = dict(obj.get("metadata", {}))
    text = msgspec.json.encode(stamp).decode()
    metadata["annotations"] = {**(metadata.get("annotations") or {}), VERSION_ANNOTATION: text}
    return {**obj, "metadata": metadata}


def for_create(obj: Mapping[str, Any]) -> Json:
    """A copy that can only be applied while no such object exists."""
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key != "uid"}
    return {**obj, "metadata": {**metadata, "resourceVersion": NEVER_EXISTING_VERSION}}


def for_update(obj: Mapping[str, Any], live: Mapping[str, Any]) -> Json:
    """A copy that can only be applied while the object is exactly ``live`` (a read object, or its metadata's ids)."""
    uid, resource_version = _ids(live)
    return {**obj, "metadata": {**obj.get("metadata", {}), "uid": uid, "resourceVersion": resource_version}}


def fence_object(name: str, namespace: str, stamp: Stamp, labels: Mapping[str, str] | None = None) -> Json:
    """The fence of one job in one cluster: a ConfigMap without data, to be created with ``create_if_absent``."""
    return stamped(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        },
        stamp,
    )


def owned_by(obj: Mapping[str, Any], fence: Mapping[str, Any]) -> Json:
    """A copy of ``obj`` that the garbage collector removes once ``fence`` (as read: with its uid) is gone.

    Both must be in one namespace, or the collector treats the owner as absent at once; ValueError if not.
    """
    api_version, kind, name, namespace = identity(fence)
    metadata = dict(obj.get("metadata", {}))
    if metadata.get("namespace") != namespace:
        raise ValueError(f"fence {namespace}/{name} cannot own an object in {metadata.get('namespace')}")
    reference = {"apiVersion": api_version, "kind": kind, "name": name, "uid": _ids(fence)[0]}
    others = [item for item in metadata.get("ownerReferences") or [] if item.get("uid") != reference["uid"]]
    return {**obj, "metadata": {**metadata, "ownerReferences": [*others, reference]}}


class Outcome(enum.Enum):
    """What became of a guarded write."""

    DONE = "done"
    EXISTS = "exists"  # create: there is one already; read it and compare stamps
    LOST = "lost"  # update, delete: it changed, or is another one, or (update) is gone; read again
    GONE = "gone"  # delete: there is none


@dataclass(frozen=True, slots=True)
class Written:
    """``obj`` is the server's answer where the outcome is DONE; of a delete it may be a Status."""

    outcome: Outcome
    obj: Json | None = None


async def create_if_absent(client: KubeClient, obj: Mapping[str, Any], *, field_manager: str) -> Written:
    """Create ``obj`` unless one exists. After Unreachable ask again: EXISTS with one's own stamp is a success."""
    try:
        return Written(Outcome.DONE, await client.apply(for_create(obj), field_manager=field_manager, force=True))
    except ApiStatusError as error:
        if error.conflict:
            return Written(Outcome.EXISTS)
        raise


async def update_exact(
    client: KubeClient,
    obj: Mapping[str, Any],
    live: Mapping[str, Any],
    *,
    field_manager: str,
    force: bool = True,
) -> Written:
    """Apply ``obj`` if the object is still ``live``. Without ``force``, ApiStatusError (``field_conflict``) tells
    of fields that another manager owns."""
    try:
        written = await client.apply(for_update(obj, live), field_manager=field_manager, force=force)
    except ApiStatusError as error:
        if error.stale:
            return Written(Outcome.LOST)
        raise
    return Written(Outcome.DONE, written)


async def delete_exact(
    client: KubeClient, live: Mapping[str, Any], *, propagation_policy: Propagation = "Background"
) -> Written:
    """Delete the object if it is still ``live``."""
    api_version, kind, name, namespace = identity(live)
    uid, resource_version = _ids(live)
    resource = await client.resource_for(api_version, kind)
    try:
        answer = await client.delete(
            resource,
            name,
            namespace,
            uid=uid,
            resource_version=resource_version,
            propagation_policy=propagation_policy,
        )
    except ApiStatusError as error:
        if error.not_found:
            return Written(Outcome.GONE)
        if error.stale:
            return Written(Outcome.LOST)
        raise
    return Written(Outcome.DONE, answer)


def _ids(live: Mapping[str, Any]) -> tuple[str, str]:
    metadata = live.get("metadata", {})
    uid, resource_version = metadata.get("uid"), metadata.get("resourceVersion")
    if not uid or not resource_version:
        raise ValueError("the object must be as read from the server, with metadata.uid and resourceVersion")
    return str(uid), str(resource_version)
