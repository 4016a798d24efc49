"""What a request asks for: the path and query of the Kubernetes API as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.api import errors
from sim.api.resources import Registry, Resource
from sim.api.selectors import FieldSelector, LabelSelector

Json = dict[str, Any]

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True, slots=True)
class Target:
    """A resource path: `namespace` is None for all namespaces, `name` is empty for a collection."""

    resource: Resource
    namespace: str | None
    name: str
    subresource: str

    @property
    def key_namespace(self) -> str:
        """The namespace as the store has it."""
        return (self.namespace or "") if self.resource.namespaced else ""


def parse_target(registry: Registry, path: str) -> Target | None:
    """The target of `/api/v1/...` or `/apis/<group>/<version>/...`; None for other paths. ApiError 404."""
    parts = [part for part in path.split("/") if part]
    if len(parts) > 2 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) > 3 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in {"status", "finalize"}:
        namespace, rest = rest[1], rest[2:]
    resource = registry.find(group, version, rest[0])
    if resource is None or len(rest) > 3 or (namespace is not None and not resource.namespaced):
        raise errors.path_not_found()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if name and namespace is None and resource.namespaced:
        raise errors.path_not_found()
    known = {*resource.subresources, *({"finalize"} if resource.plural == "namespaces" else ())}
    if subresource and subresource not in known:
        raise errors.not_found(resource, name) if resource.custom else errors.path_not_found()
    return Target(resource, namespace, name, subresource)


def verb_of(method: str, target: Target, query: Mapping[str, str]) -> str:
    """The Kubernetes verb of an HTTP method."""
    if method in {"GET", "HEAD"}:
        if target.name:
            return "get"
        return "watch" if flag(query, "watch") else "list"
    if method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return _VERBS.get(method, method.lower())


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean of the query, as Go writes or Python clients capitalise it."""
    return query.get(name, "").lower() in {"1", "true"}


def whole_number(query: Mapping[str, str], name: str) -> int | None:
    """An integer of the query; ApiError 400."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax ({name})') from None


def version_of(query: Mapping[str, str]) -> int | None:
    """The resourceVersion of the query: None if it is unset; ApiError 400."""
    text = query.get("resourceVersion", "")
    if not text:
        return None
    if not text.isdigit():
        raise errors.bad_request(f'invalid resource version: resourceVersion: Invalid value: "{text}"')
    return int(text)


@dataclass(frozen=True, slots=True)
class Selection:
    """The selectors of a list, watch or deletecollection."""

    labels: LabelSelector | None = None
    fields: FieldSelector | None = None

    def matches(self, obj: Json) -> bool:
        """Whether an object is selected."""
        if self.labels is not None and not self.labels.matches(obj["metadata"].get("labels")):
            return False
        return self.fields is None or self.fields.matches(obj)


_SELECTABLE: Mapping[str, frozenset[str]] = {
    "pods": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        }
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "namespaces": frozenset({"status.phase"}),
    "secrets": frozenset({"type"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "jobs.batch": frozenset({"status.successful"}),
    "replicasets.apps": frozenset({"status.replicas"}),
    "events": frozenset(
        {
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        }
    ),
}
_EVENT_PATHS = {"regarding": "involvedObject", "reportingController": "reportingComponent"}


def selection(resource: Resource, query: Mapping[str, str]) -> Selection:
    """The selectors of a query; ApiError 400 for those that cannot be read or that the kind does not support."""
    labels = LabelSelector.parse(query["labelSelector"]) if query.get("labelSelector") else None
    fields = FieldSelector.parse(query["fieldSelector"]) if query.get("fieldSelector") else None
    if fields is not None:
        fields = _supported(resource, fields)
    return Selection(labels, fields)


def _supported(resource: Resource, selector: FieldSelector) -> FieldSelector:
    known = _SELECTABLE.get(resource.storage, frozenset())
    terms = []
    for path, value, same in selector.terms:
        head, dot, rest = path.partition(".")
        if resource.group == "events.k8s.io" and head in _EVENT_PATHS:
            path = _EVENT_PATHS[head] + dot + rest
        if path not in {"metadata.name", "metadata.namespace"} and path not in known:
            listed = ", ".join(f'"{name}"' for name in ("metadata.name", "metadata.namespace", *sorted(known)))
            raise errors.bad_request(f'"{path}" is not a known field selector: only {listed}')
        terms.append((path, value, same))
    return FieldSelector(tuple(terms), selector.text)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of create, update and patch."""

    manager: str = ""
    dry_run: bool = False
    force: bool = False
    field_manager_given: bool = field(default=False)


def write_options(query: Mapping[str, str], user_agent: str) -> WriteOptions:
    """The options of a write; the field manager defaults to the client's name. ApiError 400."""
    dry_run = query.get("dryRun", "")
    if dry_run not in {"", "All"}:
        message = f'Unsupported value: ["{dry_run}"]: supported values: "All"'
        cause = errors.cause("FieldValueNotSupported", "dryRun", message)
        raise errors.invalid_options("CreateOptions", cause)
    given = query.get("fieldManager", "")
    manager = given or user_agent.partition("/")[0] or "unknown"
    if len(manager) > 128:
        raise errors.bad_request("fieldManager: Too long: may not be more than 128 bytes")
    return WriteOptions(manager, bool(dry_run), flag(query, "force"), bool(given))
