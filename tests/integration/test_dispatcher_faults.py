"""One cluster's worker and what can go wrong with an API: faults that only a simulated server shows on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpufleet.model.placement import FailureClass, ObservedPhase, WorkloadHealth
from gpufleet.model.reasons import Code
from sim.model.api import Delete, Patch, Ref
from tests.support import manifests
from tests.support.dispatchkit import Desk, SimFleet, add_cluster, at_work, sim_fleet
from tests.support.hands import assigned, batch_job, removal
from tests.support.waiting import eventually

TYPE = ("apps/v1", "Deployment")


@pytest.fixture
async def clusters() -> AsyncIterator[SimFleet]:
    async with sim_fleet("c") as fleet:
        yield fleet


@pytest.fixture
async def desk(clusters: SimFleet) -> AsyncIterator[Desk]:
    async with at_work({"inline": clusters.server.kubeconfig(["c"])}, request_timeout=20.0) as desk:
        await eventually(lambda: desk.worker is not None and desk.worker.incarnation, "the cluster to be known")
        yield desk


def fail(fleet: SimFleet, count: int, code: int, **how: Any) -> None:
    """The next writes of Deployments fail."""
    fleet.server.clusters["c"].faults.fail_next(
        count, code, verbs=frozenset({"patch"}), resources=frozenset({"deployments.apps"}), **how
    )


def requests(fleet: SimFleet) -> dict[tuple[str, str], int]:
    """How often which verb was asked for which resource."""
    return {(verb, resource): n for (verb, resource, _), n in fleet.server.clusters["c"].counters.requests.items()}


@pytest.mark.parametrize("code", [429, 500, 503, 504])
async def test_a_server_in_trouble_is_asked_again(desk: Desk, clusters: SimFleet, code: int) -> None:
    fail(clusters, 2, code, retry_after=0)
    assignment = desk.assign(assigned(manifests.deployment(1)))
    seen = await desk.saying(assignment, phase=ObservedPhase.APPLIED)
    assert seen.code == ""
    pending = [o for o in desk.said if o.phase is ObservedPhase.PENDING]
    assert [o.code for o in pending] == [Code.BACKING_OFF]
    assert desk.count("failures") == 2


async def test_a_server_that_asks_for_a_pause_gets_it(desk: Desk, clusters: SimFleet) -> None:
    fail(clusters, 1, 429, retry_after=1)
    begun = time.monotonic()
    assignment = desk.assign(assigned(manifests.deployment(1)))
    await desk.saying(assignment, phase=ObservedPhase.APPLIED)
    assert time.monotonic() - begun >= 1.0


@pytest.mark.parametrize("when", ["after", "lost"])
async def test_a_write_whose_answer_is_lost_is_done_once(desk: Desk, clusters: SimFleet, when: str) -> None:
    fail(clusters, 1, 504, when=when)
    assignment = desk.assign(assigned(manifests.deployment(1)))
    await desk.saying(assignment, phase=ObservedPhase.APPLIED)
    live = clusters.get("c", *TYPE, "x")
    assert live is not None
    assert live["metadata"]["generation"] == 1


async def test_a_cluster_that_is_replaced_gets_nothing_that_was_meant_for_the_old_one(
    desk: Desk, clusters: SimFleet
) -> None:
    old = clusters.stores["c"].incarnation
    await desk.saying(desk.assign(assigned(manifests.deployment(1), incarnation=old)), phase=ObservedPhase.APPLIED)
    kubeconfig = clusters.server.kubeconfig(["c"])
    token = kubeconfig["users"][0]["user"]["token"]
    clusters.server.remove("c")
    clusters.runner.remove(clusters.drives["c"])
    add_cluster(clusters, "c", seed=7, token=token)
    new = clusters.stores["c"].incarnation
    assert new != old
    assignment = desk.table.assignments["test/Deployment/x"]
    seen = await desk.saying(assignment, phase=ObservedPhase.PENDING, code=Code.CLUSTER_REPLACED)
    assert seen.incarnation == new
    assert clusters.get("c", *TYPE, "x") is None
    # Its copy went with the old cluster.
    gone = await desk.saying(desk.assign(removal(assignment)), phase=ObservedPhase.GONE)
    assert "replaced" in gone.message


async def test_a_deployment_takes_one_request(desk: Desk, clusters: SimFleet) -> None:
    await desk.saying(desk.assign(assigned(manifests.deployment(0))), phase=ObservedPhase.APPLIED)
    assert desk.worker is not None
    assert desk.worker.bench is not None
    views = desk.worker.bench.views
    views.of(*TYPE)
    await eventually(
        lambda: all(view.reflector.stats.watches == 1 for view in views._views.values()), "every watch to be there"
    )
    await desk.idle()
    before = requests(clusters)
    other = manifests.deployment(0)
    other["metadata"]["name"] = "y"
    await desk.saying(desk.assign(assigned(other)), phase=ObservedPhase.APPLIED)
    await desk.idle()
    spent = {key: n - before.get(key, 0) for key, n in requests(clusters).items() if n != before.get(key, 0)}
    spent.pop(("get", "namespaces"), None)  # the probe asks for kube-system now and then
    assert spent == {("patch", "deployments.apps"): 1}


async def test_a_job_that_fails_by_itself(desk: Desk) -> None:
    assignment = desk.assign(assigned(batch_job(1, run_seconds="0.2", exit_code="3")))
    seen = await desk.saying(assignment, health=WorkloadHealth.FAILED)
    assert seen.failure is FailureClass.USER


async def test_a_job_whose_pods_were_evicted(desk: Desk, clusters: SimFleet) -> None:
    assignment = desk.assign(assigned(batch_job(1)))
    await desk.saying(assignment, health=WorkloadHealth.HEALTHY)
    evict(clusters)
    seen = await desk.saying(assignment, health=WorkloadHealth.FAILED)
    assert seen.failure is FailureClass.INFRASTRUCTURE
    # It stays so, also when the pods that said it are gone.
    clusters.write("c", Delete(Ref("v1", "Pod", "test", evicted(clusters))))
    assert desk.worker is not None
    desk.worker.look_at_all()
    await desk.idle()
    assert desk.said[-1].failure is FailureClass.INFRASTRUCTURE


def evicted(clusters: SimFleet) -> str:
    name: str = clusters.drives["c"].view.list("v1", "Pod", "test")[0]["metadata"]["name"]
    return name


def evict(clusters: SimFleet) -> None:
    """The kubelet takes the pods away, and the Job's own message does not say so."""
    for pod in clusters.drives["c"].view.list("v1", "Pod", "test"):
        ref = Ref("v1", "Pod", "test", pod["metadata"]["name"])
        clusters.write("c", Patch(ref, {"status": {"phase": "Failed", "reason": "Evicted"}}, subresource="status"))


async def test_a_dead_cluster_delays_only_its_own_work() -> None:
    async with sim_fleet("c", "d") as fleet:
        access = {name: {"inline": fleet.server.kubeconfig([name])} for name in ("c", "d")}
        async with at_work(access["c"], "c") as dead, at_work(access["d"], "d") as alive:
            fleet.disturb("c", gone=True)
            waiting = dead.assign(assigned(manifests.deployment(1), "c"))
            for number in range(20):
                manifest: dict[str, Any] = manifests.deployment(0)
                manifest["metadata"]["name"] = f"x{number}"
                assignment = alive.assign(assigned(manifest, "d"))
            await alive.saying(assignment, phase=ObservedPhase.APPLIED)
            await dead.saying(waiting, phase=ObservedPhase.PENDING, code=Code.CLUSTER_UNREACHABLE)
            fleet.disturb("c")
            await dead.saying(waiting, phase=ObservedPhase.APPLIED)


async def test_a_write_under_way_is_finished_when_the_service_stops(desk: Desk, clusters: SimFleet) -> None:
    clusters.server.clusters["c"].faults.delay = 0.5
    first = desk.assign(assigned(manifests.deployment(1)))
    worker = desk.worker
    assert worker is not None
    await eventually(lambda: worker.busy and len(worker.queue) == 0, "the write to be under way", every=0.001)
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0)
    other = manifests.deployment(1)
    other["metadata"]["name"] = "y"
    desk.assign(assigned(other))
    await stopping
    assert [(o.workload, o.phase) for o in desk.said] == [(first.workload, ObservedPhase.APPLIED)]
    assert clusters.get("c", *TYPE, "x") is not None
    assert clusters.get("c", *TYPE, "y") is None


async def test_counts_are_not_told_more_often_than_asked_for(clusters: SimFleet) -> None:
    access = {"inline": clusters.server.kubeconfig(["c"])}
    async with at_work(access, status_interval=0.3, coalesce=0.0) as desk:
        assignment = desk.assign(assigned(manifests.deployment(2)))
        await desk.saying(assignment, health=WorkloadHealth.HEALTHY)
        await desk.idle()
        begun, before = time.monotonic(), len(desk.said)
        ref = Ref(*TYPE, "test", "x")
        for number in range(30):
            clusters.write("c", Patch(ref, {"status": {"collisionCount": number}}, subresource="status"))
            await asyncio.sleep(0.01)
        # The last one is told nevertheless.
        await eventually(lambda: desk.said[-1].status.get("collisionCount") == 29, "the last count")
        assert len(desk.said) - before <= 2 + (time.monotonic() - begun) / 0.3


async def test_an_agent_that_changes_what_we_want_is_not_fought_in_a_tight_loop(desk: Desk, clusters: SimFleet) -> None:
    """Somebody sets the replicas again after each correction: each change costs one request, no more."""
    assignment = desk.assign(assigned(manifests.deployment(2)))
    await desk.saying(assignment, health=WorkloadHealth.HEALTHY)
    await desk.idle()
    before = desk.count("applies")
    for number in range(5):
        clusters.write("c", Patch(Ref(*TYPE, "test", "x"), {"spec": {"replicas": 10 + number}}))
        await eventually(lambda: _replicas(clusters) == 2, "our replicas to be back")
    await desk.idle()
    assert desk.count("applies") - before == 5


def _replicas(clusters: SimFleet) -> int:
    live = clusters.get("c", *TYPE, "x")
    assert live is not None
    return int(live["spec"]["replicas"])
