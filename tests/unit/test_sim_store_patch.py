"""Merge patches, JSON patches and strategic merge patches, in tables."""

from __future__ import annotations

from typing import Any

import pytest

from sim.api.patches import json_patch, merge_patch, strategic_merge_patch
from sim.api.resources import DEPLOYMENTS, NODES, PODS, Resource
from tests.support.simapi import fails

Json = dict[str, Any]


@pytest.mark.parametrize(
    "document, patch, expected",
    [
        # the examples of RFC 7386
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(document: Json, patch: Json, expected: Json) -> None:
    before = repr(document)
    assert merge_patch(document, patch) == expected
    assert repr(document) == before


@pytest.mark.parametrize(
    "document, operations, expected",
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
        ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
        (
            {"a/b": 1, "c~d": 2},
            [{"op": "remove", "path": "/a~1b"}, {"op": "test", "path": "/c~0d", "value": 2}],
            {"c~d": 2},
        ),
    ],
)
def test_json_patch(document: Json, operations: list[Json], expected: Json) -> None:
    before = repr(document)
    assert json_patch(document, operations) == expected
    assert repr(document) == before


@pytest.mark.parametrize(
    "operations, code",
    [
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "remove", "path": "/nope"}], 422),
        ([{"op": "replace", "path": "/nope", "value": 1}], 422),
        ([{"op": "add", "path": "/a/b", "value": 1}], 422),
        ([{"op": "add", "path": "/l/9", "value": 1}], 422),
        ([{"op": "spin", "path": "/a"}], 400),
        ([{"op": "add", "path": "a", "value": 1}], 400),
        ([{"path": "/a"}], 400),
        ({"op": "add"}, 400),
    ],
)
def test_json_patch_that_does_not_fit(operations: Any, code: int) -> None:
    with fails(code):
        json_patch({"a": 1, "l": []}, operations)


def spec(**fields: Any) -> Json:
    return {"spec": fields}


@pytest.mark.parametrize(
    "resource, document, patch, expected",
    [
        pytest.param(
            PODS,
            spec(containers=[{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]),
            spec(containers=[{"name": "b", "image": "2"}]),
            spec(containers=[{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
            id="lists merge by key",
        ),
        pytest.param(
            PODS,
            spec(containers=[{"name": "a"}]),
            spec(containers=[{"name": "b"}]),
            spec(containers=[{"name": "b"}, {"name": "a"}]),
            id="new items first",
        ),
        pytest.param(
            PODS,
            spec(containers=[{"name": "a"}, {"name": "b"}]),
            spec(containers=[{"name": "a", "$patch": "delete"}]),
            spec(containers=[{"name": "b"}]),
            id="delete an item",
        ),
        pytest.param(
            PODS,
            spec(containers=[{"name": "a"}, {"name": "b"}]),
            spec(containers=[{"$patch": "replace"}, {"name": "c"}]),
            spec(containers=[{"name": "c"}]),
            id="replace the list",
        ),
        pytest.param(
            PODS,
            spec(containers=[{"name": "a"}, {"name": "b"}]),
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            spec(containers=[{"name": "b"}, {"name": "a"}]),
            id="order",
        ),
        pytest.param(
            PODS,
            spec(tolerations=[{"key": "a"}]),
            spec(tolerations=[{"key": "b"}]),
            spec(tolerations=[{"key": "b"}]),
            id="atomic lists are replaced",
        ),
        pytest.param(
            PODS,
            spec(containers=[{"name": "a", "env": [{"name": "X", "value": "1"}]}]),
            spec(containers=[{"name": "a", "env": [{"name": "Y", "value": "2"}]}]),
            spec(containers=[{"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}]),
            id="lists in lists",
        ),
        pytest.param(
            PODS,
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}},
            {"metadata": {"finalizers": ["c", "b"]}},
            id="sets",
        ),
        pytest.param(
            DEPLOYMENTS,
            spec(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}),
            spec(strategy={"$retainKeys": ["type"], "type": "Recreate"}),
            spec(strategy={"type": "Recreate"}),
            id="retain keys",
        ),
        pytest.param(
            DEPLOYMENTS,
            spec(strategy={"type": "RollingUpdate"}),
            spec(strategy={"$patch": "replace", "type": "Recreate"}),
            spec(strategy={"type": "Recreate"}),
            id="replace an object",
        ),
        pytest.param(
            NODES,
            spec(taints=[{"key": "a", "effect": "NoSchedule"}]),
            spec(taints=[{"key": "b", "effect": "NoExecute"}]),
            spec(taints=[{"key": "b", "effect": "NoExecute"}, {"key": "a", "effect": "NoSchedule"}]),
            id="taints merge although apply replaces them",
        ),
        pytest.param(PODS, spec(a=1, b=2), spec(a=None), spec(b=2), id="null removes"),
    ],
)
def test_strategic_merge_patch(resource: Resource, document: Json, patch: Json, expected: Json) -> None:
    before = repr(document)
    assert strategic_merge_patch(resource, document, patch) == expected
    assert repr(document) == before


def test_strategic_merge_patch_is_for_builtin_kinds() -> None:
    with fails(415, "UnsupportedMediaType"):
        strategic_merge_patch(Resource("a.io", "v1", "xs", "X", custom=True), {}, {})
    with fails(400, "BadRequest", "merge key: name"):
        strategic_merge_patch(PODS, spec(containers=[]), spec(containers=[{"image": "x"}]))
