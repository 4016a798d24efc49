"""The live fleet as the command line sees it: topics read to their end, and followed where a command waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from gpufleet.bus.admin import TopicsMissing
from gpufleet.bus.broker import BusUnavailable
from gpufleet.bus.client import Client, open_client
from gpufleet.bus.publisher import PublishError
from gpufleet.bus.reader import FeedFailed, Sink
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry, load_registry
from gpufleet.cli.errors import CliError, Exit
from gpufleet.model import kinds
from gpufleet.model.cluster import Inventory, WorkloadPods
from gpufleet.model.log import ClusterRegistration
from gpufleet.model.names import KIND_PREFIX
from gpufleet.model.placement import Observation, Placement, Version
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.queueing import counted, in_order
from gpufleet.model.staging import Staging
from gpufleet.model.workload import Division, Workload
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import (
    parse_cluster,
    parse_inventory,
    parse_observation,
    parse_placement,
    parse_policy,
    parse_scale,
    parse_workload,
    policy_manifest,
    take_kind,
)
from gpufleet.wire.records_keys import policy_key
from gpufleet.wire.records_queue import parse_queued

T = TypeVar("T")

SOURCE = "gpufleet/cli"
_READ_TIMEOUT = 30.0
# Written by services only: a record says in its headers of which decision it is. Elsewhere the last record counts.
_VERSIONED = frozenset({"placements", "assignments", "observations", "evictions"})


@dataclass
class Tables:
    """The newest record of every key of the topics that were asked for, by short topic name.

    Newest is the last one; of what services write, the one of the highest (epoch, version), since a record may be
    delivered again and a replaced service may write late.
    """

    registry: Registry
    records: dict[str, dict[str, Record]] = field(default_factory=dict)
    inventories: dict[str, Inventory] = field(default_factory=dict)
    pods: dict[tuple[str, str], WorkloadPods] = field(default_factory=dict)  # (cluster, workload)
    _versions: dict[tuple[str, str], Version] = field(default_factory=dict)  # by topic and key, tombstones included
    _staging: Staging = field(default_factory=Staging)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, records: list[Record]) -> None:
        """Takes records in the order of the log."""
        for record in records:
            short = self.registry[record.topic].short
            if record.key is None or self._superseded(short, record.key, record):
                continue
            if short == "policies" and record.key.startswith(KIND_PREFIX):
                take_kind(record)
            table = self.records.setdefault(short, {})
            if record.value is None:
                table.pop(record.key, None)
            else:
                table[record.key] = record
            if short == "inventory":
                self._take_inventory(record, record.key)
        self._changed.set()

    def _superseded(self, topic: str, key: str, record: Record) -> bool:
        """Whether a later version of what services write is known. A record without a version is by hand: it counts."""
        if topic not in _VERSIONED or record.epoch is None or record.version is None:
            return False
        version = Version(record.epoch, record.version)
        if version < self._versions.get((topic, key), version):
            return True
        self._versions[topic, key] = version
        return False

    def _take_inventory(self, record: Record, key: str) -> None:
        if record.value is None:
            if "/" not in key:
                self._staging.gone(key)
                self.inventories.pop(key, None)
                self.pods = {place: pods for place, pods in self.pods.items() if place[0] != key}
            return
        try:
            closed = self._staging.take(parse_inventory(record))
        except RecordError:
            return
        if closed is None:
            return
        cluster = closed.inventory.cluster
        self.inventories[cluster] = closed.inventory
        for pods in closed.pods:
            self.pods[cluster, pods.workload] = pods
        for workload in closed.pods_gone:
            self.pods.pop((cluster, workload), None)

    # -- what the records say; those that cannot be read are left out ------------------------------------------------

    def placements(self) -> list[Placement]:
        """Returns placements in order of workload, with the positions in their queues that they have now."""
        return counted(self._parsed("placements", parse_placement))

    def observations(self) -> Iterator[Observation]:
        """Returns observations in order of cluster and workload."""
        return self._parsed("observations", parse_observation)

    def registrations(self) -> Iterator[ClusterRegistration]:
        """Returns registrations in order of name."""
        return self._parsed("clusters", parse_cluster)

    def clusters(self) -> set[str]:
        """Returns the names of the registered clusters."""
        return set(self.records.get("clusters", {}))

    def policies(self) -> Iterator[dict[str, object]]:
        """Returns policy documents in order of key."""
        return self._parsed("policies", _policy)

    def propagation_policies(self) -> dict[str, PropagationPolicy]:
        """Returns the policies that place workloads, by key."""
        return {p.key: p for p in self._parsed("policies", parse_policy) if isinstance(p, PropagationPolicy)}

    def priority_classes(self) -> set[str]:
        """Returns the names of the fleet's PriorityClasses."""
        prefix = policy_key("PriorityClass", "", "")
        return {key.removeprefix(prefix) for key in self.records.get("policies", {}) if key.startswith(prefix)}

    def workloads(self) -> Iterator[dict[str, Any]]:
        """Returns manifests in order of key, with the uid and the replicas that count."""
        for workload in self._parsed("workloads", parse_workload):
            yield _manifest(workload, self._scale(workload.key))

    def _scale(self, workload: str) -> int | None:
        record = self.records.get("scales", {}).get(workload)
        with contextlib.suppress(RecordError):
            return None if record is None else parse_scale(record).replicas
        return None

    def unreadable(self, topic: str) -> dict[str, str]:
        """Returns what is wrong with the workloads or policies that are left out, by key."""
        found = {}
        for key, record in sorted(self.records.get(topic, {}).items()):
            try:
                parse_workload(record) if topic == "workloads" else parse_policy(record)
            except RecordError as error:
                found[key] = str(error)
        return found

    def placement(self, workload: str) -> Placement | None:
        """Returns one placement, with the position in its queue that it has now."""
        record = self.records.get("placements", {}).get(workload)
        if record is None:
            return None
        placement = parse_placement(record)
        if placement.queue_position is None:
            return placement
        return replace(placement, queue_position=len(self.ahead(placement)) + 1)

    def ahead(self, placement: Placement) -> list[str]:
        """Returns who waits before a workload that waits, the first first."""
        places = (parse_queued(record.value) for record in self.records.get("placements", {}).values())
        queue = in_order(p for p in places if p is not None and p.queue == placement.queue)
        return queue[placement.queue][: queue[placement.queue].index(placement.workload)]

    def observed(self, workload: str) -> list[Observation]:
        """Returns what the clusters say about one workload."""
        return [o for o in self.observations() if o.workload == workload]

    def bound(self, workload: str) -> dict[str, int]:
        """Returns how many pods of a workload are bound, by cluster."""
        return {
            cluster: sum(c.bound for _, c in pods.components)
            for (cluster, key), pods in sorted(self.pods.items())
            if key == workload
        }

    def _parsed(self, topic: str, parse: Callable[[Record], T]) -> Iterator[T]:
        for _, record in sorted(self.records.get(topic, {}).items()):
            with contextlib.suppress(RecordError):
                yield parse(record)

    async def until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Waits until something holds; returns whether it does. ``timeout`` in seconds, None for ever."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True

    async def change(self) -> None:
        """Waits for the next records."""
        self._changed.clear()
        await self._changed.wait()


def _manifest(workload: Workload, scale: int | None) -> dict[str, Any]:
    """Returns a manifest that says by itself what the envelope and a scale say about it."""
    manifest = dict(workload.manifest)
    if workload.uid:
        manifest["metadata"] = {**manifest["metadata"], "uid": workload.uid}
    if scale is not None and len(workload.components) == 1 and workload.division is Division.REPLICAS:
        manifest = kinds.with_replicas(manifest, {workload.components[0].name: scale})
    return manifest


def _policy(record: Record) -> dict[str, object]:
    parse_policy(record)  # what `plan` would refuse is not in force either
    return policy_manifest(record)[0]


@contextlib.asynccontextmanager
async def tables(kafka: KafkaSettings, topics: Sequence[str]) -> AsyncIterator[Tables]:
    """Topics (short names), read to their end and followed until the block is left. Raises CliError."""
    found = Tables(load_registry(prefix=kafka.topic_prefix))
    async with client(kafka, reads=topics, sink=found.take):
        yield found


@contextlib.asynccontextmanager
async def client(
    kafka: KafkaSettings, *, writes: Sequence[str] = (), reads: Sequence[str] = (), sink: Sink | None = None
) -> AsyncIterator[Client]:
    """A connection that reads topics to their end and can publish. Raises CliError."""
    with reaching_kafka():
        stack = contextlib.AsyncExitStack()
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                opened = await stack.enter_async_context(
                    open_client(kafka, source=SOURCE, writes=writes, reads=reads, sink=sink)
                )
        except TimeoutError:
            raise CliError(
                f"Kafka at {kafka.bootstrap} answers, but {', '.join([*reads, *writes])} could not be opened within "
                f"{_READ_TIMEOUT:g} s; `gpufleet doctor` looks for the cause",
                Exit.UNREACHABLE,
            ) from None
        async with stack:
            yield opened


@contextlib.contextmanager
def reaching_kafka() -> Iterator[None]:
    """Turns an unreachable broker into exit code 3."""
    try:
        yield
    except (BusUnavailable, TopicsMissing, FeedFailed, PublishError) as error:
        raise CliError(str(error), Exit.UNREACHABLE) from error
