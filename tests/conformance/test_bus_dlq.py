"""Dead letters: each unreadable record once, also over restarts, by the one service that answers for its topic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from gpufleet.bus import dlq
from gpufleet.bus.broker import client_options
from gpufleet.bus.records import Record, raw
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry
from gpufleet.wire.errors import RecordError, RecordReason
from tests.support.brokers import Broker
from tests.support.buskit import Leader, connected, create_topics, read_all, running, settings_for
from tests.support.waiting import eventually


@pytest.fixture
async def settings(broker: Broker) -> KafkaSettings:
    return settings_for(broker)


@pytest.fixture
async def registry(settings: KafkaSettings) -> Registry:
    return await create_topics(settings)


class Reader(Leader):
    """Reads workloads as JSON; what is none is rejected."""

    reads = ("workloads", "assignments")

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[str | None, Any] = {}

    def on_records(self, records: list[Record]) -> None:
        for record in records:
            try:
                self.table[record.key] = json.loads(record.value or b"null")
            except ValueError as error:
                self.bus.dead_letters.reject(record, RecordError(RecordReason.NOT_JSON, "spec", f"no JSON: {error}"))


async def _letters(settings: KafkaSettings, registry: Registry) -> list[dlq.DeadLetter]:
    return dlq.fold(await read_all(settings, registry.name("workloads.dlq")))


async def test_bad_record_goes_to_the_dead_letters_once(settings: KafkaSettings, registry: Registry) -> None:
    producer = AIOKafkaProducer(**client_options(settings, "foreign"))
    await producer.start()
    await producer.send_and_wait(registry.name("workloads"), b"{", key=b"a/Job/b", headers=[("x", b"\xff")])
    await producer.send_and_wait(registry.name("workloads"), b"\xff", key=b"\xfe")
    await producer.send_and_wait(registry.name("workloads"), b"{}", key=b"a/Job/c")
    # A topic that another service answers for.
    await producer.send_and_wait(registry.name("assignments"), b"{", key=b"c/a/Job/b", partition=3)
    await producer.stop()
    service = Reader()
    async with running(service, settings):
        await eventually(lambda: service.active, "the service to lead")
        await eventually(lambda: service.bus.dead_letters.pending == 0, "the dead letters to be written and seen")
        assert service.table == {"a/Job/c": {}}  # the next record is handled
        metrics = service.bus.dead_letters.rejected
        assert metrics == {("workloads", "NotJson"): 2, ("assignments", "NotJson"): 1}
    first, second = await _letters(settings, registry)
    assert (first.topic, first.partition, first.offset) == (registry.name("workloads"), 0, 0)
    assert (first.key, first.value, raw(first.headers["x"])) == ("a/Job/b", b"{", b"\xff")
    assert (first.reason, first.path, first.attempts, first.state) == ("NotJson", "spec", 1, "open")
    assert "no JSON" in first.error
    assert (raw(second.key or ""), second.value) == (b"\xfe", b"\xff")
    assert await read_all(settings, registry.name("assignments.dlq")) == []

    again = Reader()
    async with running(again, settings):  # reads the same record again
        await eventually(lambda: again.active, "the service to lead")
        assert again.bus.dead_letters.rejected == metrics
        assert again.bus.dead_letters.pending == 0
        await again.bus.publisher.flush()
    assert len(await read_all(settings, registry.name("workloads.dlq"))) == 2


async def test_repaired_record_is_put_back(settings: KafkaSettings, registry: Registry) -> None:
    service = Reader()
    async with connected(settings, registry) as publisher, running(service, settings):
        publisher.send("workloads", "a/Job/b", b"{", headers={"traceparent": "00-1-2-01"})
        publisher.send("workloads", "a/Job/c", b"[")
        await publisher.flush()
        await eventually(lambda: service.active, "the service to lead")
        await eventually(
            lambda: service.bus.dead_letters.rejected == {("workloads", "NotJson"): 2}, "both to be rejected"
        )
        await eventually(lambda: service.bus.dead_letters.pending == 0, "the dead letters to be written and seen")
        broken, other = await _letters(settings, registry)
        dlq.replay(publisher, broken, value=b'{"repaired": true}')
        dlq.drop(publisher, other)
        await publisher.flush()
        await eventually(lambda: service.table.get("a/Job/b") == {"repaired": True}, "the repaired record")
        assert [letter.state for letter in await _letters(settings, registry)] == ["replayed", "dropped"]

        dlq.replay(publisher, broken)  # as it was: rejected again, as another record, at the second attempt
        await publisher.flush()
        await eventually(lambda: service.bus.dead_letters.rejected == {("workloads", "NotJson"): 3}, "the third")
        await eventually(lambda: service.bus.dead_letters.pending == 0, "the dead letter to be written and seen")
    letters = await _letters(settings, registry)
    assert [(letter.key, letter.attempts, letter.state) for letter in letters] == [
        ("a/Job/b", 1, "replayed"),
        ("a/Job/c", 1, "dropped"),
        ("a/Job/b", 2, "open"),
    ]
    assert letters[2].headers["traceparent"] == "00-1-2-01"


async def test_standby_writes_no_dead_letters(settings: KafkaSettings, registry: Registry) -> None:
    async with connected(settings, registry) as publisher:
        one, two = Reader(), Reader()
        async with running(one, settings), running(two, settings):
            await eventually(lambda: one.active or two.active, "a leader")
            await publisher.confirm("workloads", "a/Job/b", b"{")
            await eventually(lambda: one.bus.dead_letters.rejected and two.bus.dead_letters.rejected, "both to read it")
            await eventually(
                lambda: not one.bus.dead_letters.pending and not two.bus.dead_letters.pending, "both to see the letter"
            )
    assert len(await read_all(settings, registry.name("workloads.dlq"))) == 1
