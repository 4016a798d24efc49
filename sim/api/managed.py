"""Who owns which fields: `metadata.managedFields`, kept by updates and by server-side apply.

After k8s.io/apimachinery/pkg/util/managedfields and structured-merge-diff's merge.Updater.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sim.api import errors
from sim.api.fieldset import (
    Fields,
    changes,
    difference,
    fields_of,
    intersection,
    list_elements,
    merge,
    paths,
    prune,
    union,
)
from sim.api.resources import Resource
from sim.api.schema import ListMap, ListSet, Node, child
from sim.api.values import rfc3339, without_nulls

Json = dict[str, Any]

BEFORE_FIRST_APPLY = "before-first-apply"

# Never owned: what identifies the object and what the server writes.
_UNOWNED_ROOT = ("f:apiVersion", "f:kind")
_UNOWNED_METADATA = (
    ".",
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
    "f:selfLink",
    "f:uid",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of managedFields."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str
    fields: Fields

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Appliers are the same across API versions, updaters are not."""
        version = "" if self.operation == "Apply" else self.api_version
        return self.operation, self.manager, version, self.subresource


Entries = dict[tuple[str, str, str, str], Entry]


def decode(metadata: Json) -> Entries:
    """The entries of an object; malformed ones (such as the `{}` that resets) are dropped."""
    entries: Entries = {}
    for item in metadata.get("managedFields") or ():
        if not isinstance(item, dict) or item.get("operation") not in {"Apply", "Update"}:
            continue
        entry = Entry(
            item.get("manager", ""),
            item["operation"],
            item.get("apiVersion", ""),
            item.get("subresource", ""),
            item.get("time", ""),
            item.get("fieldsV1") or {},
        )
        entries[entry.identity] = entry
    return entries


def encode(entries: Entries) -> list[Json]:
    """As upstream orders them: appliers first, then by time and name."""
    ordered = sorted(
        (entry for entry in entries.values() if entry.fields),
        key=lambda e: (e.operation, e.time, e.manager, e.api_version, e.subresource),
    )
    listed = []
    for entry in ordered:
        item: Json = {
            "manager": entry.manager,
            "operation": entry.operation,
            "apiVersion": entry.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": entry.fields,
        }
        if entry.time:
            item["time"] = entry.time
        if entry.subresource:
            item["subresource"] = entry.subresource
        listed.append(item)
    return listed


def set_entries(obj: Json, entries: Entries) -> Json:
    """The object with these managedFields; its metadata is a copy."""
    metadata = dict(obj["metadata"])
    listed = encode(entries)
    if listed:
        metadata["managedFields"] = listed
    else:
        metadata.pop("managedFields", None)
    return {**obj, "metadata": metadata}


def same_but_times(new: Json, old: Json) -> bool:
    """Whether two objects differ in nothing but the times of their managedFields: such a write is none."""
    left, right = (obj["metadata"].get("managedFields") for obj in (new, old))
    if not left or not right or len(left) != len(right):
        return False
    if any({**a, "time": ""} != {**b, "time": ""} for a, b in zip(left, right, strict=True)):
        return False
    return without_system(new) == without_system(old)


def ownable(resource: Resource, fields: Fields | None, subresource: str) -> Fields:
    """The fields that a manager can own through the resource itself or through a subresource."""
    result = {key: value for key, value in (fields or {}).items() if key not in _UNOWNED_ROOT}
    if subresource == "status":
        result = {key: value for key, value in result.items() if key == "f:status"}
    elif subresource:
        result = {key: value for key, value in result.items() if key == "f:spec"}
    elif "status" in resource.subresources:
        result.pop("f:status", None)
    metadata = result.pop("f:metadata", None)
    if metadata:
        owned = {key: value for key, value in metadata.items() if key not in _UNOWNED_METADATA}
        if owned:
            result["f:metadata"] = owned
    return result


def without_system(obj: Json) -> Json:
    """The object as ownership sees it."""
    metadata = {k: v for k, v in obj["metadata"].items() if k not in {"managedFields", "resourceVersion"}}
    return {**obj, "metadata": metadata}


_ALWAYS_THERE = (
    ("metadata",),
    ("spec",),
    ("spec", "containers"),
    ("status",),
    ("spec", "strategy"),
    ("spec", "updateStrategy"),
    ("spec", "template"),
    ("spec", "template", "metadata"),
    ("spec", "template", "spec"),
    ("spec", "template", "spec", "containers"),
    ("spec", "jobTemplate"),
    ("spec", "jobTemplate", "spec"),
    ("spec", "jobTemplate", "spec", "template"),
    ("spec", "jobTemplate", "spec", "template", "spec"),
    ("spec", "jobTemplate", "spec", "template", "spec", "containers"),
)


def _skeleton(resource: Resource, new: Json) -> Json:
    """What a new object is compared with: in upstream's builtin types, struct fields are there from the start."""
    skeleton: Json = {"metadata": {}}
    for path in () if resource.custom else _ALWAYS_THERE:
        have: Any = new
        into = skeleton
        for name in path[:-1]:
            have = have.get(name) if isinstance(have, dict) else None
            into = into.setdefault(name, {})
        if isinstance(have, dict) and isinstance(have.get(path[-1]), (dict, list)):
            into.setdefault(path[-1], type(have[path[-1]])())
    return skeleton


def track_update(
    schema: Node, resource: Resource, old: Json | None, new: Json, manager: str, subresource: str, now: float
) -> Json:
    """The new object with the ownership after an update by `manager`.

    What the update changes or adds is the manager's, and no longer anybody else's.
    """
    listed = new["metadata"].get("managedFields")
    before = old["metadata"] if old else {}
    entries = decode(new["metadata"] if listed else before)
    bare = without_system(old) if old else _skeleton(resource, new)
    changed, removed = changes(schema, bare, without_system(new))
    lost = union(changed or {}, removed or {})
    if lost:
        entries = {k: replace(e, fields=difference(e.fields, lost)) for k, e in entries.items()}
    gained = ownable(resource, changed, subresource)
    if gained:
        # Upstream, too, writes no time for the scale subresource.
        time = "" if subresource == "scale" else rfc3339(now)
        fresh = Entry(manager, "Update", resource.api_version, subresource, time, gained)
        have = entries.get(fresh.identity)
        if have is not None:
            fresh = replace(fresh, fields=union(have.fields, gained))
        entries[fresh.identity] = fresh
    return set_entries(new, entries)


def apply(
    schema: Node,
    resource: Resource,
    live: Json | None,
    config: Json,
    manager: str,
    subresource: str,
    now: float,
    *,
    force: bool,
) -> Json:
    """Server-side apply: the live object merged with the configuration, managedFields included.

    What the manager applied before and now leaves out is removed unless somebody else owns it. ApiError 409 with a
    FieldManagerConflict per field that another manager owns and that would change; `force` takes them over.
    """
    config = without_system(config)
    try:
        _check_keys(schema, config, "")
    except ValueError as error:
        raise _untyped(resource, config["metadata"].get("name", ""), str(error)) from None
    entries = decode(live["metadata"]) if live else {}
    if live is not None and not entries:
        owned = ownable(resource, fields_of(schema, without_system(live)), subresource)
        created = live["metadata"].get("creationTimestamp", rfc3339(now))
        first = Entry(BEFORE_FIRST_APPLY, "Update", resource.api_version, "", created, owned)
        entries[first.identity] = first
    wanted = ownable(resource, fields_of(schema, config), subresource)
    mine = Entry(manager, "Apply", resource.api_version, subresource, rfc3339(now), wanted)
    last = entries.get(mine.identity)
    base = without_system(live) if live else {"metadata": {}}
    merged = merge(schema, base, config)
    others = {key: entry for key, entry in entries.items() if key != mine.identity}
    if last is not None and last.fields:
        owned = wanted
        for entry in others.values():
            owned = union(owned, entry.fields)
        merged = _prune(schema, resource, merged, last.fields, owned)
    changed, removed = changes(schema, base, merged)
    changed = ownable(resource, changed, subresource)
    conflicts = {key: intersection(entry.fields, changed) for key, entry in others.items()}
    conflicts = {key: fields for key, fields in conflicts.items() if fields}
    if conflicts and not force:
        raise _conflict([(others[key], fields) for key, fields in sorted(conflicts.items())])
    after: Entries = {}
    for key, entry in others.items():
        rest = difference(difference(entry.fields, conflicts.get(key, {})), removed or {})
        after[key] = entry if rest == entry.fields else replace(entry, fields=rest)
    if last is not None and last.fields == wanted and not changed and not removed:
        mine = replace(mine, time=last.time)
    after[mine.identity] = mine
    if live is not None:
        version = live["metadata"]["resourceVersion"]
        merged = {**merged, "metadata": {**merged["metadata"], "resourceVersion": version}}
    return set_entries(merged, after)


def _prune(schema: Node, resource: Resource, merged: Json, last: Fields, owned: Fields) -> Json:
    """Metadata and the fields that identify an object are never pruned as a whole."""
    pruned: Json = dict(prune(schema, merged, {k: v for k, v in last.items() if k != "f:metadata"}, owned))
    metadata = last.get("f:metadata")
    if metadata:
        node = child(schema, "metadata")
        pruned["metadata"] = prune(node, merged["metadata"], metadata, owned.get("f:metadata", {}))
    return pruned if resource.custom else without_nulls(pruned)


def _conflict(found: list[tuple[Entry, Fields]]) -> errors.ApiError:
    causes, groups = [], []
    for entry, fields in found:
        who = f'"{entry.manager}"'
        if entry.subresource:
            who += f' with subresource "{entry.subresource}"'
        if entry.operation == "Update":
            who += f" using {entry.api_version}"
        listed = list(paths(fields))
        causes += [errors.cause("FieldManagerConflict", path, f"conflict with {who}") for path in listed]
        groups.append((who, listed))
    count = len(causes)
    if count == 1:
        text = f"conflict with {groups[0][0]}: {groups[0][1][0]}"
    else:
        text = "\n".join(
            f"conflicts with {who}:\n" + "\n".join(f"- {path}" for path in listed) for who, listed in groups
        )
    noun = "conflict" if count == 1 else "conflicts"
    return errors.apply_conflict(f"Apply failed with {count} {noun}: {text}", causes)


def _first_repeated(node: Node, items: list[Any]) -> str:
    seen = set()
    for item in items:
        (element,) = list_elements(node, [item]) or {"": item}
        if element in seen:
            return next(paths({element: {}}))
        seen.add(element)
    return ""


def _check_keys(node: Node, value: Any, path: str) -> None:
    """Items of associative lists need their keys, and each key once."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_keys(child(node, name), item, f"{path}.{name}")
    elif isinstance(value, list) and isinstance(node, (ListMap, ListSet)):
        try:
            elements = list_elements(node, value, strict=True) or {}
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if len(elements) != len(value):
            twice = _first_repeated(node, value)
            raise ValueError(f"{path}: duplicate entries for key {twice}")
        if isinstance(node, ListMap):
            for element, item in elements.items():
                _check_keys(node.items, item, path + next(paths({element: {}})))


def _untyped(resource: Resource, name: str, problem: str) -> errors.ApiError:
    kind = f"{resource.api_version}, Kind={resource.kind}"
    return errors.ApiError(500, "", f"failed to create typed patch object (/{name}; {kind}): {problem}")
