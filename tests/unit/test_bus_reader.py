"""How a reader goes back to the beginning."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from gpufleet.bus.broker import build_broker
from gpufleet.bus.reader import Reader
from gpufleet.bus.settings import KafkaSettings

FIRST, SECOND = TopicPartition("t", 0), TopicPartition("t", 1)


@dataclass
class Consumer:
    """What a reader asks of aiokafka's."""

    at: dict[TopicPartition, int]
    seeks: list[tuple[TopicPartition, int]] = field(default_factory=list)

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self.at)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.seeks.append((partition, offset))
        self.at[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self.at[partition]


def reader_of(consumer: Consumer) -> Reader:
    settings = KafkaSettings(bootstrap="127.0.0.1:9")
    reader = Reader(build_broker(settings), ["t"], lambda _: None, settings)
    reader.subscriber.consumer = consumer
    return reader


async def test_a_seek_may_be_overheard_and_is_repeated_where_the_consumer_is() -> None:
    consumer = Consumer({FIRST: 7, SECOND: 7})
    reader = reader_of(consumer)
    reader.rewind([FIRST, SECOND])
    assert consumer.seeks == [(FIRST, 0), (SECOND, 0)]
    reader.next_offsets[FIRST] = 3  # was heard
    consumer.at = {FIRST: 3, SECOND: 2}  # handed out, not yet with the sink: not to be read twice
    await asyncio.gather(*reader._tasks)
    assert consumer.seeks[2:] == [(SECOND, 2)]


async def test_a_seek_is_not_repeated_for_what_was_read_or_taken_away() -> None:
    consumer = Consumer({FIRST: 7, SECOND: 7})
    reader = reader_of(consumer)
    reader.rewind([FIRST, SECOND])
    reader.next_offsets[FIRST] = 3
    del consumer.at[SECOND]
    await asyncio.gather(*reader._tasks)
    assert len(consumer.seeks) == 2
