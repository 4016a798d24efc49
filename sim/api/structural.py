"""Structural schemas of custom resources: pruning, defaulting and the checks that clients run into.

After the semantics of apiextensions.k8s.io/v1: fields that the schema does not name are dropped unless it says
`x-kubernetes-preserve-unknown-fields`; defaults are filled in; types, required fields, enumerations, bounds and
patterns are checked.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sim.api import errors
from sim.api.problems import Problems
from sim.api.resources import Resource
from sim.api.values import copy_json

Json = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_OWN = frozenset({"apiVersion", "kind", "metadata"})


def openapi_schema(version: Json | None) -> Json:
    """The openAPIV3Schema of a version of a CustomResourceDefinition; empty if there is none."""
    schema: Json = ((version or {}).get("schema") or {}).get("openAPIV3Schema") or {}
    return schema


def complete(schema: Json, obj: Json) -> Json:
    """The custom object without unknown fields and with defaults; the parts that change are copies."""
    if not schema:
        return obj
    own = {key: value for key, value in obj.items() if key in _OWN}
    rest = {key: value for key, value in obj.items() if key not in _OWN}
    properties = {k: v for k, v in (schema.get("properties") or {}).items() if k not in _OWN}
    return {**own, **_completed({**schema, "properties": properties}, rest)}


def _completed(schema: Json, value: Any) -> Any:
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [_completed(items, item) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    free = schema.get("additionalProperties")
    keeps = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or free is True
    result: Json = {}
    for key, item in value.items():
        if key in properties:
            result[key] = _completed(properties[key], item)
        elif isinstance(free, dict):
            result[key] = _completed(free, item)
        elif keeps:
            result[key] = item
    for key, sub in properties.items():
        if "default" in sub and key not in result:
            result[key] = copy_json(sub["default"])
    return result


def check(resource: Resource, schema: Json, obj: Json) -> None:
    """ApiError 422 with a cause for each field that breaks the schema."""
    problems = Problems()
    for key, sub in (schema.get("properties") or {}).items():
        if key not in _OWN and key in obj:
            _check(sub, obj[key], key, problems)
    for key in schema.get("required") or ():
        if key not in obj:
            problems.required(key)
    if problems.causes:
        raise errors.invalid(resource, obj["metadata"].get("name", ""), problems.causes)


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {dict: "object", list: "array", str: "string", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _check(schema: Json, value: Any, path: str, problems: Problems) -> None:
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            _wrong_type(path, value, "integer,string", problems)
        return
    wanted = schema.get("type")
    if wanted in _TYPES and (
        not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean")
    ):
        _wrong_type(path, value, wanted, problems)
        return
    _check_scalar(schema, value, path, problems)
    if isinstance(value, dict):
        properties, free = schema.get("properties") or {}, schema.get("additionalProperties")
        for key in schema.get("required") or ():
            if key not in value:
                problems.required(f"{path}.{key}")
        for key, item in value.items():
            sub = properties.get(key, free if isinstance(free, dict) else None)
            if sub is not None:
                _check(sub, item, f"{path}.{key}", problems)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(schema.get("items") or {}, item, f"{path}[{index}]", problems)


def _wrong_type(path: str, value: Any, wanted: str, problems: Problems) -> None:
    shown = f'"{_json_type(value)}"'
    message = f"Invalid value: {shown}: {path} in body must be of type {wanted}: {shown}"
    problems.causes.append(errors.cause("FieldValueTypeInvalid", path, message))


def _check_scalar(schema: Json, value: Any, path: str, problems: Problems) -> None:
    allowed = schema.get("enum")
    if allowed is not None and value not in allowed:
        problems.unsupported(path, value, tuple(str(item) for item in allowed))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = schema.get("minimum"), schema.get("maximum")
        if least is not None and value < least:
            problems.invalid(path, value, f"{path} in body should be greater than or equal to {least}")
        if most is not None and value > most:
            problems.invalid(path, value, f"{path} in body should be less than or equal to {most}")
    pattern = schema.get("pattern")
    if pattern and isinstance(value, str) and not re.search(pattern, value):
        problems.invalid(path, value, f"{path} in body should match {json.dumps(pattern)[1:-1]}")
