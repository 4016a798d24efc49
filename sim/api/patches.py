"""JSON merge patch (RFC 7386), JSON patch (RFC 6902) and Kubernetes' strategic merge patch.

All answer a new document and share unchanged parts with the old one.
"""

from __future__ import annotations

from typing import Any

from sim.api.errors import ApiError, bad_request
from sim.api.resources import Resource
from sim.api.schema import LEAF, ListMap, ListSet, MergedAtomic, Node, child, root_schema
from sim.api.values import copy_json

Json = dict[str, Any]


def merge_patch(document: Any, patch: Any) -> Any:
    """RFC 7386: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return copy_json(patch)
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902: a list of operations; ApiError 400 (malformed) or 422 (a test or path that does not hold)."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    result = copy_json(document)
    for operation in operations:
        if not isinstance(operation, dict) or "op" not in operation or "path" not in operation:
            raise bad_request("each operation of a JSON patch needs op and path")
        result = _operate(result, operation)
    return result


def _operate(document: Any, operation: Json) -> Any:
    op, path = operation["op"], _pointer(operation["path"])
    if op == "test":
        if _at(document, path) != operation.get("value"):
            raise _unprocessable(f"testing value {operation['path']} failed")
        return document
    if op in {"add", "replace"}:
        if op == "replace":
            _at(document, path)
        return _set(document, path, copy_json(operation.get("value")), insert=op == "add")
    if op == "remove":
        return _remove(document, path)
    if op in {"move", "copy"}:
        source = _pointer(operation.get("from", ""))
        value = copy_json(_at(document, source))
        if op == "move":
            document = _remove(document, source)
        return _set(document, path, value, insert=True)
    raise bad_request(f'unexpected kind of JSON patch operation: "{op}"')


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise bad_request(f'"{text}" is not a JSON pointer: it has to start with "/"')
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _unprocessable(message: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {message}")


def _index(items: list[Any], part: str, *, end: bool) -> int:
    if part == "-" and end:
        return len(items)
    if not part.isdigit() or int(part) >= len(items) + end:
        raise _unprocessable(f'there is no item "{part}" in a list of {len(items)}')
    return int(part)


def _at(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, list):
            document = document[_index(document, part, end=False)]
        elif isinstance(document, dict) and part in document:
            document = document[part]
        else:
            raise _unprocessable(f"the path /{'/'.join(path)} does not exist")
    return document


def _set(document: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    parent = _at(document, path[:-1])
    if isinstance(parent, list):
        index = _index(parent, path[-1], end=insert)
        if insert:
            parent.insert(index, value)
        else:
            parent[index] = value
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise _unprocessable(f"the path /{'/'.join(path)} does not exist")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    _at(document, path)
    if not path:
        return None
    parent = _at(document, path[:-1])
    if isinstance(parent, list):
        del parent[_index(parent, path[-1], end=False)]
    else:
        del parent[path[-1]]
    return document


def strategic_merge_patch(resource: Resource, document: Json, patch: Any) -> Json:
    """Kubernetes' patch for builtin kinds: lists merge by key, with the `$patch`, `$deleteFromPrimitiveList`,
    `$setElementOrder` and `$retainKeys` directives. ApiError 415 for custom resources, 400 if malformed.
    """
    if resource.custom:
        accepted = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        message = "the body of the request was in an unknown format - accepted media types include: " + accepted
        raise ApiError(415, "UnsupportedMediaType", message)
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch is an object")
    merged: Json = _merge_object(root_schema(resource), document, patch)
    return merged


def _merge_object(node: Node, old: Any, patch: Json) -> Json:
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: copy_json(value) for key, value in patch.items() if not key.startswith("$")}
    if directive == "delete":
        return {}
    result: Json = dict(old) if isinstance(old, dict) else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [item for item in result.get(name) or () if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = _merge_value(child(node, key), result.get(key), value)
            order = patch.get(f"$setElementOrder/{key}", value)
            if isinstance(order, list) and isinstance(result[key], list) and isinstance(old, dict):
                result[key] = _ordered(child(node, key), result[key], order, old.get(key) or [])
    for key, value in patch.items():
        name = key.removeprefix("$setElementOrder/")
        if name != key and name not in patch and isinstance(result.get(name), list):
            result[name] = _ordered(child(node, name), result[name], value, result[name])
    return result


def _merge_value(node: Node, old: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return _merge_object(node, old, value)
    if not isinstance(value, list):
        return value
    merge_key = node.merge_key if isinstance(node, (ListMap, MergedAtomic)) else ""
    if merge_key:
        items = node.items if isinstance(node, ListMap) else LEAF
        return _merge_list(items, merge_key, old if isinstance(old, list) else [], value)
    if isinstance(node, ListSet):
        have = list(old or ())
        return have + [item for item in value if item not in have]
    return copy_json(value)


def _merge_list(items: Node, key: str, old: list[Any], patch: list[Any]) -> list[Any]:
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [copy_json(item) for item in patch if item.get("$patch") != "replace"]
    result = list(old)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        at = next((i for i, have in enumerate(result) if have.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            result = [have for have in result if have.get(key) != item[key]]
        elif at is None:
            result.append(_merge_object(items, {}, item))
        else:
            result[at] = _merge_object(items, result[at], item)
    return result


def _ordered(node: Node, items: list[Any], order: list[Any], server: list[Any]) -> list[Any]:
    """The merged list in upstream's order: items that the patch names in its order, the others in the server's;
    where the two meet, as they stood on the server, and what is new first.
    """
    key = node.merge_key if isinstance(node, (ListMap, MergedAtomic)) else ""
    if not key and not isinstance(node, ListSet):
        return items

    def identity(item: Any) -> Any:
        return _hashable(item.get(key) if key and isinstance(item, dict) else item)

    wanted = {identity(item): index for index, item in enumerate(order)}
    stood = {identity(item): index for index, item in enumerate(server)}
    named = sorted((i for i in items if identity(i) in wanted), key=lambda i: wanted[identity(i)])
    others = [i for i in items if identity(i) not in wanted]
    merged: list[Any] = []
    while named and others:
        first, second = stood.get(identity(named[0])), stood.get(identity(others[0]))
        take_other = first is not None and second is not None and second < first
        merged.append(others.pop(0) if take_other else named.pop(0))
    return [*merged, *named, *others]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
