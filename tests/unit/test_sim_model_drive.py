"""The driver of controllers in virtual time, and its queue."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sim.api.crds import crd_documents
from sim.api.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS
from sim.api.store import Store
from sim.model.api import Create, Event, Json, Kind, Patch, Ref, Result, View, ref_of
from sim.model.drive import Drive, Livelock
from sim.model.objects import merge_patch, ready, seconds_of, timestamp
from sim.model.queue import Task, TaskQueue
from tests.support.simulation import START, Simulation, deployment, node, workload

CONFIG_MAP: Kind = ("v1", "ConfigMap")


class Recorder:
    """Writes down its keys, and answers as it is told."""

    name = "recorder"
    watches: tuple[Kind, ...] = (CONFIG_MAP,)

    def __init__(self, *answers: Result) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[float, str]] = []

    def observe(self, view: View, event: Event) -> Iterable[Ref]:
        return (ref_of(event.current),)

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        self.seen.append((now - START, key.name))
        return self.answers.pop(0) if self.answers else Result()


def config_map(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


def drive(recorder: Recorder) -> Drive:
    return Drive(Store("c", now=START), [recorder])


def create(driven: Drive, *names: str) -> None:
    driven.apply([Create(config_map(name)) for name in names], START)


def test_keys_come_in_the_order_of_changes_and_once() -> None:
    recorder = Recorder()
    driven = drive(recorder)
    create(driven, "b", "a")
    driven.apply([Patch(Ref(*CONFIG_MAP, "default", "b"), {"data": {"x": "y"}})], START)
    assert driven.settle(START)
    assert recorder.seen == [(0, "b"), (0, "a")]


def test_wake_ups_come_in_time_and_the_last_word_counts() -> None:
    recorder = Recorder(Result((), START + 10), Result((), START + 30), Result((), None))
    driven = drive(recorder)
    create(driven, "a")
    driven.settle(START)
    assert driven.next_wake() == START + 10
    driven.apply([Patch(Ref(*CONFIG_MAP, "default", "a"), {"data": {"x": "y"}})], START + 5)
    driven.settle(START + 5)
    assert driven.next_wake() == START + 30
    driven.settle(START + 29)
    driven.settle(START + 30)
    assert recorder.seen == [(0, "a"), (5, "a"), (30, "a")]
    assert driven.next_wake() is None


def test_a_refused_write_is_tried_again_with_growing_pauses() -> None:
    wrong = Result([Create({"apiVersion": "v1", "kind": "Nothing", "metadata": {"name": "x"}})])
    recorder = Recorder(wrong, wrong, Result())
    errors: list[str] = []
    driven = Drive(Store("c", now=START), [recorder], on_error=lambda name, what, error: errors.append(str(error)))
    create(driven, "a")
    driven.settle(START)
    assert driven.next_wake() == START + 0.05
    driven.settle(START + 0.05)
    driven.settle(START + 0.15)
    assert [round(at, 2) for at, _ in recorder.seen] == [0, 0.05, 0.15]
    assert errors == ["the server does not serve Nothing in v1"] * 2
    assert driven.next_wake() is None


def test_a_slice_of_the_work() -> None:
    recorder = Recorder()
    driven = drive(recorder)
    create(driven, "a", "b", "c")
    assert not driven.settle(START, 2)
    assert driven.busy
    assert driven.settle(START, 2)
    assert [name for _, name in recorder.seen] == ["a", "b", "c"]


def test_a_controller_that_never_ends_is_named() -> None:
    class Restless(Recorder):
        def reconcile(self, view: View, key: Ref, now: float) -> Result:
            self.seen.append((now, key.name))
            return Result([Patch(key, {"data": {"n": str(len(self.seen))}})])

    driven = drive(Restless())
    create(driven, "a")
    with pytest.raises(Livelock, match="recorder does not come to an end"):
        driven.settle(START)


def test_preconditions_keep_a_write_from_another_object() -> None:
    driven = drive(Recorder())
    create(driven, "a")
    ref = Ref(*CONFIG_MAP, "default", "a")
    driven.apply([Patch(ref, {"data": {"x": "y"}}, uid="another")], START)
    assert "data" not in driven.store.get(CONFIG_MAPS, "default", "a")


def test_a_queue_forgets_a_failure_after_a_success() -> None:
    queue = TaskQueue([Recorder()])
    task = Task(0, Ref(*CONFIG_MAP, "default", "a"))
    assert [round(queue.failed(task, 0.0), 2) for _ in range(3)] == [0.05, 0.1, 0.2]
    queue.succeeded(task, None)
    assert queue.next_wake() is None
    assert round(queue.failed(task, 0.0), 2) == 0.05


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": None}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1}}, {"a": {"y": None}}),
        ({}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 2]}),
        ({"a": {"x": 1}}, {"a": "text"}, {"a": "text"}),
    ],
)
def test_merge_patches(old: Json, new: Json, patch: Json) -> None:
    assert merge_patch(old, new) == patch


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.250000Z"])
def test_times(text: str) -> None:
    assert timestamp(seconds_of(text)) == "2026-01-31T12:00:00Z"


def unchecked(definition: Json) -> Json:
    spec = definition["spec"]
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {**definition, "spec": {**spec, "versions": [{**version, "schema": schema} for version in spec["versions"]]}}


@pytest.mark.parametrize(
    "wrong",
    [
        workload("kubeflow.org/v1", "PyTorchJob", "bad", {"pytorchReplicaSpecs": ["Master"]}),
        workload("kubeflow.org/v1", "PyTorchJob", "bad", {"pytorchReplicaSpecs": {"Master": {"template": "x"}}}),
        workload("kubeflow.org/v1", "PyTorchJob", "bad", {"pytorchReplicaSpecs": {"Master": {"replicas": "x"}}}),
        workload("sparkoperator.k8s.io/v1beta2", "SparkApplication", "bad", {"driver": [], "executor": "x"}),
        workload("sparkoperator.k8s.io/v1beta2", "SparkApplication", "bad", {"driver": "x"}),
        workload("argoproj.io/v1alpha1", "Workflow", "bad", {"entrypoint": "a", "templates": ["a"]}),
        workload(
            "argoproj.io/v1alpha1", "Workflow", "bad", {"entrypoint": "a", "templates": [{"name": "a", "steps": "x"}]}
        ),
        workload("apps.kruise.io/v1alpha1", "CloneSet", "bad", {"replicas": "many", "template": 7}),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "sim-faults", "namespace": "kube-system"},
            "data": {"faults.json": "{"},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "gpufleet-elastic-pools", "namespace": "kube-system"},
            "data": {"a": "[]", "b": "{"},
        },
    ],
)
def test_an_object_that_makes_no_sense_stops_nothing_else(wrong: Json) -> None:
    sim = Simulation(node("n-0"), crds=False)
    for definition in crd_documents():  # a cluster may have definitions that check nothing
        sim.store.create(CUSTOM_RESOURCE_DEFINITIONS, unchecked(definition), now=sim.now)
    sim.create(wrong)
    sim.create(deployment("web", 2))
    sim.wait(200)
    assert sum(map(ready, sim.pods(app="web"))) == 2
