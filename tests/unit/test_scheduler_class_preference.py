"""A preference for the node class that was counted on goes into the cluster, and stays while the pods live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.policy import DivisionType, PropagationPolicy
from gpufleet.model.workload import Workload
from services.dispatcher.core.render import render
from services.scheduler.core.class_labels import telling
from services.scheduler.core.settings import Settings
from tests.support.scheduling import GPU, NODE, World, deployment, node_class, policy

LLM = "test/Deployment/llm"
KIND = "node.kubernetes.io/instance-type"
SMALL = node_class("small", allocatable={**NODE, GPU: 1}, node_labels={KIND: "s", "zone": "a"})
LARGE = node_class("large", free=[{GPU: 8}], node_labels={KIND: "l", "zone": "a"})


def llm(replicas: int = 1, affinity: Mapping[str, Any] | None = None, **rest: Any) -> Workload:
    spec: dict[str, Any] = {"containers": []} | ({"affinity": affinity} if affinity is not None else {})
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llm", "namespace": "test"},
        "spec": {"replicas": replicas, "template": {"metadata": {}, "spec": spec}},
    }
    return deployment("llm", replicas, manifest=manifest, **rest)


def preferring(*, wanted: bool = True, version: int = 1) -> PropagationPolicy:
    return policy(division=DivisionType.AGGREGATED, prefer_node_class=wanted, version=version)


def world(*classes: Any) -> World:
    found = World(settings=Settings(stale_after=10**9))
    found.clusters(c=list(classes))
    return found


def sent(world: World, cluster: str = "c") -> Any:
    """The preferred terms of the object as the cluster gets it, or None."""
    affinity = render(world.assignment(LLM, cluster))["spec"]["template"]["spec"].get("affinity") or {}
    return (affinity.get("nodeAffinity") or {}).get("preferredDuringSchedulingIgnoredDuringExecution")


def term(kind: str, weight: int = 1) -> dict[str, Any]:
    expressions = [{"key": KIND, "operator": "In", "values": [kind]}]
    return {"weight": weight, "preference": {"matchExpressions": expressions}}


def test_only_where_the_policy_says_so() -> None:
    plain = world(SMALL, LARGE)
    plain.submit(llm(), preferring(wanted=False))
    assert sent(plain) is None
    told = world(SMALL, LARGE)
    told.submit(llm(), preferring())
    assert sent(told) == [term("s")]


def test_classes_are_named_in_the_order_in_which_they_were_counted_on() -> None:
    both = world(SMALL, LARGE)
    both.submit(llm(3), preferring())
    assert sent(both) == [term("s", 2), term("l", 1)]


@pytest.mark.parametrize(
    "classes",
    [
        (SMALL,),  # nothing to choose
        (SMALL, replace(SMALL, name="twin")),  # not to be told apart
        (replace(SMALL, labels=()), LARGE),
    ],
)
def test_no_preference_where_labels_do_not_tell(classes: tuple[Any, ...]) -> None:
    found = world(*classes)
    found.submit(llm(), preferring())
    assert found.assigned(LLM) == {"c": 1}
    assert sent(found) is None


def test_the_users_own_terms_stay_and_come_first() -> None:
    own = {"weight": 50, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}
    required = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": required,
            "preferredDuringSchedulingIgnoredDuringExecution": [own],
        },
        "podAntiAffinity": {},
    }
    found = world(SMALL, LARGE)
    found.submit(llm(affinity=affinity), preferring())
    assert sent(found) == [own, term("s")]
    rendered = render(found.assignment(LLM, "c"))["spec"]["template"]["spec"]["affinity"]
    assert rendered["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == required
    assert "podAntiAffinity" in rendered


def test_what_runs_keeps_its_preference_whatever_changes() -> None:
    found = world(SMALL, LARGE)
    found.submit(llm(), preferring())
    found.submit(llm(4, version=2, digest="4"))
    assert found.assigned(LLM) == {"c": 4}
    assert sent(found) == [term("s")], "scaled over both classes"
    found.observe("c", replace(SMALL, labels=()), LARGE)
    found.submit(llm(3, version=3, digest="3"), preferring(wanted=False, version=2))
    assert sent(found) == [term("s")]
    own = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term("x", 9)]}}
    found.submit(llm(3, own, version=4, digest="own"))
    assert sent(found) == [term("x", 9), term("s")]
    found.restart()
    assert sent(found) == [term("x", 9), term("s")]


def test_what_runs_without_one_does_not_get_one() -> None:
    found = world(SMALL, LARGE)
    found.submit(llm(), preferring(wanted=False))
    found.submit(llm(2, version=2, digest="2"), preferring(version=2))
    assert found.assigned(LLM) == {"c": 2}
    assert sent(found) is None


@pytest.mark.parametrize(
    ("labels", "others", "expected"),
    [
        ({"a": "1"}, [], ()),
        ({"a": "1"}, [{"a": "1"}], None),
        ({"a": "1"}, [{"a": "1", "b": "2"}], None),
        ({"a": "1", "b": "2"}, [{"a": "1"}], (("b", "2"),)),
        ({"a": "1", KIND: "x"}, [{"a": "2", KIND: "y"}], ((KIND, "x"),)),
        ({"a": "1", "b": "1"}, [{"a": "1", "b": "2"}, {"a": "2", "b": "1"}], (("a", "1"), ("b", "1"))),
        ({"a": "1", "b": "1", "c": "1"}, [{"a": "1"}, {"b": "1"}], (("c", "1"),)),
    ],
)
def test_labels_that_tell_a_class(labels: dict[str, str], others: list[dict[str, str]], expected: Any) -> None:
    assert telling(labels, others) == expected
