"""The dispatcher on a broker, with simulated clusters: from an assignment to the object, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry
from gpufleet.model.placement import ObservedPhase, WorkloadHealth
from services.dispatcher.app import DispatcherService
from services.dispatcher.settings import DispatcherSettings
from tests.support import manifests
from tests.support.brokers import Broker
from tests.support.buskit import create_topics, running, settings_for
from tests.support.dispatchkit import FleetLog, SimFleet, fleet_log, sim_fleet
from tests.support.hands import assigned, removal
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
    seen = await log.saying(assignment, phase=ObservedPhase.APPLIED, health=WorkloadHealth.HEALTHY)
    assert seen.ready == 2
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
