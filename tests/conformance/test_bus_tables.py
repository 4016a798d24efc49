"""Tables: whole topics to their end, in order, with nothing left out and nothing that a foreign producer can break."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from gpufleet.bus.admin import connect_admin
from gpufleet.bus.broker import client_options
from gpufleet.bus.feed import FeedFailed
from gpufleet.bus.records import Record, raw
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry
from tests.support.brokers import Broker
from tests.support.buskit import connected, create_topic, create_topics, read_all, reading, settings_for
from tests.support.kafka import COMPACTS_SOON
from tests.support.waiting import eventually


@pytest.fixture
async def settings(broker: Broker) -> KafkaSettings:
    return settings_for(broker)


@pytest.fixture
async def registry(settings: KafkaSettings) -> Registry:
    return await create_topics(settings)


async def test_table_is_read_to_its_end_in_order(settings: KafkaSettings, registry: Registry) -> None:
    async with connected(settings, registry) as publisher:
        for version in range(3):
            for number in range(700):
                publisher.send("workloads", f"ns/Job/{number}", b'{"n":%d}' % version, epoch=0, version=version)
        for number in range(0, 700, 7):
            publisher.send("workloads", f"ns/Job/{number}", None, epoch=0, version=3)
        for shard in range(16):
            publisher.send("inventory", f"c{shard}", b"{}", partition=shard)
        await publisher.flush()
    seen: list[Record] = []
    async with reading(settings, registry.names(["workloads", "inventory"]), seen.extend) as feed:
        assert not feed.is_caught_up
        await feed.caught_up()
        assert feed.is_caught_up
        assert feed.lag() == 0
    assert len(seen) == 2100 + 100 + 16
    workloads = [record for record in seen if record.topic.endswith("workloads")]
    assert [record.offset for record in workloads] == list(range(2200))
    for key, records in itertools.groupby(sorted(workloads, key=lambda r: (r.key or "", r.offset)), lambda r: r.key):
        versions = [record.version for record in records]
        assert versions == sorted(versions, key=lambda v: -1 if v is None else v), key
    tombstone = workloads[-1]
    assert tombstone.value is None
    assert (tombstone.epoch, tombstone.version) == (0, 3)
    assert {record.partition for record in seen if record.topic.endswith("inventory")} == set(range(16))


async def test_last_batch_is_read_whole(settings: KafkaSettings) -> None:
    """The embedded broker tells the first offset of the last batch as the end; a batch is handed out in parts."""
    topic = f"{settings.topic_prefix}batch"
    await create_topic(settings, topic)
    producer = AIOKafkaProducer(**client_options(settings, "p"), max_batch_size=200_000, linger_ms=200)
    await producer.start()
    sizes: list[int] = []
    try:
        async with reading(settings, [topic], lambda records: sizes.append(len(records))) as feed:
            for total in (2500, 5000):
                futures = [await producer.send(topic, b"", key=b"%d" % number) for number in range(2500)]
                assert (await futures[-1]).offset == total - 1
                await feed.barrier()
                assert sum(sizes) == total
        assert max(sizes) < 2500
    finally:
        await producer.stop()


async def test_begin_and_end_are_right_with_producers_that_race(settings: KafkaSettings) -> None:
    """The embedded broker's list of offsets can take the wrong one of two batches for the first or the last."""
    topics = [f"{settings.topic_prefix}race-{number}" for number in range(12)]
    for topic in topics:
        await create_topic(settings, topic)
    producers = [AIOKafkaProducer(**client_options(settings, "p")) for _ in range(2)]
    for producer in producers:
        await producer.start()
    seen: list[Record] = []
    try:
        async with reading(settings, topics[:6], seen.extend) as feed:
            for topic in topics:
                sends = [p.send_and_wait(topic, b"", key=b"%d" % n) for n in range(40) for p in producers]
                await asyncio.gather(*sends)
                if topic in topics[:6]:
                    await feed.barrier()
                    assert [r.offset for r in seen if r.topic == topic] == list(range(80))
    finally:
        for producer in producers:
            await producer.stop()
    late: list[Record] = []
    async with reading(settings, topics, late.extend) as feed:
        await feed.caught_up()
    for topic in topics:
        assert [record.offset for record in late if record.topic == topic] == list(range(80))


async def test_empty_table_is_caught_up_at_once(settings: KafkaSettings, registry: Registry) -> None:
    async with reading(settings, registry.names(["workloads", "inventory", "epochs"]), lambda _: None) as feed:
        async with asyncio.timeout(30):
            await feed.caught_up()
            await feed.barrier()


async def test_barrier_reads_what_was_acknowledged_before_it(settings: KafkaSettings, registry: Registry) -> None:
    seen: list[Record] = []
    async with (
        connected(settings, registry) as publisher,
        reading(settings, registry.names(["workloads", "policies"]), seen.extend) as feed,
    ):
        await feed.caught_up()
        for round_ in range(20):
            await publisher.confirm("workloads" if round_ % 2 else "policies", f"k{round_}", b"{}")
            await feed.barrier()
            assert seen[-1].key == f"k{round_}"


async def test_foreign_records_arrive_whole(settings: KafkaSettings) -> None:
    topic = f"{settings.topic_prefix}foreign"  # not compacted: Apache Kafka refuses a null key on a compacted topic
    await create_topic(settings, topic)
    producer = AIOKafkaProducer(**client_options(settings, "foreign"))
    await producer.start()
    try:
        await producer.send_and_wait(topic, b"{}", key=None)
        await producer.send_and_wait(topic, b"\xff\xfe", key=b"\xc3\x28", headers=[("h", b"\xff"), ("empty", b"")])
        await producer.send_and_wait(topic, b"", key=b"")
        await producer.send_and_wait(topic, b"{}", key="ns/Job/ä".encode())
    finally:
        await producer.stop()
    seen: list[Record] = []
    async with reading(settings, [topic], seen.extend) as feed:
        await feed.caught_up()
    assert [record.key is None for record in seen] == [True, False, False, False]
    assert raw(seen[1].key or "") == b"\xc3\x28"
    assert raw(seen[1].headers["h"]) == b"\xff"
    assert seen[1].headers["empty"] == ""
    assert seen[2].key == ""
    assert seen[3].key == "ns/Job/ä"


async def test_sink_that_raises_stops_the_feed(settings: KafkaSettings, registry: Registry) -> None:
    calls: list[int] = []

    def sink(records: list[Record]) -> None:
        calls.append(len(records))
        raise KeyError("a bug")

    async with (
        connected(settings, registry) as publisher,
        reading(settings, [registry.name("workloads")], sink) as feed,
    ):
        await publisher.confirm("workloads", "a", b"{}")
        with pytest.raises(FeedFailed, match="a bug"):
            await feed.failed()
        await publisher.confirm("workloads", "b", b"{}")
        with pytest.raises(FeedFailed):
            await feed.barrier()
    assert calls == [1]


async def test_log_that_begins_anew_stops_the_feed(settings: KafkaSettings, broker: Broker) -> None:
    topic = f"{settings.topic_prefix}anew"
    await create_topic(settings, topic)
    producer = AIOKafkaProducer(**client_options(settings, "p"), metadata_max_age_ms=200)
    await producer.start()
    try:
        seen: list[Record] = []
        async with reading(settings, [topic], seen.extend) as feed:
            for _ in range(5):
                await producer.send_and_wait(topic, b"{}", key=b"k")
            await feed.barrier()
            async with connect_admin(settings) as admin:
                await admin.delete_topics([topic])
                await eventually(lambda: _is_gone(admin, topic), "the topic to be deleted")
            await create_topic(settings, topic)
            await eventually(lambda: _sent(producer, topic), "a record in the new log")
            async with asyncio.timeout(60):
                with pytest.raises(FeedFailed, match=r"start this service again|no topic"):
                    await feed.watch(interval=0.2)
    finally:
        await producer.stop()


async def _is_gone(admin: object, topic: str) -> bool:
    return topic not in await admin.list_topics()  # type: ignore[attr-defined]


async def _sent(producer: AIOKafkaProducer, topic: str) -> bool:
    """Whether the producer knows the new topic; as long as it does not it is asked again."""
    try:
        async with asyncio.timeout(5):
            await producer.send_and_wait(topic, b"{}", key=b"k")
    except (TimeoutError, KafkaError):
        return False
    return True


async def test_holes_of_compaction_are_passed(settings: KafkaSettings, broker: Broker) -> None:
    if not broker.compacts:
        pytest.skip(f"no compaction on {broker.description}")
    topic = f"{settings.topic_prefix}holes"
    await create_topic(settings, topic, COMPACTS_SOON)
    producer = AIOKafkaProducer(**client_options(settings, "p"))
    await producer.start()
    try:
        for number in range(500):
            await producer.send(topic, b"x" * 100, key=b"k%d" % (number % 5))
        await producer.send_and_wait(topic, None, key=b"k0")

        async def compacted() -> bool:
            await producer.send_and_wait(topic, b"roll", key=b"roll")  # the active segment is never cleaned
            return len(await read_all(settings, topic)) < 400

        await eventually(compacted, "the topic to be compacted", timeout=120, every=1.0)
    finally:
        await producer.stop()
    table: dict[str | None, Record] = {}
    async with reading(settings, [topic], lambda rs: table.update({r.key: r for r in rs})) as feed:
        await feed.caught_up()
    assert {"k1", "k2", "k3", "k4"} <= set(table)
    assert "k0" not in table or table["k0"].value is None
    assert table["k4"].offset == 499


async def test_hole_at_the_very_end_is_passed(settings: KafkaSettings, broker: Broker) -> None:
    """An aborted transaction leaves offsets at the end for which no record ever comes."""
    if not broker.idempotence:
        pytest.skip(f"no transactions on {broker.description}")
    topic = f"{settings.topic_prefix}aborted"
    await create_topic(settings, topic)
    producer = AIOKafkaProducer(**client_options(settings, "p"), transactional_id=f"{topic}-tx")
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send(topic, b"{}", key=b"kept")
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"{}", key=b"aborted")
        await producer.abort_transaction()
    finally:
        await producer.stop()
    seen: list[Record] = []
    async with reading(settings, [topic], seen.extend) as feed, asyncio.timeout(60):
        await feed.caught_up()
        assert [record.key for record in seen] == ["kept"]
        end = (await feed.end_offsets([TopicPartition(topic, 0)]))[TopicPartition(topic, 0)]
        assert end > seen[-1].offset + 1
