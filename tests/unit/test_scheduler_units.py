"""ResourcePolicy (specification 15.3): units in order, their bounds, when pods go on, and how they are rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.cluster import ComponentPods, ModelStock, NodeClass, UnitPods, VirtualNode, WorkloadPods
from gpufleet.model.placement import AssignmentState
from gpufleet.model.policy import ResourcePolicy, ResourceUnit, UnitResource
from gpufleet.model.reasons import Verdict
from gpufleet.model.resources import labels, resources
from gpufleet.model.selectors import LabelSelector, Taint
from gpufleet.model.workload import Workload
from services.dispatcher.core.render import render
from services.scheduler.core.events import (
    InventoryChanged,
    PodsChanged,
    PolicyChanged,
    Tick,
    WorkloadDeleted,
)
from services.scheduler.core.settings import Settings
from services.scheduler.core.units import WAIT_LABEL
from tests.support.scheduling import GPU, World, deployment, gpus_free, inventory, job, policy

LLM = "test/Deployment/llm"
APP = {"app": "nginx"}


def unit(resource: str, *, where: Mapping[str, str] | None = None, **rest: Any) -> ResourceUnit:
    for name in ("pod_labels", "pod_annotations"):
        rest[name] = labels(rest.get(name))
    rest["max_resources"] = resources(rest.get("max_resources", {}))
    return ResourceUnit(UnitResource(resource), labels(where), **rest)


def rules(*units: ResourceUnit, name: str = "rp", version: int = 1, **rest: Any) -> ResourcePolicy:
    return ResourcePolicy(
        name,
        "test",
        units,
        LabelSelector(labels(rest.pop("selector", APP))),
        version=version,
        digest=f"{name}{version}",
        **rest,
    )


def nodes(pool: str, *free: int, **rest: Any) -> NodeClass:
    return gpus_free(*free, name=pool, node_labels={"pool": pool}, **rest)


def virtual(name: str, t4: int | None) -> VirtualNode:
    return VirtualNode(
        f"vk-{name}",
        labels({"type": "virtual-kubelet", "topology.kubernetes.io/region": name}),
        (Taint("virtual-kubelet.io/provider", "NoSchedule", "alibabacloud"),),
        None if t4 is None else (ModelStock("T4", t4),),
    )


IDC, ECS, ELASTIC = ({"pool": "idc"}, {"pool": "ecs"}, {"pool": "elastic"})


def acs(name: str, **rest: Any) -> ResourceUnit:
    where = {"type": "virtual-kubelet", "topology.kubernetes.io/region": name}
    marks = {"alibabacloud.com/serverless-region-id": name, "alibabacloud.com/gpu-model-series": "T4"}
    return unit("acs", where=where, pod_labels=marks, **rest)


def manifest(name: str, replicas: int, template: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": APP},
            "template": {"metadata": {"labels": APP, **(template or {})}, "spec": {"containers": []}},
        },
    }


def llm(replicas: int, name: str = "llm", *, gpu: int = 1, arrival: int = 0, **rest: Any) -> Workload:
    return deployment(
        name,
        replicas,
        gpu=gpu,
        arrival=arrival,
        pod_labels=rest.pop("pod_labels", APP),
        manifest=manifest(name, replicas),
        **rest,
    )


def world(*classes: NodeClass, regions: tuple[VirtualNode, ...] = ()) -> World:
    found = World(settings=Settings(stale_after=10**9))
    found.clusters(c=list(classes))
    if regions:
        show(found, *classes, regions=regions)
    return found


def show(world: World, *classes: NodeClass, regions: tuple[VirtualNode, ...] = ()) -> None:
    world.feed(InventoryChanged(inventory("c", *classes, at=world.now, virtual_nodes=regions)))


def landed(world: World, key: str = LLM) -> dict[int | None, int]:
    """Pods by unit."""
    found: dict[int | None, int] = {}
    for share in world.placement(key).shares:
        for slot in share.slots:
            found[slot.unit] = found.get(slot.unit, 0) + slot.count
    return found


def running(world: World, **counts: UnitPods) -> None:
    """Reports pods by unit of the workload."""
    units = tuple(counts.values())
    bound = sum(u.bound for u in units)
    component = ComponentPods(bound=bound, ready=bound, units=units)
    world.feed(PodsChanged(WorkloadPods("c", LLM, components=(("main", component),))))


@pytest.mark.parametrize(
    ("units", "replicas", "expected"),
    [
        ((unit("ecs", where=IDC), unit("ecs", where=ECS)), 3, {0: 2, 1: 1}),
        ((unit("ecs", where=IDC), unit("ecs", where=ECS)), 5, {0: 2, 1: 3}),
        ((unit("ecs", where=IDC, max=1), unit("ecs", where=ECS)), 3, {0: 1, 1: 2}),
        ((unit("ecs", where=IDC, max=0), unit("ecs", where=ECS)), 3, {1: 3}),
        ((unit("ecs", where=IDC, max_resources={GPU: 1}), unit("ecs", where=ECS)), 3, {0: 1, 1: 2}),
        ((unit("ecs", max=2), unit("ecs")), 5, {0: 2, 1: 3}),  # on the same nodes
        ((unit("ecs", where=IDC), unit("ecs", where=ECS, max=1), acs("r1")), 6, {0: 2, 1: 1, 2: 3}),
        ((acs("r1", max=1), acs("r2")), 3, {0: 1, 1: 2}),
        ((unit("idc"), unit("ecs")), 5, {0: 5}),  # none of the classes can grow
    ],
)
def test_units_fill_in_order(units: tuple[ResourceUnit, ...], replicas: int, expected: dict[int | None, int]) -> None:
    found = world(nodes("idc", 2), nodes("ecs", 3), regions=(virtual("r1", 4), virtual("r2", 4)))
    found.feed(PolicyChanged(rules(*units)))
    found.submit(llm(replicas), policy())
    assert landed(found) == expected
    assert found.placement(LLM).verdict is Verdict.SCHEDULED


def test_idc_means_classes_that_cannot_grow_and_elastic_those_that_can() -> None:
    found = world(nodes("a", 2), nodes("b", 1, stock=1))
    found.feed(PolicyChanged(rules(unit("elastic", max=2), unit("idc"))))
    found.submit(llm(5), policy(ecs_provision=True))
    slots = [(s.unit, s.node_class, s.source.value, s.count) for s in found.placement(LLM).shares[0].slots]
    assert slots == [(0, "b", "running", 1), (0, "b", "elastic", 1), (1, "a", "running", 2)]


def test_stock_counts_in_its_unit_unless_existing_capacity_goes_first() -> None:
    order = rules(unit("ecs", where=ECS), unit("ecs", where=IDC))
    for first, expected in ((False, {0: 3}), (True, {0: 1, 1: 2})):
        found = world(nodes("idc", 4), nodes("ecs", 1, stock=1))
        found.feed(PolicyChanged(order))
        found.submit(llm(3), policy(ecs_provision=True, existing_capacity_first=first))
        assert landed(found) == expected


def test_maximum_counts_the_pods_of_every_workload_that_the_policy_selects() -> None:
    found = world(nodes("idc", 8), nodes("ecs", 2))
    found.feed(PolicyChanged(rules(unit("ecs", where=IDC, max=3), unit("ecs", where=ECS))), PolicyChanged(policy()))
    found.submit(llm(2, "one", arrival=1))
    found.submit(llm(4, "two", arrival=2))
    found.submit(deployment("else", 1, pod_labels={"app": "other"}, arrival=3))
    assert landed(found, "test/Deployment/one") == {0: 2}
    assert landed(found, "test/Deployment/two") == {0: 1, 1: 2}
    assert landed(found, "test/Deployment/else") == {None: 1}
    placement = found.placement("test/Deployment/two")
    assert placement.unplaced == 1
    assert found.codes("test/Deployment/two") == {"c": "NoUnitHasRoom"}
    assert "unit 0 (ecs) is at its maximum of 3 pods" in placement.reasons[0].message
    found.feed(WorkloadDeleted("test/Deployment/one"))
    found.now += 20
    found.feed(Tick())
    assert landed(found, "test/Deployment/two") == {0: 2, 1: 2}


def test_every_unit_at_its_maximum_says_so() -> None:
    found = world(nodes("idc", 8))
    found.feed(PolicyChanged(rules(unit("ecs", max=2))))
    found.submit(llm(3), policy())
    assert landed(found) == {0: 2}
    assert found.codes(LLM) == {"c": "UnitAtMax"}


def test_exceed_max_waits_for_room_below_the_maximum() -> None:
    units = (unit("ecs", where=IDC, max=4), unit("ecs", where=ECS))
    found = world(nodes("idc", 2), nodes("ecs", 8))
    found.feed(PolicyChanged(rules(*units, when_try_next="ExceedMax")))
    found.submit(llm(6), policy())
    assert landed(found) == {0: 2}
    assert found.codes(LLM) == {"c": "WaitingInUnit"}
    show(found, nodes("idc", 4), nodes("ecs", 8))
    assert landed(found) == {0: 4, 1: 2}


def test_exceed_max_without_bounds_goes_on() -> None:
    found = world(nodes("idc", 2), nodes("ecs", 8))
    found.feed(PolicyChanged(rules(unit("ecs", where=IDC), unit("ecs", where=ECS), when_try_next="ExceedMax")))
    found.submit(llm(3), policy())
    assert landed(found) == {0: 2, 1: 1}


TIMED: dict[str, Any] = {"when_try_next": "TimeoutOrExceedMax", "timeout": 60.0}


def test_t20_beyond_the_maximum_at_once_short_of_room_after_the_timeout() -> None:
    found = world(nodes("idc", 1), nodes("ecs", 8))
    found.feed(PolicyChanged(rules(unit("ecs", where=IDC, max=2), unit("ecs", where=ECS), **TIMED)))
    found.submit(llm(2), policy())
    assert landed(found) == {0: 1}
    assert found.codes(LLM) == {"c": "WaitingInUnit"}
    (wait,) = found.placement(LLM).unit_waits
    assert (wait.cluster, wait.since) == ("c", found.now)
    found.restart()
    start = found.now
    found.now = start + 59
    found.feed(Tick())
    assert landed(found) == {0: 1}
    found.now = start + 60
    found.feed(Tick())
    assert landed(found) == {0: 1, 1: 1}
    assert found.placement(LLM).unit_waits == ()


def test_t20_the_third_pod_goes_on_at_once() -> None:
    found = world(nodes("idc", 8), nodes("ecs", 8))
    found.feed(PolicyChanged(rules(unit("ecs", where=IDC, max=2), unit("ecs", where=ECS), **TIMED)))
    found.submit(llm(3), policy())
    assert landed(found) == {0: 2, 1: 1}


@pytest.mark.parametrize(("switch", "expected"), [("true", {0: 1}), ("false", {0: 1, 1: 1})])
def test_without_a_maximum_the_switch_says_whether_to_wait(switch: str, expected: dict[int | None, int]) -> None:
    found = world(nodes("idc", 1), nodes("ecs", 8))
    first = unit("ecs", where=IDC, pod_labels={WAIT_LABEL: switch})
    found.feed(PolicyChanged(rules(first, unit("ecs", where=ECS), **TIMED)))
    found.submit(llm(2), policy())
    assert landed(found) == expected
    assert not any(WAIT_LABEL in str(p) for p in found.assignment(LLM, "c").patches)


def test_acs_units_know_no_timeout() -> None:
    found = world(nodes("ecs", 8), regions=(virtual("r1", 1),))
    found.feed(PolicyChanged(rules(acs("r1", max=5), unit("ecs", where=ECS), **TIMED)))
    found.submit(llm(3), policy())
    assert landed(found) == {0: 1, 1: 2}


def test_no_terminating_waits_for_deleted_pods_to_be_gone() -> None:
    units = (unit("ecs", where=IDC), unit("ecs", where=ECS))
    found = world(nodes("idc", 2), nodes("ecs", 8))
    found.feed(PolicyChanged(rules(*units, when_try_next="LackResourceAndNoTerminating")))
    found.submit(llm(2), policy())
    first = found.placement(LLM).shares[0].slots[0].variant
    running(found, idc=UnitPods(first, bound=2, terminating=1))
    show(found, nodes("idc", 0), nodes("ecs", 8))
    found.submit(llm(3))
    assert landed(found) == {0: 2}
    assert found.codes(LLM) == {"c": "WaitingInUnit"}
    running(found, idc=UnitPods(first, bound=2))
    found.now += 20
    found.feed(Tick())
    assert landed(found) == {0: 2, 1: 1}


def test_terminating_pods_count_only_if_asked_for() -> None:
    for ignored, expected in ((True, {0: 2}), (False, {0: 1, 1: 1})):
        found = world(nodes("idc", 8), nodes("ecs", 8))
        units = (unit("ecs", where=IDC, max=2), unit("ecs", where=ECS))
        found.feed(PolicyChanged(rules(*units, ignore_terminating_pod=ignored)))
        found.submit(llm(1), policy())
        first = found.placement(LLM).shares[0].slots[0].variant
        running(found, idc=UnitPods(first, bound=1, terminating=1))
        found.submit(llm(2))
        assert landed(found) == expected


def test_pods_from_before_the_policy_count_unless_ignored() -> None:
    for ignored, expected in ((False, {None: 2, 1: 2}), (True, {None: 2, 0: 2})):
        found = world(nodes("idc", 8), nodes("ecs", 0))
        found.submit(llm(2), policy())
        units = (unit("ecs", where=IDC, max=2), unit("ecs", where=ECS))
        found.feed(PolicyChanged(rules(*units, ignore_previous_pod=ignored)))
        show(found, nodes("idc", 8), nodes("ecs", 8))
        found.submit(llm(4))
        assert landed(found) == expected


@pytest.mark.parametrize(
    ("keys", "second", "expected"),
    [
        (("pod-template-hash",), {}, {0: 2, 1: 1}),  # per revision
        (("team",), {"team": "b"}, {0: 2, 1: 1}),
        (("team",), {"team": "a"}, {1: 3}),
    ],
)
def test_t21_match_label_keys_count_each_combination(
    keys: tuple[str, ...], second: dict[str, str], expected: dict[int | None, int]
) -> None:
    found = world(nodes("idc", 8), nodes("ecs", 8))
    units = (unit("ecs", where=IDC, max=2), unit("ecs", where=ECS))
    found.feed(PolicyChanged(rules(*units, match_label_keys=keys)), PolicyChanged(policy()))
    found.submit(llm(2, "one", pod_labels={**APP, "team": "a"}))
    found.submit(llm(3, pod_labels={**APP, **second}))
    assert landed(found, "test/Deployment/one") == {0: 2}
    assert landed(found) == expected


def test_t24_a_pod_without_the_label_is_rejected() -> None:
    found = world(nodes("idc", 8))
    found.feed(PolicyChanged(rules(unit("ecs", max=2), match_label_keys=("team",))))
    found.submit(llm(1), policy())
    assert found.placement(LLM).verdict is Verdict.UNSCHEDULABLE
    assert found.codes(LLM) == {"c": "UnitLabelMissing"}


def test_t23_scaling_in_goes_back_through_the_units() -> None:
    units = (unit("ecs", where=IDC), unit("ecs", where=ECS), acs("r1"))
    found = world(nodes("idc", 2), nodes("ecs", 2), regions=(virtual("r1", None),))
    found.feed(PolicyChanged(rules(*units)))
    found.submit(llm(6), policy())
    assert landed(found) == {0: 2, 1: 2, 2: 2}
    seen = []
    for replicas in (5, 4, 3, 2, 1):
        found.submit(llm(replicas))
        seen.append(landed(found))
    assert seen == [{0: 2, 1: 2, 2: 1}, {0: 2, 1: 2}, {0: 2, 1: 1}, {0: 2}, {0: 1}]


# --- Rendering ----------------------------------------------------------------------------------------------------


def objects(world: World, key: str = LLM) -> dict[str, dict[str, Any]]:
    """The objects that the dispatcher applies, by name."""
    assignment = world.assignment(key, "c")
    found = {key.rpartition("/")[2]: render(replace(assignment, variants=()))}
    for variant in assignment.variants:
        if any(count for _, count in variant.components):
            order = replace(assignment, components=variant.components, patches=variant.patches, variants=())
            found[variant.name] = render(order)
    return found


def test_each_unit_gets_an_object_of_its_own() -> None:
    units = (unit("ecs", where=IDC), acs("r1", pod_annotations={"a": "b"}))
    found = world(nodes("idc", 2), regions=(virtual("r1", 8),))
    found.feed(PolicyChanged(rules(*units)))
    found.submit(llm(5), policy())
    (first, second), names = objects(found).values(), list(objects(found))
    assert names[0] == "llm"
    assert names[1].startswith("llm-acs-")
    assert [o["spec"]["replicas"] for o in (first, second)] == [2, 3]
    mark = names[1].removeprefix("llm-")
    assert second["spec"]["selector"]["matchLabels"] == {**APP, "gpufleet.io/unit": mark}
    assert first["spec"]["selector"]["matchLabels"] == APP
    pods = second["spec"]["template"]
    assert pods["metadata"]["labels"]["gpufleet.io/unit"] == mark
    assert pods["metadata"]["labels"]["alibabacloud.com/compute-class"] == "general-purpose"
    assert pods["metadata"]["labels"]["alibabacloud.com/compute-qos"] == "default"
    assert pods["metadata"]["annotations"]["a"] == "b"
    assert pods["spec"]["nodeSelector"]["type"] == "virtual-kubelet"
    assert pods["spec"]["tolerations"] == [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]
    assert first["spec"]["template"]["spec"] == {"containers": [], "nodeSelector": IDC}
    cost = "controller.kubernetes.io/pod-deletion-cost"
    assert [o["spec"]["template"]["metadata"]["annotations"][cost] for o in (first, second)] == ["200", "100"]


def test_the_workloads_name_keeps_its_unit() -> None:
    """What landed in the second unit first is not rolled over when the first one gets room."""
    units = (unit("ecs", where=IDC), unit("ecs", where=ECS))
    found = world(nodes("idc", 0), nodes("ecs", 2))
    found.feed(PolicyChanged(rules(*units)))
    found.submit(llm(2), policy())
    before = objects(found)["llm"]["spec"]["template"]
    assert before["spec"]["nodeSelector"] == ECS
    running(found, ecs=UnitPods(found.assignment(LLM, "c").unit, bound=2))
    show(found, nodes("idc", 8), nodes("ecs", 0))
    found.submit(llm(4))
    assert landed(found) == {0: 2, 1: 2}
    both = objects(found)
    assert both["llm"]["spec"]["template"] == before
    assert both["llm"]["spec"]["replicas"] == 2
    found.submit(llm(2))  # the last unit first: its object stays, without pods
    both = objects(found)
    assert both["llm"]["spec"]["replicas"] == 0
    assert [o["spec"]["replicas"] for name, o in both.items() if name != "llm"] == [2]
    (name,) = both.keys() - {"llm"}
    found.submit(llm(0))
    assignment = found.assignment(LLM, "c")
    assert assignment.state is AssignmentState.REMOVING
    assert [(v.name, v.components, v.patches) for v in assignment.variants] == [(name, (), ())]


def test_t22_an_edited_policy_leaves_running_pods_alone() -> None:
    found = world(nodes("idc", 2), nodes("ecs", 8), nodes("new", 1))
    found.feed(PolicyChanged(rules(unit("ecs", where=IDC), unit("ecs", where=ECS))))
    found.submit(llm(3), policy())
    before = objects(found)
    edited = rules(unit("ecs", where={"pool": "new"}), unit("ecs", where=IDC), version=2)
    out = found.feed(PolicyChanged(edited))
    assert out.assignments == []
    found.restart()
    assert objects(found) == before
    found.submit(llm(4))
    after = objects(found)
    for name, obj in before.items():
        assert after[name]["spec"]["template"] == obj["spec"]["template"]
        assert after[name]["spec"]["replicas"] == obj["spec"]["replicas"]
    (added,) = [o for name, o in after.items() if name not in before]
    assert added["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "new"}
    assert found.state.fleet.members["c"].debt == 0


def test_a_users_deletion_cost_stands_except_in_acs_units() -> None:
    cost = "controller.kubernetes.io/pod-deletion-cost"
    found = world(nodes("idc", 1), regions=(virtual("r1", 8),))
    found.feed(PolicyChanged(rules(unit("ecs", where=IDC), acs("r1"))))
    submitted = replace(llm(2), manifest=manifest("llm", 2, {"annotations": {cost: "7"}}))
    found.submit(submitted, policy())
    values = [o["spec"]["template"]["metadata"]["annotations"][cost] for o in objects(found).values()]
    assert values == ["7", "100"]


def test_a_statefulset_goes_into_one_unit_per_cluster() -> None:
    found = world(nodes("idc", 2), nodes("ecs", 4))
    found.feed(PolicyChanged(rules(unit("ecs", where=IDC), unit("ecs", where=ECS))))
    found.submit(replace(deployment("db", 3, kind="StatefulSet", pod_labels=APP)), policy())
    assert landed(found, "test/StatefulSet/db") == {1: 3}


def test_what_goes_into_one_unit_counts_only_the_classes_that_the_unit_means() -> None:
    found = world(nodes("idc", 1), nodes("grows", 8, stock=0))
    found.feed(PolicyChanged(rules(unit("idc"), unit("elastic"))))
    found.submit(replace(deployment("db", 4, kind="StatefulSet", pod_labels=APP)), policy())
    assert landed(found, "test/StatefulSet/db") == {1: 4}
    slots = found.placement("test/StatefulSet/db").shares[0].slots
    assert [(slot.node_class, slot.count) for slot in slots] == [("grows", 4)]


def test_the_reason_of_a_unit_names_only_the_classes_that_it_means() -> None:
    found = world(nodes("idc", 1), nodes("grows", 1, stock=0))
    found.feed(PolicyChanged(rules(unit("idc"), unit("elastic"))))
    found.submit(llm(4), policy(ecs_provision=True))
    short = "needs 1 nvidia.com/gpu in one node, largest free block 0"
    assert [reason.message for reason in found.placement(LLM).reasons] == [
        f"unit 0 (idc) {short}; unit 1 (elastic) {short}; no stock left for grows"
    ]
    none = world(nodes("idc", 1))
    none.feed(PolicyChanged(rules(unit("idc", max=1), unit("elastic"))))
    none.submit(llm(2), policy(ecs_provision=True))
    assert [reason.message for reason in none.placement(LLM).reasons] == [
        "unit 0 (idc) is at its maximum of 1 pod; unit 1 (elastic) no node class can grow"
    ]
    whole = world(nodes("idc", 1))
    whole.feed(PolicyChanged(rules(unit("elastic"))))
    whole.submit(llm(2), policy(ecs_provision=True))
    assert [reason.code.value for reason in whole.placement(LLM).reasons] == ["NeverFits", "NoMatchingNodes"]
    # What was said of one unit is not said of the other that asks for the same.
    fixed = world(nodes("idc", 1))
    fixed.feed(PolicyChanged(rules(unit("elastic"), unit("idc"))))
    fixed.submit(llm(2), policy(ecs_provision=True))
    assert fixed.message(LLM, "c") == f"unit 0 (elastic) no node class can grow; unit 1 (idc) {short}"


def test_a_job_goes_into_the_first_unit_that_takes_it_whole() -> None:
    marked = [replace(c, labels=labels(APP)) for c in job(components={"Worker": (3, 1)}).components]
    found = world(nodes("idc", 2), nodes("ecs", 4))
    found.feed(PolicyChanged(rules(unit("ecs", where=IDC), unit("ecs", where=ECS))))
    found.submit(replace(job(), components=tuple(marked)), policy())
    assert landed(found, "test/PyTorchJob/train") == {1: 3}
    waiting = world(nodes("idc", 2), nodes("ecs", 4))
    waiting.feed(PolicyChanged(rules(unit("ecs", where=IDC, max=5), unit("ecs", where=ECS), **TIMED)))
    waiting.submit(replace(job(), components=tuple(marked)), policy())
    assert waiting.codes("test/PyTorchJob/train") == {"c": "WaitingInUnit"}
    waiting.now += 60
    waiting.feed(Tick())
    assert landed(waiting, "test/PyTorchJob/train") == {1: 3}
