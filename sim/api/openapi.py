"""OpenAPI v3 documents: the fields of the builtin kinds with their types, and for custom resources their schemas.

Enough for `kubectl explain`; there are no descriptions of the builtin fields. The paths are there because kubectl looks
into them for the parameters `dryRun`, `fieldManager` and `fieldValidation` before it leaves validation to the server.
"""

from __future__ import annotations

from typing import Any

from sim.api.fieldnames import Field, fields_of_type, type_of
from sim.api.resources import Registry, Resource

Json = dict[str, Any]

_PARAMETERS = [
    {"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}}
    for name, kind in (
        ("dryRun", "string"),
        ("fieldManager", "string"),
        ("fieldValidation", "string"),
        ("force", "boolean"),
        ("pretty", "string"),
    )
]
_METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_FREE: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

_ANYTHING: Json = {"x-kubernetes-preserve-unknown-fields": True}
# By the letters of `fieldnames.TYPES`.
_SIMPLE: dict[str, Json] = {
    "s": {"type": "string"},
    "i": {"type": "integer"},
    "n": {"type": "number"},
    "b": {"type": "boolean"},
    "q": {"type": "string", "format": "quantity"},
    "x": {"type": "string", "format": "int-or-string"},
    "o": _FREE,
    "": _ANYTHING,
}
_TYPE_PREFIX = "io.k8s.types"


def index(registry: Registry, prefix: str) -> Json:
    """GET /openapi/v3: where each group version's document is; `prefix` is the path of the cluster."""
    paths = {}
    for group, versions in sorted(registry.group_versions().items()):
        for version in versions:
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            url = f"{prefix}/openapi/v3/{path}?hash={registry.revision}"
            paths[path] = {"serverRelativeURL": url}
    return {"paths": paths}


def document(registry: Registry, group: str, version: str) -> Json | None:
    """GET /openapi/v3/apis/<group>/<version>."""
    resources = [r for r in registry if r.group == group and r.version == version]
    if not resources:
        return None
    schemas: Json = {}
    schemas[_METADATA] = {
        "description": "Standard object metadata.",
        "type": "object",
        "properties": _properties("ObjectMeta", schemas),
    }
    paths: Json = {}
    for resource in sorted(resources, key=lambda r: r.plural):
        name = schema_name(resource)
        schemas[name] = _schema(registry, resource, schemas)
        _add_paths(paths, resource, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "simulated"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def v2_protobuf() -> bytes:
    """GET /openapi/v2 as protobuf: a document without definitions.

    kubectl reads it for kinds that the v3 documents do not have, and leaves unchecked what it does not find there.
    """

    def text(number: int, value: str) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value.encode()

    info = text(1, "Kubernetes") + text(2, "simulated")
    return text(1, "2.0") + bytes([2 << 3 | 2, len(info)]) + info


def schema_name(resource: Resource) -> str:
    """The name of a kind's schema: reversed domain, version, kind."""
    domain = ".".join(reversed((resource.group or "core.api.k8s.io").split(".")))
    return f"{domain}.{resource.version}.{resource.kind}"


def _gvk(resource: Resource) -> Json:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _schema(registry: Registry, resource: Resource, schemas: Json) -> Json:
    """The schema of a kind; those of the types that its fields have are added to `schemas`."""
    version = registry.crd_version(resource)
    schema = dict(((version or {}).get("schema") or {}).get("openAPIV3Schema") or {})
    properties: Json = dict(schema.get("properties") or {})
    known = type_of(resource)
    if known is not None:
        properties.update(_properties(known, schemas))
    else:
        for name in ("spec", "status"):
            properties.setdefault(name, _ANYTHING)
    properties["apiVersion"] = {"type": "string", "description": "The version of the representation."}
    properties["kind"] = {"type": "string", "description": "The kind of the object."}
    properties["metadata"] = {"allOf": [{"$ref": f"#/components/schemas/{_METADATA}"}], "default": {}}
    schema.setdefault("description", f"{resource.kind} in a simulated cluster.")
    return {
        **schema,
        "type": "object",
        "properties": properties,
        "x-kubernetes-group-version-kind": [_gvk(resource)],
        "x-kubernetes-preserve-unknown-fields": True,
    }


def _properties(type_name: str, schemas: Json) -> Json:
    return {name: _field(field, schemas) for name, field in fields_of_type(type_name).items()}


def _field(field: Field, schemas: Json) -> Json:
    match field.shape:
        case ">":
            return {"allOf": [_reference(field.type, schemas)], "default": {}}
        case "*":
            return {"type": "array", "items": {"allOf": [_reference(field.type, schemas)], "default": {}}}
        case "[":
            return {"type": "array", "items": _SIMPLE[field.type]}
        case "{":
            return {"type": "object", "additionalProperties": _SIMPLE[field.type]}
        case _:
            return _SIMPLE[field.type]


def _reference(type_name: str, schemas: Json) -> Json:
    """A reference to a type's schema, which is added, with those that it refers to in turn."""
    name = _METADATA if type_name == "ObjectMeta" else f"{_TYPE_PREFIX}.{type_name}"
    if name not in schemas:
        schemas[name] = {}  # a type may refer to itself
        schemas[name] = {"type": "object", "properties": _properties(type_name, schemas)}
    return {"$ref": f"#/components/schemas/{name}"}


def _add_paths(paths: Json, resource: Resource, schema: str) -> None:
    base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    if resource.namespaced:
        base += "/namespaces/{namespace}"
    collection = f"{base}/{resource.plural}"
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    answer = {"200": {"description": "OK", "content": content}}

    def operation(action: str, *, body: bool = False, media: tuple[str, ...] = ()) -> Json:
        described: Json = {
            "responses": answer,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _gvk(resource),
        }
        if body:
            described["parameters"] = _PARAMETERS
            described["requestBody"] = {"content": content if not media else {m: {} for m in media}}
        return described

    patches = (
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
    )
    paths[collection] = {"get": operation("list"), "post": operation("post", body=True)}
    paths[collection + "/{name}"] = {
        "get": operation("get"),
        "put": operation("put", body=True),
        "patch": operation("patch", body=True, media=patches),
        "delete": operation("delete"),
    }
