"""What a fleet does with workloads, end to end: producers, four services, clusters, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gpufleet.model.names import FREEZE_KEY
from gpufleet.model.placement import ObservedPhase
from gpufleet.model.reasons import Verdict
from gpufleet.wire.documents import dump_freeze
from tests.support.system import Fleet, assert_stopped_gracefully, deployment, job, policy, running_fleet

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    settings = {
        "GPUFLEET_KAFKA_FETCH_WAIT_MS": "100",
        "GPUFLEET_KAFKA_SESSION_TIMEOUT": "4",  # groups take half of it to form
        "GPUFLEET_INVENTORY_HEARTBEAT": "1",
        "GPUFLEET_SCHEDULER_STALE_AFTER": "10",  # a busy machine may keep a heartbeat back for some seconds
        "GPUFLEET_DISPATCHER_BACKOFF_CAP": "1",
    }
    folder = tmp_path_factory.mktemp("system")
    async with running_fleet(folder, settings=settings) as running:
        yield running
    assert_stopped_gracefully(folder)


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _empty(fleet: Fleet) -> AsyncIterator[None]:
    yield
    await fleet.restore()


async def test_a_deployment_from_submission_to_its_last_trace(fleet: Fleet) -> None:
    (web,) = await fleet.submit(deployment("web", 6))
    placement = await fleet.until_ready(web)
    assert placement.verdict is Verdict.SCHEDULED
    assert sum(fleet.shares(web).values()) == 6 and set(fleet.shares(web)) == {"alpha", "beta"}
    for name, count in fleet.shares(web).items():
        (found,) = await fleet.objects(name, "apps/v1", "Deployment")
        assert found["spec"]["replicas"] == count
        written = json.loads(found["metadata"]["annotations"]["gpufleet.io/version"])
        assert (written["epoch"], written["version"]) == placement.version
        assert fleet.observed(web)[name].phase is ObservedPhase.APPLIED
    await fleet.delete(web)
    await fleet.until_gone(web)
    for name in fleet.clients:
        assert await fleet.objects(name, "apps/v1", "Deployment") == []
        assert await fleet.pods(name, web) == []


async def test_a_job_runs_whole_in_one_cluster_and_leaves_nothing(fleet: Fleet) -> None:
    (train,) = await fleet.submit(job("train", workers=3, gpus=2))
    await fleet.until_ready(train)
    (name,) = fleet.shares(train)
    assert len(await fleet.pods(name, train)) == 4
    await fleet.delete(train)
    await fleet.until_gone(train)
    assert [await fleet.objects(c, "kubeflow.org/v1", "PyTorchJob") for c in fleet.clients] == [[], []]


async def test_a_manifest_submitted_again_changes_nothing(fleet: Fleet) -> None:
    manifest = deployment("again", 3)
    (again,) = await fleet.submit(manifest)
    before = await fleet.until_ready(again)
    marks = await fleet.marks(again)
    begun = len(fleet.journal)
    await fleet.submit(manifest)
    await fleet.settled()
    assert [p.shares for p in fleet.decisions(again, begun)] in ([], [before.shares])
    assert await fleet.marks(again) == marks


async def test_records_that_come_twice_or_late_change_nothing(fleet: Fleet) -> None:
    (web,) = await fleet.submit(deployment("twice", 2))
    first = await fleet.until_ready(web)
    early = {t: fleet.newest(t, web) for t in ("placements", "assignments", "observations")}
    await fleet.submit(deployment("twice", 4))
    await fleet.until(lambda: sum(fleet.shares(web).values()) == 4, "four replicas")
    second = await fleet.until_ready(web)
    assert second.version > first.version
    late = {t: fleet.newest(t, web) for t in ("placements", "assignments", "observations")}
    marks, begun = await fleet.marks(web), len(fleet.journal)
    for topic, records in late.items():  # each as it is: a producer that did not hear the answer sends again
        for record in records:
            await fleet.again(topic, record)
    await fleet.settled()
    assert await fleet.marks(web) == marks
    assert {p.version for p in fleet.decisions(web, begun)} == {second.version}
    for topic in ("assignments", "observations"):  # what was true before: a member that was away sends its last words
        for record in early[topic]:
            await fleet.again(topic, record)
    # The dispatcher says again what the log should hold.
    wanted = {r.key: r.value for r in late["observations"]}
    await fleet.until(
        lambda: {r.key: r.value for r in fleet.newest("observations", web)} == wanted, "the last words to be back"
    )
    await fleet.settled()
    assert await fleet.marks(web) == marks
    assert fleet.placement(web) == second


async def test_a_frozen_fleet_decides_and_writes_when_it_is_let_go(fleet: Fleet) -> None:
    up, away = await fleet.submit(deployment("up", 2), deployment("away", 2))
    await fleet.until_ready(up)
    await fleet.until_ready(away)
    marks = await fleet.marks(up), await fleet.marks(away)
    await fleet.produce("policies", FREEZE_KEY, dump_freeze("maintenance"))
    await fleet.until(lambda: "fleet.frozen" in _log(fleet, "dispatcher"), "the dispatcher to hear of it")
    (new,) = await fleet.submit(deployment("new", 4))
    await fleet.submit(deployment("up", 6))
    await fleet.delete(away)
    await fleet.until(lambda: sum(fleet.shares(new).values()) == 4, "a decision about what is new")
    await fleet.until(lambda: sum(fleet.shares(up).values()) == 6, "a decision about what grows")
    await fleet.until(
        lambda: (placement := fleet.placement(away)) is not None and placement.verdict is Verdict.DELETING,
        "a decision about what goes",
    )
    await fleet.until(
        lambda: any(key.endswith(f"/{new}") for key in fleet.keys("assignments")), "the assignment to be written"
    )
    # Another cluster write could only have come before this one.
    assert (await fleet.marks(up), await fleet.marks(away)) == marks
    assert await fleet.marks(new) == {}
    await fleet.produce("policies", FREEZE_KEY, None)
    await fleet.until_ready(new)
    await fleet.until_ready(up)
    await fleet.until_gone(away)


async def test_a_cluster_that_is_gone_delays_only_its_own_work(fleet: Fleet) -> None:
    await fleet.submit(_only("beta"))
    (both,) = await fleet.submit(deployment("both", 4))
    assert set(fleet.shares((await fleet.until_ready(both)).workload)) == {"alpha", "beta"}
    await fleet.disturb("alpha", {"gone": True})
    try:
        (there,) = await fleet.submit(deployment("there", 2) | {"metadata": _labelled("there")})
        await fleet.submit(deployment("both", 8))
        await fleet.until_ready_in("beta", there)
        await fleet.until_ready_in("beta", both)
    finally:
        await fleet.disturb("alpha", None)
    await fleet.until_ready(both)
    await fleet.until_ready(there)


@pytest.mark.parametrize(
    "faults",
    [
        {"delayMilliseconds": 300},
        {"rules": [{"code": 500, "probability": 0.3, "seed": 1}, {"code": 429, "probability": 0.3, "seed": 2}]},
        {"rules": [{"code": 503, "next": 20, "when": "lost"}], "dropWatches": True, "expireWatches": True},
    ],
    ids=["slow", "errors", "lost-answers"],
)
async def test_a_cluster_that_fails_now_and_then_gets_there(fleet: Fleet, faults: dict[str, Any]) -> None:
    await fleet.disturb("alpha", faults)
    try:
        (web,) = await fleet.submit(deployment("shaky", 4))
        await fleet.until_ready(web)
        await fleet.delete(web)
        await fleet.until_gone(web)
    finally:
        await fleet.disturb("alpha", None)


def _only(name: str) -> dict[str, Any]:
    selector = {"apiVersion": "apps/v1", "kind": "Deployment", "labelSelector": {"matchLabels": {"only": name}}}
    return policy(f"only-{name}", name, selectors=[selector])


def _labelled(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": "test", "labels": {"only": "beta"}}


def _log(fleet: Fleet, service: str) -> str:
    return (fleet.system.root / "logs" / f"{service}.log").read_text(encoding="utf-8")


async def test_a_resource_quota_of_a_member_bounds_what_is_placed_there(fleet: Fleet) -> None:
    alpha = fleet.clients["alpha"]
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus", "namespace": "test"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "1"}},
    }
    await alpha.create(quota, field_manager="test")
    try:
        await fleet.until(lambda: fleet.view.inventories["alpha"].quotas, "the inventory to show the quota")
        (web,) = await fleet.submit(deployment("bounded", 17))
        await fleet.until_ready(web)
        assert fleet.shares(web) == {"alpha": 1, "beta": 16}
        await fleet.until(
            lambda: fleet.view.inventories["alpha"].quotas[0].used == (("nvidia.com/gpu", 1),), "the pod to be counted"
        )
    finally:
        await alpha.delete(await alpha.resource_for("v1", "ResourceQuota"), "gpus", "test")
    await fleet.until(lambda: not fleet.view.inventories["alpha"].quotas, "the quota to be gone")
