"""Checks Kubernetes objects against the client library's types, which are generated from Kubernetes' own schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def problems(obj: dict[str, Any]) -> list[str]:
    """Returns fields that do not exist, have another type than the schema's, or are missing; each with its path."""
    from kubernetes_asyncio.client import models

    version = obj["apiVersion"].rpartition("/")[2]
    name = f"{version[0].upper()}{version[1:]}{obj['kind']}"
    if not hasattr(models, name):
        return [f"there is no {obj['apiVersion']} {obj['kind']}"]
    return list(_check(models, name, obj, obj["kind"]))


def _check(models: Any, type_: str, value: Any, path: str) -> Iterator[str]:
    inner = re.fullmatch(r"(list|dict)[\[(](.*)[\])]", type_)
    if inner and inner[1] == "list":
        if not isinstance(value, list):
            yield f"{path}: a list is needed, not {value!r}"
            return
        for index, item in enumerate(value):
            yield from _check(models, inner[2], item, f"{path}[{index}]")
    elif inner:
        if not isinstance(value, dict):
            yield f"{path}: a map is needed, not {value!r}"
            return
        for key, item in value.items():
            yield from _check(models, inner[2].split(",")[-1].strip(), item, f"{path}.{key}")
    elif hasattr(models, type_):
        yield from _check_object(models, getattr(models, type_), value, path)
    else:
        yield from _check_plain(type_, value, path)


def _check_object(models: Any, cls: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: a map is needed, not {value!r}"
        return
    names = {wire: python for python, wire in cls.attribute_map.items()}
    for key, item in value.items():
        if key not in names:
            yield f"{path}.{key}: no such field in {cls.__name__}"
        else:
            yield from _check(models, cls.openapi_types[names[key]], item, f"{path}.{key}")
    try:
        cls(**{names[key]: item for key, item in value.items() if key in names})
    except ValueError as error:  # a required field is None
        yield f"{path}: {error}"


def _check_plain(type_: str, value: Any, path: str) -> Iterator[str]:
    allowed: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
    if type_ in allowed and (not isinstance(value, allowed[type_]) or (type_ != "bool" and isinstance(value, bool))):
        yield f"{path}: {value!r} is no {type_}"
