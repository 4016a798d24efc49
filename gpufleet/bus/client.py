"""Kafka for programs that come and go, such as the command line: send, read tables to their end, follow them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from gpufleet.bus.admin import TopicsMissing, missing
from gpufleet.bus.broker import FleetBroker, build_broker
from gpufleet.bus.feed import TableFeed
from gpufleet.bus.publisher import Publisher
from gpufleet.bus.reader import Sink
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry, load_registry


@dataclass(frozen=True)
class Client:
    """`tables` is there if topics are read; its sink has everything that was in them when the client was opened."""

    broker: FleetBroker
    registry: Registry
    publisher: Publisher
    tables: TableFeed | None


@contextlib.asynccontextmanager
async def open_client(
    settings: KafkaSettings,
    *,
    source: str,
    writes: Sequence[str] = (),
    reads: Sequence[str] = (),
    sink: Sink | None = None,
    registry: Registry | None = None,
) -> AsyncIterator[Client]:
    """Connect, read `reads` (short names) into `sink` to their end and on, publish, flush at the end.

    Raises BusUnavailable, TopicsMissing for topics of `writes` and `reads` that are not there (some brokers would
    create them, in a wrong form, when they are named), FeedFailed, and PublishError at the end.
    """
    registry = registry or load_registry(prefix=settings.topic_prefix)
    broker = build_broker(settings, client_id=f"{settings.client_id}-{source.rpartition('/')[2]}")
    publisher = Publisher(broker, registry, source=source)
    tables = TableFeed(broker, registry.names(reads), sink or _ignore, settings) if reads else None
    try:
        await broker.connect()
        if absent := await missing(broker.config.admin_client, registry, [*writes, *reads]):
            raise TopicsMissing(settings.bootstrap, absent)
        await broker.start()
        if tables is not None:
            await tables.caught_up()
        yield Client(broker, registry, publisher, tables)
        await publisher.flush()
    finally:
        await publisher.stop()
        await broker.stop()


async def read_topics(settings: KafkaSettings, shorts: Sequence[str], *, source: str = "gpufleet/cli") -> list[Record]:
    """All records that are in the topics now, in offset order per partition. Raises as `open_client`."""
    records: list[Record] = []
    async with open_client(settings, source=source, reads=shorts, sink=records.extend):
        return records


def _ignore(_: list[Record]) -> None:
    pass
