"""One cluster's worker: what becomes of assignments, on a simulated cluster and on a real one."""

from __future__ import annotations

import copy
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gpufleet.kube.fencing import Stamp, stamp_of
from gpufleet.model import names
from gpufleet.model.placement import ObservedPhase, Version, WorkloadHealth
from gpufleet.model.reasons import Code
from services.dispatcher.core import render
from tests.support import manifests
from tests.support.apiserver import ApiServer
from tests.support.dispatchkit import Desk, at_work
from tests.support.hands import LOG, assigned, batch_job, removal
from tests.support.kubeapi import Document
from tests.support.waiting import eventually


@pytest.fixture
async def desk(apiserver: ApiServer) -> AsyncIterator[Desk]:
    async with at_work(apiserver.access()) as desk:
        yield desk


def placed(manifest: dict[str, Any], namespace: str, name: str = "x") -> dict[str, Any]:
    """The manifest in another namespace. Its pods are small, so that one node has room for many tests."""
    placed = copy.deepcopy(manifest)
    placed["metadata"] |= {"name": name, "namespace": namespace}
    template = placed["spec"]["template"]["spec"]
    template["containers"][0]["resources"] = {"requests": {"cpu": "10m"}}
    return placed


@pytest.fixture
def deployment(namespace: str) -> dict[str, Any]:
    return placed(manifests.deployment(2), namespace)


@pytest.fixture
def job(namespace: str) -> dict[str, Any]:
    return placed(batch_job(2), namespace)


def live(apiserver: ApiServer, manifest: dict[str, Any]) -> Document:
    return apiserver.admin.get(manifest).expect(200)


def absent(apiserver: ApiServer, manifest: dict[str, Any]) -> bool:
    return apiserver.admin.get(manifest).status == 404


def fence_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """What names the fence of a job."""
    key = assigned(manifest).workload
    metadata = {"name": render.fence_name(key), "namespace": manifest["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def pods_of(apiserver: ApiServer, manifest: dict[str, Any]) -> list[Document]:
    marks = f"{names.WORKLOAD_LABEL}={names.workload_label(assigned(manifest).workload)}"
    return apiserver.admin.list("v1", "Pod", manifest["metadata"]["namespace"], labelSelector=marks)


async def test_a_deployment_comes_scales_and_goes(desk: Desk, apiserver: ApiServer, deployment: dict[str, Any]) -> None:
    first = desk.assign(assigned(deployment))
    seen = await desk.saying(first, phase=ObservedPhase.APPLIED, health=WorkloadHealth.HEALTHY, ready=2)
    found = live(apiserver, deployment)
    assert seen.object_uid == found["metadata"]["uid"]
    assert seen.status["readyReplicas"] == 2
    assert stamp_of(found) == Stamp(LOG, 1, 1)
    assert found["metadata"]["labels"][names.WORKLOAD_LABEL] == names.workload_label(first.workload)
    assert len(pods_of(apiserver, deployment)) == 2
    # A later decision.
    second = desk.assign(replace(first, version=Version(1, 2), components=(("main", 3),)))
    await desk.saying(second, health=WorkloadHealth.HEALTHY, ready=3)
    assert live(apiserver, deployment)["metadata"]["uid"] == found["metadata"]["uid"]
    # An earlier one, which cannot be taken any more.
    assert not desk.table.take(first)
    gone = desk.assign(removal(second))
    await desk.saying(gone, phase=ObservedPhase.GONE)
    assert absent(apiserver, deployment)
    assert [o.version for o in desk.said] == sorted(o.version for o in desk.said)


async def test_at_rest_nothing_is_written_and_nothing_said(
    desk: Desk, apiserver: ApiServer, deployment: dict[str, Any]
) -> None:
    await desk.saying(desk.assign(assigned(deployment)), health=WorkloadHealth.HEALTHY, ready=2)
    await desk.idle()
    said, applied, version = len(desk.said), desk.count("applies"), live(apiserver, deployment)["metadata"]
    assert desk.worker is not None
    desk.worker.look_at_all()
    await desk.idle()
    # Whoever takes over does not write either.
    async with at_work(apiserver.access()) as other:
        for observation in desk.said:
            other.table.note(observation.workload, observation)
        again = other.assign(assigned(deployment))
        await eventually(lambda: other.worker is not None and other.worker.incarnation, "the other to be there")
        await other.idle()
        assert (other.said, other.table.last(again.workload)) == ([], desk.said[-1])
        assert other.count("conflicts") == 0
    assert (len(desk.said), desk.count("applies")) == (said, applied)
    assert live(apiserver, deployment)["metadata"]["resourceVersion"] == version["resourceVersion"]


async def test_drift_is_taken_back(desk: Desk, apiserver: ApiServer, deployment: dict[str, Any]) -> None:
    await desk.saying(desk.assign(assigned(deployment)), health=WorkloadHealth.HEALTHY)
    apiserver.admin.merge(deployment, {"spec": {"replicas": 7}}).expect(200)
    await eventually(lambda: live(apiserver, deployment)["spec"]["replicas"] == 2, "our replicas to be back")
    # What somebody else adds is theirs.
    apiserver.admin.merge(deployment, {"metadata": {"annotations": {"theirs": "yes"}}}).expect(200)
    apiserver.admin.merge(deployment, {"metadata": {"labels": {names.WORKLOAD_LABEL: None}}}).expect(200)
    marked = names.workload_label(assigned(deployment).workload)
    await eventually(
        lambda: (live(apiserver, deployment)["metadata"].get("labels") or {}).get(names.WORKLOAD_LABEL) == marked,
        "our label to be back",
    )
    assert live(apiserver, deployment)["metadata"]["annotations"]["theirs"] == "yes"
    await eventually(lambda: desk.count("drift_corrections") >= 2, "both corrections to be counted")


async def test_what_is_deleted_comes_back(desk: Desk, apiserver: ApiServer, deployment: dict[str, Any]) -> None:
    assignment = desk.assign(assigned(deployment))
    before = await desk.saying(assignment, health=WorkloadHealth.HEALTHY)
    apiserver.admin.delete(deployment).expect(200)
    await eventually(
        lambda: desk.said[-1].object_uid not in ("", before.object_uid), "another object of that name to be there"
    )
    await desk.saying(assignment, health=WorkloadHealth.HEALTHY)


async def test_a_foreign_object_is_left_alone(desk: Desk, apiserver: ApiServer, deployment: dict[str, Any]) -> None:
    apiserver.admin.create(deployment).expect(201)
    abort = desk.assign(assigned(deployment))
    seen = await desk.saying(abort, phase=ObservedPhase.REFUSED, code=Code.CONFLICT)
    assert "conflictResolution: Overwrite" in seen.message
    assert stamp_of(live(apiserver, deployment)) is None
    # Giving up does not take it away.
    gone = desk.assign(removal(abort, (1, 2)))
    await desk.saying(gone, phase=ObservedPhase.GONE)
    assert stamp_of(live(apiserver, deployment)) is None
    overwrite = desk.assign(assigned(deployment, version=(1, 3), conflict_overwrite=True))
    await desk.saying(overwrite, phase=ObservedPhase.APPLIED)
    assert stamp_of(live(apiserver, deployment)) == Stamp(LOG, 1, 3)


async def test_another_logs_object_is_left_alone(desk: Desk, apiserver: ApiServer, deployment: dict[str, Any]) -> None:
    desk.log_id = "another-log"
    await desk.saying(desk.assign(assigned(deployment, version=(9, 9))), phase=ObservedPhase.APPLIED)
    async with at_work(apiserver.access()) as ours:
        refused = ours.assign(assigned(deployment))
        seen = await ours.saying(refused, phase=ObservedPhase.REFUSED, code=Code.CONFLICT)
        assert "another-log" in seen.message
        assert stamp_of(live(apiserver, deployment)) == Stamp("another-log", 9, 9)


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
async def test_preserved_objects_stay_unmanaged(
    desk: Desk, apiserver: ApiServer, deployment: dict[str, Any], job: dict[str, Any], kind: str
) -> None:
    manifest = deployment if kind == "Deployment" else job
    assignment = desk.assign(assigned(manifest, preserve_on_deletion=True))
    await desk.saying(assignment, phase=ObservedPhase.APPLIED)
    await eventually(lambda: len(pods_of(apiserver, manifest)) == 2, "its pods")
    before = live(apiserver, manifest)["metadata"]["uid"]
    gone = desk.assign(removal(assignment, orphan=True, preserve_on_deletion=False))
    await desk.saying(gone, phase=ObservedPhase.GONE)
    await eventually(lambda: absent(apiserver, fence_of(manifest)), "its fence to go")
    left = live(apiserver, manifest)["metadata"]
    assert left["uid"] == before
    assert stamp_of({"metadata": left}) is None
    assert names.WORKLOAD_LABEL not in (left.get("labels") or {})
    assert not left.get("ownerReferences")


async def test_a_missing_namespace_is_told_or_created(desk: Desk, apiserver: ApiServer) -> None:
    namespace = f"late-{secrets.token_hex(4)}"
    manifest = placed(manifests.deployment(1), namespace)
    waiting = desk.assign(assigned(manifest))
    seen = await desk.saying(waiting, phase=ObservedPhase.PENDING, code=Code.NAMESPACE_MISSING)
    assert namespace in seen.message
    assert "createNamespaces: true" in seen.message
    allowed = desk.assign(assigned(manifest, version=(1, 2), create_namespaces=True))
    await desk.saying(allowed, phase=ObservedPhase.APPLIED)
    assert live(apiserver, manifest)["spec"]["replicas"] == 1


async def test_a_missing_namespace_that_appears_is_used(desk: Desk, apiserver: ApiServer) -> None:
    namespace = f"late-{secrets.token_hex(4)}"
    waiting = desk.assign(assigned(placed(manifests.deployment(1), namespace)))
    await desk.saying(waiting, code=Code.NAMESPACE_MISSING)
    apiserver.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).expect(201)
    await desk.saying(waiting, phase=ObservedPhase.APPLIED)


async def test_what_the_api_refuses_is_refused(desk: Desk, deployment: dict[str, Any]) -> None:
    wrong = copy.deepcopy(deployment)
    wrong["spec"]["template"]["spec"]["restartPolicy"] = "Sometimes"
    refused = desk.assign(assigned(wrong))
    seen = await desk.saying(refused, phase=ObservedPhase.REFUSED, code=Code.DISPATCH_REFUSED)
    assert "restartPolicy" in seen.message
    # It is not asked again and again.
    await desk.idle()
    assert desk.count("refused") == 1
    right = desk.assign(assigned(deployment, version=(1, 2)))
    await desk.saying(right, phase=ObservedPhase.APPLIED)


async def test_a_kind_that_is_not_served_waits(desk: Desk, namespace: str) -> None:
    manifest = manifests.deployment(1, kind="CloneSet", api_version="apps.kruise.io/v1beta1")
    manifest["metadata"]["namespace"] = namespace
    waiting = desk.assign(assigned(manifest))
    seen = await desk.saying(waiting, phase=ObservedPhase.PENDING, code=Code.API_NOT_SERVED)
    assert "CloneSet in apps.kruise.io/v1beta1" in seen.message
    # What cannot be there is gone.
    await desk.saying(desk.assign(removal(waiting)), phase=ObservedPhase.GONE)


async def test_a_job_runs_behind_its_fence(desk: Desk, apiserver: ApiServer, job: dict[str, Any]) -> None:
    assignment = desk.assign(assigned(job))
    await desk.saying(assignment, phase=ObservedPhase.APPLIED)
    await eventually(lambda: len(pods_of(apiserver, job)) == 2, "its pods to run")
    fence = live(apiserver, fence_of(job))
    found = live(apiserver, job)
    assert [o["uid"] for o in found["metadata"]["ownerReferences"]] == [fence["metadata"]["uid"]]
    assert found["spec"]["suspend"] is False
    gone = desk.assign(removal(assignment))
    await desk.saying(gone, phase=ObservedPhase.GONE)
    assert absent(apiserver, job)
    assert absent(apiserver, fence_of(job))
    assert [p for p in pods_of(apiserver, job) if p["status"].get("phase") in ("Pending", "Running")] == []


async def test_a_waiting_job_brings_nothing(desk: Desk, apiserver: ApiServer, job: dict[str, Any]) -> None:
    from gpufleet.model.placement import AssignmentState, Awaited

    awaited = (Awaited("other", Version(1, 1)),)
    waiting = desk.assign(assigned(job, state=AssignmentState.WAITING, waits_for=awaited))
    await desk.saying(waiting, phase=ObservedPhase.PENDING, code=Code.WAITING_FOR_REMOVAL)
    assert absent(apiserver, job)
    assert absent(apiserver, fence_of(job))
    active = desk.assign(assigned(job, version=(1, 2)))
    await desk.saying(active, phase=ObservedPhase.APPLIED)


async def test_nothing_is_written_while_frozen(
    desk: Desk, apiserver: ApiServer, deployment: dict[str, Any], namespace: str
) -> None:
    running = desk.assign(assigned(deployment))
    await desk.saying(running, health=WorkloadHealth.HEALTHY)
    desk.set_frozen(True)
    other = placed(deployment, namespace, "y")
    waiting = desk.assign(assigned(other))
    await desk.saying(waiting, phase=ObservedPhase.PENDING, code=Code.FROZEN)
    apiserver.admin.merge(deployment, {"spec": {"replicas": 1}}).expect(200)
    await desk.saying(running, phase=ObservedPhase.APPLIED, ready=1)
    leaving = desk.assign(removal(running))
    await desk.saying(leaving, phase=ObservedPhase.PENDING, code=Code.FROZEN)
    await desk.idle()
    assert absent(apiserver, other)
    assert live(apiserver, deployment)["spec"]["replicas"] == 1
    desk.set_frozen(False)
    await desk.saying(waiting, phase=ObservedPhase.APPLIED)
    await desk.saying(leaving, phase=ObservedPhase.GONE)


async def test_a_shard_that_may_be_anothers_is_not_written_for(
    desk: Desk, apiserver: ApiServer, deployment: dict[str, Any]
) -> None:
    desk.in_charge = False
    assignment = desk.assign(assigned(deployment))
    await eventually(lambda: desk.worker is not None and desk.worker.attempts(assignment.workload) > 1, "some attempts")
    assert absent(apiserver, deployment)
    assert desk.said == []
    desk.in_charge = True
    await desk.saying(assignment, phase=ObservedPhase.APPLIED)


async def test_a_copy_that_comes_after_the_last_word_is_removed(
    desk: Desk, apiserver: ApiServer, deployment: dict[str, Any]
) -> None:
    """The assignment is tombstoned, and then a dispatcher that was stopped long ago wakes up in mid-request."""
    assignment = desk.assign(assigned(deployment))
    await desk.saying(assignment, phase=ObservedPhase.APPLIED)
    late = live(apiserver, deployment)
    gone = desk.assign(removal(assignment))
    await desk.saying(gone, phase=ObservedPhase.GONE)
    desk.bury(gone)
    said = len(desk.said)
    kept = ("name", "namespace", "labels", "annotations")
    late = {**late, "metadata": {key: late["metadata"][key] for key in kept}}
    late.pop("status", None)
    apiserver.admin.create(late).expect(201)
    await eventually(lambda: absent(apiserver, deployment), "the late copy to be removed")
    assert len(desk.said) == said


async def test_a_server_that_goes_away_and_comes_back(
    desk: Desk, apiserver: ApiServer, deployment: dict[str, Any], namespace: str
) -> None:
    running = desk.assign(assigned(deployment))
    await desk.saying(running, health=WorkloadHealth.HEALTHY, ready=2)
    with apiserver.interrupt():
        waiting = desk.assign(assigned(placed(deployment, namespace, "y")))
        await desk.saying(waiting, phase=ObservedPhase.PENDING, code=Code.CLUSTER_UNREACHABLE)
        # What was applied is still applied, as far as anybody knows.
        assert desk.table.published[running.workload].phase is ObservedPhase.APPLIED
    await desk.saying(waiting, timeout=60, phase=ObservedPhase.APPLIED)
    apiserver.admin.merge(deployment, {"spec": {"replicas": 5}}).expect(200)
    await eventually(lambda: live(apiserver, deployment)["spec"]["replicas"] == 2, "the watch to be back", timeout=60)
