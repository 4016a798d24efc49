"""How lists and maps of each kind merge: the part of the OpenAPI schema that apply and patch need.

A node of the schema describes one value: `Struct` (named fields; unknown ones are structs themselves), `Map` (free
keys), `ListMap` (items identified by keys), `ListSet` (scalars, each its own identity), `ATOMIC` (replaced as a
whole). Lists that nothing is said about are atomic. `merge_key` is the key of strategic merge patches, which is
older than, and sometimes differs from, the keys of server-side apply. The table follows the `+listType`, `+mapType`
and `+structType` markers of k8s.io/api.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.api.resources import Resource

Json = dict[str, Any]


class Node:
    """A place in the schema."""

    __slots__ = ()


class Atomic(Node):
    """Owned and replaced as a whole; in strategic merge patches still merged if it is an object."""

    __slots__ = ()


class Unknown(Node):
    """Nothing is known (custom resources without a schema): maps merge by key, lists are atomic."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Struct(Node):
    """An object with named fields."""

    fields: Mapping[str, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Map(Node):
    """An object with free keys, such as labels."""

    values: Node


@dataclass(frozen=True, slots=True)
class ListMap(Node):
    """A list whose items are identified by `keys`; `defaults` fills keys that an item leaves out."""

    keys: tuple[str, ...]
    items: Node
    merge_key: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListSet(Node):
    """A list of distinct scalars."""


@dataclass(frozen=True, slots=True)
class MergedAtomic(Node):
    """A list that server-side apply replaces and that strategic merge patches merge by `merge_key`."""

    merge_key: str


ATOMIC = Atomic()
UNKNOWN = Unknown()
LEAF = Struct()
LABELS = Map(LEAF)


def _named(items: Node) -> ListMap:
    """A list of things with names; upstream's schema has "" as the default of `name`."""
    return ListMap(("name",), items, "name", {"name": ""})


CONDITIONS = ListMap(("type",), LEAF, "type")

METADATA = Struct(
    {
        "labels": LABELS,
        "annotations": LABELS,
        "ownerReferences": ListMap(("uid",), ATOMIC, "uid", {"uid": ""}),
        "finalizers": ListSet(),
    }
)

_VALUE_FROM = Struct(dict.fromkeys(("fieldRef", "resourceFieldRef", "secretKeyRef", "configMapKeyRef"), ATOMIC))

_CONTAINER = Struct(
    {
        "ports": ListMap(("containerPort", "protocol"), LEAF, "containerPort", {"protocol": "TCP"}),
        "env": _named(Struct({"valueFrom": _VALUE_FROM})),
        "volumeMounts": ListMap(("mountPath",), LEAF, "mountPath"),
        "volumeDevices": ListMap(("devicePath",), LEAF, "devicePath"),
        "resources": Struct(
            {"limits": LABELS, "requests": LABELS, "claims": ListMap(("name",), LEAF)},
        ),
    }
)
_CONTAINERS = _named(_CONTAINER)
_NODE_AFFINITY = Struct({"requiredDuringSchedulingIgnoredDuringExecution": ATOMIC})
_VOLUME = Struct(
    {
        "secret": LEAF,
        "csi": Struct({"volumeAttributes": LABELS, "nodePublishSecretRef": ATOMIC}),
        "flexVolume": Struct({"options": LABELS, "secretRef": ATOMIC}),
        "cephfs": Struct({"secretRef": ATOMIC}),
        "rbd": Struct({"secretRef": ATOMIC}),
    }
)

POD_SPEC = Struct(
    {
        "containers": _CONTAINERS,
        "initContainers": _CONTAINERS,
        "ephemeralContainers": _CONTAINERS,
        "volumes": _named(_VOLUME),
        "imagePullSecrets": _named(ATOMIC),
        "hostAliases": ListMap(("ip",), LEAF, "ip"),
        "schedulingGates": _named(LEAF),
        "resourceClaims": _named(LEAF),
        "topologySpreadConstraints": ListMap(
            ("topologyKey", "whenUnsatisfiable"), Struct({"labelSelector": ATOMIC}), "topologyKey"
        ),
        "nodeSelector": ATOMIC,
        "overhead": LABELS,
        "affinity": Struct({"nodeAffinity": _NODE_AFFINITY}),
    }
)
POD_TEMPLATE = Struct({"metadata": METADATA, "spec": POD_SPEC})
_WORKLOAD = Struct({"selector": ATOMIC, "template": POD_TEMPLATE})
_CONDITIONED = Struct({"conditions": CONDITIONS})
_JOB_SPEC = Struct({"selector": ATOMIC, "template": POD_TEMPLATE})

BUILTIN: Mapping[str, Mapping[str, Node]] = {
    "pods": {
        "spec": POD_SPEC,
        "status": Struct({"conditions": CONDITIONS, "podIPs": ListMap(("ip",), LEAF, "ip")}),
    },
    "nodes": {
        "spec": Struct({"taints": MergedAtomic("key"), "podCIDRs": ListSet()}),
        "status": Struct(
            {
                "conditions": CONDITIONS,
                "addresses": ListMap(("type",), LEAF, "type"),
                "capacity": LABELS,
                "allocatable": LABELS,
            }
        ),
    },
    "namespaces": {"status": _CONDITIONED},
    "configmaps": {"data": LABELS, "binaryData": LABELS},
    "secrets": {"data": LABELS, "stringData": LABELS},
    "services": {
        "spec": Struct(
            {
                "ports": ListMap(("port", "protocol"), LEAF, "port", {"protocol": "TCP"}),
                "selector": ATOMIC,
            }
        ),
        "status": _CONDITIONED,
    },
    "serviceaccounts": {"secrets": _named(ATOMIC)},
    "persistentvolumeclaims": {
        "spec": Struct({"selector": ATOMIC, "resources": Struct({"limits": LABELS, "requests": LABELS})}),
        "status": Struct({"conditions": CONDITIONS, "capacity": LABELS}),
    },
    "resourcequotas": {
        "spec": Struct({"hard": LABELS}),
        "status": Struct({"hard": LABELS, "used": LABELS}),
    },
    "deployments.apps": {"spec": _WORKLOAD, "status": _CONDITIONED},
    "replicasets.apps": {"spec": _WORKLOAD, "status": _CONDITIONED},
    "statefulsets.apps": {"spec": _WORKLOAD, "status": _CONDITIONED},
    "daemonsets.apps": {"spec": _WORKLOAD, "status": _CONDITIONED},
    "jobs.batch": {"spec": _JOB_SPEC, "status": Struct({"conditions": MergedAtomic("type")})},
    "cronjobs.batch": {
        "spec": Struct({"jobTemplate": Struct({"metadata": METADATA, "spec": _JOB_SPEC})}),
    },
    "poddisruptionbudgets.policy": {
        "spec": Struct({"selector": ATOMIC}),
        "status": Struct({"conditions": CONDITIONS, "disruptedPods": LABELS}),
    },
    "events": {"involvedObject": ATOMIC},
    "customresourcedefinitions.apiextensions.k8s.io": {"status": _CONDITIONED},
}

_BUILTIN_ROOTS = {storage: Struct({"metadata": METADATA, **fields}) for storage, fields in BUILTIN.items()}
_BARE = Struct({"metadata": METADATA})


def root_schema(resource: Resource, crd_version: Json | None = None) -> Struct:
    """The schema of a resource's objects; for custom resources from the openAPIV3Schema of their version."""
    if not resource.custom:
        return _BUILTIN_ROOTS.get(resource.storage, _BARE)
    openapi = ((crd_version or {}).get("schema") or {}).get("openAPIV3Schema") or {}
    properties = {
        name: from_openapi(schema)
        for name, schema in (openapi.get("properties") or {}).items()
        if name not in {"metadata", "apiVersion", "kind"}
    }
    return _WithUnknown({"metadata": METADATA, **properties})


class _WithUnknown(Struct):
    """The root of a custom resource: fields beyond its schema are unknown, not structs."""

    __slots__ = ()


def child(node: Node, name: str) -> Node:
    """The schema of a field (or key) of an object at `node`."""
    if isinstance(node, Struct):
        return node.fields.get(name, UNKNOWN if isinstance(node, _WithUnknown) else LEAF)
    if isinstance(node, Map):
        return node.values
    return UNKNOWN


def is_named(node: Node, name: str) -> bool:
    """Whether `name` is a field that the schema knows (rather than a free key), as far as the table says."""
    if isinstance(node, _WithUnknown):
        return name in node.fields
    return isinstance(node, Struct)


def from_openapi(schema: Json) -> Node:
    """The node of a structural OpenAPI v3 schema."""
    kind = schema.get("type")
    if kind == "array":
        list_type = schema.get("x-kubernetes-list-type", "atomic")
        items = schema.get("items") or {}
        if list_type == "map":
            keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
            item_fields = items.get("properties") or {}
            defaults = {k: item_fields[k]["default"] for k in keys if "default" in item_fields.get(k, {})}
            return ListMap(keys, from_openapi(items), defaults=defaults)
        return ListSet() if list_type == "set" else ATOMIC
    if kind == "object":
        if schema.get("x-kubernetes-map-type") == "atomic":
            return ATOMIC
        if schema.get("properties"):
            fields = {name: from_openapi(sub) for name, sub in schema["properties"].items()}
            if schema.get("x-kubernetes-preserve-unknown-fields"):
                return _WithUnknown(fields)
            return Struct(fields)
        values = schema.get("additionalProperties")
        return Map(from_openapi(values) if isinstance(values, dict) else UNKNOWN)
    return UNKNOWN if schema.get("x-kubernetes-preserve-unknown-fields") else LEAF
