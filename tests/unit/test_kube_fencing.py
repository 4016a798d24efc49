"""The pure half of the guarded writes. That a server keeps to it is in the conformance suite."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpufleet.kube.fencing import Stamp, fence_object, for_create, for_update, owned_by, stamp_of, stamped
from gpufleet.model.names import VERSION_ANNOTATION

OBJ: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "j", "namespace": "n", "uid": "old", "annotations": {"a": "b"}},
    "spec": {"suspend": True},
}
LIVE = {"metadata": {"uid": "u", "resourceVersion": "9"}}
FENCE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "f", "namespace": "n", **LIVE["metadata"]}}


@pytest.mark.parametrize(
    "on_object, newer, allowed",
    [
        (("l", 2, 5), ("l", 2, 6), True),
        (("l", 2, 5), ("l", 2, 5), True),
        (("l", 2, 5), ("l", 2, 4), False),
        (("l", 2, 5), ("l", 3, 1), True),
        (("l", 3, 1), ("l", 2, 5), False),
        (("l", 2, 5), ("m", 9, 9), False),
    ],
)
def test_which_stamp_may_replace_which(
    on_object: tuple[str, int, int], newer: tuple[str, int, int], allowed: bool
) -> None:
    assert Stamp(*on_object).allows(Stamp(*newer)) is allowed


def test_a_stamp_goes_into_the_annotation_and_back() -> None:
    before = copy.deepcopy(OBJ)
    made = stamped(OBJ, Stamp("l", 2, 5))
    assert made["metadata"]["annotations"] == {"a": "b", VERSION_ANNOTATION: '{"log":"l","epoch":2,"version":5}'}
    assert stamp_of(made) == Stamp("l", 2, 5)
    assert before == OBJ


@pytest.mark.parametrize(
    "annotations", [None, {}, {VERSION_ANNOTATION: "x"}, {VERSION_ANNOTATION: '{"log":"l"}'}, {VERSION_ANNOTATION: 5}]
)
def test_an_object_without_a_readable_stamp(annotations: Any) -> None:
    assert stamp_of({"metadata": {"annotations": annotations}}) is None
    assert stamp_of({}) is None


def test_preconditions() -> None:
    before = copy.deepcopy(OBJ)
    assert for_create(OBJ)["metadata"] == {
        "name": "j",
        "namespace": "n",
        "annotations": {"a": "b"},
        "resourceVersion": "1",
    }
    assert for_update(OBJ, LIVE)["metadata"] == {**OBJ["metadata"], "uid": "u", "resourceVersion": "9"}
    assert before == OBJ
    for incomplete in ({}, {"metadata": {"uid": "u"}}, {"metadata": {"resourceVersion": "9"}}):
        with pytest.raises(ValueError, match="as read from the server"):
            for_update(OBJ, incomplete)


def test_a_fence_owns() -> None:
    made = owned_by(owned_by(OBJ, FENCE), FENCE)
    assert made["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "ConfigMap", "name": "f", "uid": "u"}]
    assert "ownerReferences" not in OBJ["metadata"]
    with pytest.raises(ValueError, match="fence n/f cannot own an object in other"):
        owned_by({"metadata": {"name": "j", "namespace": "other"}}, FENCE)
    with pytest.raises(ValueError, match="as read from the server"):
        owned_by(OBJ, fence_object("f", "n", Stamp("l", 1, 1)))


def test_fence_object() -> None:
    fence = fence_object("f", "n", Stamp("l", 1, 2), {"a": "b"})
    assert (fence["kind"], fence["metadata"]["namespace"], fence["metadata"]["labels"]) == (
        "ConfigMap",
        "n",
        {"a": "b"},
    )
    assert stamp_of(fence) == Stamp("l", 1, 2)
