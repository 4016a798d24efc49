"""The verbs on resources: from a parsed request to a store call to a document. No HTTP in here, and no waiting."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from sim.api import errors, table
from sim.api.eviction import evict
from sim.api.requests import (
    Target,
    flag,
    selection,
    version_of,
    whole_number,
    write_options,
)
from sim.api.resources import NAMESPACES, PODS, SELF_SUBJECT_ACCESS_REVIEWS, Resource
from sim.api.scale import get_scale, patch_scale, update_scale
from sim.api.store import Deleted, Store
from sim.api.values import as_served

Json = dict[str, Any]
Query = Mapping[str, str]
Answer = tuple[int, Json]

_PROPAGATION = ("Foreground", "Background", "Orphan")


def get(store: Store, target: Target) -> Json:
    """GET of one object or of its scale."""
    if target.subresource == "log":
        return _no_logs(store, target)
    if target.subresource == "scale":
        return get_scale(store, target.resource, target.key_namespace, target.name)
    if target.subresource in {"", "status"}:
        return store.get(target.resource, target.key_namespace, target.name)
    raise errors.method_not_allowed(target.resource, "get")


def _no_logs(store: Store, target: Target) -> Json:
    store.get(PODS, target.key_namespace, target.name)
    message = (
        f"pod {target.key_namespace}/{target.name} runs in the simulated cluster {store.name}: its containers do "
        "not exist and write no logs; look at its status and events instead"
    )
    raise errors.ApiError(501, "NotImplemented", message)


def list_objects(store: Store, target: Target, query: Query) -> tuple[list[Json], Json]:
    """The objects of a list and its metadata (resourceVersion, continue, remainingItemCount)."""
    resource = target.resource
    selected = selection(resource, query)
    limit = whole_number(query, "limit") or 0
    version = version_of(query)
    token = query.get("continue", "")
    match = query.get("resourceVersionMatch", "")
    after, at = None, None
    if token:
        at, after = _read_continue(token)
    elif match == "Exact":
        if not version:
            raise errors.bad_request("resourceVersionMatch: Exact needs a resourceVersion above 0")
        at = version
    elif version:
        if version > store.version:
            raise errors.future_version(version, store.version)
        if limit and match != "NotOlderThan":
            at = version
    elif version == 0:
        # The watch cache of a real server answers from memory, whole.
        limit = 0
    page = store.page(
        resource,
        target.namespace,
        labels=selected.labels,
        fields=selected.fields,
        limit=limit,
        after=after,
        version=at,
    )
    metadata: Json = {"resourceVersion": str(page.version)}
    if page.next is not None:
        metadata["continue"] = _write_continue(page.version, page.next)
        if selected.labels is None and selected.fields is None:
            metadata["remainingItemCount"] = page.remaining
    return page.items, metadata


def _write_continue(version: int, key: tuple[str, str]) -> str:
    document = {"v": "meta.k8s.io/v1", "rv": version, "start": list(key)}
    return base64.urlsafe_b64encode(msgspec.json.encode(document)).decode().rstrip("=")


def _read_continue(token: str) -> tuple[int, tuple[str, str]]:
    try:
        document = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = document["start"]
        return int(document["rv"]), (str(namespace), str(name))
    except (binascii.Error, msgspec.DecodeError, KeyError, TypeError, ValueError):
        raise errors.bad_request("continue key is not valid: it was not made by this server") from None


def create(store: Store, target: Target, body: Any, query: Query, agent: str, now: float) -> Answer:
    """POST of an object or to a subresource of a pod."""
    options = write_options(query, agent)
    if not isinstance(body, dict):
        kind = target.resource.kind
        raise errors.bad_request(f"the object provided is unrecognized (must be of type {kind}): it is no object")
    if target.resource == SELF_SUBJECT_ACCESS_REVIEWS:
        return 201, {**body, "status": {"allowed": True}}
    if target.subresource == "binding" or (target.subresource == "" and _is_binding(body)):
        return _bind(store, target, body, now, options.dry_run)
    if target.subresource == "eviction":
        evict(store, target.key_namespace, target.name, body, now=now, dry_run=options.dry_run)
        return 201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    if target.name:
        raise errors.method_not_allowed(target.resource, "create")
    if target.resource.namespaced and target.namespace is None:
        raise errors.method_not_allowed(target.resource, "create")
    obj = store.create(
        target.resource,
        body,
        now=now,
        namespace=target.namespace,
        manager=options.manager,
        dry_run=options.dry_run,
    )
    return 201, obj


def _is_binding(body: Any) -> bool:
    return isinstance(body, dict) and body.get("kind") == "Binding"


def _bind(store: Store, target: Target, body: Json, now: float, dry_run: bool) -> Answer:
    node = (body.get("target") or {}).get("name")
    if not node:
        cause = errors.cause("FieldValueRequired", "target.name", "Required value")
        raise errors.invalid(PODS, target.name, [cause])
    name = target.name or body["metadata"]["name"]
    uid = (body.get("metadata") or {}).get("uid")
    pod = store.get(PODS, target.key_namespace, name)
    if uid and uid != pod["metadata"]["uid"]:
        have = pod["metadata"]["uid"]
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"
        raise errors.conflict(PODS, name, why)
    if not dry_run:
        store.bind(target.key_namespace, name, node, now=now)
    return 201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def update(store: Store, target: Target, body: Any, query: Query, agent: str, now: float) -> Answer:
    """PUT of an object, its status or its scale."""
    options = write_options(query, agent)
    if not target.name:
        raise errors.method_not_allowed(target.resource, "update")
    if not isinstance(body, dict):
        raise errors.bad_request("the request body is no object")
    if target.subresource == "scale":
        return 200, update_scale(
            store,
            target.resource,
            target.key_namespace,
            target.name,
            body,
            now=now,
            manager=options.manager,
            dry_run=options.dry_run,
        )
    if target.subresource not in {"", "status", "finalize"}:
        raise errors.method_not_allowed(target.resource, "update")
    given = (body.get("metadata") or {}).get("name", target.name)
    if given != target.name:
        raise errors.bad_request(f"the name of the object ({given}) does not match the name on the URL ({target.name})")
    obj = store.update(
        target.resource,
        {**body, "metadata": {**(body.get("metadata") or {}), "name": target.name}},
        now=now,
        namespace=target.namespace,
        subresource="status" if target.subresource == "status" else "",
        manager=options.manager,
        dry_run=options.dry_run,
    )
    return 200, obj


def patch(store: Store, target: Target, kind: str, body: Any, query: Query, agent: str, now: float) -> Answer:
    """PATCH by content type: `merge`, `strategic`, `json` or `apply`."""
    options = write_options(query, agent)
    if not target.name or target.subresource not in {"", "status", "scale"}:
        raise errors.method_not_allowed(target.resource, "patch")
    if kind == "apply" and not options.field_manager_given:
        problem = "Required value: is required for apply patch"
        cause = errors.cause("FieldValueRequired", "fieldManager", problem)
        raise errors.invalid_options("PatchOptions", cause)
    if kind != "apply" and options.force:
        problem = "Forbidden: may not be specified for non-apply patch"
        raise errors.invalid_options("PatchOptions", errors.cause("FieldValueForbidden", "force", problem))
    place = (target.resource, target.key_namespace, target.name)
    common: Json = {"now": now, "manager": options.manager, "dry_run": options.dry_run}
    if target.subresource == "scale":
        return 200, patch_scale(store, *place, body, type="json" if kind == "json" else "merge", **common)
    if kind == "apply":
        applied = store.apply(*place, body, force=options.force, subresource=target.subresource, **common)
        return (201 if applied.created else 200), applied.obj
    if kind == "merge" and not isinstance(body, dict):
        raise errors.bad_request("a merge patch is an object")
    patched = store.patch(*place, body, type=kind, subresource=target.subresource, **common)  # type: ignore[arg-type]
    return 200, patched


def delete(store: Store, target: Target, body: Any, query: Query, now: float) -> Answer:
    """DELETE of one object."""
    options = _delete_options(body, query)
    deleted = store.delete(target.resource, target.key_namespace, target.name, now=now, **options)
    # As upstream: accepted rather than done where the client asked to wait for dependents.
    code = 202 if not deleted.gone and options["propagation"] == "Foreground" else 200
    return code, _deleted(target, deleted)


def delete_collection(store: Store, target: Target, body: Any, query: Query, now: float) -> Answer:
    """DELETE of all selected objects; answers the list of them."""
    if target.resource == NAMESPACES:
        raise errors.method_not_allowed(target.resource, "deletecollection")
    options = {**_delete_options(body, query), "uid": None, "resource_version": None}
    found, metadata = list_objects(store, target, query)
    for obj in found:
        meta = obj["metadata"]
        if store.find(target.resource, meta.get("namespace", ""), meta["name"]) is not None:
            store.delete(target.resource, meta.get("namespace", ""), meta["name"], now=now, **options)
    resource = target.resource
    return 200, {
        "kind": resource.list_kind,
        "apiVersion": resource.api_version,
        "metadata": metadata,
        "items": _items(resource, found),
    }


def _items(resource: Resource, objects: list[Json]) -> list[Json]:
    """The items of a list: of builtin kinds they come without apiVersion and kind, as from a real server."""
    if resource.custom:
        return objects
    return [{k: v for k, v in obj.items() if k not in {"apiVersion", "kind"}} for obj in objects]


def _deleted(target: Target, deleted: Deleted) -> Json:
    if not deleted.gone or target.resource == PODS:
        return as_served(target.resource, deleted.obj)
    metadata = deleted.obj["metadata"]
    details: Json = {"name": metadata["name"], "kind": target.resource.plural, "uid": metadata["uid"]}
    if target.resource.group:
        details["group"] = target.resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _delete_options(body: Any, query: Query) -> Json:
    options = body if isinstance(body, dict) else {}
    preconditions = options.get("preconditions") or {}
    propagation = options.get("propagationPolicy") or query.get("propagationPolicy") or None
    orphan = options.get("orphanDependents")
    if propagation is None and orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if propagation is not None and propagation not in _PROPAGATION:
        listed = ", ".join(f'"{name}"' for name in (*_PROPAGATION, "nil"))
        problem = f'Unsupported value: "{propagation}": supported values: {listed}'
        cause = errors.cause("FieldValueNotSupported", "propagationPolicy", problem)
        raise errors.invalid_options("DeleteOptions", cause)
    grace = options.get("gracePeriodSeconds")
    return {
        "uid": preconditions.get("uid"),
        "resource_version": preconditions.get("resourceVersion"),
        "grace_period": grace if grace is not None else whole_number(query, "gracePeriodSeconds"),
        "propagation": propagation,
        "dry_run": bool(options.get("dryRun") or flag(query, "dryRun") or query.get("dryRun") == "All"),
    }


def render_object(store: Store, target: Target, obj: Json, form: str, include: str, now: float) -> Json:
    """One object in the form that was asked for."""
    if obj.get("kind") in {"Status", "Scale"}:
        return obj
    if form == "Table":
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return table.table(store.registry, target.resource, [obj], now, include, metadata)
    return table.partial_metadata(obj) if form == "PartialObjectMetadata" else obj


def render_list(
    store: Store, target: Target, objects: list[Json], metadata: Json, form: str, include: str, now: float
) -> Json:
    """A list in the form that was asked for."""
    resource = target.resource
    if form == "Table":
        return table.table(store.registry, resource, objects, now, include, metadata)
    if form == "PartialObjectMetadata":
        return {
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": [table.partial_metadata(obj) for obj in objects],
        }
    return {
        "kind": resource.list_kind,
        "apiVersion": resource.api_version,
        "metadata": metadata,
        "items": _items(resource, objects),
    }
