"""Objects that a late writer cannot get past the cluster: stamps, preconditions and fences.

This half is pure; :mod:`gpufleet.kube.writes` sends.

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

from collections.abc import Mapping
from typing import Any

import msgspec

from gpufleet.kube.errors import UNREADABLE
from gpufleet.kube.resources import identity
from gpufleet.model.names import VERSION_ANNOTATION

NEVER_EXISTING_VERSION = "1"

Json = dict[str, Any]


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
    uid, resource_version = ids_of(live)
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
    reference = {"apiVersion": api_version, "kind": kind, "name": name, "uid": ids_of(fence)[0]}
    others = [item for item in metadata.get("ownerReferences") or [] if item.get("uid") != reference["uid"]]
    return {**obj, "metadata": {**metadata, "ownerReferences": [*others, reference]}}


def ids_of(live: Mapping[str, Any]) -> tuple[str, str]:
    """``(uid, resourceVersion)`` of an object as read from the server; ValueError if they are not there."""
    metadata = live.get("metadata", {})
    uid, resource_version = metadata.get("uid"), metadata.get("resourceVersion")
    if not uid or not resource_version:
        raise ValueError("the object must be as read from the server, with metadata.uid and resourceVersion")
    return str(uid), str(resource_version)
