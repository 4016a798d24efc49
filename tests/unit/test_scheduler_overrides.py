"""Overrides: what each overrider does, in which order, and what becomes of assignments when policies change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model import kinds
from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.overrides import (
    ArgumentOverrider,
    FieldOverrider,
    ImageOverrider,
    ImagePart,
    LabelOverrider,
    Operator,
    OverridePolicy,
    OverrideRule,
    PatchOperation,
)
from gpufleet.model.patch import PatchError
from gpufleet.model.policy import ClusterAffinity, DivisionType, ResourceSelector
from gpufleet.model.reasons import Verdict
from gpufleet.model.selectors import LabelSelector
from services.dispatcher.core.render import RenderError, render
from services.scheduler.core.events import ClusterRegistered, PolicyChanged, PolicyRemoved
from services.scheduler.core.overriders import changed_image, patches
from tests.support import manifests
from tests.support.scheduling import World, policy

ADD, REMOVE, REPLACE = Operator.ADD, Operator.REMOVE, Operator.REPLACE
X = "test/Deployment/x"


@pytest.mark.parametrize(
    ("image", "part", "operator", "value", "expected"),
    [
        ("nginx", ImagePart.REGISTRY, ADD, "registry.idc", "registry.idc/nginx"),
        ("a.io:5000/ns/app:1", ImagePart.REGISTRY, REPLACE, "b.io", "b.io/ns/app:1"),
        ("a.io/ns/app:1", ImagePart.REGISTRY, ADD, ".cn", "a.io.cn/ns/app:1"),
        ("a.io:5000/ns/app:1", ImagePart.REGISTRY, REMOVE, "", "ns/app:1"),
        # What stands before the first slash is the registry only if it looks like a host.
        ("library/nginx:1", ImagePart.REGISTRY, REPLACE, "b.io", "b.io/library/nginx:1"),
        ("library/nginx:1", ImagePart.REGISTRY, REMOVE, "", "library/nginx:1"),
        ("library/nginx:1", ImagePart.REPOSITORY, REPLACE, "other", "other:1"),
        ("localhost/nginx:1", ImagePart.REGISTRY, REPLACE, "b.io", "b.io/nginx:1"),
        ("hub:5000/ns/app", ImagePart.REGISTRY, REPLACE, "b.io", "b.io/ns/app"),
        ("10.10.10.10:10443/ns/app", ImagePart.REPOSITORY, ADD, "-gpu", "10.10.10.10:10443/ns/app-gpu"),
        ("perl:5.34.0", ImagePart.REGISTRY, ADD, "b.io", "b.io/perl:5.34.0"),
        ("a.io/app:1", ImagePart.REPOSITORY, REMOVE, "", "a.io/:1"),
        ("a.io/app:1", ImagePart.TAG, ADD, f"sha256:{'b' * 64}", "a.io/app:1"),
        # A name with tag and digest keeps both, but for a change of the tag.
        (f"a.io/ns/app:1@sha256:{'a' * 64}", ImagePart.REGISTRY, REPLACE, "b.io", f"b.io/ns/app:1@sha256:{'a' * 64}"),
        (f"a.io/ns/app:1@sha256:{'a' * 64}", ImagePart.REPOSITORY, REPLACE, "b", f"a.io/b:1@sha256:{'a' * 64}"),
        (f"a.io/ns/app:1@sha256:{'a' * 64}", ImagePart.TAG, REPLACE, "2", "a.io/ns/app:2"),
        (f"a.io/ns/app:1@sha256:{'a' * 64}", ImagePart.TAG, REMOVE, "", "a.io/ns/app"),
        ("a.io/ns/app:1", ImagePart.REPOSITORY, REPLACE, "other", "a.io/other:1"),
        ("a.io/ns/app:1", ImagePart.REPOSITORY, ADD, "-gpu", "a.io/ns/app-gpu:1"),
        ("app:1", ImagePart.REPOSITORY, REPLACE, "b", "b:1"),
        ("a.io/app:1", ImagePart.TAG, REPLACE, "2", "a.io/app:2"),
        ("a.io/app:1", ImagePart.TAG, ADD, "-cuda", "a.io/app:1-cuda"),
        ("a.io:5000/app", ImagePart.TAG, REPLACE, "2", "a.io:5000/app:2"),
        ("a.io/app:1", ImagePart.TAG, REMOVE, "", "a.io/app"),
        (f"app@sha256:{'a' * 64}", ImagePart.TAG, REPLACE, "2", "app:2"),
        (f"app@sha256:{'a' * 64}", ImagePart.TAG, REMOVE, "", "app"),
        ("app:1", ImagePart.TAG, REPLACE, f"sha256:{'b' * 64}", f"app@sha256:{'b' * 64}"),
        ("app:1", ImagePart.TAG, REPLACE, "not a tag", "app:1"),
    ],
)
def test_images(image: str, part: ImagePart, operator: Operator, value: str, expected: str) -> None:
    assert changed_image(image, ImageOverrider(part, operator, value)) == expected


def overridden(obj: dict[str, Any], **overriders: Any) -> dict[str, Any]:
    result = dict(obj)
    rule: Any = {name: tuple(value) for name, value in overriders.items()}
    list(patches(result, OverrideRule(**rule)))
    return result


def container(obj: dict[str, Any], index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = obj["spec"]["template"]["spec"]["containers"][index]
    return found


def test_every_container_of_every_template_gets_the_image() -> None:
    tag = ImageOverrider(ImagePart.TAG, REPLACE, "2")
    roles = overridden(manifests.pytorch(), images=[tag])["spec"]["pytorchReplicaSpecs"]
    assert [roles[role]["template"]["spec"]["containers"][0]["image"] for role in ("Master", "Worker")] == [
        "image:2",
        "image:2",
    ]
    assert overridden(manifests.spark(), images=[tag]) == manifests.spark()
    at = replace(tag, path="/spec/template/spec/containers/0/image")
    assert container(overridden(manifests.deployment(), images=[at]))["image"] == "image:2"


@pytest.mark.parametrize(
    ("before", "overrider", "after"),
    [
        (None, ArgumentOverrider("main", ADD, ("-v",)), ["-v"]),
        (["run"], ArgumentOverrider("main", ADD, ("-v", "-x")), ["run", "-v", "-x"]),
        (["run", "-v", "-v"], ArgumentOverrider("main", REMOVE, ("-v",)), ["run"]),
        (None, ArgumentOverrider("main", REMOVE, ("-v",)), None),
        (["run"], ArgumentOverrider("sidecar", ADD, ("-v",)), ["run"]),
        (["run"], ArgumentOverrider("main", ADD), ["run"]),
    ],
)
@pytest.mark.parametrize("field", ["command", "args"])
def test_command_and_args(
    field: str, before: list[str] | None, overrider: ArgumentOverrider, after: list[str] | None
) -> None:
    obj = manifests.deployment()
    if before is not None:
        container(obj)[field] = before
    assert container(overridden(obj, **{field: [overrider]})).get(field) == after


def test_labels_and_annotations() -> None:
    obj = manifests.deployment()
    obj["metadata"]["labels"] = {"a": "1", "b/c": "2"}
    found = overridden(
        obj,
        labels=[
            LabelOverrider(ADD, (("d/e", "3"),)),
            LabelOverrider(REPLACE, (("a", "9"), ("missing", "9"))),
            LabelOverrider(REMOVE, (("b/c", ""), ("missing", ""))),
        ],
        annotations=[LabelOverrider(ADD, (("n", "x y"),))],
    )
    assert found["metadata"]["labels"] == {"a": "9", "d/e": "3"}
    assert found["metadata"]["annotations"] == {"n": "x y"}
    assert obj["metadata"]["labels"] == {"a": "1", "b/c": "2"}, "the manifest is shared"


def test_a_document_in_a_field() -> None:
    obj = {**manifests.deployment(), "data": {"a.json": '{"b": [1, 2], "a": {"c": "ü"}}', "b.yaml": "z: 1\na:\n- x\n"}}
    found = overridden(
        obj,
        fields=[
            FieldOverrider("/data/a.json", (PatchOperation("/b/0", REMOVE), PatchOperation("/a/d", ADD, {"e": 1}))),
            FieldOverrider("/data/b.yaml", (PatchOperation("/a/-", ADD, "y"),), yaml=True),
        ],
    )
    assert found["data"] == {"a.json": '{"b":[2],"a":{"c":"ü","d":{"e":1}}}', "b.yaml": "a:\n- x\n- y\nz: 1\n"}


def test_the_order_is_upstreams() -> None:
    """Image, command, args, labels, annotations, field, then plaintext, whatever the order in the document."""
    at = "/spec/template/spec/containers/0/image"
    found = overridden(
        manifests.deployment(),
        plaintext=[PatchOperation(at, REPLACE, "last")],
        images=[ImageOverrider(ImagePart.TAG, REPLACE, "first")],
    )
    assert container(found)["image"] == "last"


@pytest.mark.parametrize(
    ("overriders", "says"),
    [
        ({"plaintext": [PatchOperation("/spec/nothing", REMOVE)]}, "nothing does not exist"),
        ({"plaintext": [PatchOperation("/spec/replicas/x", ADD, 1)]}, "/spec/replicas/x"),
        ({"images": [ImageOverrider(ImagePart.TAG, REMOVE, "", "/spec/image")]}, "/spec/image: image does not exist"),
        ({"images": [ImageOverrider(ImagePart.TAG, REMOVE, "", "/spec/replicas")]}, "is no image name"),
        ({"fields": [FieldOverrider("/data/x", ())]}, "data does not exist"),
        ({"fields": [FieldOverrider("/spec/replicas", ())]}, "/spec/replicas is no text"),
        ({"fields": [FieldOverrider("/metadata/name", ())]}, "is no JSON"),
        (
            {"fields": [FieldOverrider("/metadata/name", (PatchOperation("/a", REMOVE),), yaml=True)]},
            "patch remove //a",
        ),
    ],
)
def test_what_cannot_be_applied_says_why(overriders: dict[str, Any], says: str) -> None:
    with pytest.raises(PatchError) as caught:
        overridden(manifests.deployment(), **overriders)
    assert says in str(caught.value)


# -- decisions -----------------------------------------------------------------------------------------------------


def label(name: str, value: str, *, namespace: str = "test", target: ClusterAffinity | None = None, **rest: Any) -> Any:
    """A policy that sets the annotation `who`; the last one to do so is the one that is seen."""
    rule = OverrideRule(target=target, annotations=(LabelOverrider(ADD, (("who", value),)),))
    return OverridePolicy(name, namespace, (rule,), digest=f"{name}-{value}", **rest)


def fleet(**clusters: int) -> World:
    world = World()
    world.clusters(**(clusters or {"c1": 2, "c2": 2}))
    world.submit(kinds.interpret(manifests.deployment(4)), policy())
    return world


def who(world: World, cluster: str) -> str:
    """The annotation in the object that the dispatcher would write."""
    obj = render(world.assignment(X, cluster))
    return str(obj["metadata"]["annotations"].get("who", ""))


KIND = ResourceSelector("apps/v1", "Deployment", "test")
BY_LABEL = ResourceSelector("apps/v1", "Deployment", "test", labels=LabelSelector())
BY_NAME = ResourceSelector("apps/v1", "Deployment", "test", "x")


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([], ""),
        ([label("a", "a")], "a"),
        ([label("b", "b"), label("a", "a")], "b"),
        ([label("z", "cluster", namespace=""), label("a", "own")], "own"),
        ([label("z", "all"), label("a", "kind", selectors=(KIND,))], "all"),
        ([label("z", "kind", selectors=(KIND,)), label("a", "label", selectors=(BY_LABEL,))], "label"),
        ([label("z", "label", selectors=(BY_LABEL,)), label("a", "name", selectors=(BY_NAME,))], "name"),
        ([label("a", "other", selectors=(replace(BY_NAME, name="y"),))], ""),
        ([label("a", "other", namespace="elsewhere")], ""),
        ([label("a", "cluster", namespace="", selectors=(replace(KIND, namespace="elsewhere"),))], ""),
    ],
)
def test_the_more_specific_one_has_the_last_word(policies: list[OverridePolicy], expected: str) -> None:
    world = fleet()
    world.feed(*map(PolicyChanged, policies))
    assert {who(world, "c1"), who(world, "c2")} == {expected}


def test_rules_for_some_clusters() -> None:
    world = fleet()
    world.feed(ClusterRegistered(ClusterSpec("c2", region="cn-hangzhou", labels=(("tier", "idc"),))))
    labelled = ClusterAffinity(labels=LabelSelector((("tier", "idc"),)))
    world.feed(PolicyChanged(label("a", "idc", target=labelled)))
    assert (who(world, "c1"), who(world, "c2")) == ("", "idc")
    version = world.placement(X).version
    world.feed(ClusterRegistered(ClusterSpec("c1", labels=(("tier", "idc"),))))
    assert (who(world, "c1"), who(world, "c2")) == ("idc", "idc")
    assert world.placement(X).version > version, "an assignment that changed has a higher version"


def test_a_changed_policy_changes_the_objects_and_moves_nothing() -> None:
    world = fleet(c1=3, c2=1)
    before = world.placement(X)
    world.feed(PolicyChanged(label("a", "1")))
    first = world.placement(X)
    assert (first.shares, who(world, "c1")) == (before.shares, "1")
    assert world.assignment(X, "c1").version == first.version > before.version
    world.feed(PolicyChanged(label("a", "1")))
    assert world.placement(X).version == first.version, "the same again changes nothing"
    world.feed(PolicyChanged(label("a", "2")))
    assert (world.placement(X).shares, who(world, "c2")) == (before.shares, "2")
    world.feed(PolicyRemoved("OverridePolicy/test/a"))
    assert (world.placement(X).shares, who(world, "c1"), who(world, "c2")) == (before.shares, "", "")


def test_what_is_overridden_survives_a_restart_without_a_word() -> None:
    world = fleet()
    world.feed(PolicyChanged(label("a", "1")))
    out = world.restart()
    assert (out.placements, out.assignments) == ([], [])


BROKEN = OverridePolicy(
    "bad",
    "test",
    (OverrideRule(ClusterAffinity(cluster_names=("c2",)), plaintext=(PatchOperation("/spec/no/where", REMOVE),)),),
    digest="bad",
)


def test_a_cluster_for_which_it_cannot_be_overridden_takes_nothing() -> None:
    world = World()
    world.clusters(c1=2, c2=2)
    world.feed(PolicyChanged(BROKEN))
    world.submit(kinds.interpret(manifests.deployment(4)), policy())
    assert world.assigned(X) == {"c1": 2}
    assert world.codes(X)["c2"] == "OverrideFailed"
    assert world.message(X, "c2") == (
        "OverridePolicy/test/bad, overrideRules[0]: patch remove /spec/no/where: no does not exist"
    )
    world.feed(PolicyRemoved("OverridePolicy/test/bad"))
    world.now += 10
    world.refresh()
    assert world.assigned(X) == {"c1": 2, "c2": 2}


def test_a_copy_that_runs_stays_as_it_was() -> None:
    world = fleet()
    world.feed(PolicyChanged(label("a", "1")))
    world.feed(PolicyChanged(BROKEN))
    assert world.assigned(X) == {"c1": 2, "c2": 2}
    assert (who(world, "c2"), world.codes(X)) == ("1", {"c2": "OverrideFailed"})


def test_replicas_may_be_overridden_after_the_division() -> None:
    world = World()
    world.clusters(c1=4, c2=4)
    rule = OverrideRule(plaintext=(PatchOperation("/spec/replicas", REPLACE, 7),))
    world.feed(PolicyChanged(OverridePolicy("r", "test", (rule,))))
    world.submit(kinds.interpret(manifests.deployment(4)), policy(division=DivisionType.DUPLICATED))
    assert world.assigned(X) == {"c1": 4, "c2": 4}
    assert render(world.assignment(X, "c1"))["spec"]["replicas"] == 7


def test_an_order_that_lost_its_way_is_refused_by_the_dispatcher() -> None:
    """After a crash that lost the assignment, while its override cannot be applied: nothing half done is written."""
    world = fleet(c2=4)
    world.inputs.append(PolicyChanged(BROKEN))
    world.assignments.clear()
    world.restart()
    with pytest.raises(RenderError, match="no does not exist"):
        render(world.assignment(X, "c2"))


def test_what_waits_for_an_override_policy_starts_when_it_is_there() -> None:
    world = World()
    world.clusters(c1=4)
    world.submit(kinds.interpret(manifests.deployment(2)), policy(dependent_overrides=("o",)))
    assert (world.placement(X).verdict, world.assigned(X)) == (Verdict.SUSPENDED, {})
    world.feed(PolicyChanged(label("o", "x", namespace="elsewhere")))
    world.feed(PolicyChanged(label("o", "x", namespace="")))
    assert world.assigned(X) == {}, "that of the policy's own namespace is meant"
    world.feed(PolicyChanged(label("o", "x", selectors=(replace(BY_NAME, name="y"),))))
    assert (world.assigned(X), world.codes(X)) == ({"c1": 2}, {})
    # Without it nothing new is placed, and what runs stays.
    world.feed(PolicyRemoved("OverridePolicy/test/o"))
    world.submit(kinds.interpret(manifests.deployment(3)))
    assert (world.assigned(X), world.codes(X)) == ({"c1": 2}, {"": "OverridesMissing"})
    world.restart()
    assert world.assigned(X) == {"c1": 2}
