"""How an object's own status is judged (specification 11.4, 7.3)."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model import kinds
from gpufleet.model.placement import FailureClass, WorkloadHealth
from tests.support import manifests

H = WorkloadHealth
NONE, START, INFRA, USER = FailureClass.NONE, FailureClass.START, FailureClass.INFRASTRUCTURE, FailureClass.USER


def condition(kind: str, reason: str = "", message: str = "", status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def deployment(**status: Any) -> dict[str, Any]:
    manifest = manifests.deployment(3)
    manifest["metadata"]["generation"] = 2
    return {**manifest, "status": {"observedGeneration": 2, **status}}


FULL = {"replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}


@pytest.mark.parametrize(
    ("obj", "health", "ready"),
    [
        (manifests.deployment(3), H.UNKNOWN, 0),
        (deployment(**FULL), H.HEALTHY, 3),
        (deployment(**FULL) | {"metadata": {"name": "x", "generation": 3}}, H.PROGRESSING, 3),
        (deployment(**{**FULL, "readyReplicas": 1, "availableReplicas": 1}), H.PROGRESSING, 1),
        (deployment(**{**FULL, "updatedReplicas": 1}), H.PROGRESSING, 3),
        (deployment(conditions=[condition("Progressing", "ProgressDeadlineExceeded", status="False")]), H.UNHEALTHY, 0),
        (deployment(conditions=[condition("ReplicaFailure", "FailedCreate", "quota")]), H.UNHEALTHY, 0),
    ],
)
def test_deployment(obj: dict[str, Any], health: WorkloadHealth, ready: int) -> None:
    status = kinds.status(obj)
    assert (status.health, status.ready, status.finished, status.failed) == (health, ready, False, False)


def dynamic_spark(least: int) -> dict[str, Any]:
    made = manifests.spark()
    dynamic = {"enabled": True, "initialExecutors": 5, "minExecutors": least, "maxExecutors": 9}
    return {**made, "spec": {**made["spec"], "dynamicAllocation": dynamic}}


def of(manifest: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {**manifest, "status": status}


WAITING = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
CASES: list[Any] = [
    # Pod
    pytest.param(of(manifests.pod(), phase="Succeeded"), H.SUCCEEDED, NONE, id="pod succeeded"),
    pytest.param(
        of(manifests.pod(), phase="Running", conditions=[condition("Ready")]), H.HEALTHY, NONE, id="pod ready"
    ),
    pytest.param(of(manifests.pod(), phase="Pending"), H.PROGRESSING, NONE, id="pod pending"),
    pytest.param(of(manifests.pod(), phase="Pending", containerStatuses=[WAITING]), H.UNHEALTHY, NONE, id="pod image"),
    pytest.param(of(manifests.pod(), phase="Failed", reason="Evicted"), H.FAILED, INFRA, id="pod evicted"),
    pytest.param(of(manifests.pod(), phase="Failed", reason="NodeLost"), H.FAILED, INFRA, id="pod's node lost"),
    pytest.param(of(manifests.pod(), phase="Failed", reason="OutOfnvidia.com/gpu"), H.FAILED, START, id="pod refused"),
    pytest.param(
        of(manifests.pod(), phase="Failed", conditions=[condition("DisruptionTarget", "PreemptionByScheduler")]),
        H.FAILED,
        INFRA,
        id="pod preempted",
    ),
    pytest.param(
        of(manifests.pod(), phase="Failed", containerStatuses=[{"state": {"terminated": {"exitCode": 3}}}]),
        H.FAILED,
        USER,
        id="pod exit 3",
    ),
    # Job
    pytest.param(of(manifests.job(3), ready=3), H.HEALTHY, NONE, id="job runs"),
    pytest.param(of(manifests.job(3), ready=1), H.PROGRESSING, NONE, id="job starts"),
    pytest.param(of(manifests.job(), conditions=[condition("Complete")]), H.SUCCEEDED, NONE, id="job complete"),
    pytest.param(
        of(manifests.job(), failed=7, conditions=[condition("Failed", "BackoffLimitExceeded")]),
        H.FAILED,
        USER,
        id="job back-off",
    ),
    pytest.param(
        of(manifests.job(), conditions=[condition("Failed", "DeadlineExceeded")]),
        H.FAILED,
        START,
        id="job never started",
    ),
    pytest.param(
        of(manifests.job(), ready=1, conditions=[condition("Failed", "DeadlineExceeded")]),
        H.FAILED,
        USER,
        id="job too slow",
    ),
    pytest.param(
        of(
            manifests.job(),
            failed=1,
            conditions=[condition("Failed", "PodFailurePolicy", "has condition DisruptionTarget")],
        ),
        H.FAILED,
        INFRA,
        id="job disrupted",
    ),
    # Training operator
    pytest.param(
        of(
            manifests.pytorch(),
            conditions=[condition("Running")],
            replicaStatuses={"Master": {"active": 1}, "Worker": {"active": 2}},
        ),
        H.HEALTHY,
        NONE,
        id="pytorch runs",
    ),
    pytest.param(of(manifests.pytorch(), conditions=[condition("Created")]), H.PROGRESSING, NONE, id="pytorch created"),
    pytest.param(of(manifests.pytorch(), conditions=[condition("Succeeded")]), H.SUCCEEDED, NONE, id="pytorch done"),
    pytest.param(
        of(
            manifests.pytorch(),
            conditions=[
                condition("Running", status="False"),
                condition("Failed", "PyTorchJobFailed", "1 Worker replica(s) failed"),
            ],
        ),
        H.FAILED,
        USER,
        id="pytorch failed",
    ),
    pytest.param(
        of(
            manifests.pytorch(),
            conditions=[condition("Created"), condition("Failed", "PyTorchJobFailed", "active too long")],
        ),
        H.FAILED,
        START,
        id="pytorch never ran",
    ),
    pytest.param(
        of(manifests.tensorflow(), conditions=[condition("Failed", "TFJobFailed", "pod x-worker-0 was evicted")]),
        H.FAILED,
        INFRA,
        id="tf evicted",
    ),
    # Spark
    pytest.param(of(manifests.spark(), applicationState={"state": "COMPLETED"}), H.SUCCEEDED, NONE, id="spark done"),
    pytest.param(
        of(
            manifests.spark(),
            applicationState={"state": "RUNNING"},
            executorState={f"e{i}": "RUNNING" for i in range(5)},
        ),
        H.HEALTHY,
        NONE,
        id="spark runs",
    ),
    pytest.param(
        of(dynamic_spark(2), applicationState={"state": "RUNNING"}, executorState={"e1": "RUNNING", "e2": "RUNNING"}),
        H.HEALTHY,
        NONE,
        id="spark gave idle executors back",
    ),
    pytest.param(
        of(dynamic_spark(2), applicationState={"state": "RUNNING"}, executorState={"e1": "RUNNING"}),
        H.PROGRESSING,
        NONE,
        id="spark has fewer than its least",
    ),
    pytest.param(
        of(manifests.spark(), applicationState={"state": "SUBMITTED"}), H.PROGRESSING, NONE, id="spark submitted"
    ),
    pytest.param(
        of(
            manifests.spark(),
            driverInfo={"podName": "d"},
            applicationState={"state": "FAILED", "errorMessage": "driver container failed with ExitCode: 1"},
        ),
        H.FAILED,
        USER,
        id="spark exit 1",
    ),
    pytest.param(
        of(
            manifests.spark(),
            driverInfo={"podName": "d"},
            applicationState={"state": "FAILED", "errorMessage": "Driver Pod not found"},
        ),
        H.FAILED,
        INFRA,
        id="spark driver gone",
    ),
    pytest.param(
        of(manifests.spark(), applicationState={"state": "FAILED", "errorMessage": "failed to submit"}),
        H.FAILED,
        START,
        id="spark no driver",
    ),
    # Argo
    pytest.param(of(manifests.workflow(), phase="Running"), H.HEALTHY, NONE, id="workflow runs"),
    pytest.param(of(manifests.workflow(), phase="Pending"), H.PROGRESSING, NONE, id="workflow pending"),
    pytest.param(of(manifests.workflow(), startedAt="x"), H.PROGRESSING, NONE, id="workflow without phase"),
    pytest.param(of(manifests.workflow(), phase="Succeeded"), H.SUCCEEDED, NONE, id="workflow done"),
    pytest.param(
        of(manifests.workflow(), phase="Failed", message="child 'a' failed"), H.FAILED, USER, id="workflow failed"
    ),
    pytest.param(
        of(
            manifests.workflow(),
            phase="Error",
            message="child 'a' failed",
            nodes={"a": {"type": "Pod", "phase": "Error", "message": "pod deleted"}},
        ),
        H.FAILED,
        INFRA,
        id="workflow's pod deleted",
    ),
    pytest.param(
        of(manifests.workflow(), phase="Failed", nodes={"a": {"type": "Pod", "phase": "Pending"}}),
        H.FAILED,
        START,
        id="workflow never ran",
    ),
    # Ray
    pytest.param(of(manifests.ray_job(), jobStatus="RUNNING"), H.HEALTHY, NONE, id="ray job runs"),
    pytest.param(of(manifests.ray_job(), jobStatus="SUCCEEDED"), H.SUCCEEDED, NONE, id="ray job done"),
    pytest.param(of(manifests.ray_job(), jobStatus="FAILED", reason="AppFailed"), H.FAILED, USER, id="ray job failed"),
    pytest.param(
        of(manifests.ray_job(), jobDeploymentStatus="Failed", reason="DeadlineExceeded"),
        H.FAILED,
        START,
        id="ray job late",
    ),
    pytest.param(of(manifests.ray_cluster(), state="ready", readyWorkerReplicas=6), H.HEALTHY, NONE, id="ray cluster"),
    pytest.param(
        of(manifests.ray_cluster(), state="ready", readyWorkerReplicas=5), H.PROGRESSING, NONE, id="ray cluster starts"
    ),
    pytest.param(of(manifests.ray_cluster(), state="failed"), H.UNHEALTHY, NONE, id="ray cluster fails"),
    pytest.param(of(manifests.cron_job(), active=[{}]), H.HEALTHY, NONE, id="cron"),
]


@pytest.mark.parametrize(("obj", "health", "failure"), CASES)
def test_status(obj: dict[str, Any], health: WorkloadHealth, failure: FailureClass) -> None:
    status = kinds.status(obj)
    assert (status.health, status.failure) == (health, failure)
    assert status.finished == (health is H.SUCCEEDED)
    assert status.failed == (health is H.FAILED)
    assert not status.failed or status.message or obj["kind"] == "Workflow"


def test_ready_pods_by_component() -> None:
    status = {"replicaStatuses": {"Worker": {"active": 2}}, "conditions": [condition("Running")]}
    assert kinds.status(of(manifests.pytorch(), **status)).components == (("Master", 0), ("Worker", 2))
    ray = kinds.status(of(manifests.ray_cluster(), state="ready", readyWorkerReplicas=3))
    assert (ray.components, ray.ready) == ((("head", 1), ("small", 2), ("large", 1)), 4)


@pytest.mark.parametrize("kind", sorted(manifests.every_kind()))
@pytest.mark.parametrize(
    "status", [{"conditions": "x"}, {"conditions": [1]}, {"nodes": []}, {"replicaStatuses": 3, "phase": 1}, "x", [1]]
)
def test_an_odd_status_is_no_crash(kind: str, status: Any) -> None:
    assert kinds.status({**manifests.every_kind()[kind], "status": status}) is not None


def test_unknown_kinds_and_messages() -> None:
    assert kinds.status({"apiVersion": "v1", "kind": "Service", "status": {"a": 1}}).health is H.UNKNOWN
    failed = kinds.status(
        of(manifests.pod(), phase="Failed", reason="Evicted", message="The node was low on resource: memory")
    )
    assert failed.message == "The node was low on resource: memory"
