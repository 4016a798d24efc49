"""What tests of the dispatcher as a service have in common: simulated clusters in this loop, and the log around it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gpufleet.bus.publisher import Publisher
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.shards import shard_of
from gpufleet.bus.topics import Registry
from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.log import ClusterAccess, ClusterRegistration, LogId
from gpufleet.model.placement import Assignment, Observation
from gpufleet.wire.records import (
    assignment_key,
    dump_assignment,
    dump_claim,
    dump_cluster,
    parse_observation,
)
from sim.api.control import disturb
from sim.api.server import SimServer
from sim.api.store import Store
from sim.model.api import Create, Json, Write
from sim.model.cluster import Behaviour, simulated
from sim.model.drive import Drive
from sim.model.runner import Runner
from sim.serve import custom_resources
from tests.support.buskit import connected, reading
from tests.support.hands import LOG
from tests.support.simulation import node
from tests.support.waiting import eventually


@dataclass
class SimFleet:
    """Simulated clusters behind one HTTP server, in the loop of the test."""

    server: SimServer
    runner: Runner
    stores: dict[str, Store] = field(default_factory=dict)
    drives: dict[str, Drive] = field(default_factory=dict)

    def kubeconfig(self, folder: Path) -> Path:
        """Writes a kubeconfig with a context for each cluster."""
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(self.server.kubeconfig()), encoding="utf-8")
        return path

    def get(self, cluster: str, api_version: str, kind: str, name: str, namespace: str = "test") -> Json | None:
        """An object as it is in the cluster's store."""
        return self.drives[cluster].view.get(api_version, kind, namespace, name)

    def write(self, cluster: str, *writes: Write) -> None:
        """Writes as somebody in the cluster."""
        self.drives[cluster].apply(writes, time.time())

    def disturb(self, cluster: str, **faults: Any) -> None:
        """What is wrong with a cluster's API from now on."""
        disturb(self.server.clusters[cluster], faults)


@contextlib.asynccontextmanager
async def sim_fleet(
    *names: str, namespaces: Sequence[str] = ("test",), behaviour: Behaviour | None = None
) -> AsyncIterator[SimFleet]:
    """Clusters of two nodes with eight GPUs each, and the CRDs of the job kinds."""
    async with SimServer() as server:
        fleet = SimFleet(server, Runner())
        for name in names:
            add_cluster(fleet, name, namespaces=namespaces, behaviour=behaviour)
        try:
            yield fleet
        finally:
            fleet.runner.close()


def add_cluster(
    fleet: SimFleet,
    name: str,
    *,
    namespaces: Sequence[str] = ("test",),
    behaviour: Behaviour | None = None,
    seed: int = 0,
) -> None:
    """Adds a cluster to a running server; another ``seed`` makes it another incarnation."""
    store = Store(name, now=time.time(), seed=seed)
    drive = Drive(store, simulated(behaviour))
    fleet.stores[name], fleet.drives[name] = store, drive
    named = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in namespaces]
    nodes = [node(f"gpu-{number}", gpu="8") for number in range(2)]
    fleet.write(name, *map(Create, [*custom_resources(), *named, *nodes]))
    fleet.server.add(store)
    fleet.runner.add(drive)


class FleetLog:
    """The other side of the log: writes what a scheduler would, reads what the dispatcher says."""

    def __init__(self, publisher: Publisher, registry: Registry) -> None:
        self.publisher = publisher
        self.registry = registry
        self.said: dict[str, Observation] = {}
        self.records: list[Record] = []

    async def begin(self, log: str = LOG) -> None:
        """Gives the log its id."""
        await self.publisher.confirm("epochs", "log", dump_claim(LogId(log)))

    async def register(self, name: str, kubeconfig: Path | None) -> None:
        """Registers a cluster, or takes its registration back."""
        value = None
        if kubeconfig is not None:
            access = ClusterAccess(kubeconfig=str(kubeconfig), context=name)
            value = dump_cluster(ClusterRegistration(ClusterSpec(name), access))
        await self.publisher.confirm("clusters", name, value)

    async def assign(self, assignment: Assignment) -> None:
        """Writes an assignment."""
        await self._send(assignment, dump_assignment(assignment))

    async def tombstone(self, assignment: Assignment) -> None:
        """Writes an assignment's tombstone."""
        await self._send(assignment, None)

    async def _send(self, assignment: Assignment, value: bytes | None) -> None:
        await self.publisher.confirm(
            "assignments",
            assignment_key(assignment.cluster, assignment.workload),
            value,
            epoch=assignment.version.epoch,
            version=assignment.version.version,
            partition=shard_of(assignment.cluster, self.registry["assignments"].partitions),
        )

    def take(self, records: list[Record]) -> None:
        """Takes observations."""
        for record in records:
            self.records.append(record)
            assert record.key is not None
            if record.value is None:
                self.said.pop(record.key, None)
            else:
                self.said[record.key] = parse_observation(record)

    async def saying(self, assignment: Assignment, timeout: float = 20.0, **fields: Any) -> Observation:
        """Waits for an observation of this version with these fields."""
        key = assignment_key(assignment.cluster, assignment.workload)

        def found() -> Observation | None:
            seen = self.said.get(key)
            if seen is None or seen.version != assignment.version:
                return None
            return seen if all(getattr(seen, name) == value for name, value in fields.items()) else None

        try:
            seen = await eventually(found, f"{key} {fields}", timeout, 0.005)
        except AssertionError as error:
            raise AssertionError(f"{error}; the last word is {self.said.get(key)}") from None
        assert seen is not None
        return seen

    async def silent(self, assignment: Assignment) -> None:
        """Waits until nothing is said of an assignment."""
        key = assignment_key(assignment.cluster, assignment.workload)
        await eventually(lambda: key not in self.said, f"no observation of {key}")


@contextlib.asynccontextmanager
async def fleet_log(settings: KafkaSettings, registry: Registry) -> AsyncIterator[FleetLog]:
    """The log, with an id."""
    async with connected(settings, registry) as publisher:
        log = FleetLog(publisher, registry)
        await log.begin()
        async with reading(settings, [registry.name("observations")], log.take):
            yield log
