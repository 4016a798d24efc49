"""SparkApplications, Workflows, StatefulSets and CloneSets of simulated clusters."""

from __future__ import annotations

from typing import Any

import pytest

from sim.model.api import Json
from sim.model.controllers.spark import requests_of
from sim.model.objects import labels_of
from tests.support.simulation import Simulation, crd, node, pod_template, workload

SPARK = ("sparkoperator.k8s.io/v1beta2", "SparkApplication")
WORKFLOW = ("argoproj.io/v1alpha1", "Workflow")
STATEFUL_SET = ("apps/v1", "StatefulSet")
CLONE_SET = ("apps.kruise.io/v1alpha1", "CloneSet")
RUN = "sim.gpufleet.io/run-seconds"
CODE = "sim.gpufleet.io/exit-code"


def names(sim: Simulation) -> list[str]:
    return [entry["metadata"]["name"] for entry in sim.pods()]


# Spark


@pytest.mark.parametrize(
    ("spec", "part", "cpu", "memory"),
    [
        ({"type": "Java"}, {}, "1", "1408Mi"),
        ({"type": "Python"}, {"cores": 2, "memory": "4g"}, "2", "5734Mi"),
        ({"type": "Scala"}, {"coreRequest": "500m", "memory": "512m", "memoryOverhead": "1g"}, "500m", "1536Mi"),
        ({"memoryOverheadFactor": "0.5"}, {"cores": 1, "memory": "2g"}, "1", "3072Mi"),
    ],
)
def test_requests_of_spark_pods(spec: Json, part: Json, cpu: str, memory: str) -> None:
    assert requests_of(spec, part)["requests"] == {"cpu": cpu, "memory": memory}


def spark(run: str = "30", code: str = "0", **spec: Any) -> Json:
    driver = {"cores": 1, "memory": "1g", "annotations": {RUN: run, CODE: code}, "labels": {"team": "a"}}
    executor = {"cores": 1, "instances": 2, "memory": "1g", "gpu": {"name": "nvidia.com/gpu", "quantity": 1}}
    return workload(*SPARK, "pi", {"type": "Scala", "driver": driver, "executor": executor, **spec})


def test_executors_follow_the_driver_and_end_with_it() -> None:
    sim = Simulation(node("n-0", gpu="8"))
    sim.create(spark())
    assert names(sim) == ["pi-driver", "pi-exec-1", "pi-exec-2"]
    status = sim.status(*SPARK, "pi")
    assert status["applicationState"] == {"state": "RUNNING"}
    assert status["executorState"] == {"pi-exec-1": "RUNNING", "pi-exec-2": "RUNNING"}
    assert labels_of(sim.get("v1", "Pod", "pi-driver"))["spark-role"] == "driver"
    sim.wait(31)
    assert sim.status(*SPARK, "pi")["applicationState"] == {"state": "COMPLETED"}
    assert names(sim) == ["pi-driver"]


def test_a_driver_without_room_leaves_the_application_submitted() -> None:
    sim = Simulation()
    sim.create(spark())
    assert sim.status(*SPARK, "pi")["applicationState"] == {"state": "SUBMITTED"}
    assert names(sim) == ["pi-driver"]


def test_a_failed_driver_is_tried_again_as_often_as_asked() -> None:
    sim = Simulation(node("n-0", gpu="8"))
    policy = {"type": "OnFailure", "onFailureRetries": 1, "onFailureRetryInterval": 10}
    sim.create(spark(run="5", code="1", restartPolicy=policy))
    sim.wait(6)
    assert sim.status(*SPARK, "pi")["applicationState"] == {"state": "PENDING_RERUN"}
    sim.wait(10)
    assert sim.status(*SPARK, "pi")["applicationState"] == {"state": "RUNNING"}
    sim.wait(10)
    status = sim.status(*SPARK, "pi")
    assert status["applicationState"]["state"] == "FAILED"
    assert status["executionAttempts"] == 2


# Argo


def step(name: str, template: str, **more: Any) -> Json:
    return {"name": name, "template": template, **more}


def leaf(name: str, run: str = "10", code: str = "0", **more: Any) -> Json:
    container = {"image": "a:1", "resources": {"requests": {"cpu": "1"}}}
    return {"name": name, "container": container, "metadata": {"annotations": {RUN: run, CODE: code}}, **more}


def workflow(*templates: Json, **spec: Any) -> Json:
    return workload(*WORKFLOW, "wf", {"entrypoint": "main", "templates": list(templates), **spec})


def test_a_workflow_of_one_container() -> None:
    sim = Simulation(node("n-0"))
    sim.create(workflow(leaf("main"), podMetadata={"labels": {"team": "a"}}))
    assert sim.status(*WORKFLOW, "wf")["phase"] == "Running"
    assert labels_of(sim.pods()[0])["team"] == "a"
    sim.wait(11)
    status = sim.status(*WORKFLOW, "wf")
    assert (status["phase"], status["progress"]) == ("Succeeded", "1/1")
    assert sim.conditions(*WORKFLOW, "wf") == {"Completed": "True"}


def test_steps_run_in_order_and_repeated_ones_at_once() -> None:
    sim = Simulation(node("n-0"))
    main = {
        "name": "main",
        "steps": [[step("a", "work")], [step("b", "work", withItems=[1, 2, 3])], [step("c", "work")]],
    }
    sim.create(workflow(main, leaf("work")))
    assert sim.phases() == {"Ready": 1}
    sim.wait(11)
    assert sim.phases() == {"Ready": 3, "Succeeded": 1}
    sim.wait(11)
    assert sim.phases() == {"Ready": 1, "Succeeded": 4}
    sim.wait(11)
    assert sim.status(*WORKFLOW, "wf")["phase"] == "Succeeded"


def test_parallelism_bounds_the_pods_that_run() -> None:
    sim = Simulation(node("n-0"))
    main = {"name": "main", "steps": [[step("a", "work", withSequence={"count": "5"})]]}
    sim.create(workflow(main, leaf("work"), parallelism=2))
    assert sim.phases() == {"Ready": 2}
    sim.wait(11)
    assert sim.phases() == {"Ready": 2, "Succeeded": 2}
    sim.wait(30)
    assert sim.status(*WORKFLOW, "wf")["phase"] == "Succeeded"


def dag(*tasks: Json) -> Json:
    return {"name": "main", "dag": {"tasks": list(tasks)}}


def test_a_dag_follows_its_dependencies() -> None:
    sim = Simulation(node("n-0"))
    tasks = dag(
        step("a", "work"),
        step("b", "work", dependencies=["a"]),
        step("c", "work", depends="a.Succeeded"),
        step("d", "work", dependencies=["b", "c"]),
    )
    sim.create(workflow(tasks, leaf("work")))
    seen = []
    for _ in range(3):
        seen.append(sim.phases().get("Ready", 0))
        sim.wait(11)
    assert seen == [1, 2, 1]
    assert sim.status(*WORKFLOW, "wf")["phase"] == "Succeeded"


def test_a_failure_ends_a_dag_when_what_runs_has_ended() -> None:
    sim = Simulation(node("n-0"))
    tasks = dag(step("bad", "fails"), step("slow", "work"), step("after", "work", dependencies=["bad"]))
    sim.create(workflow(tasks, leaf("work", run="30"), leaf("fails", run="5", code="2")))
    sim.wait(6)
    assert sim.status(*WORKFLOW, "wf")["phase"] == "Running"
    sim.wait(30)
    assert sim.status(*WORKFLOW, "wf")["phase"] == "Failed"
    assert len(sim.pods()) == 2


def test_a_step_is_tried_again() -> None:
    sim = Simulation(node("n-0"))
    sim.create(workflow(leaf("main", run="5", code="1", retryStrategy={"limit": "2"})))
    sim.wait(30)
    assert len(sim.pods()) == 3
    assert sim.status(*WORKFLOW, "wf")["phase"] == "Failed"


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ((), 'template "main" is not defined'),
        ((dag(step("a", "x", dependencies=["b"])),), 'depends on "b"'),
        ((dag(step("a", "x", dependencies=["b"]), step("b", "x", dependencies=["a"])),), "depend on each other"),
        (({"name": "main", "steps": [[step("again", "main")]]},), "nested deeper"),
    ],
)
def test_a_workflow_that_makes_no_sense_ends_in_error(templates: tuple[Json, ...], message: str) -> None:
    sim = Simulation(node("n-0"))
    sim.create(workflow(*templates))
    status = sim.status(*WORKFLOW, "wf")
    assert status["phase"] == "Error"
    assert message in status["message"]


def test_a_workflow_kind_without_the_status_subresource() -> None:
    sim = Simulation(node("n-0"), crds=False)
    sim.create(crd("argoproj.io", "v1alpha1", "Workflow", status=False))
    sim.create(workflow(leaf("main")))
    sim.wait(11)
    assert sim.status(*WORKFLOW, "wf")["phase"] == "Succeeded"
    assert sim.refused == []


def test_a_suspended_workflow_waits() -> None:
    sim = Simulation(node("n-0"))
    sim.create(workflow(leaf("main"), suspend=True))
    assert sim.pods() == []
    sim.patch(*WORKFLOW, "wf", {"spec": {"suspend": None}})
    assert sim.phases() == {"Ready": 1}


# StatefulSets and CloneSets


def stateful_set(replicas: int, template: Json, **spec: Any) -> Json:
    labels = {"app": "db"}
    body = {**template, "metadata": {**template["metadata"], "labels": labels}}
    spec = {"replicas": replicas, "serviceName": "db", "selector": {"matchLabels": labels}, "template": body, **spec}
    return workload(*STATEFUL_SET, "db", spec)


def test_a_stateful_set_grows_and_shrinks_in_order() -> None:
    sim = Simulation(node("n-0"))
    sim.create(stateful_set(3, pod_template(notes={"ready-after": "5"})))
    assert names(sim) == ["db-0"]
    sim.wait(6)
    assert names(sim) == ["db-0", "db-1"]
    sim.wait(11)
    assert sim.phases() == {"Ready": 3}
    sim.patch(*STATEFUL_SET, "db", {"spec": {"replicas": 1}})
    assert names(sim) == ["db-0"]
    assert sim.status(*STATEFUL_SET, "db")["readyReplicas"] == 1


def test_a_parallel_stateful_set_does_not_wait() -> None:
    sim = Simulation(node("n-0"))
    sim.create(stateful_set(3, pod_template(notes={"ready-after": "5"}), podManagementPolicy="Parallel"))
    assert names(sim) == ["db-0", "db-1", "db-2"]


def test_a_stateful_set_is_updated_from_the_top_down_to_its_partition() -> None:
    sim = Simulation(node("n-0"))
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    sim.create(stateful_set(3, pod_template(), updateStrategy=strategy))
    containers = [{"name": "main", "image": "app:2"}]
    sim.patch(*STATEFUL_SET, "db", {"spec": {"template": {"spec": {"containers": containers}}}})
    images = {entry["metadata"]["name"]: entry["spec"]["containers"][0]["image"] for entry in sim.pods()}
    assert images == {"db-0": "app:1", "db-1": "app:2", "db-2": "app:2"}
    assert sim.status(*STATEFUL_SET, "db")["updatedReplicas"] == 2


def test_a_clone_set_replaces_a_few_pods_at_a_time() -> None:
    sim = Simulation(node("n-0"))
    spec = {
        "replicas": 4,
        "template": pod_template(notes={"ready-after": "5"}),
        "updateStrategy": {"maxUnavailable": 1},
    }
    sim.create(workload(*CLONE_SET, "web", spec))
    sim.wait(6)
    assert sim.phases() == {"Ready": 4}
    containers = [{"name": "main", "image": "app:2"}]
    sim.patch(*CLONE_SET, "web", {"spec": {"template": {"spec": {"containers": containers}}}})
    for _ in range(4):
        assert sim.phases()["Ready"] == 3
        sim.wait(6)
    status = sim.status(*CLONE_SET, "web")
    assert (status["updatedReplicas"], status["readyReplicas"]) == (4, 4)
