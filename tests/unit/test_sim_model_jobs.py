"""Batch Jobs and Kubeflow's training jobs of simulated clusters."""

from __future__ import annotations

from typing import Any

import pytest

from sim.model.api import Json
from sim.model.controllers.job import TRACKING
from sim.model.faults import fail_workload
from sim.model.objects import labels_of, phase_of
from tests.support.simulation import Simulation, node, pod_template, workload

JOB = ("batch/v1", "Job")
PYTORCH = ("kubeflow.org/v1", "PyTorchJob")
TENSORFLOW = ("kubeflow.org/v1", "TFJob")
MPI = ("kubeflow.org/v1", "MPIJob")


def job(name: str = "train", *, run: str = "10", code: str = "0", **spec: Any) -> Json:
    template = pod_template(notes={"run-seconds": run, "exit-code": code}, restartPolicy="Never")
    return workload(*JOB, name, {"template": template, **spec})


def training(kind: tuple[str, str], roles: dict[str, Json], name: str = "train", **policy: Any) -> Json:
    field = {"PyTorchJob": "pytorchReplicaSpecs", "TFJob": "tfReplicaSpecs", "MPIJob": "mpiReplicaSpecs"}[kind[1]]
    return workload(*kind, name, {field: roles, "runPolicy": policy})


def role(replicas: int = 1, policy: str = "Never", gpu: int = 0, **notes: str) -> Json:
    template = pod_template(gpu=gpu, notes={name.replace("_", "-"): value for name, value in notes.items()})
    return {"replicas": replicas, "restartPolicy": policy, "template": template}


# batch/v1


def test_a_job_runs_to_its_completions() -> None:
    sim = Simulation(node("n-0"))
    sim.create(job(parallelism=2, completions=5))
    assert sim.status(*JOB, "train")["active"] == 2
    sim.wait(25)
    assert sim.status(*JOB, "train")["succeeded"] == 4
    sim.wait(10)
    status = sim.status(*JOB, "train")
    assert (status["succeeded"], status.get("active"), status.get("failed")) == (5, None, None)
    assert sim.conditions(*JOB, "train")["Complete"] == "True"
    assert status["completionTime"] > status["startTime"]
    assert all(not entry["metadata"].get("finalizers") for entry in sim.pods())


def test_a_job_fails_after_its_back_off_limit() -> None:
    sim = Simulation(node("n-0"))
    sim.create(job(run="0", code="3", backoffLimit=2))
    assert sim.status(*JOB, "train")["failed"] == 1
    sim.wait(9)
    assert len(sim.pods()) == 1, "the first pause is 10 seconds"
    sim.wait(2)
    assert sim.status(*JOB, "train")["failed"] == 2
    sim.wait(30)
    assert sim.conditions(*JOB, "train")["Failed"] == "True"
    reasons = {c["type"]: c["reason"] for c in sim.status(*JOB, "train")["conditions"]}
    assert reasons["Failed"] == "BackoffLimitExceeded"
    assert len(sim.pods()) == 3


def test_a_suspended_job_has_no_pods_until_it_is_resumed() -> None:
    sim = Simulation(node("n-0"))
    sim.create(job(suspend=True, parallelism=2, completions=2))
    assert sim.pods() == []
    assert sim.conditions(*JOB, "train") == {"Suspended": "True"}
    sim.patch(*JOB, "train", {"spec": {"suspend": False}})
    assert sim.phases() == {"Ready": 2}
    sim.patch(*JOB, "train", {"spec": {"suspend": True}})
    assert sim.pods() == []
    assert sim.status(*JOB, "train").get("failed") is None
    sim.patch(*JOB, "train", {"spec": {"suspend": False}})
    sim.wait(11)
    assert sim.conditions(*JOB, "train")["Complete"] == "True"


def test_deadline_and_time_to_live() -> None:
    sim = Simulation(node("n-0"))
    sim.create(job(run="100", activeDeadlineSeconds=30, ttlSecondsAfterFinished=60))
    sim.wait(31)
    reasons = {c["type"]: c["reason"] for c in sim.status(*JOB, "train")["conditions"]}
    assert reasons["Failed"] == "DeadlineExceeded"
    assert sim.pods() == []
    sim.wait(60)
    assert sim.drive.view.get(*JOB, "default", "train") is None


def test_indexed_completion() -> None:
    sim = Simulation(node("n-0"))
    sim.create(job(parallelism=2, completions=3, completionMode="Indexed"))
    sim.wait(25)
    assert sim.status(*JOB, "train")["completedIndexes"] == "0-2"


def test_pods_with_finalizers_go_with_their_job() -> None:
    sim = Simulation(node("n-0"))
    sim.create(job(run="100", parallelism=3, completions=3))
    assert all(TRACKING in entry["metadata"]["finalizers"] for entry in sim.pods())
    sim.delete(*JOB, "train")
    assert sim.pods() == []


def test_a_deleted_pod_counts_as_failed_and_is_replaced() -> None:
    sim = Simulation(node("n-0"))
    sim.create(job(run="100", parallelism=1, completions=1))
    sim.delete("v1", "Pod", sim.pods()[0]["metadata"]["name"])
    assert sim.status(*JOB, "train")["failed"] == 1
    sim.wait(11)
    assert sim.phases() == {"Ready": 1}


# kubeflow.org


def test_a_pytorchjob_succeeds_with_its_master() -> None:
    sim = Simulation(node("n-0", gpu="8"))
    roles = {"Master": role(gpu=1, run_seconds="30"), "Worker": role(2, gpu=1, run_seconds="300")}
    sim.create(training(PYTORCH, roles, cleanPodPolicy="Running"))
    assert {entry["metadata"]["name"] for entry in sim.pods()} == {"train-master-0", "train-worker-0", "train-worker-1"}
    assert sim.conditions(*PYTORCH, "train") == {"Created": "True", "Running": "True"}
    assert sim.status(*PYTORCH, "train")["replicaStatuses"] == {"Master": {"active": 1}, "Worker": {"active": 2}}
    labels = labels_of(sim.get("v1", "Pod", "train-master-0"))
    assert labels["training.kubeflow.org/job-role"] == "master"
    sim.wait(31)
    assert sim.conditions(*PYTORCH, "train") == {"Created": "True", "Running": "False", "Succeeded": "True"}
    assert [entry["metadata"]["name"] for entry in sim.pods()] == ["train-master-0"]
    assert sim.status(*PYTORCH, "train")["replicaStatuses"] == {"Master": {"succeeded": 1}, "Worker": {}}


def test_a_failed_pod_fails_the_job() -> None:
    sim = Simulation(node("n-0"))
    roles = {"Master": role(run_seconds="100"), "Worker": role(2, run_seconds="5", exit_code="1")}
    sim.create(training(PYTORCH, roles, cleanPodPolicy="All"))
    sim.wait(6)
    assert sim.conditions(*PYTORCH, "train")["Failed"] == "True"
    assert sim.pods() == []


def test_pods_that_restart_in_place_fail_the_job_at_the_limit() -> None:
    sim = Simulation(node("n-0"))
    roles = {"Master": role(policy="OnFailure", run_seconds="1", exit_code="1")}
    sim.create(training(PYTORCH, roles, backoffLimit=2))
    sim.wait(5)
    assert sim.conditions(*PYTORCH, "train").get("Failed") is None
    sim.wait(60)
    assert sim.conditions(*PYTORCH, "train")["Failed"] == "True"


@pytest.mark.parametrize(("code", "ends"), [("1", True), ("137", False)])
def test_exit_codes_decide_whether_a_pod_is_made_again(code: str, ends: bool) -> None:
    sim = Simulation(node("n-0"))
    roles = {"Master": role(run_seconds="100"), "Worker": role(policy="ExitCode", run_seconds="5", exit_code=code)}
    sim.create(training(PYTORCH, roles))
    first = sim.get("v1", "Pod", "train-worker-0")["metadata"]["uid"]
    sim.wait(6)
    assert ("Failed" in sim.conditions(*PYTORCH, "train")) is ends
    assert (sim.get("v1", "Pod", "train-worker-0")["metadata"]["uid"] == first) is ends


def test_a_suspended_training_job_gives_its_pods_back() -> None:
    sim = Simulation(node("n-0"))
    sim.create(training(PYTORCH, {"Master": role(), "Worker": role(2)}, suspend=True))
    assert sim.pods() == []
    assert sim.conditions(*PYTORCH, "train") == {"Created": "True", "Suspended": "True"}
    sim.patch(*PYTORCH, "train", {"spec": {"runPolicy": {"suspend": False}}})
    assert sim.phases() == {"Ready": 3}
    assert sim.conditions(*PYTORCH, "train") == {"Created": "True", "Suspended": "False", "Running": "True"}
    sim.patch(*PYTORCH, "train", {"spec": {"runPolicy": {"suspend": True}}})
    assert sim.pods() == []
    assert sim.conditions(*PYTORCH, "train")["Running"] == "False"


def test_a_tfjob_without_a_chief_ends_with_worker_0() -> None:
    sim = Simulation(node("n-0"))
    roles = {"PS": role(run_seconds="900"), "Worker": role(2, run_seconds="20")}
    sim.create(training(TENSORFLOW, roles, cleanPodPolicy="Running"))
    sim.wait(21)
    assert sim.conditions(*TENSORFLOW, "train")["Succeeded"] == "True"
    assert {phase_of(entry) for entry in sim.pods()} == {"Succeeded"}


def test_the_launcher_of_an_mpijob_waits_for_its_workers() -> None:
    sim = Simulation(node("n-0"))
    roles = {"Launcher": role(run_seconds="10"), "Worker": role(2, ready_after="5")}
    sim.create(training(MPI, roles))
    assert {entry["metadata"]["name"] for entry in sim.pods()} == {"train-worker-0", "train-worker-1"}
    sim.wait(6)
    assert "train-launcher" in {entry["metadata"]["name"] for entry in sim.pods()}
    sim.wait(11)
    assert sim.conditions(*MPI, "train")["Succeeded"] == "True"


def test_a_fault_fails_pods_that_run_and_pods_to_come() -> None:
    sim = Simulation(node("n-0"))
    key = "default/PyTorchJob/train"
    roles = {"Master": role(), "Worker": role(2)}
    for spec in roles.values():
        spec["template"]["metadata"]["annotations"] = {"gpufleet.io/workload": key}
    sim.create(training(PYTORCH, roles))
    assert sim.phases() == {"Ready": 3}
    sim.do(*fail_workload(sim.drive.view, key))
    assert sim.conditions(*PYTORCH, "train")["Failed"] == "True"
    sim.delete(*PYTORCH, "train")
    sim.create(training(PYTORCH, roles, name="train"))
    assert sim.conditions(*PYTORCH, "train")["Failed"] == "True"
