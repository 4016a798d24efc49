"""What tests of the dispatcher as a service have in common: simulated clusters in this loop, and the log around it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gpufleet.bus.feed import TableFeed
from gpufleet.bus.publisher import Publisher
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.shards import shard_of
from gpufleet.bus.topics import Registry
from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.log import ClusterAccess, ClusterRegistration, LogId
from gpufleet.model.placement import Assignment, Observation
from gpufleet.telemetry.metrics import Metrics
from gpufleet.wire.records import (
    assignment_key,
    dump_assignment,
    dump_claim,
    dump_cluster,
    parse_observation,
)
from services.dispatcher.cluster import ClusterWorker
from services.dispatcher.core.table import ClusterTable
from services.dispatcher.hub import meters
from services.dispatcher.settings import DispatcherSettings
from sim.api.control import disturb
from sim.api.crds import install_crds
from sim.api.server import SimServer
from sim.api.store import Store
from sim.model.api import Create, Json, Write
from sim.model.cluster import Behaviour, simulated
from sim.model.drive import Drive
from sim.model.runner import Runner
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
    token: str = "",
) -> None:
    """Adds a cluster to a running server; another ``seed`` makes it another incarnation."""
    store = Store(name, now=time.time(), seed=seed)
    drive = Drive(store, simulated(behaviour))
    fleet.stores[name], fleet.drives[name] = store, drive
    install_crds(store, now=time.time())
    named = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in namespaces]
    nodes = [node(f"gpu-{number}", gpu="8") for number in range(2)]
    fleet.write(name, *map(Create, [*named, *nodes]))
    fleet.server.add(store, token=token)
    fleet.runner.add(drive)


class FleetLog:
    """The other side of the log: writes what a scheduler would, reads what the dispatcher says."""

    def __init__(self, publisher: Publisher, registry: Registry) -> None:
        self.publisher = publisher
        self.registry = registry
        self.said: dict[str, Observation] = {}
        self.records: list[Record] = []
        self.feed: TableFeed | None = None

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

    async def put(self, topic: str, key: str, value: bytes | None, cluster: str = "") -> None:
        """Writes any record."""
        partition = shard_of(cluster, self.registry[topic].partitions) if cluster else None
        await self.publisher.confirm(topic, key, value, partition=partition)

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

    async def saying(self, assignment: Assignment, timeout: float = 30.0, **fields: Any) -> Observation:
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

    async def barrier(self) -> None:
        """Waits until everything that has been said before is read."""
        assert self.feed is not None
        await self.feed.barrier()

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
        async with reading(settings, [registry.name("observations")], log.take) as feed:
            log.feed = feed
            yield log


@dataclass
class Desk:
    """A worker's surroundings without a broker: what it says is in ``said``, in order."""

    cluster: str
    frozen: bool = False
    log_id: str = LOG
    in_charge: bool = True
    said: list[Observation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = ClusterTable(self.cluster)
        self.metrics = Metrics("dispatcher")
        self.meters = meters(self.metrics)
        self.worker: ClusterWorker | None = None

    def may_write(self, cluster: str) -> bool:
        assert cluster == self.cluster
        return self.in_charge

    def publish(self, observation: Observation) -> None:
        self.table.said(observation, time.monotonic())
        self.table.note(observation.workload, observation)
        self.said.append(observation)

    def assign(self, assignment: Assignment) -> Assignment:
        """Gives the worker an assignment."""
        assert self.worker is not None
        assert self.table.take(assignment)
        self.worker.assigned(assignment.workload)
        return assignment

    def bury(self, assignment: Assignment) -> None:
        """Takes an assignment back for good."""
        assert self.worker is not None
        assert self.table.bury(assignment.workload, assignment.version)
        self.worker.forgotten(assignment.workload)
        self.table.forget(assignment.workload)

    def set_frozen(self, frozen: bool) -> None:
        """Freezes or unfreezes."""
        assert self.worker is not None
        self.frozen = frozen
        self.worker.look_at_all()

    def count(self, name: str) -> float:
        """The value of a counter."""
        value = self.metrics.registry.get_sample_value(f"gpufleet_dispatcher_{name}_total", {"cluster": self.cluster})
        return value or 0.0

    async def saying(self, assignment: Assignment, timeout: float = 30.0, **fields: Any) -> Observation:
        """Waits until the last word about an assignment is of its version and has these fields."""

        def found() -> Observation | None:
            seen = self.table.published.get(assignment.workload)
            if seen is None or seen.version != assignment.version:
                return None
            return seen if all(getattr(seen, name) == value for name, value in fields.items()) else None

        try:
            seen = await eventually(found, f"{assignment.workload} {fields}", timeout, 0.002)
        except AssertionError as error:
            last = self.table.published.get(assignment.workload)
            raise AssertionError(f"{error}; the last word is {last}") from None
        assert seen is not None
        return seen

    async def idle(self) -> None:
        """Waits until nothing is left to be worked on now."""
        worker = self.worker
        assert worker is not None
        await eventually(lambda: not worker.busy, "the worker to come to rest", every=0.002)


@contextlib.asynccontextmanager
async def at_work(
    access: Mapping[str, Any], cluster: str = "c", desk: Desk | None = None, **settings: Any
) -> AsyncIterator[Desk]:
    """A worker of one cluster that is reached by an inline kubeconfig."""
    desk = desk or Desk(cluster)
    values = {"backoff_cap": 0.5, "probe_interval": 0.2, "request_timeout": 5.0, "coalesce": 0.01} | settings
    registration = ClusterRegistration(ClusterSpec(cluster), ClusterAccess(inline=access["inline"]))
    worker = desk.worker = ClusterWorker(registration, desk.table, desk, DispatcherSettings(**values), desk.meters)
    task = asyncio.create_task(worker.run())
    try:
        yield desk
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
