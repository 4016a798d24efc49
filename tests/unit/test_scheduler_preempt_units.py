"""Preemption with a ResourcePolicy: in which unit others yield, and when (specification 15.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.cluster import VirtualNode
from gpufleet.model.policy import PriorityClass, ResourcePolicy, ResourceUnit, UnitResource
from gpufleet.model.resources import labels
from gpufleet.model.selectors import LabelSelector
from gpufleet.model.workload import Workload
from services.scheduler.core.events import InventoryChanged, PolicyChanged, WorkloadSubmitted
from tests.support.scheduling import World, deployment, gpus_free, inventory, job, policy

LOW, MID, HIGH = PriorityClass("low", -10), PriorityClass("mid", 10), PriorityClass("high", 100)
APP = {"app": "x"}
VIRTUAL = VirtualNode("vk", labels({"type": "virtual-kubelet"}))


def unit(resource: str, where: Mapping[str, str] | None = None, **rest: Any) -> ResourceUnit:
    return ResourceUnit(UnitResource(resource), labels(where), **rest)


def rules(*units: ResourceUnit, **rest: Any) -> ResourcePolicy:
    return ResourcePolicy("rp", "test", units, LabelSelector(labels(APP)), version=1, digest="rp1", **rest)


def world(*classes: Any, virtual: bool = False) -> World:
    w = World()
    w.clusters(a=list(classes))
    nodes = (VIRTUAL,) if virtual else ()
    w.feed(InventoryChanged(inventory("a", *classes, at=w.now, virtual_nodes=nodes)))
    w.feed(*(PolicyChanged(rule) for rule in (LOW, MID, HIGH, policy())))
    return w


def on(kind: str, workload: Workload, rank: str) -> Workload:
    """A workload whose pods want a kind of nodes."""
    (component,) = workload.components
    shape = replace(component.shape, node_selector=(("kind", kind),))
    return replace(workload, components=(replace(component, shape=shape),), priority_class=rank)


def wanted(replicas: int = 2, *, whole: bool = False) -> Workload:
    made = job("wanted", {"Worker": (replicas, 1)}, arrival=9) if whole else deployment("wanted", replicas, arrival=9)
    (component,) = made.components
    return replace(made, components=(replace(component, labels=labels(APP)),), priority_class="high")


def placed(w: World) -> dict[str, int]:
    return {key.rpartition("/")[2]: p.placed for key, (_, p) in sorted(w.placements.items()) if p is not None}


TWO = (gpus_free(4, name="one", node_labels={"kind": "one"}), gpus_free(4, name="two", node_labels={"kind": "two"}))
ONE_THEN_TWO = (unit("ecs", {"kind": "one"}), unit("ecs", {"kind": "two"}))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("rank", "left"),
    [
        pytest.param("high", {"one": 4, "two": 2}, id="whatever unit of nodes in which they may"),
        pytest.param("mid", {"one": 2, "two": 4}, id="the first unit in which they can"),
    ],
)
def test_in_which_unit_others_yield(rank: str, left: dict[str, int], whole: bool) -> None:
    w = world(*TWO)
    w.feed(PolicyChanged(rules(*ONE_THEN_TWO)))
    w.submit(on("one", deployment("one", 4, arrival=1), rank))
    w.submit(on("two", deployment("two", 4, arrival=2), "low"))
    w.submit(wanted(whole=whole))
    assert placed(w) == {**left, "wanted": 2}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_before_the_next_unit_or_after_all(before: bool, whole: bool) -> None:
    w = world(TWO[0], virtual=True)
    preempt = "BeforeNextUnit" if before else "AfterAllUnits"
    w.feed(PolicyChanged(rules(unit("ecs"), unit("eci", {"type": "virtual-kubelet"}), preempt_policy=preempt)))
    w.submit(on("one", deployment("victim", 4, arrival=1), "low"))
    w.submit(wanted(whole=whole))
    assert placed(w) == {"victim": 2 if before else 4, "wanted": 2}
    (slot,) = w.placement(wanted(whole=whole).key).shares[0].slots
    assert slot.source.value == ("running" if before else "virtual")


def test_what_is_free_in_a_unit_goes_before_others_yield_in_it() -> None:
    w = world(gpus_free(4, 1, name="one", node_labels={"kind": "one"}), virtual=True)
    units = (unit("ecs"), unit("eci", {"type": "virtual-kubelet"}))
    w.feed(PolicyChanged(rules(*units, preempt_policy="BeforeNextUnit")))
    w.submit(on("one", deployment("victim", 4, arrival=1), "low"))
    w.submit(wanted(3))
    assert placed(w) == {"victim": 2, "wanted": 3}
    # Of equal priority nobody yields, so the next unit takes them.
    w.submit(replace(wanted(2), name="more", key="test/Deployment/more", priority_class="low"))
    assert placed(w) == {"more": 2, "victim": 2, "wanted": 3}


def test_nobody_yields_for_more_than_a_unit_may_have() -> None:
    w = world(*TWO)
    w.feed(PolicyChanged(rules(unit("ecs", {"kind": "one"}, max=3))))
    w.submit(replace(wanted(2), name="first", key="test/Deployment/first"))
    w.submit(on("one", deployment("victim", 2, arrival=2), "low"))
    w.submit(wanted(2))
    assert placed(w) == {"first": 2, "victim": 1, "wanted": 1}


def test_nodes_that_a_unit_does_not_mean_gain_nothing() -> None:
    w = world(gpus_free(4, name="one", node_labels={"kind": "one"}, stock=0))
    w.feed(PolicyChanged(rules(unit("idc"))))
    w.submit(on("one", deployment("victim", 4, arrival=1), "low"))
    w.submit(wanted(2))
    assert placed(w) == {"victim": 4, "wanted": 0}


def test_whom_another_policys_units_find_in_vain_may_yield_to_who_is_decided_next() -> None:
    w = world(gpus_free(1))
    grows = ResourcePolicy("grows", "test", (unit("elastic"),), LabelSelector(labels({"app": "y"})), digest="grows")
    w.feed(PolicyChanged(rules(unit("idc"))), PolicyChanged(grows))
    w.submit(replace(deployment("victim", 1), priority_class="low"))
    vain = deployment("vain", 1, pod_labels={"app": "y"}, priority_class="high", arrival=1)
    w.feed(WorkloadSubmitted(vain), WorkloadSubmitted(wanted(1)))
    assert placed(w) == {"vain": 0, "victim": 0, "wanted": 1}
