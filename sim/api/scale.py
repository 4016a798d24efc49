"""The `scale` subresource (autoscaling/v1 Scale) of workloads and of custom resources that declare it."""

from __future__ import annotations

from typing import Any

from sim.api import errors
from sim.api.patches import json_patch, merge_patch
from sim.api.resources import Resource
from sim.api.store import PatchType, Store

Json = dict[str, Any]

SCALE = Resource("autoscaling", "v1", "scales", "Scale", singular="scale")


def get_scale(store: Store, resource: Resource, namespace: str, name: str) -> Json:
    """The Scale of an object."""
    return _scale_of(store, resource, store.get(resource, namespace, name))


def update_scale(
    store: Store,
    resource: Resource,
    namespace: str,
    name: str,
    scale: Json,
    *,
    now: float,
    manager: str = "",
    dry_run: bool = False,
) -> Json:
    """Set the wanted replicas by a Scale document; its resourceVersion, if any, must be the object's (409)."""
    old = store.get(resource, namespace, name)
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if isinstance(replicas, bool) or not isinstance(replicas, int):
        raise errors.bad_request("json: cannot unmarshal the value of spec.replicas into type int32")
    if replicas < 0:
        message = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise errors.invalid(SCALE, name, [errors.cause("FieldValueInvalid", "spec.replicas", message)])
    metadata: Json = {"resourceVersion": (scale.get("metadata") or {}).get("resourceVersion")}
    patch = _wrap(_paths(store, resource)[0], replicas)
    if metadata["resourceVersion"]:
        patch["metadata"] = metadata
    new = store.patch(
        resource,
        old["metadata"].get("namespace", ""),
        name,
        patch,
        now=now,
        subresource="scale",
        manager=manager,
        dry_run=dry_run,
    )
    return _scale_of(store, resource, new)


def patch_scale(
    store: Store,
    resource: Resource,
    namespace: str,
    name: str,
    patch: Any,
    *,
    now: float,
    type: PatchType = "merge",
    manager: str = "",
    dry_run: bool = False,
) -> Json:
    """Change the wanted replicas by a patch of the Scale."""
    scale = get_scale(store, resource, namespace, name)
    new = json_patch(scale, patch) if type == "json" else merge_patch(scale, patch)
    return update_scale(store, resource, namespace, name, new, now=now, manager=manager, dry_run=dry_run)


def _paths(store: Store, resource: Resource) -> tuple[str, str, str]:
    """Dotted paths of the wanted replicas, the present replicas and the selector."""
    if not resource.custom:
        return ".spec.replicas", ".status.replicas", ""
    version = store.registry.crd_version(resource) or {}
    scale = (version.get("subresources") or {}).get("scale") or {}
    return (
        scale.get("specReplicasPath", ".spec.replicas"),
        scale.get("statusReplicasPath", ".status.replicas"),
        scale.get("labelSelectorPath", ""),
    )


def _wrap(path: str, value: Any) -> Json:
    for name in reversed(path.strip(".").split(".")):
        value = {name: value}
    wrapped: Json = value
    return wrapped


def _at(obj: Json, path: str) -> Any:
    value: Any = obj
    for name in path.strip(".").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _scale_of(store: Store, resource: Resource, obj: Json) -> Json:
    wanted, present, selector_path = _paths(store, resource)
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Json = {"replicas": _at(obj, present) or 0}
    selector = _at(obj, selector_path) if selector_path else _selector_text(obj)
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": _at(obj, wanted) or 0},
        "status": status,
    }


def _selector_text(obj: Json) -> str:
    selector = (obj.get("spec") or {}).get("selector")
    pairs = (selector or {}).get("matchLabels") or {} if isinstance(selector, dict) else {}
    return ",".join(f"{key}={value}" for key, value in sorted(pairs.items()))
