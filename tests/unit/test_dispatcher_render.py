"""From assignments to objects: patches, replicas, marks; and what counts as a difference."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model import kinds, names
from gpufleet.model.patch import apply_patch
from services.dispatcher.core import render
from services.dispatcher.core.cache import ObjectCache
from tests.support import manifests
from tests.support.hands import assigned

EVERY = manifests.every_kind()

WITHOUT_PODS = ("ConfigMap", "Secret", "PersistentVolumeClaim", "ServiceAccount")


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_every_kind_is_marked_where_its_pods_come_from(kind: str) -> None:
    manifest = EVERY[kind]
    before = copy.deepcopy(manifest)
    assignment = assigned(manifest)
    obj = render.render(assignment)
    assert manifest == before  # shared with the table
    marked = names.workload_label(assignment.workload)
    assert obj["metadata"]["labels"][names.WORKLOAD_LABEL] == marked
    assert obj["metadata"]["annotations"][names.WORKLOAD_ANNOTATION] == assignment.workload
    templates = kinds.pod_templates(obj)
    assert bool(templates) is (kind not in WITHOUT_PODS)
    for template in templates:
        labels, annotations = _at(obj, template.labels), _at(obj, template.annotations)
        assert labels[names.WORKLOAD_LABEL] == marked
        assert labels[names.COMPONENT_LABEL] == template.component
        assert annotations[names.WORKLOAD_ANNOTATION] == assignment.workload


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_every_kind_that_can_be_suspended(kind: str) -> None:
    manifest = EVERY[kind]
    for suspend in (True, False):
        obj = render.render(assigned(manifest), suspend=suspend)
        assert render.suspended(obj) is (suspend and render.suspends(manifest))


def test_what_is_kept_of_a_rendering_is_that_of_the_assignment() -> None:
    rendered = render.Renderings()
    assignment = assigned(EVERY["PyTorchJob"])
    first = rendered(assignment, suspend=True)
    assert first == render.render(assignment, suspend=True)
    assert rendered(assignment, suspend=True) is first
    assert rendered(assignment, suspend=False) == render.render(assignment, suspend=False) != first
    other = replace(assignment, components=tuple((name, 7) for name, _ in assignment.components))
    assert rendered(other, suspend=True) == render.render(other, suspend=True) != first
    kept = rendered(other, suspend=True)
    rendered.forget(other.workload)
    assert rendered(other, suspend=True) is not kept


def _at(obj: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        obj = obj[key]
    return obj


def test_what_a_server_has_set_is_not_sent_back() -> None:
    manifest = manifests.deployment(1)
    manifest["metadata"] |= {"uid": "u", "resourceVersion": "1", "generation": 3, "managedFields": [], "selfLink": "x"}
    manifest["status"] = {"replicas": 1}
    obj = render.render(assigned(manifest))
    assert sorted(obj["metadata"]) == ["annotations", "labels", "name", "namespace"]
    assert "status" not in obj


def test_the_namespace_is_the_keys() -> None:
    manifest = manifests.deployment(1)
    del manifest["metadata"]["namespace"]
    assert render.render(assigned(manifest))["metadata"]["namespace"] == "default"


def test_replicas_come_after_patches() -> None:
    assignment = replace(
        assigned(manifests.deployment(9)),
        components=(("main", 3),),
        patches=({"op": "replace", "path": "/spec/replicas", "value": 5},),
    )
    assert render.render(assignment)["spec"]["replicas"] == 3


BASE = {"a": {"b": [1, 2, 3], "x/y": 1, "x~y": 2}}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"op": "add", "path": "/a/c", "value": 1}, {"a": BASE["a"] | {"c": 1}}),
        ({"op": "add", "path": "/n/m/k", "value": 1}, BASE | {"n": {"m": {"k": 1}}}),
        ({"op": "add", "path": "/a/b/-", "value": 4}, {"a": BASE["a"] | {"b": [1, 2, 3, 4]}}),
        ({"op": "add", "path": "/a/b/0", "value": 0}, {"a": BASE["a"] | {"b": [0, 1, 2, 3]}}),
        ({"op": "replace", "path": "/a/b/1", "value": 7}, {"a": BASE["a"] | {"b": [1, 7, 3]}}),
        ({"op": "remove", "path": "/a/b/0"}, {"a": BASE["a"] | {"b": [2, 3]}}),
        ({"op": "remove", "path": "/a"}, {}),
        ({"op": "replace", "path": "/a/x~1y", "value": 9}, {"a": BASE["a"] | {"x/y": 9}}),
        ({"op": "replace", "path": "/a/x~0y", "value": 9}, {"a": BASE["a"] | {"x~y": 9}}),
    ],
    ids=lambda value: f"{value.get('op')} {value.get('path')}" if "op" in value else "",
)
def test_patches(patch: dict[str, Any], expected: dict[str, Any]) -> None:
    obj: dict[str, Any] = dict(BASE)
    apply_patch(obj, patch)
    assert obj == expected
    assert BASE == {"a": {"b": [1, 2, 3], "x/y": 1, "x~y": 2}}


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ({"op": "move", "path": "/a"}, "op must be"),
        ({"op": "add"}, "a JSON pointer"),
        ({"op": "add", "path": "a"}, "a JSON pointer"),
        ({"op": "remove", "path": "/z"}, "patch remove /z: z does not exist"),
        ({"op": "replace", "path": "/z", "value": 1}, "z does not exist"),
        ({"op": "replace", "path": "/z/y", "value": 1}, "z does not exist"),
        ({"op": "replace", "path": "/a/b/7", "value": 1}, "patch replace /a/b/7"),
        ({"op": "remove", "path": "/a/b/x"}, "patch remove /a/b/x"),
        ({"op": "add", "path": "/a/x~1y/z", "value": 1}, "patch add /a/x~1y/z"),
    ],
)
def test_patches_that_do_not_fit(patch: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        apply_patch(dict(BASE), patch)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "live", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": 2}, True),
        ({"a": 1}, {}, True),
        ({"a": {"b": 1}}, {"a": None}, True),
        ({"a": [1]}, {"a": [1, 2]}, True),
        ({"a": [{"n": "x"}]}, {"a": [{"n": "x", "defaulted": True}]}, False),
        ({"a": []}, {}, False),
        ({"a": None}, {}, False),
        ({"a": None}, {"a": 1}, True),
        ({"cpu": "1000m"}, {"cpu": "1"}, False),
        ({"cpu": 1}, {"cpu": "1"}, False),
        ({"memory": "1024Mi"}, {"memory": "1Gi"}, False),
        ({"cpu": "1001m"}, {"cpu": "1"}, True),
        ({"image": "a"}, {"image": "b"}, True),
        ({"suspend": False}, {"suspend": True}, True),
    ],
)
def test_differs(wanted: Any, live: Any, expected: bool) -> None:
    assert render.differs(wanted, live) is expected


def test_projected_keeps_the_servers_spelling_of_what_we_want() -> None:
    wanted = {"a": {"b": "1000m"}, "l": [1], "gone": 1}
    answer = {"a": {"b": "1", "c": 2}, "l": [1, 2], "more": 3}
    assert render.projected(wanted, answer) == {"a": {"b": "1"}, "l": [1, 2], "gone": None}


# --- The cache of live objects ----------------------------------------------------------------------------------


def obj(version: str, uid: str = "u", name: str = "x") -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": name, "uid": uid, "resourceVersion": version}}


PLACE = ("n", "x")


def test_an_older_event_does_not_undo_the_answer_to_our_write() -> None:
    cache = ObjectCache()
    assert cache.put(obj("5"))
    assert cache.put(obj("9"))  # our write
    assert not cache.put(obj("7"))  # what the watch tells late
    assert not cache.put(obj("9"))
    assert cache.get(PLACE) == obj("9")
    assert cache.put(obj("8", uid="other"))  # another object of that name


def test_a_deletion_is_of_one_object() -> None:
    cache = ObjectCache()
    cache.put(obj("9", uid="new"))
    assert not cache.removed(obj("10", uid="old"))
    assert cache.removed(obj("11", uid="new"))
    assert not cache.removed(obj("11", uid="new"))
    assert cache.get(PLACE) is None


def test_an_answer_that_comes_after_the_removal_does_not_bring_it_back() -> None:
    """Our write was answered later than the watch told that somebody took the object (or our label off it)."""
    cache = ObjectCache()
    cache.put(obj("9"))
    assert cache.removed(obj("12"))
    assert not cache.put(obj("10"))
    assert cache.get(PLACE) is None
    assert cache.put(obj("13"))  # the label is back
    assert not cache.removed(obj("12"))  # told again by a watch that goes on from an old version
    assert cache.get(PLACE) == obj("13")
    cache.absent(PLACE)
    assert not cache.put(obj("14"))
    assert cache.put(obj("15", uid="another"))


def test_a_removal_of_what_is_not_known_yet_counts_too() -> None:
    cache = ObjectCache()
    assert not cache.removed(obj("12"))
    assert not cache.put(obj("10"))


def test_a_list_replaces_all_but_what_is_younger() -> None:
    cache = ObjectCache()
    for each in (obj("3", name="stays"), obj("4", name="goes"), obj("12", name="younger"), obj("20", name="newer")):
        cache.put(each)
    changed = cache.replace([obj("3", name="stays"), obj("5", name="comes"), obj("8", name="newer")], "10")
    assert changed == {("n", "goes"), ("n", "comes")}
    assert cache.get(("n", "younger")) is not None
    assert cache.get(("n", "newer")) == obj("20", name="newer")


def test_versions_that_are_no_numbers_are_taken_in_order_of_arrival() -> None:
    cache = ObjectCache()
    cache.put(obj("b"))
    assert cache.put(obj("a"))
    assert cache.replace([], "c") == {PLACE}
