"""Small readings of Kubernetes objects, and the writes that all controllers make."""

from __future__ import annotations

import json
import time
from calendar import timegm
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from sim.model.api import Create, Json, Kind, Patch, Ref, View, Write, ref_of

POD: Kind = ("v1", "Pod")
NODE: Kind = ("v1", "Node")
EVENT: Kind = ("v1", "Event")
CONFIG_MAP: Kind = ("v1", "ConfigMap")
NAMESPACE: Kind = ("v1", "Namespace")

FINISHED_PHASES = ("Succeeded", "Failed")
# The alphabet of generated names upstream: no vowels, nothing that looks like something else.
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


@lru_cache(maxsize=4096)
def timestamp(now: float) -> str:
    """Epoch seconds as RFC 3339, whole seconds as in metav1.Time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


@lru_cache(maxsize=4096)
def micro_timestamp(now: float) -> str:
    """Epoch seconds as RFC 3339 with microseconds, as in metav1.MicroTime."""
    micros = round(now * 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000)) + f".{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=4096)
def seconds_of(text: str) -> float:
    """Epoch seconds of an RFC 3339 time in UTC. Raises ValueError."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + (float(f"0.{fraction}") if fraction else 0.0)


def digest(value: Any, length: int = 10) -> str:
    """A name made from a JSON value; equal values have equal names."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    code = blake2b(text.encode(), digest_size=length).digest()
    return "".join(_NAME_ALPHABET[byte % len(_NAME_ALPHABET)] for byte in code)


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels of an object, possibly none."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """The annotations of an object, possibly none."""
    return obj["metadata"].get("annotations") or {}


def number(value: Any, default: float) -> float:
    """A number from an annotation or a field; the default where there is none or it is no number."""
    if value is None or isinstance(value, bool):
        return default
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


def integer(value: Any, default: int) -> int:
    """A whole number from a field; the default where there is none or it is no number."""
    return int(number(value, default))


def owner_reference(owner: Mapping[str, Any]) -> Json:
    """The reference by which a controller owns what it makes."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"].get("uid", ""),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: Mapping[str, Any]) -> Json | None:
    """The owner reference of the managing controller, or None."""
    owners: Sequence[Json] = obj["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def controlled_by(view: View, owner: Mapping[str, Any], kind: Kind) -> list[Json]:
    """The objects of a kind whose managing controller is `owner`."""
    uid = owner["metadata"].get("uid", "")
    return [obj for obj in view.owned_by(uid, *kind) if (controller_of(obj) or {}).get("uid") == uid]


def deleting(obj: Mapping[str, Any]) -> bool:
    """Whether the object is being deleted."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def condition(obj: Mapping[str, Any], kind: str) -> Json | None:
    """A condition of `status.conditions` by type, or None."""
    conditions: Sequence[Json] = (obj.get("status") or {}).get("conditions") or ()
    return next((entry for entry in conditions if entry.get("type") == kind), None)


def condition_true(obj: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition is there and True."""
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"


def with_condition(
    conditions: Iterable[Json], kind: str, status: str, reason: str, message: str, now: float, **more: Any
) -> list[Json]:
    """Conditions with one set; lastTransitionTime moves only where the status changes."""
    kept = list(conditions)
    entry: Json = {"type": kind, "status": status, "reason": reason, "message": message, **more}
    for index, known in enumerate(kept):
        if known.get("type") == kind:
            same = known.get("status") == status
            entry["lastTransitionTime"] = known.get("lastTransitionTime") if same else timestamp(now)
            kept[index] = {**known, **entry}
            return kept
    return [*kept, {**entry, "lastTransitionTime": timestamp(now)}]


def phase_of(pod: Mapping[str, Any]) -> str:
    """The phase of a pod; Pending where it has none yet."""
    return (pod.get("status") or {}).get("phase") or "Pending"


def finished(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has come to its end."""
    return phase_of(pod) in FINISHED_PHASES


def active(pod: Mapping[str, Any]) -> bool:
    """Whether a pod counts for its controller: neither finished nor being deleted."""
    return not finished(pod) and not deleting(pod)


def ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is Ready."""
    return condition_true(pod, "Ready")


def node_of(pod: Mapping[str, Any]) -> str:
    """The node that a pod is bound to, or an empty string."""
    return pod["spec"].get("nodeName") or ""


def pod_from(template: Mapping[str, Any], owner: Mapping[str, Any], name: str, **metadata: Any) -> Json:
    """A pod of a template, owned by `owner`. `metadata` adds labels and annotations to the template's."""
    given = template.get("metadata") or {}
    made: Json = {
        "name": name,
        "namespace": owner["metadata"].get("namespace", ""),
        "labels": {**(given.get("labels") or {}), **metadata.get("labels", {})},
        "ownerReferences": [owner_reference(owner)],
    }
    annotations = {**(given.get("annotations") or {}), **metadata.get("annotations", {})}
    if annotations:
        made["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": dict(template.get("spec") or {})}


def free_names(base: str, seed: str, taken: Callable[[str], bool], count: int) -> list[str]:
    """Names `base-xxxxx` that are not taken, made from a seed."""
    names: list[str] = []
    attempt = 0
    while len(names) < count:
        name = f"{base[:57].rstrip('-.')}-{digest([seed, attempt], 5)}"
        attempt += 1
        if name not in names and not taken(name):
            names.append(name)
    return names


def merge_patch(old: Any, new: Any) -> Any:
    """The JSON merge patch (RFC 7386) that makes `new` of `old`; an empty object if they are equal objects."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    patch: Json = {name: None for name in old if name not in new}
    for name, value in new.items():
        if name not in old or old[name] != value:
            patch[name] = merge_patch(old.get(name), value)
    return patch


def status_write(obj: Json, status: Json) -> list[Write]:
    """The write that brings the named status fields to these values; None removes one. Empty if they are so."""
    known = obj.get("status") or {}
    wanted = {name: value for name, value in status.items() if value is not None}
    patch = merge_patch({name: known[name] for name in status if name in known}, wanted)
    if not patch:
        return []
    return [Patch(ref_of(obj), {"status": patch}, "status", uid=obj["metadata"].get("uid", ""))]


def event_writes(
    view: View,
    obj: Mapping[str, Any],
    reason: str,
    message: str,
    component: str,
    now: float,
    *,
    kind: str = "Normal",
    again: bool = False,
) -> list[Write]:
    """An Event on an object, one for each reason and message; `again` counts one that is there already once more."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace") or "default"
    name = f"{metadata['name'][:200]}.{digest([metadata.get('uid', ''), reason, message, component], 12)}"
    known = view.get(*EVENT, namespace, name)
    if known is not None:
        counted = {"count": integer(known.get("count"), 1) + 1, "lastTimestamp": timestamp(now)}
        return [Patch(Ref(*EVENT, namespace, name), counted)] if again else []
    event: Json = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
        },
        "reason": reason,
        "message": message,
        "type": kind,
        "count": 1,
        "firstTimestamp": timestamp(now),
        "lastTimestamp": timestamp(now),
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": component,
    }
    return [Create(event)]


def owner_ref(obj: Mapping[str, Any], kind: Kind) -> Ref | None:
    """The managing controller as a reference, if it is of this kind."""
    owner = controller_of(obj)
    if owner is None or (owner.get("apiVersion"), owner.get("kind")) != kind:
        return None
    return Ref(*kind, obj["metadata"].get("namespace", ""), owner["name"])
