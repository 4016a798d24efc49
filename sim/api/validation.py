"""What the API server refuses: malformed requests (400) and invalid objects (422 with a cause per field)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from sim.api import errors, fieldnames
from sim.api.kindrules import check_kind, check_kind_update
from sim.api.problems import DNS_LABEL, DNS_SUBDOMAIN, Problems
from sim.api.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, NODES, PODS, SERVICES, Registry, Resource
from sim.api.values import without_empty, without_nulls

Json = dict[str, Any]

_LABEL_VALUE = re.compile(r"^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?$")
_LABEL_NAME = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")


def well_formed(resource: Resource, obj: Any, namespace: str | None = None, name: str | None = None) -> Json:
    """The document as an object of the resource: kind and namespace filled in, nulls dropped; ApiError 400.

    `namespace` and `name` are those of the URL.
    """
    if not isinstance(obj, dict):
        raise errors.bad_request(f"the request body is no object but {_type_name(obj)}")
    schemas_inside = resource.custom or resource == CUSTOM_RESOURCE_DEFINITIONS
    obj = without_nulls(obj) if schemas_inside else without_empty(obj)
    wrong: list[fieldnames.WrongType] = []
    type_name = fieldnames.type_of(resource)
    if type_name is not None:
        obj = fieldnames.decode(type_name, obj, wrong)
    elif isinstance(obj.get("metadata"), dict):
        obj = {**obj, "metadata": fieldnames.decode("ObjectMeta", obj["metadata"], wrong, "metadata.")}
    elif "metadata" in obj:
        wrong.append(fieldnames.WrongType("metadata", "ObjectMeta", obj["metadata"]))
    if wrong:
        raise _wrong_type(resource, wrong[0])
    given = (obj.get("apiVersion") or resource.api_version, obj.get("kind") or resource.kind)
    if resource.custom and given[0] == resource.api_version and given[1] != resource.kind:
        problem = errors.cause("FieldValueInvalid", "kind", f'Invalid value: "{given[1]}": must be {resource.kind}')
        given_name = (obj.get("metadata") or {}).get("name", "")
        raise errors.invalid(replace(resource, kind=str(given[1])), given_name, [problem])
    if given != (resource.api_version, resource.kind):
        raise errors.bad_request(
            f"the API version in the data ({given[0]}, Kind={given[1]}) does not match the expected API version "
            f"({resource.api_version}, Kind={resource.kind})"
        )
    metadata = dict(obj.get("metadata") or {})
    if not resource.namespaced and metadata.get("namespace") == "":
        del metadata["namespace"]
    _check_place(resource, metadata, namespace, name)
    return {**obj, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def check_applied(resource: Resource, config: Any, name: str) -> None:
    """What server-side apply demands of a configuration: kind and name written out. ApiError 400."""
    if not isinstance(config, dict):
        raise errors.bad_request(f"error decoding YAML: the document is no object but {_type_name(config)}")
    given = (config.get("apiVersion", ""), config.get("kind", ""))
    if given != (resource.api_version, resource.kind):
        group, _, version = str(given[0]).rpartition("/")
        raise errors.bad_request(f"invalid object type: {group}/{version}, Kind={given[1]}")
    metadata = config.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        message = f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        raise errors.bad_request(message)
    if metadata.get("managedFields") is not None:
        raise errors.bad_request("metadata.managedFields must be nil")
    type_name = fieldnames.type_of(resource)
    wrong: list[fieldnames.WrongType] = []
    listed = []
    if type_name:
        fieldnames.decode(type_name, config, wrong)
        listed += [f".{path}: field not declared in schema" for path in fieldnames.unknown_fields(type_name, config)]
        listed += [f".{w.path}: expected {w.wanted}, got {_type_name(w.value)}" for w in wrong]
    if listed:
        where = f"{metadata.get('namespace', '')}/{name}; {resource.api_version}, Kind={resource.kind}"
        problem = listed[0] if len(listed) == 1 else "errors:\n" + "\n".join(f"  {line}" for line in listed)
        raise errors.ApiError(500, "", f"failed to create typed patch object ({where}): {problem}")


def check_strictly(resource: Resource, body: Any) -> list[str]:
    """The unknown fields of a body as upstream's warnings: `unknown field "spec.replica"`."""
    type_name = fieldnames.type_of(resource)
    if type_name is None or not isinstance(body, dict):
        return []
    return [f'unknown field "{path}"' for path in fieldnames.unknown_fields(type_name, body)]


def _check_place(resource: Resource, metadata: Json, namespace: str | None, name: str | None) -> None:
    if name is not None and metadata.setdefault("name", name) != name:
        raise errors.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        )
    if not resource.namespaced:
        if metadata.pop("namespace", ""):
            raise errors.bad_request("namespace is not allowed on a cluster-scoped resource")
        return
    metadata["namespace"] = metadata.get("namespace") or namespace or "default"
    if namespace and metadata["namespace"] != namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _type_name(value: Any) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _wrong_type(resource: Resource, wrong: fieldnames.WrongType) -> errors.ApiError:
    return errors.bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: json: cannot '
        f"unmarshal {_type_name(wrong.value)} into Go struct field {wrong.path} of type {wrong.wanted}"
    )


def restrict(resource: Resource, new: Json, old: Json, subresource: str) -> Json:
    """What an update may change: all but the status, or with subresource `status` nothing else.

    Answers an object whose top level and metadata are its own.
    """
    if subresource == "status":
        metadata = dict(old["metadata"])
        given = new["metadata"]
        carried = ["managedFields", "resourceVersion"]
        if resource in {PODS, NODES, NAMESPACES}:
            carried += ["labels", "annotations"]
        for key in carried:
            if key in given:
                metadata[key] = given[key]
            else:
                metadata.pop(key, None)
        result = {**old, "metadata": metadata}
        if "status" in new:
            result["status"] = new["status"]
        else:
            result.pop("status", None)
        return result
    result = {**new, "metadata": dict(new["metadata"])}
    if "status" in resource.subresources:
        if "status" in old:
            result["status"] = old["status"]
        else:
            result.pop("status", None)
    return result


def check_create(resource: Resource, obj: Json, registry: Registry) -> None:
    """ApiError 422 if a new object breaks a rule (400 if a field has the wrong type)."""
    problems = Problems()
    _check_name(resource, obj["metadata"], problems)
    _check_labels(obj["metadata"], problems)
    _check_owners(obj["metadata"], problems)
    check_kind(resource, obj, problems)
    problems.raise_for(resource, obj["metadata"].get("name", ""))
    existing = registry.find(resource.group, resource.version, resource.plural)
    if existing is None:
        raise errors.path_not_found()


def check_update(resource: Resource, new: Json, old: Json) -> None:
    """ApiError 422 if an update breaks a rule or changes what cannot be changed."""
    problems = Problems()
    _check_labels(new["metadata"], problems)
    _check_owners(new["metadata"], problems)
    check_kind(resource, new, problems)
    check_kind_update(resource, new, old, problems)
    if "deletionTimestamp" in old["metadata"]:
        have = set(old["metadata"].get("finalizers") or ())
        added = [f for f in new["metadata"].get("finalizers") or () if f not in have]
        if added:
            found = _go_strings(added)
            text = f"no new finalizers can be added if the object is being deleted, found new finalizers {found}"
            problems.forbidden("metadata.finalizers", text)
    problems.raise_for(resource, old["metadata"]["name"])


def _go_strings(values: list[str]) -> str:
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"


def _check_name(resource: Resource, metadata: Json, problems: Problems) -> None:
    name = metadata.get("name", "")
    if not name:
        problems.required("metadata.name", "name or generateName is required")
        return
    if resource in {NAMESPACES, SERVICES}:
        if not DNS_LABEL.match(name) or len(name) > 63:
            problems.invalid(
                "metadata.name",
                name,
                "a lowercase RFC 1123 label must consist of lower case "
                "alphanumeric characters or '-', and must start and end with an alphanumeric character",
            )
    elif not DNS_SUBDOMAIN.match(name) or len(name) > 253:
        problems.invalid(
            "metadata.name",
            name,
            "a lowercase RFC 1123 subdomain must consist of lower case "
            "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
        )


def _check_labels(metadata: Json, problems: Problems) -> None:
    for key, value in (metadata.get("labels") or {}).items():
        check_label(key, value, "metadata.labels", problems)
    for key in metadata.get("annotations") or {}:
        _check_label_key(key.lower(), "metadata.annotations", problems)


def check_label(key: str, value: str, field: str, problems: Problems) -> None:
    """One label: a qualified name, and a value of at most 63 characters."""
    _check_label_key(key, field, problems)
    if len(value) > 63 or not _LABEL_VALUE.match(value):
        problems.invalid(
            field,
            value,
            "a valid label must be an empty string or consist of alphanumeric "
            "characters, '-', '_' or '.', and must start and end with an alphanumeric character, and have at most "
            "63 characters",
        )


def _check_label_key(key: str, field: str, problems: Problems) -> None:
    prefix, slash, name = key.rpartition("/")
    if len(name) > 63 or not _LABEL_NAME.match(name) or (slash and not DNS_SUBDOMAIN.match(prefix)):
        problems.invalid(
            field,
            key,
            "name part must consist of alphanumeric characters, '-', '_' or '.', and "
            "must start and end with an alphanumeric character, with an optional DNS subdomain prefix and '/'",
        )


def _check_owners(metadata: Json, problems: Problems) -> None:
    for reference in metadata.get("ownerReferences") or ():
        for field in ("apiVersion", "kind", "name", "uid"):
            if not isinstance(reference, dict) or not reference.get(field):
                problems.invalid(f"metadata.ownerReferences.{field}", "", "must not be empty")
