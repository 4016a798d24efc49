"""The dispatcher on a broker, with simulated clusters: from an assignment to the object, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry
from gpufleet.model.names import FREEZE_KEY
from gpufleet.model.placement import ObservedPhase, Variant, Version, WorkloadHealth
from gpufleet.model.reasons import Code
from gpufleet.wire.records import dump_observation
from services.dispatcher.app import DispatcherService
from services.dispatcher.settings import DispatcherSettings
from sim.model.api import Delete, Patch, Ref
from tests.support import manifests
from tests.support.brokers import Broker
from tests.support.buskit import create_topics, running, settings_for
from tests.support.dispatchkit import FleetLog, SimFleet, fleet_log, sim_fleet
from tests.support.hands import assigned, batch_job, removal
from tests.support.waiting import eventually

TYPE = ("apps/v1", "Deployment")


@pytest.fixture
async def settings(broker: Broker) -> KafkaSettings:
    return settings_for(broker)


@pytest.fixture
async def registry(settings: KafkaSettings) -> Registry:
    return await create_topics(settings)


@pytest.fixture
async def clusters() -> AsyncIterator[SimFleet]:
    async with sim_fleet("a", "b") as fleet:
        yield fleet


@pytest.fixture
async def log(settings: KafkaSettings, registry: Registry) -> AsyncIterator[FleetLog]:
    async with fleet_log(settings, registry) as log:
        yield log


@pytest.fixture
async def service(
    settings: KafkaSettings, clusters: SimFleet, log: FleetLog, tmp_path: Path
) -> AsyncIterator[DispatcherService]:
    """A dispatcher of both clusters."""
    kubeconfig = clusters.kubeconfig(tmp_path)
    for name in clusters.stores:
        await log.register(name, kubeconfig)
    dispatcher = DispatcherService(DispatcherSettings(backoff_cap=1.0, probe_interval=0.5, request_timeout=2.0))
    async with running(dispatcher, settings):
        await eventually(lambda: len(dispatcher.incarnations) == 2, "both clusters to be known")
        yield dispatcher


async def test_from_assignment_to_gone(service: DispatcherService, clusters: SimFleet, log: FleetLog) -> None:
    assignment = assigned(manifests.deployment(2), "a")
    await log.assign(assignment)
    seen = await log.saying(assignment, phase=ObservedPhase.APPLIED, health=WorkloadHealth.HEALTHY, ready=2)
    assert seen.incarnation == clusters.stores["a"].incarnation
    live = clusters.get("a", *TYPE, "x")
    assert live is not None
    assert seen.object_uid == live["metadata"]["uid"]
    gone = removal(assignment)
    await log.assign(gone)
    await log.saying(gone, phase=ObservedPhase.GONE)
    assert clusters.get("a", *TYPE, "x") is None
    await log.tombstone(gone)
    await log.silent(gone)
    assert {(record.epoch, record.version) for record in log.records} == {(1, 1), (1, 9)}


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret", "PersistentVolumeClaim", "ServiceAccount"])
async def test_what_pods_need_is_written_kept_and_removed(
    service: DispatcherService, clusters: SimFleet, log: FleetLog, kind: str
) -> None:
    """Objects without pods, also beside the fence of a job, which is a ConfigMap too."""
    job = assigned(batch_job(), "a")
    await log.assign(job)
    await log.saying(job, phase=ObservedPhase.APPLIED)
    note = {"op": "add", "path": "/metadata/annotations/site", "value": "idc"}
    assignment = replace(assigned(manifests.supporting(kind, "conf"), "a"), overrides=(note,))
    await log.assign(assignment)
    await log.saying(assignment, phase=ObservedPhase.APPLIED)
    live = clusters.get("a", "v1", kind, "conf")
    assert live is not None
    assert live["metadata"]["annotations"]["site"] == "idc"
    clusters.write("a", Delete(Ref("v1", kind, "test", "conf")))
    await eventually(lambda: clusters.get("a", "v1", kind, "conf") is not None, "it to be written again")
    gone = removal(assignment)
    await log.assign(gone)
    await log.saying(gone, phase=ObservedPhase.GONE)
    assert clusters.get("a", "v1", kind, "conf") is None


async def test_an_object_for_each_unit(service: DispatcherService, clusters: SimFleet, log: FleetLog) -> None:
    """Objects of further units come, are scaled, go when they are emptied, and go with the workload."""
    patches = (
        {"op": "add", "path": "/metadata/name", "value": "x-acs-1"},
        {"op": "add", "path": "/spec/selector/matchLabels/gpufleet.io~1unit", "value": "acs-1"},
        {"op": "add", "path": "/spec/template/metadata/labels/gpufleet.io~1unit", "value": "acs-1"},
    )

    def variant(replicas: int) -> tuple[Variant, ...]:
        return (Variant("acs-1", "x-acs-1", (("main", replicas),), patches if replicas else ()),)

    first = replace(assigned(manifests.deployment(2), "a"), variants=variant(3))
    await log.assign(first)
    seen = await log.saying(first, phase=ObservedPhase.APPLIED, health=WorkloadHealth.HEALTHY, ready=5)
    assert seen.status["replicas"] == 5
    # What somebody changes in the cluster is put right in each of them.
    ref = Ref(*TYPE, "test", "x-acs-1")
    clusters.write("a", Patch(ref, {"spec": {"replicas": 1}}))
    await eventually(lambda: _wanted(clusters, "x-acs-1") == 3, "the object of the unit to be mended")
    emptied = replace(first, version=Version(1, 2), variants=variant(0))
    await log.assign(emptied)
    await log.saying(emptied, phase=ObservedPhase.APPLIED, health=WorkloadHealth.HEALTHY, ready=2)
    assert clusters.get("a", *TYPE, "x-acs-1") is None
    again = replace(first, version=Version(1, 3), variants=variant(1))
    await log.assign(again)
    await log.saying(again, phase=ObservedPhase.APPLIED, ready=3)
    gone = replace(removal(again), variants=(Variant("acs-1", "x-acs-1"),))
    await log.assign(gone)
    await log.saying(gone, phase=ObservedPhase.GONE)
    assert clusters.get("a", *TYPE, "x") is None
    assert clusters.get("a", *TYPE, "x-acs-1") is None


def _wanted(clusters: SimFleet, name: str) -> int | None:
    found = clusters.get("a", *TYPE, name)
    return None if found is None else found["spec"]["replicas"]


async def test_what_the_log_says_is_obeyed(
    service: DispatcherService, clusters: SimFleet, log: FleetLog, tmp_path: Path
) -> None:
    """Versions, a freeze, a record that cannot be read, a late writer, a dead cluster, a cluster that leaves."""
    first = assigned(manifests.deployment(1), "a", version=(5, 5))
    await log.assign(first)
    await log.saying(first, phase=ObservedPhase.APPLIED)

    # A scheduler that lost its office.
    await log.assign(assigned(manifests.deployment(9), "a", version=(4, 99)))
    # What cannot be read is put aside, and the next one is handled.
    await log.put("assignments", "a/test/Deployment/broken", b"{", "a")
    second = assigned(manifests.deployment(2), "a", version=(5, 6))
    await log.assign(second)
    await log.saying(second, phase=ObservedPhase.APPLIED, ready=2)
    live = clusters.get("a", *TYPE, "x")
    assert live is not None
    assert live["spec"]["replicas"] == 2

    # A dispatcher that woke up late has overwritten the observation: it is written again.
    late = replace(log.said["a/test/Deployment/x"], version=first.version, message="late")
    await log.put("observations", "a/test/Deployment/x", dump_observation(late), "a")
    await eventually(lambda: any(b"late" in (record.value or b"") for record in log.records), "the late record")
    await log.saying(second, phase=ObservedPhase.APPLIED, ready=2)

    # While the fleet is frozen nothing is written.
    await log.put("policies", FREEZE_KEY, b'{"kind": "Freeze"}')
    await eventually(lambda: service.frozen, "the freeze to be seen")
    third = assigned(manifests.deployment(3), "a", version=(5, 7))
    await log.assign(third)
    await log.saying(third, phase=ObservedPhase.PENDING, code=Code.FROZEN)
    await log.put("policies", FREEZE_KEY, None)
    await log.saying(third, phase=ObservedPhase.APPLIED, ready=3)

    # A cluster that is gone delays its own work only.
    clusters.disturb("a", gone=True)
    leaving = removal(third, (5, 8))
    elsewhere = assigned(manifests.deployment(1), "b", version=(5, 8))
    await log.assign(leaving)
    await log.assign(elsewhere)
    await log.saying(elsewhere, phase=ObservedPhase.APPLIED)
    await log.saying(leaving, phase=ObservedPhase.PENDING, code=Code.CLUSTER_UNREACHABLE)

    # It is taken out of the fleet: whoever waits for the removal need not wait for ever.
    await log.register("a", None)
    gone = await log.saying(leaving, phase=ObservedPhase.GONE)
    assert gone.message == "the cluster left the fleet"
    # What is ordered of it later is answered alike, and nothing is said of what is to be brought there.
    job = assigned(batch_job(1), "a", version=(5, 9))
    await log.assign(job)
    await log.assign(removal(job, (5, 10)))
    await log.saying(removal(job, (5, 10)), phase=ObservedPhase.GONE)
    assert (5, 9) not in {(record.epoch, record.version) for record in log.records}

    # It comes back: what it still holds of an order that is over is removed.
    clusters.disturb("a")
    await log.register("a", clusters.kubeconfig(tmp_path))
    await eventually(lambda: clusters.get("a", *TYPE, "x") is None, "the copy to be removed")


async def test_another_instance_goes_on_where_one_has_ended(
    settings: KafkaSettings, clusters: SimFleet, log: FleetLog, tmp_path: Path
) -> None:
    await log.register("a", clusters.kubeconfig(tmp_path))
    done = assigned(batch_job(1, run_seconds="0.1"), "a")
    kept = assigned(manifests.deployment(1), "a")
    async with running(DispatcherService(DispatcherSettings()), settings):
        await log.assign(done)
        await log.assign(kept)
        await log.saying(done, health=WorkloadHealth.SUCCEEDED)
        await log.saying(kept, health=WorkloadHealth.HEALTHY)
        # One more is ordered, and the order taken back for good, while nobody is there to see.
    orphan = assigned(manifests.deployment(1, kind="StatefulSet"), "a")
    await log.assign(orphan)
    await log.tombstone(replace(orphan, version=Version(1, 2)))
    await log.barrier()
    said = len(log.records)
    # The job was swept away, and the Deployment changed.
    clusters.write("a", Delete(Ref("batch/v1", "Job", "test", "x")))
    clusters.write("a", Patch(Ref(*TYPE, "test", "x"), {"spec": {"replicas": 5}}))
    async with running(DispatcherService(DispatcherSettings()), settings):
        await eventually(lambda: _replicas(clusters) == 1, "the drift to be taken back")
    assert clusters.get("a", "batch/v1", "Job", "x") is None
    assert clusters.get("a", "apps/v1", "StatefulSet", "x") is None
    assert log.said[f"a/{done.workload}"].health is WorkloadHealth.SUCCEEDED
    assert {record.key for record in log.records[said:]} <= {f"a/{kept.workload}"}


def _replicas(clusters: SimFleet) -> int:
    live = clusters.get("a", *TYPE, "x")
    assert live is not None
    return int(live["spec"]["replicas"])
