"""Sets of fields in the form of `fieldsV1`, and the operations on them that server-side apply is made of.

A set is a nested dict: `{"f:spec": {"f:containers": {'k:{"name":"a"}': {".": {}, "f:image": {}}}}}`. A node is a
member of the set if it is empty or has the key "."; a node that only has children is not. The algorithm is that of
sigs.k8s.io/structured-merge-diff.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from sim.api.schema import UNKNOWN, Atomic, ListMap, ListSet, MergedAtomic, Node, child, is_named

Json = dict[str, Any]
Fields = dict[str, Any]

_MEMBER: Fields = {}


def is_member(node: Fields) -> bool:
    """Whether the path of a node is itself in the set."""
    return not node or "." in node


def _node(member: bool, children: Fields) -> Fields | None:
    """A node, or None if nothing is left of it."""
    if not children:
        return _MEMBER if member else None
    return {".": {}, **children} if member else children


def _children(node: Fields) -> Iterator[tuple[str, Fields]]:
    return ((key, value) for key, value in node.items() if key != ".")


def union(left: Fields, right: Fields) -> Fields:
    """The paths in either set."""
    if not left or not right:
        return left or right
    merged = dict(left)
    for key, value in _children(right):
        have = merged.get(key)
        merged[key] = value if have is None else _union_node(have, value)
    return merged


def _union_node(left: Fields, right: Fields) -> Fields:
    if left == right:
        return left
    member = is_member(left) or is_member(right)
    children = dict(_children(union(dict(_children(left)), dict(_children(right)))))
    return _node(member, children) or _MEMBER


def difference(left: Fields, right: Fields) -> Fields:
    """The paths of `left` that are not in `right`."""
    result = {}
    for key, value in _children(left):
        other = right.get(key)
        if other is None:
            result[key] = value
            continue
        rest = _node(is_member(value) and not is_member(other), difference(value, other))
        if rest is not None:
            result[key] = rest
    return result


def intersection(left: Fields, right: Fields) -> Fields:
    """The paths in both sets."""
    result = {}
    for key, value in _children(left):
        other = right.get(key)
        if other is None:
            continue
        common = _node(is_member(value) and is_member(other), intersection(value, other))
        if common is not None:
            result[key] = common
    return result


def paths(fields: Fields, prefix: str = "") -> Iterator[str]:
    """The members as upstream prints them: `.spec.containers[name="a"].image`."""
    for key, value in sorted(_children(fields)):
        path = prefix + _printed(key)
        if is_member(value):
            yield path
        yield from paths(value, path)


def _printed(element: str) -> str:
    kind, _, text = element.partition(":")
    if kind == "f":
        return f".{text}"
    if kind == "k":
        pairs = json.loads(text)
        return "[" + ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(pairs.items())) + "]"
    return f"[={text}]" if kind == "v" else f"[{text}]"


class UnidentifiedItemError(ValueError):
    """An item of an associative list that cannot be identified."""


def item_element(node: ListMap, item: Any) -> str:
    """The path element of an item of an associative list; ValueError if a key is missing."""
    if not isinstance(item, dict):
        raise UnidentifiedItemError("associative list with keys may not have non-map elements")
    values = []
    for name in node.keys:
        value = item.get(name, node.defaults.get(name))
        if value is None:
            raise UnidentifiedItemError(f'associative list with keys has an element that omits key field "{name}"')
        if not isinstance(value, (str, int)):
            raise UnidentifiedItemError(f'associative list with keys has an element with a wrong key field "{name}"')
        values.append(value)
    return _key_element(node.keys, tuple(values))


@lru_cache(maxsize=16384)
def _key_element(names: tuple[str, ...], values: tuple[str | int, ...]) -> str:
    return "k:" + json.dumps(dict(zip(names, values, strict=True)), separators=(",", ":"), sort_keys=True)


def list_elements(node: Node, items: list[Any], *, strict: bool = False) -> dict[str, Any] | None:
    """The items of an associative list or set by path element; None for a list that is one value.

    So is an associative list with an item that lacks its key, unless `strict`: then ValueError.
    """
    if isinstance(node, ListMap):
        try:
            return {item_element(node, item): item for item in items}
        except UnidentifiedItemError:
            if strict:
                raise
            return None
    if isinstance(node, ListSet):
        return {"v:" + json.dumps(item): item for item in items}
    return None


def item_node(node: Node) -> Node:
    """The schema of the items of a list."""
    return node.items if isinstance(node, ListMap) else UNKNOWN


def is_atomic(node: Node) -> bool:
    """Whether a value here is owned as a whole."""
    return isinstance(node, (Atomic, MergedAtomic))


def fields_of(node: Node, value: Any) -> Fields | None:
    """The fields that a value sets, below its own path; None if there are none (an empty associative list)."""
    if is_atomic(node):
        return _MEMBER
    if isinstance(value, dict):
        if not value:
            return _MEMBER
        children: Fields = {}
        for name, item in value.items():
            sub = fields_of(child(node, name), item)
            if not is_named(node, name):
                sub = _with_member(sub)
            if sub is not None:
                children[f"f:{name}"] = sub
        return children or None
    if isinstance(value, list):
        elements = list_elements(node, value)
        if elements is None:
            return _MEMBER
        items = item_node(node)
        found = {element: _with_member(fields_of(items, item)) for element, item in elements.items()}
        return found or None
    return _MEMBER


def added_fields(node: Node, value: Any) -> Fields:
    """The fields of a value that was not there before: each level is a member."""
    if not is_atomic(node) and isinstance(value, dict):
        return _with_member({f"f:{k}": added_fields(child(node, k), v) for k, v in value.items()})
    elements = list_elements(node, value) if isinstance(value, list) else None
    if elements is None:
        return _MEMBER
    items = item_node(node)
    return _with_member({element: added_fields(items, item) for element, item in elements.items()})


def _with_member(fields: Fields | None) -> Fields:
    if not fields:
        return _MEMBER
    return fields if "." in fields else {".": {}, **fields}


def changes(node: Node, old: Any, new: Any) -> tuple[Fields | None, Fields | None]:
    """What differs below a path: (fields changed or added, fields removed); None where there is nothing."""
    if old is new or old == new:
        return None, None
    if is_atomic(node):
        return _MEMBER, None
    if isinstance(old, dict) and isinstance(new, dict):
        before = {f"f:{name}": (child(node, name), value) for name, value in old.items()}
        after = {f"f:{name}": (child(node, name), value) for name, value in new.items()}
    elif isinstance(old, list) and isinstance(new, list) and isinstance(node, (ListMap, ListSet)):
        items = item_node(node)
        had, has = list_elements(node, old), list_elements(node, new)
        if had is None or has is None:
            return _MEMBER, None
        before = {key: (items, value) for key, value in had.items()}
        after = {key: (items, value) for key, value in has.items()}
    else:
        return _MEMBER, None
    changed: Fields = {}
    removed: Fields = {}
    for key, (sub, value) in after.items():
        if key not in before:
            changed[key] = added_fields(sub, value)
            continue
        sub_changed, sub_removed = changes(sub, before[key][1], value)
        if sub_changed is not None:
            changed[key] = sub_changed
        if sub_removed is not None:
            removed[key] = sub_removed
    for key, (sub, value) in before.items():
        if key not in after:
            removed[key] = added_fields(sub, value)
    return changed or None, removed or None


def merge(node: Node, live: Any, config: Any) -> Any:
    """The live value with all that an applied configuration says; shares what does not change."""
    if is_atomic(node):
        return config
    if isinstance(live, dict) and isinstance(config, dict):
        merged = dict(live)
        for name, value in config.items():
            merged[name] = merge(child(node, name), live[name], value) if name in live else value
        return merged
    if isinstance(live, list) and isinstance(config, list) and isinstance(node, (ListMap, ListSet)):
        items = item_node(node)
        have, wanted = list_elements(node, live), list_elements(node, config)
        if have is None or wanted is None:
            return config
        for key, value in wanted.items():
            have[key] = merge(items, have[key], value) if key in have else value
        return list(have.values())
    return config


def prune(node: Node, value: Any, last: Fields, owned: Fields) -> Any:
    """The value without the fields in `last` (what the manager applied before) that nobody in `owned` holds.

    An object or list that loses its last field becomes null, as upstream: builtin kinds drop it, a custom resource
    whose schema wants an object there is refused.
    """
    if is_atomic(node) or not isinstance(value, (dict, list)):
        return value
    if isinstance(value, dict):
        kept_fields: Json = {}
        for name, item in value.items():
            before, now = last.get(f"f:{name}"), owned.get(f"f:{name}")
            if before is not None and now is None:
                # All that the manager had set here is given up: defaults below it go too.
                continue
            if before is not None and now is not None:
                item = prune(child(node, name), item, before, now)
            kept_fields[name] = item
        return kept_fields or (None if value else value)
    elements = list_elements(node, value)
    if elements is None:
        return value
    kept_items = []
    for key, item in elements.items():
        before, now = last.get(key), owned.get(key)
        if before is not None and is_member(before) and (now is None or not is_member(now)):
            continue
        if before is not None and now is not None:
            item = prune(item_node(node), item, before, now)
        kept_items.append(item)
    return kept_items or (None if value else value)
