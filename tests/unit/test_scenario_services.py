"""What the services make of a scenario in the clusters themselves: objects, pods, fences, and who is not heard of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gpufleet.model.names import VERSION_ANNOTATION, WORKLOAD_LABEL
from gpufleet.wire.documents_scenario import Delete, Pods, Scale
from sim.model.api import Create, Json
from sim.scenario.run import custom_resources
from sim.scenario.steps import SetCluster, Submit
from sim.scenario.world import START, World
from tests.support.plans import LLM, cluster, deployment, policy
from tests.support.scenarios import TRAIN, ended, happen, placed, pods, running, script, shares, training


def begun(*documents: Json) -> World:
    """A world whose documents are settled."""
    made = script(documents)
    world = World(made.settings, custom_resources())
    world.start(made.start)
    world.settle()
    return world


def later(world: World, seconds: float, *deeds: Any) -> World:
    """The world so many seconds after the start, once everything until then is done."""
    wake_at = world.wake_at()
    while wake_at is not None and wake_at < START + seconds:
        world.arrive(wake_at)
        world.settle()
        wake_at = world.wake_at()
    world.arrive(START + seconds)
    for deed in deeds:
        world.do(deed)
    world.settle()
    return world


def submitted(*documents: Json) -> Submit:
    return Submit(script(documents).start)


def changed(document: Json) -> SetCluster:
    parsed = script([document]).start
    [name] = parsed.clusters
    return SetCluster(parsed.clusters[name], parsed.inventories.get(name))


def objects(world: World, name: str, kind: tuple[str, str] = ("apps/v1", "Deployment")) -> list[Json]:
    return list(world.members[name].shaped.view.list(*kind, "test"))


@pytest.mark.parametrize(("preserve", "kept"), [(False, 0), (True, 1)])
def test_deleting_a_workload_removes_its_copies_or_lets_go_of_them(preserve: bool, kept: int) -> None:
    world = begun(cluster("c1", 8), policy(["c1"], preserveResourcesOnDeletion=preserve), deployment(2))
    assert len(objects(world, "c1")) == 1
    later(world, 10, Delete(LLM))
    assert world.placements() == []
    left = objects(world, "c1")
    assert len(left) == kept
    for obj in left:
        assert VERSION_ANNOTATION not in obj["metadata"].get("annotations", {})
        assert WORKLOAD_LABEL not in obj["metadata"].get("labels", {})


@pytest.mark.parametrize(("resolution", "expected"), [("Abort", {"c2": 2}), ("Overwrite", {"c1": 2})])
def test_an_object_that_somebody_else_made_is_left_alone_or_taken_over(
    resolution: str, expected: Mapping[str, int]
) -> None:
    world = begun(cluster("c1", 8), cluster("c2", 8), policy(["c1"], ["c2"], conflictResolution=resolution))
    foreign = deployment(5)
    for member in world.members.values():
        member.drive.apply([Create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}})], START)
    world.members["c1"].drive.apply([Create(foreign)], START)
    later(world, 10, submitted(deployment(2)))
    assert shares(world) == expected
    [found] = objects(world, "c1")
    assert (VERSION_ANNOTATION in found["metadata"].get("annotations", {})) is (resolution == "Overwrite")
    assert found["spec"]["replicas"] == (2 if resolution == "Overwrite" else 5)
    if resolution == "Abort":
        assert "Conflict" in {reason.code for reason in placed(world).reasons}


def test_nothing_is_written_to_a_silent_cluster_and_everything_when_it_is_back() -> None:
    documents = [cluster("c1", 8), cluster("c2", 8), policy(["c1"], ["c2"]), deployment(4)]
    silent = {"cluster": "c1", "merge": {"status": {"health": "Unreachable"}}}
    back = {"cluster": "c1", "merge": {"status": {"health": "Ready"}}}
    steps = [
        {"at": 10, "patch": silent},
        {"at": 20, "delete": LLM},
        {"at": 30, "patch": back},
    ]
    seen = [(running(world, "c1"), [p.verdict for p in world.placements()]) for _, world in happen(documents, steps)]
    assert seen == [(4, ["Scheduled"]), (4, ["Scheduled"]), (4, ["Deleting"]), (0, [])]


def test_a_job_has_one_live_copy_at_any_time() -> None:
    world = begun(cluster("c1", 8), cluster("c2", 8), policy(["c1"], ["c2"]), training(3))
    assert running(world, "c1", TRAIN) == 4
    later(world, 60, changed(cluster("c1", 8, health="Unreachable")))
    later(world, 400)
    assert shares(world, TRAIN) == {"c2": 4}
    assert (running(world, "c1", TRAIN), running(world, "c2", TRAIN)) == (4, 0)
    later(world, 500, changed(cluster("c1", 8)))
    assert (running(world, "c1", TRAIN), running(world, "c2", TRAIN)) == (0, 4)
    assert objects(world, "c1", ("kubeflow.org/v1", "PyTorchJob")) == []
    assert objects(world, "c1", ("v1", "ConfigMap")) == []


def test_while_the_fleet_is_frozen_nothing_is_written() -> None:
    freeze = {"apiVersion": "gpufleet.io/v1alpha1", "kind": "Freeze", "metadata": {"name": "fleet"}}
    world = begun(cluster("c1", 8), policy(["c1"]), freeze, deployment(2))
    assert shares(world) == {"c1": 2}
    assert objects(world, "c1") == []


def test_withheld_pods_are_pending_until_they_are_moved() -> None:
    world = begun(cluster("c1", 8), cluster("c2", 8), policy(["c1"], ["c2"]), deployment(4))
    later(world, 10, Pods(LLM, "c1", unschedulable=3))
    assert (len(pods(world, "c1")), running(world, "c1")) == (4, 1)
    later(world, 120)
    assert (running(world, "c1"), running(world, "c2")) == (1, 3)
    # Nothing is withheld any more: after the cool-down the cluster takes pods again.
    later(world, 500, Scale(LLM, 8))
    assert (shares(world), running(world, "c1")) == ({"c1": 8}, 8)


@pytest.mark.parametrize("step", [Pods(LLM, "c1", failed=2), Pods(LLM, "c1", evicted=2)])
def test_pods_of_a_deployment_that_end_are_made_again(step: Pods) -> None:
    world = begun(cluster("c1", 8), policy(["c1"]), deployment(3))
    before = {pod["metadata"]["uid"] for pod in pods(world, "c1")}
    later(world, 10, step)
    assert running(world, "c1") == 3
    now_running = {p["metadata"]["uid"] for p in pods(world, "c1") if p["status"]["phase"] == "Running"}
    assert len(now_running & before) == 1


def test_a_step_that_concerns_more_pods_than_there_are_is_warned_of() -> None:
    steps = [{"at": 10, "pods": {"workload": LLM, "cluster": "c1", "failed": 5}}]
    world = ended([cluster("c1", 8), policy(["c1"]), deployment(3)], steps)
    assert len(world.warnings) == 1
    assert "3 pods" in world.warnings[0]


def test_nobody_wakes_a_fleet_in_which_nothing_happens() -> None:
    world = begun(cluster("c1", 8), cluster("c2", 8), policy(["c1", "c2"]), deployment(4))
    later(world, 1_000)
    wake_at = world.wake_at()
    assert wake_at is None or wake_at > START + 10_000


def test_what_is_overridden_is_what_the_cluster_holds() -> None:
    """From the documents to the objects: each cluster has its own image, and an edit changes the objects in place."""

    def override(tag: str) -> Json:
        overriders = {"imageOverrider": [{"component": "Tag", "operator": "replace", "value": tag}]}
        rule = {"targetCluster": {"clusterNames": ["c2"]}, "overriders": overriders}
        return {
            "apiVersion": "policy.karmada.io/v1alpha1",
            "kind": "OverridePolicy",
            "metadata": {"name": "o", "namespace": "test"},
            "spec": {"overrideRules": [rule]},
        }

    def images() -> dict[str, str]:
        found = {}
        for name in ("c1", "c2"):
            [obj] = objects(world, name)
            found[name] = obj["spec"]["template"]["spec"]["containers"][0]["image"]
        return found

    world = begun(cluster("c1", 1), cluster("c2", 1), policy(), override("2"), deployment(2))
    [plain] = {image for name, image in images().items() if name == "c1"}
    assert images() == {"c1": plain, "c2": f"{plain}:2"}
    uid = objects(world, "c2")[0]["metadata"]["uid"]
    later(world, 10, submitted(override("3")))
    assert images() == {"c1": plain, "c2": f"{plain}:3"}
    assert objects(world, "c2")[0]["metadata"]["uid"] == uid


def test_what_pods_name_is_in_the_clusters_of_the_pods() -> None:
    """propagateDeps, from the documents to the objects: there, changed, and gone with the last that needs it."""

    def config(value: str) -> Json:
        metadata = {"name": "conf", "namespace": "test"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": value}}

    def held() -> dict[str, str]:
        found = {}
        for name in ("c1", "c2"):
            for obj in objects(world, name, ("v1", "ConfigMap")):
                if obj["metadata"]["name"] == "conf":
                    found[name] = obj["data"]["key"]
        return found

    llm = deployment(2)
    llm["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "configMap": {"name": "conf"}}]
    world = begun(cluster("c1", 2), cluster("c2", 8), policy(["c1"], ["c2"], propagateDeps=True), config("1"), llm)
    assert held() == {"c1": "1"}
    later(world, 10, Scale(LLM, 5))
    assert held() == {"c1": "1", "c2": "1"}
    later(world, 20, submitted(config("2")))
    assert held() == {"c1": "2", "c2": "2"}
    later(world, 30, Delete(LLM))
    later(world, 60)
    assert held() == {}
