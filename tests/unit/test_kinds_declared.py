"""Kinds that a WorkloadKind document declares (specification 11): how they are read, changed and judged."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.bus.records import Record
from gpufleet.bus.topics import load_registry
from gpufleet.model import kinds
from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    FailureClass,
    ObservedPhase,
    Version,
    WorkloadHealth,
)
from gpufleet.model.workload import Division
from gpufleet.wire import documents, yaml
from gpufleet.wire.documents import DocumentErrors
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import dump_manifest, dump_policy
from services.dispatcher.core import render
from services.dispatcher.core.steps import Done, Facts, Live, next_step
from services.scheduler.core import events as ev
from services.scheduler.intake import Intake
from sim.plan import plan


def declared(name: str = "xgb", **spec: Any) -> dict[str, Any]:
    role = "spec.xgbReplicaSpecs.{0}"
    roles = [
        {
            "name": name_,
            "template": role.format(name_) + ".template",
            "replicas": role.format(name_) + ".replicas",
            "ready": f"status.replicaStatuses.{name_}.active",
        }
        for name_ in ("Master", "Worker")
    ]
    return {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "WorkloadKind",
        "metadata": {"name": name},
        "spec": {
            "group": "kubeflow.org",
            "versions": ["v1"],
            "kind": "XGBoostJob",
            "pods": roles,
            "suspend": "spec.runPolicy.suspend",
            "status": {
                "succeeded": {"condition": "Succeeded"},
                "failed": {"condition": "Failed"},
                "healthy": {"condition": "Running"},
            },
            **spec,
        },
    }


def xgboost(workers: int = 2, **more: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "resources": {"limits": {"cpu": "2", "nvidia.com/gpu": "1"}}}
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [container]}}
    specs = {"Master": {"template": template}, "Worker": {"replicas": workers, "template": template}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "XGBoostJob",
        "metadata": {"name": "x", "namespace": "test"},
        "spec": {"xgbReplicaSpecs": specs, **more.pop("spec", {})},
        **more,
    }


def parse(*manifests: dict[str, Any]) -> documents.Parsed:
    return documents.parse_text(yaml.dump(list(manifests)), "k.yaml")


def declaration(**spec: Any) -> kinds.Declaration:
    (found,) = parse(declared(**spec)).kinds.values()
    return found


KEY = "test/XGBoostJob.kubeflow.org/x"


def test_a_declared_kind_is_read_like_a_builtin_one() -> None:
    parsed = parse(xgboost(3), declared())
    workload = parsed.workloads[KEY]
    assert (workload.kind, workload.job, workload.division) == ("XGBoostJob", True, Division.WHOLE)
    assert [(c.name, c.replicas, dict(c.labels)) for c in workload.components] == [
        ("Master", 1, {"app": "x"}),
        ("Worker", 3, {"app": "x"}),
    ]
    assert dict(workload.components[0].shape.requests) == {"cpu": 2000, "nvidia.com/gpu": 1, "pods": 1}
    assert kinds.spec_for("kubeflow.org/v1", "XGBoostJob") is None  # known only while it was needed


def test_a_set_of_pods_may_be_left_out() -> None:
    manifest = xgboost()
    del manifest["spec"]["xgbReplicaSpecs"]["Master"]
    assert [c.name for c in parse(declared(), manifest).workloads[KEY].components] == ["Worker"]


def test_another_declaration_is_another_submission() -> None:
    first = parse(declared(), xgboost()).workloads[KEY]
    again = parse(declared(), xgboost()).workloads[KEY]
    other = parse(declared(job=False), xgboost()).workloads[KEY]
    assert first.digest == again.digest != other.digest


def test_replicas_templates_and_suspension_are_where_the_declaration_says() -> None:
    with kinds.declaring([declaration()]):
        manifest = xgboost(2)
        changed = kinds.with_replicas(manifest, {"Worker": 5, "Master": 1})
        assert changed["spec"]["xgbReplicaSpecs"]["Worker"]["replicas"] == 5
        assert "replicas" not in changed["spec"]["xgbReplicaSpecs"]["Master"]
        assert manifest["spec"]["xgbReplicaSpecs"]["Worker"]["replicas"] == 2
        order = Assignment(KEY, "c", Version(1, 1), AssignmentState.ACTIVE, manifest, (("Worker", 5),), job=True)
        obj = render.render(order, suspend=True)
        assert obj["spec"]["runPolicy"] == {"suspend": True}
        pods = obj["spec"]["xgbReplicaSpecs"]["Worker"]["template"]["metadata"]
        assert pods["labels"]["gpufleet.io/component"] == "Worker"
        assert pods["annotations"]["gpufleet.io/workload"] == KEY


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"conditions": [{"type": "Succeeded", "status": "True"}]}, (WorkloadHealth.SUCCEEDED, True, False)),
        (
            {"conditions": [{"type": "Failed", "status": "True", "reason": "Evicted"}]},
            (WorkloadHealth.FAILED, False, True),
        ),
        ({"conditions": [{"type": "Running", "status": "True"}]}, (WorkloadHealth.HEALTHY, False, False)),
        ({"conditions": [{"type": "Running", "status": "False"}]}, (WorkloadHealth.PROGRESSING, False, False)),
    ],
)
def test_status(status: dict[str, Any], expected: tuple[WorkloadHealth, bool, bool]) -> None:
    with kinds.declaring([declaration()]):
        found = kinds.status({**xgboost(), "status": {**status, "replicaStatuses": {"Worker": {"active": 2}}}})
    assert (found.health, found.finished, found.failed) == expected
    if found.failed:
        assert found.failure is FailureClass.INFRASTRUCTURE
    elif not found.finished:
        assert (found.ready, found.components) == (2, (("Master", 0), ("Worker", 2)))


@pytest.mark.parametrize(("phase", "counts"), [("Running", (2,)), ("Pending", (0,))])
def test_a_status_that_does_not_count_pods_means_all_of_them_when_all_is_well(
    phase: str, counts: tuple[int, ...]
) -> None:
    pods = [{"name": "main", "template": "spec.template", "replicas": "spec.replicas"}]
    healthy = {"healthy": {"path": "status.phase", "values": ["Running"]}}
    kind = declaration(pods=pods, suspend="", minMember="", status=healthy)
    obj = {**xgboost(), "spec": {"replicas": 2, "template": {"spec": {}}}, "status": {"phase": phase}}
    with kinds.declaring([kind]):
        found = kinds.status(obj)
    assert tuple(count for _, count in found.components) == counts and found.ready == sum(counts)


def test_a_list_of_tasks_and_a_phase() -> None:
    kind = declared(
        group="batch.volcano.sh",
        versions=["v1alpha1"],
        kind="Job",
        pods=[{"each": "spec.tasks", "namePath": "name", "template": "template", "replicas": "replicas"}],
        minMember="spec.minAvailable",
        suspend="",
        status={"succeeded": {"path": "status.state.phase", "values": ["Completed"]}},
    )
    template = {"spec": {"containers": [{"name": "c"}]}}
    job = {
        "apiVersion": "batch.volcano.sh/v1alpha1",
        "kind": "Job",
        "metadata": {"name": "v", "namespace": "test"},
        "spec": {
            "minAvailable": 2,
            "tasks": [{"name": "a", "replicas": 1, "template": template}, {"name": "b", "template": template}],
        },
    }
    parsed = parse(kind, job)
    workload = parsed.workloads["test/Job.batch.volcano.sh/v"]
    assert [(c.name, c.replicas) for c in workload.components] == [("a", 1), ("b", 1)]
    assert workload.min_member == 2
    with kinds.declaring(parsed.kinds.values()):
        changed = kinds.with_replicas(job, {"a": 1, "b": 4})
        assert changed["spec"]["tasks"][1]["replicas"] == 4
        assert kinds.status({**job, "status": {"state": {"phase": "Completed"}}}).finished
        assert kinds.spec_of({"apiVersion": "batch/v1", "kind": "Job"}).key == "Job"


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"group": "batch", "kind": "Job"}, "spec.versions[0]"),
        ({"versions": []}, "spec.versions"),
        ({"pods": []}, "spec.pods"),
        ({"pods": [{"template": "spec.template"}]}, "spec.pods[0].name"),
        ({"pods": [{"each": "spec.tasks", "template": "template"}]}, "spec.pods[0].namePath"),
        ({"pods": [{"name": "a", "template": "spec..template"}]}, "spec.pods[0].template"),
        ({"pods": [{"name": "a", "template": "spec.a"}, {"name": "a", "template": "spec.b"}]}, "spec.pods[1].name"),
        ({"division": "Replicas"}, "spec.division"),
        ({"status": {"succeeded": {}}}, "spec.status.succeeded"),
        ({"status": {"succeeded": {"path": "status.phase"}}}, "spec.status.succeeded.values"),
    ],
)
def test_a_declaration_that_is_wrong_names_the_field(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(DocumentErrors) as caught:
        parse(declared(**spec))
    assert path in [error.path for error in caught.value.errors]


def test_a_manifest_without_any_template_says_where_it_was_looked_for() -> None:
    with pytest.raises(DocumentErrors, match=r"spec\.xgbReplicaSpecs\.Master\.template"):
        parse(declared(), {**xgboost(), "spec": {}})
    with pytest.raises(DocumentErrors, match=r"XGBoostJob .* is not a known kind"):
        parse(xgboost())


def test_plan_decides_on_a_declared_kind() -> None:
    allocatable = {"cpu": "8", "nvidia.com/gpu": "4"}
    cluster = {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "c"},
        "status": {"nodeClasses": [{"name": "gpu", "allocatable": allocatable, "nodes": 1}]},
    }
    policy = {
        "apiVersion": "policy.one.alibabacloud.com/v1alpha1",
        "kind": "PropagationPolicy",
        "metadata": {"name": "p", "namespace": "test"},
        "spec": {"resourceSelectors": [{"apiVersion": "kubeflow.org/v1", "kind": "XGBoostJob"}]},
    }
    parsed = parse(cluster, policy, xgboost(), declared())
    assert not parsed.warnings
    (placement,) = plan(parsed)
    assert (placement.workload, placement.verdict.value, placement.placed) == (KEY, "Scheduled", 3)


# --- Services -----------------------------------------------------------------------------------------------------


def record(topic: str, key: str, value: bytes | None, offset: int) -> Record:
    return Record(topic, 0, offset, key, value, {}, 0.0)


def test_the_scheduler_reads_workloads_again_when_their_kind_is_declared() -> None:
    rejected: list[RecordError] = []
    intake = Intake(load_registry(), lambda _, error: rejected.append(error))
    work = record("gpufleet.workloads", KEY, dump_manifest(xgboost()), 3)
    kind = record("gpufleet.policies", "WorkloadKind//xgb", dump_policy(declared()), 4)
    (unreadable,) = intake.events(work)
    assert isinstance(unreadable, ev.WorkloadUnreadable)
    assert len(rejected) == 1
    (submitted,) = intake.events(kind)
    assert isinstance(submitted, ev.WorkloadSubmitted)
    assert (submitted.workload.key, submitted.workload.replicas) == (KEY, 3)
    assert intake.events(kind) == []
    changed = record("gpufleet.policies", "WorkloadKind//xgb", dump_policy(declared(job=False)), 5)
    (again,) = intake.events(changed)
    assert isinstance(again, ev.WorkloadSubmitted)
    assert not again.workload.job
    intake.events(record("gpufleet.workloads", KEY, None, 6))
    assert intake.events(kind) == []


def test_the_dispatcher_waits_for_a_declaration_that_comes_late() -> None:
    order = Assignment(KEY, "c", Version(1, 1), AssignmentState.ACTIVE, xgboost(), (("Worker", 2),))
    step = next_step(order, Facts("log", ""), Live())
    assert isinstance(step, Done)
    assert (step.phase, step.retry_after is not None) == (ObservedPhase.PENDING, True)
    kinds.declare(declaration())
    assert not isinstance(next_step(order, Facts("log", ""), Live()), Done)
