"""What the tests of the bus have in common: topics of their own on a shared broker, and services that take notes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from gpufleet.bus.admin import apply, connect_admin
from gpufleet.bus.broker import FleetBroker, build_broker
from gpufleet.bus.feed import TableFeed
from gpufleet.bus.publisher import Publisher
from gpufleet.bus.reader import Sink
from gpufleet.bus.records import Record
from gpufleet.bus.runner import ServiceRunner
from gpufleet.bus.service import Service
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry, load_registry
from tests.support.brokers import Broker
from tests.support.waiting import eventually

SESSION = 2.0
"""Seconds; the embedded broker takes half of it to form a group."""


def settings_for(broker: Broker, **values: Any) -> KafkaSettings:
    """Settings with a topic prefix of their own, so that tests share a broker and nothing else."""
    values.setdefault("topic_prefix", f"t{uuid4().hex[:8]}.")
    values.setdefault("session_timeout", SESSION)
    values.setdefault("fetch_wait_ms", min(100, broker.fetch_wait_ms))
    values.setdefault("connect_timeout", 10.0)
    return KafkaSettings(bootstrap=broker.bootstrap, **values)


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """An address that is kept from everybody else, and where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*bound.getsockname())


async def create_topics(settings: KafkaSettings) -> Registry:
    """The registry under the settings' prefix, created on the broker."""
    registry = load_registry(prefix=settings.topic_prefix, shards=settings.shards)
    async with connect_admin(settings) as admin:
        await apply(admin, registry)
    return registry


async def create_topic(
    settings: KafkaSettings, name: str, configs: Mapping[str, str] | None = None, *, partitions: int = 1
) -> None:
    """One topic beside the registry."""
    async with connect_admin(settings) as admin:
        response = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))])
        assert not response.topic_errors[0][1], response
        await eventually(lambda: _lists(admin, name), "the topic to be there")


async def _lists(admin: AIOKafkaAdminClient, name: str) -> bool:
    return name in await admin.list_topics()


@contextlib.asynccontextmanager
async def connected(settings: KafkaSettings, registry: Registry) -> AsyncIterator[Publisher]:
    """A publisher, connected and stopped at the end."""
    broker = build_broker(settings)
    publisher = Publisher(broker, registry, source="gpufleet/test")
    await broker.connect()
    try:
        yield publisher
    finally:
        await publisher.stop()
        await broker.stop()


@contextlib.asynccontextmanager
async def reading(settings: KafkaSettings, topics: Sequence[str], sink: Sink) -> AsyncIterator[TableFeed]:
    """A table feed of `topics`, started, not yet caught up."""
    broker: FleetBroker = build_broker(settings)
    feed = TableFeed(broker, topics, sink, settings)
    await broker.start()
    try:
        yield feed
    finally:
        await broker.stop()


async def read_all(settings: KafkaSettings, topic: str) -> list[Record]:
    """All records of a topic now, in the order of partitions and offsets."""
    records: list[Record] = []
    async with reading(settings, [topic], records.extend) as feed:
        await feed.caught_up()
    return sorted(records, key=lambda record: (record.partition, record.offset))


@contextlib.asynccontextmanager
async def running(service: Service, settings: KafkaSettings, **options: Any) -> AsyncIterator[ServiceRunner]:
    """A service that runs, and is stopped gracefully at the end; what stopped it before is raised."""
    runner = ServiceRunner(service, kafka=settings, **options)
    stop = asyncio.Event()
    task = asyncio.create_task(runner.run(stop))
    try:
        await eventually(lambda: runner.bus is not None or task.done(), "the service to be wired", every=0.001)
        yield runner
    finally:
        stop.set()
        await task


class Leader(Service):
    """Notes what happens to it; `events` has ("records", keys), ("activated", epoch), ("deactivated", reason)."""

    name = "scheduler"
    reads = ("workloads", "placements")
    leads = True
    keeps_log_id = True

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    @property
    def epochs(self) -> list[int]:
        return [value for kind, value in self.events if kind == "activated"]

    @property
    def active(self) -> bool:
        kinds = [kind for kind, _ in self.events if kind in ("activated", "deactivated")]
        return bool(kinds) and kinds[-1] == "activated"

    def on_records(self, records: list[Record]) -> None:
        self.events.append(("records", [record.key for record in records]))

    def activated(self, epoch: int) -> None:
        self.events.append(("activated", epoch))

    def deactivated(self, reason: str) -> None:
        self.events.append(("deactivated", reason))


class Owner(Service):
    """Notes what happens to its shards; `seen` maps a shard to the keys read since it was lost last."""

    name = "inventory"
    reads = ("clusters",)
    owns = ("inventory",)

    def __init__(self) -> None:
        self.events: list[tuple[str, int, Any]] = []
        self.held: dict[int, int] = {}
        self.seen: dict[int, list[str | None]] = {}

    def on_shard_records(self, records: list[Record]) -> None:
        for record in records:
            self.seen.setdefault(record.partition, []).append(record.key)

    def acquired(self, shard: int, epoch: int) -> None:
        self.events.append(("acquired", shard, epoch))
        self.held[shard] = epoch

    def lost(self, shard: int, reason: str) -> None:
        self.events.append(("lost", shard, reason))
        del self.held[shard]
        self.seen.pop(shard, None)

    def may_send(self) -> set[int]:
        assert self.bus.owned is not None
        return {shard for shard in range(16) if self.bus.owned.may_send(shard)}
