"""Publishing: order per key, all or an error that names the keys, nothing sent by whoever is not in charge."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from gpufleet.bus.admin import TopicsMissing, connect_admin
from gpufleet.bus.broker import build_broker
from gpufleet.bus.client import open_client, read_topics
from gpufleet.bus.publisher import Failure, NotInCharge, Publisher, PublishError, RecordTooLarge
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import MAX_OUTSIDE_BYTES, Registry, load_registry
from tests.support.brokers import Broker, open_broker
from tests.support.buskit import connected, create_topics, read_all, settings_for


@pytest.fixture
async def settings(broker: Broker) -> KafkaSettings:
    return settings_for(broker)


@pytest.fixture
async def registry(settings: KafkaSettings) -> Registry:
    return await create_topics(settings)


async def test_order_per_key_under_load(settings: KafkaSettings, registry: Registry) -> None:
    async with connected(settings, registry) as publisher:
        for version in range(300):
            for cluster in range(16):
                publisher.send(
                    "assignments",
                    f"c{cluster}/ns/Job/a",
                    b"x" * (version % 97) * 10,
                    version=version,
                    partition=cluster,
                )
        assert publisher.pending == 4800
        await publisher.flush()
        assert (publisher.pending, publisher.sent, publisher.failed) == (0, 4800, 0)
    versions: dict[str | None, list[int | None]] = defaultdict(list)
    for record in await read_all(settings, registry.name("assignments")):
        versions[record.key].append(record.version)
    assert set(versions) == {f"c{cluster}/ns/Job/a" for cluster in range(16)}
    assert all(found == list(range(300)) for found in versions.values())


async def test_confirm_says_where_the_record_is(settings: KafkaSettings, registry: Registry) -> None:
    async with connected(settings, registry) as publisher:
        places = [await publisher.confirm("epochs", f"k{number}", b"{}") for number in range(3)]
        assert [place.offset for place in places] == [0, 1, 2]
        place = await publisher.confirm("inventory", "c", None, partition=7)
        assert (place.topic, place.partition, place.offset) == (registry.name("inventory"), 7, 0)


async def test_largest_record_arrives_and_a_larger_one_is_refused(settings: KafkaSettings, registry: Registry) -> None:
    async with connected(settings, registry) as publisher:
        await publisher.confirm("workloads", "ns/Job/big", b"x" * MAX_OUTSIDE_BYTES)
        with pytest.raises(RecordTooLarge, match=r"ns/Job/big.*524289 bytes, the limit is 524288"):
            publisher.send("workloads", "ns/Job/big", b"x" * (MAX_OUTSIDE_BYTES + 1))
        await publisher.confirm("placements", "ns/Job/big", b"x" * 1_000_000)
        await publisher.flush()
    assert [len(record.value or b"") for record in await read_all(settings, registry.name("workloads"))] == [
        MAX_OUTSIDE_BYTES
    ]


async def test_guard_is_asked_when_the_record_is_sent(settings: KafkaSettings, registry: Registry) -> None:
    async with connected(settings, registry) as publisher:
        allowed = True
        publisher.guard = lambda _: allowed
        await publisher.confirm("placements", "a", b"1")
        publisher.send("placements", "b", b"1")
        allowed = False  # between the decision to send and the sending
        with pytest.raises(PublishError) as caught:
            await publisher.flush()
        assert caught.value.keys == {(registry.name("placements"), "b")}
        assert isinstance(caught.value.failures[0].error, NotInCharge)
        await publisher.flush()  # told once
    assert [record.key for record in await read_all(settings, registry.name("placements"))] == ["a"]


async def test_what_the_broker_refuses_surfaces_with_its_keys(settings: KafkaSettings) -> None:
    registry = await create_topics(settings)
    elsewhere = load_registry(prefix=settings.topic_prefix)
    async with connected(settings, elsewhere) as publisher:
        # A partition that the topic does not have: the registry of the sender is not the one that made the topics.
        publisher.send("inventory", "c1", b"{}", partition=99)
        publisher.send("inventory", "c2", b"{}", partition=3)
        with pytest.raises(PublishError, match="c1") as caught:
            await publisher.flush()
        assert caught.value.keys == {(registry.name("inventory"), "c1")}
        publisher.send("inventory", "c1", b"{}", partition=1)
        await publisher.flush()
    assert sorted(record.key or "" for record in await read_all(settings, registry.name("inventory"))) == ["c1", "c2"]


async def test_broker_that_is_gone_fails_the_records(broker: Broker) -> None:
    failures: list[Failure] = []
    with open_broker("embedded") as own:
        settings = settings_for(own, request_timeout=1.0, idempotence="off")
        registry = await create_topics(settings)
        connection = build_broker(settings)
        publisher = Publisher(connection, registry, source="test", on_failure=failures.append)
        await connection.connect()
        await publisher.confirm("workloads", "before", b"{}")
        assert own.process is not None
        own.process.stop()
        publisher.send("workloads", "x", b"{}")
        publisher.send("workloads", "y", None)
        async with asyncio.timeout(30):
            with pytest.raises(PublishError) as caught:
                await publisher.flush()
        assert {key for _, key in caught.value.keys} == {"x", "y"}
        assert sorted(str(failure.key) for failure in failures) == ["x", "y"]
        await publisher.stop()
        await connection.stop()


async def test_client_sends_reads_and_flushes_at_the_end(settings: KafkaSettings, registry: Registry) -> None:
    seen: list[Record] = []
    options = {"source": "gpufleet/cli", "writes": ["workloads"], "reads": ["placements"], "sink": seen.extend}
    async with open_client(settings, **options) as client:  # type: ignore[arg-type]
        assert client.tables is not None
        await client.publisher.confirm("placements", "ns/Job/a", b"{}")
        await client.tables.barrier()
        assert [record.key for record in seen] == ["ns/Job/a"]
        client.publisher.send("workloads", "ns/Job/a", b"{}", headers={"traceparent": "00-1-2-01"})
    assert await read_topics(settings, ["placements"]) == seen
    (record,) = await read_all(settings, registry.name("workloads"))
    assert record.key == "ns/Job/a"
    assert record.headers["ce_type"] == "gpufleet.v1.Workload"
    assert record.headers["ce_source"] == "gpufleet/cli"
    assert record.headers["traceparent"] == "00-1-2-01"
    assert record.headers["content-type"] == "application/json"


async def test_client_names_missing_topics_and_does_not_make_them(settings: KafkaSettings) -> None:
    with pytest.raises(TopicsMissing, match=r"gpufleet\.workloads: run `gpufleet topics apply`"):
        async with open_client(settings, source="gpufleet/cli", writes=["workloads"]):
            pass
    async with connect_admin(settings) as admin:
        assert not [name for name in await admin.list_topics() if name.startswith(settings.topic_prefix)]
