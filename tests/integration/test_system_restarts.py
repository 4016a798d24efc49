"""Services that are killed, paused and started again in the middle of work: nothing lost, doubled or undone."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from gpufleet.bus.records import EPOCH_HEADER, VERSION_HEADER
from gpufleet.embedded.ports import free_port
from gpufleet.embedded.process import SupervisedProcess
from gpufleet.model.placement import Version
from tests.support.system import Fleet, cluster, deployment, job, key_of, running_fleet

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

# A killed member is missed for one session, and the group takes half of one to form again.
SETTINGS = {
    "GPUFLEET_KAFKA_SESSION_TIMEOUT": "3",
    "GPUFLEET_KAFKA_FETCH_WAIT_MS": "100",
    "GPUFLEET_INVENTORY_HEARTBEAT": "2",
    "GPUFLEET_RESCHEDULER_CHECK_EVERY": "1",
    "GPUFLEET_RESCHEDULER_PENDING_AFTER": "1",
    "GPUFLEET_RESCHEDULER_BACKOFF_FIRST": "1",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    folder, clusters = tmp_path_factory.mktemp("system"), [cluster("alpha", nodes=8), cluster("beta", nodes=8)]
    async with running_fleet(folder, *clusters, settings=SETTINGS) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _empty(fleet: Fleet) -> AsyncIterator[None]:
    yield
    await fleet.restore()


@pytest.mark.parametrize("service", ["scheduler", "dispatcher", "inventory"])
async def test_a_service_is_killed_in_the_middle_of_work(fleet: Fleet, service: str) -> None:
    standing = await fleet.submit(deployment("standing", 4), job("standing-job", workers=2))
    for workload in standing:
        await fleet.until_ready(workload)
    decided = {workload: fleet.placement(workload) for workload in standing}
    marks, begun = await fleet.marks(standing[0]), len(fleet.journal)
    # Much is under way when it dies, more comes while it is dead, and some of both is deleted.
    early = [*(deployment(f"early-{i}", 2) for i in range(12)), *(job(f"early-job-{i}") for i in range(6))]
    late = [*(deployment(f"late-{i}", 2) for i in range(6)), *(job(f"late-job-{i}") for i in range(4))]
    await fleet.submit(*early)
    await fleet.kill(service)
    await fleet.submit(*late)
    gone = [key_of(manifest) for manifest in (early[0], early[-1], late[0], late[-1])]
    await fleet.delete(*gone)
    await fleet.restart(service)
    for manifest in [*early[1:-1], *late[1:-1]]:
        await fleet.until_ready(key_of(manifest))
    await fleet.until_gone(*gone)
    for manifest in [*early, *late]:
        await _assert_whole(fleet, manifest, begun, deleted=key_of(manifest) in gone)
    assert {workload: fleet.placement(workload) for workload in standing} == decided
    assert [p for workload in standing for p in fleet.decisions(workload, begun)] == []
    assert await fleet.marks(standing[0]) == marks
    _assert_versions_rise(fleet, begun)


async def test_pods_that_turned_pending_while_the_rescheduler_was_dead_move(fleet: Fleet) -> None:
    (web,) = await fleet.submit(deployment("moves", 4))
    await fleet.until_ready(web, {"alpha": 2, "beta": 2})
    await fleet.kill("rescheduler")
    async with _nodes_out_of_service(fleet, "alpha"):
        await fleet.until(lambda: fleet.ready(web) == 2, "the pods of alpha to be pending")
        await fleet.restart("rescheduler")
        await fleet.until_ready(web, {"beta": 4})
        assert await fleet.pods("alpha", web) == []


async def test_two_schedulers_one_is_paused_wakes_up_and_takes_over_when_the_other_is_killed(fleet: Fleet) -> None:
    (standing,) = await fleet.submit(deployment("standing", 4))
    await fleet.until_ready(standing)
    untouched = fleet.placement(standing)
    async with _second_scheduler(fleet):
        first = await fleet.until(lambda: _leader(fleet), "one of them to lead")
        paused = fleet.system.children[first]
        old, begun = _epoch(fleet), len(fleet.journal)
        await fleet.submit(*(deployment(f"web-{i}", 2) for i in range(20)))
        paused.signal(signal.SIGSTOP)
        try:
            await fleet.until(lambda: _epoch(fleet) > old, "the other one to claim")
            new = _epoch(fleet)
            keys = await fleet.submit(*(deployment(f"web-{i}", 3) for i in range(20)))
            await fleet.until(lambda: all(sum(fleet.shares(key).values()) == 3 for key in keys), "all to grow")
            for key in keys:
                await fleet.until_ready(key)
            decided = {key: fleet.placement(key) for key in keys}
            # None is the paused one's; on a busy machine the other one may have claimed more than once.
            assert min(placement.version.epoch for placement in decided.values() if placement) >= new > old
            marks = {key: await fleet.marks(key) for key in keys[-5:]}
        finally:
            woken = len(fleet.journal)
            paused.signal(signal.SIGCONT)
        await fleet.until(lambda: _deactivated(paused), "the woken one to see that it was replaced")
        # What its client had accepted before the pause may still go out: it is void, and the leader writes again.
        await fleet.until(lambda: not _overwritten(fleet, old, woken), "what it overwrote to be written again")
        await fleet.settled()
        assert not _overwritten(fleet, old, woken)
        assert {key: fleet.placement(key) for key in keys} == decided
        assert {key: await fleet.marks(key) for key in keys[-5:]} == marks
        # The leader is killed with work under way, and more comes while nobody leads.
        last = await fleet.until(lambda: _leader(fleet), "one of them to lead")
        epoch = _epoch(fleet)
        more = await fleet.submit(*(job(f"train-{i}") for i in range(8)))
        await fleet.kill(last)
        more += await fleet.submit(*(deployment(f"late-{i}", 2) for i in range(8)))
        for key in more:
            await fleet.until_ready(key)
        assert _epoch(fleet) > epoch
        assert {key: fleet.placement(key) for key in keys} == decided
        assert fleet.placement(standing) == untouched
        for i in range(8):
            await _assert_whole(fleet, job(f"train-{i}"), begun)
        _assert_versions_rise(fleet, begun, void=(old, woken))
        await fleet.clear()


async def test_a_leader_that_was_replaced_cannot_win(fleet: Fleet) -> None:
    if _epoch(fleet) == 0:  # no leader was before this one
        await fleet.restart("scheduler")
    (web,) = await fleet.submit(deployment("late", 2))
    placement = await fleet.until_ready(web)
    marks, begun = await fleet.marks(web), len(fleet.journal)
    (record,) = fleet.newest("placements", web)
    stale = json.loads(record.value or b"")
    before = placement.version.epoch - 1
    assert stale["epoch"] == placement.version.epoch
    stale |= {"epoch": before, "version": 99, "shares": []}
    await fleet.produce(
        "placements", web, stale, headers={**record.headers, EPOCH_HEADER: str(before), VERSION_HEADER: "99"}
    )
    await fleet.until(
        lambda: fleet.decisions(web, begun) and fleet.placement(web) == placement, "the placement to be written again"
    )
    for assigned in fleet.newest("assignments", web):
        body = json.loads(assigned.value or b"") | {"epoch": before, "version": 99, "state": "Removing"}
        headers = {**assigned.headers, EPOCH_HEADER: str(before), VERSION_HEADER: "99"}
        begun = len(fleet.journal)
        await fleet.produce("assignments", assigned.key, body, partition=assigned.partition, headers=headers)

        def versions(key: str | None = assigned.key, begun: int = begun) -> list[tuple[int | None, int | None]]:
            topic = fleet.registry.name("assignments")
            return [(r.epoch, r.version) for r in fleet.journal[begun:] if r.topic == topic and r.key == key]

        rewritten = [(before, 99), (assigned.epoch, assigned.version)]
        await fleet.until(
            lambda v=versions, wanted=rewritten: v()[:2] == wanted and v()[-1] == wanted[-1],
            "the assignment to be written again",
        )
    await fleet.settled()
    assert await fleet.marks(web) == marks
    assert fleet.placement(web) == placement


# -- what is looked at -----------------------------------------------------------------------------------------------


async def _assert_whole(fleet: Fleet, manifest: dict[str, Any], begun: int, *, deleted: bool = False) -> None:
    """Every pod is there once; a job was never assigned to two clusters at once."""
    key = key_of(manifest)
    is_job = manifest["kind"] == "PyTorchJob"

    async def whole() -> bool:  # the rescheduler may have moved what was pending for long, and it is under way
        found, wanted = await fleet.ready_pods(key), {} if deleted else fleet.shares(key)
        replicas = 0 if deleted else 2 if is_job else manifest["spec"]["replicas"]
        return sum(found.values()) == replicas and (found == dict.fromkeys(wanted, replicas) if is_job else True)

    await fleet.until(whole, f"all pods of {key} to be there, and each once")
    if is_job:
        for record in fleet.journal[begun:]:
            if record.topic == fleet.registry.name("assignments") and record.value and (record.key or "").endswith(key):
                division = dict(json.loads(record.value).get("division") or {})
                assert len([c for c, count in division.items() if count]) <= 1, record


def _assert_versions_rise(fleet: Fleet, begun: int, void: tuple[int, int] | None = None) -> None:
    """No record of placements and assignments is older than one with its key before it.

    `void`: an epoch whose records do not count from a place of the journal on, since a higher one was claimed by then.
    """
    topics = {fleet.registry.name(topic) for topic in ("placements", "assignments")}
    newest: dict[tuple[str, str | None], Version] = {}
    for at, record in enumerate(fleet.journal[begun:], begun):
        if record.topic in topics and not (void and record.epoch == void[0] and at >= void[1]):
            version, place = Version(record.epoch or 0, record.version or 0), (record.topic, record.key)
            assert version >= newest.get(place, version), record
            newest[place] = version


def _claims(fleet: Fleet) -> list[tuple[int, str]]:
    """Epoch and instance of every claim to schedule."""
    topic = fleet.registry.name("epochs")
    records = [r for r in fleet.journal if r.topic == topic and r.key == "scheduler" and r.value]
    return [(record.offset, json.loads(record.value or b"")["instance"]) for record in records]


def _epoch(fleet: Fleet) -> int:
    return max(epoch for epoch, _ in _claims(fleet))


def _overwritten(fleet: Fleet, epoch: int, begun: int) -> set[tuple[str, str | None]]:
    """(topic, key) of placements and assignments whose newest record is one that `epoch` wrote from `begun` on."""
    topics = {fleet.registry.name(topic) for topic in ("placements", "assignments")}
    newest = {(r.topic, r.key): (r.epoch, at) for at, r in enumerate(fleet.journal) if r.topic in topics}
    return {place for place, (wrote, at) in newest.items() if wrote == epoch and at >= begun}


# -- two schedulers --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _second_scheduler(fleet: Fleet) -> AsyncIterator[None]:
    """Two schedulers; afterwards the system's own is the only one again."""
    system = fleet.system
    system.ports["scheduler-2"] = free_port()
    system._spawn("scheduler-2", ["services.scheduler"])
    own, second = system.children["scheduler"], system.children["scheduler-2"]
    try:
        await system._ready("scheduler-2", "/readyz")
        yield
    finally:
        for child in (own, second):
            child.signal(signal.SIGCONT)
        await asyncio.to_thread(second.stop)
        system.children.pop("scheduler-2")
        if own.running:
            await fleet.until(lambda: _leader(fleet) == "scheduler", "the first one to lead")
        else:
            await fleet.restart("scheduler")
        fleet.down.clear()


def _leader(fleet: Fleet) -> str | None:
    """The scheduler whose claim counts, by the name of its process; None while that is one that has ended."""
    instance = max(_claims(fleet))[1]
    return next((name for name, child in fleet.system.children.items() if f"-{child.pid}-" in instance), None)


def _deactivated(child: SupervisedProcess) -> bool:
    assert child.log is not None
    return "scheduler.deactivated" in child.log.read_text(encoding="utf-8")


@asynccontextmanager
async def _nodes_out_of_service(fleet: Fleet, name: str) -> AsyncIterator[None]:
    """Every node of a cluster loses its pods and takes no others."""
    client = fleet.clients[name]
    resource = await client.resource_for("v1", "Node")
    nodes = [node["metadata"]["name"] for node in (await client.list(resource)).items]
    taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
    for node in nodes:
        spec = {"unschedulable": True, "taints": [taint]}
        await client.patch_merge(resource, node, {"spec": spec}, field_manager="kubectl")
    try:
        yield
    finally:
        for node in nodes:
            spec = {"unschedulable": None, "taints": None}
            await client.patch_merge(resource, node, {"spec": spec}, field_manager="kubectl")
