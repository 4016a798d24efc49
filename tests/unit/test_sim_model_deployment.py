"""Deployments and ReplicaSets of simulated clusters."""

from __future__ import annotations

import pytest

from sim.model.controllers.deployment import resolve_bounds
from sim.model.controllers.podsets import scale_down_order
from sim.model.objects import labels_of, ready
from tests.support.simulation import Simulation, deployment, node, pod_template

DEPLOYMENT = ("apps/v1", "Deployment")


def set_image(sim: Simulation, name: str, image: str) -> None:
    containers = sim.get(*DEPLOYMENT, name)["spec"]["template"]["spec"]["containers"]
    changed = [{**container, "image": image} for container in containers]
    sim.patch(*DEPLOYMENT, name, {"spec": {"template": {"spec": {"containers": changed}}}})


@pytest.mark.parametrize(
    ("strategy", "replicas", "expected"),
    [
        ({}, 4, (1, 1)),
        ({}, 1, (1, 0)),
        ({}, 10, (3, 2)),
        ({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}, 3, (0, 1)),
        ({"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 2}}, 3, (2, 2)),
        ({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "100%"}}, 3, (1, 3)),
    ],
)
def test_bounds_of_a_rolling_update(strategy: dict[str, object], replicas: int, expected: tuple[int, int]) -> None:
    assert resolve_bounds(strategy, replicas) == expected


def test_a_deployment_becomes_available() -> None:
    sim = Simulation(node("n-0"))
    sim.create(deployment("web", 3))
    status = sim.status(*DEPLOYMENT, "web")
    counts = {name: status.get(name) for name in ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")}
    assert counts == {"replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "updatedReplicas": 3}
    assert status["observedGeneration"] == 1
    assert sim.conditions(*DEPLOYMENT, "web") == {"Available": "True", "Progressing": "True"}
    assert len({labels_of(entry)["pod-template-hash"] for entry in sim.pods()}) == 1
    assert sim.refused == []


def test_pods_that_have_no_room_are_reported() -> None:
    sim = Simulation(node("n-0", gpu="4"))
    sim.create(deployment("llm", 6, pod_template(gpu=1)))
    assert sim.phases() == {"Ready": 4, "Pending": 2}
    status = sim.status(*DEPLOYMENT, "llm")
    assert (status["readyReplicas"], status["unavailableReplicas"]) == (4, 2)
    assert sim.conditions(*DEPLOYMENT, "llm")["Available"] == "False"


def test_scaling_out_and_in() -> None:
    sim = Simulation(node("n-0"))
    sim.create(deployment("web", 2))
    sim.patch(*DEPLOYMENT, "web", {"spec": {"replicas": 5}})
    assert sim.phases() == {"Ready": 5}
    sim.patch(*DEPLOYMENT, "web", {"spec": {"replicas": 1}})
    assert sim.phases() == {"Ready": 1}
    sim.patch(*DEPLOYMENT, "web", {"spec": {"replicas": 0}})
    assert sim.phases() == {}
    assert sim.status(*DEPLOYMENT, "web").get("replicas") is None


def test_scaling_in_takes_pods_without_a_node_first() -> None:
    sim = Simulation(node("n-0", gpu="2"))
    sim.create(deployment("llm", 4, pod_template(gpu=1)))
    bound = {entry["metadata"]["name"] for entry in sim.pods() if ready(entry)}
    sim.patch(*DEPLOYMENT, "llm", {"spec": {"replicas": 2}})
    assert {entry["metadata"]["name"] for entry in sim.pods()} == bound


def _entry(
    name: str, *, node: str = "n", phase: str = "Running", is_ready: bool = True, cost: int = 0, age: int = 0
) -> dict[str, object]:
    stamp = f"2026-01-01T00:{59 - age:02d}:00Z"
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": stamp,
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": str(cost)},
        },
        "spec": {"nodeName": node},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": str(is_ready), "lastTransitionTime": stamp}],
        },
    }


def test_order_of_scale_down() -> None:
    pods = [
        _entry("old", node="a", age=9),
        _entry("young", node="b", age=1),
        _entry("crowded", node="c", age=9),
        _entry("crowded-too", node="c", age=8),
        _entry("cheap", node="d", cost=-1, age=9),
        _entry("not-ready", node="e", is_ready=False),
        _entry("pending", node="f", phase="Pending", is_ready=False),
        _entry("unassigned", node="", phase="Pending", is_ready=False, cost=99),
    ]
    assert [entry["metadata"]["name"] for entry in scale_down_order(pods)] == [
        "unassigned",
        "pending",
        "not-ready",
        "cheap",
        "crowded-too",
        "crowded",
        "young",
        "old",
    ]


def test_a_rolling_update_keeps_its_bounds() -> None:
    sim = Simulation(node("n-0"))
    sim.create(
        deployment(
            "web",
            8,
            pod_template(notes={"ready-after": "10"}),
            strategy={"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}},
        )
    )
    sim.wait(10)
    assert sim.phases() == {"Ready": 8}
    set_image(sim, "web", "app:2")
    for _ in range(12):
        counts = sim.phases()
        assert counts["Ready"] >= 7
        assert sum(counts.values()) <= 10
        sim.wait(5)
    sim.wait(60)
    assert {entry["spec"]["containers"][0]["image"] for entry in sim.pods()} == {"app:2"}
    assert sim.phases() == {"Ready": 8}
    replicas = [rs["spec"]["replicas"] for rs in sim.drive.view.list("apps/v1", "ReplicaSet")]
    assert sorted(replicas) == [0, 8]
    assert sim.get(*DEPLOYMENT, "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"


def test_an_update_back_uses_the_old_replica_set() -> None:
    sim = Simulation(node("n-0"))
    sim.create(deployment("web", 2))
    for image in ("app:2", "app:1"):
        set_image(sim, "web", image)
    assert len(sim.drive.view.list("apps/v1", "ReplicaSet")) == 2
    assert {entry["spec"]["containers"][0]["image"] for entry in sim.pods()} == {"app:1"}
    assert sim.get(*DEPLOYMENT, "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


def test_recreate_waits_for_the_old_pods_to_be_gone() -> None:
    sim = Simulation(node("n-0"))
    sim.create(deployment("web", 2, pod_template(notes={"stop-seconds": "5"}), strategy={"type": "Recreate"}))
    set_image(sim, "web", "app:2")
    assert {entry["spec"]["containers"][0]["image"] for entry in sim.pods()} == {"app:1"}
    sim.wait(5)
    assert {entry["spec"]["containers"][0]["image"] for entry in sim.pods()} == {"app:2"}
    assert sim.phases() == {"Ready": 2}


def test_progress_deadline() -> None:
    sim = Simulation()
    sim.create(deployment("web", 1, progressDeadlineSeconds=30))
    sim.wait(29)
    assert sim.conditions(*DEPLOYMENT, "web")["Progressing"] == "True"
    sim.wait(2)
    entries = {c["type"]: c["reason"] for c in sim.status(*DEPLOYMENT, "web")["conditions"]}
    assert entries["Progressing"] == "ProgressDeadlineExceeded"


def test_min_ready_seconds() -> None:
    sim = Simulation(node("n-0"))
    sim.create(deployment("web", 2, minReadySeconds=20))
    assert sim.status(*DEPLOYMENT, "web").get("availableReplicas") is None
    sim.wait(20)
    assert sim.status(*DEPLOYMENT, "web")["availableReplicas"] == 2


def test_deleting_a_deployment_deletes_its_pods() -> None:
    sim = Simulation(node("n-0"))
    sim.create(deployment("web", 3))
    sim.delete(*DEPLOYMENT, "web")
    assert sim.pods() == []
    assert sim.drive.view.list("apps/v1", "ReplicaSet") == []


def test_a_deleted_pod_is_made_again_under_another_name() -> None:
    sim = Simulation(node("n-0"))
    sim.create(deployment("web", 2))
    before = {entry["metadata"]["name"] for entry in sim.pods()}
    sim.delete("v1", "Pod", sorted(before)[0])
    after = {entry["metadata"]["name"] for entry in sim.pods()}
    assert len(after) == 2
    assert after != before
    assert sim.phases() == {"Ready": 2}
