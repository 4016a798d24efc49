"""A FastStream batch subscriber that hands `Record`s to a synchronous sink and knows how far it has read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, KafkaTimeoutError
from faststream import AckPolicy
from faststream._internal.endpoint.subscriber.utils import MultiLock
from faststream.kafka.message import FAKE_CONSUMER, KafkaAckableMessage
from faststream.kafka.subscriber.usecase import BatchSubscriber
from faststream.message import StreamMessage

from gpufleet.bus.assignor import ShardAssignor
from gpufleet.bus.broker import FleetBroker
from gpufleet.bus.records import Record, from_consumer
from gpufleet.bus.settings import KafkaSettings

Sink = Callable[[list[Record]], None]
"""Takes records in offset order per partition. What it raises is a bug and stops the reader for good."""

MAX_RECORDS: Final = 1000
_LOOK: Final = 0.01
_RETRY: Final = 0.2
_OVERHEARD: Final = 0.005
_FOREVER_MS: Final = 10 * 365 * 86400 * 1000


class FeedFailed(RuntimeError):
    """A reader has stopped: its sink raised, or the log is not the one that it has read. Start the process anew."""


class Reader:
    """Reads topics without ever committing an offset. Base of the feeds.

    A batch that has been handed to the sink moves `next_offsets`. Where the log has holes (compaction, transaction
    markers) at its end, no record will come, and the consumer's position tells that the end is reached.
    """

    def __init__(
        self,
        broker: FleetBroker,
        topics: Sequence[str],
        sink: Sink,
        settings: KafkaSettings,
        *,
        group: str | None = None,
        listener: ConsumerRebalanceListener | None = None,
    ) -> None:
        self.topics = tuple(topics)
        self.next_offsets: dict[TopicPartition, int] = {}
        self._sink = sink
        self._failure: BaseException | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stops_on_reset = group is None
        self._committed = settings.isolation == "read_committed"
        self._broker = broker
        membership: dict[str, Any] = {}
        if group is not None:
            membership = {
                "group_id": group,
                "listener": listener,
                "partition_assignment_strategy": (ShardAssignor(),),
                "session_timeout_ms": round(settings.session_timeout * 1000),
                "heartbeat_interval_ms": round(settings.heartbeat_interval * 1000),
            }
        self.subscriber: BatchSubscriber = broker.subscriber(
            *topics,
            batch=True,
            max_records=MAX_RECORDS,
            # aiokafka returns as soon as there is a record. After an empty batch FastStream sleeps for the same time
            # again, which would be added to the latency of the next record; so there are no empty batches.
            batch_timeout_ms=_FOREVER_MS,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            isolation_level=settings.isolation,
            fetch_max_wait_ms=settings.fetch_wait_ms,
            parser=_parse,
            decoder=_decode,
            no_reply=True,
            **membership,
        )
        self.subscriber(self._handle)
        if group is None:
            broker.on_subscriber_started(self.subscriber, lambda: self.rewind(self.consumer.assignment()))

    @property
    def consumer(self) -> Any:
        """The aiokafka consumer; None before the broker is started and after it is stopped."""
        return self.subscriber.consumer

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    def rewind(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions from the beginning.

        From offset 0, which the log may not have any more: then the consumer is told so and goes to the first one by
        `auto_offset_reset`. Not by asking for the first one: of two batches that were written at the same time the
        embedded broker may take the second for it.
        """
        consumer, rewound = self.consumer, list(partitions)
        for partition in rewound:
            consumer.seek(partition, 0)
            self.next_offsets.pop(partition, None)
        task = asyncio.create_task(self._wake_fetcher(consumer, rewound))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wake_fetcher(self, consumer: Any, rewound: list[TopicPartition]) -> None:
        """Seek to where the consumer is, which makes aiokafka look again for what to fetch.

        A seek that comes just as aiokafka ends its own search for a position is overheard: it would sleep for 0.2 s.
        """
        await asyncio.sleep(_OVERHEARD)
        for partition in rewound:
            if consumer is self.consumer and partition in consumer.assignment() and partition not in self.next_offsets:
                with contextlib.suppress(IllegalStateError, KafkaError):
                    consumer.seek(partition, await consumer.position(partition))
                return

    async def _handle(self, records: list[Record]) -> None:
        if self._failure is not None:
            return
        try:
            self._accept(records)
        except Exception as error:
            # FastStream would log this and go on with the next batch: the table would have a hole.
            self._fail(error)
            raise

    def _accept(self, records: list[Record]) -> None:
        if self._stops_on_reset:
            self._check_continuity(records)
        self._sink(records)
        for record in records:
            self.next_offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._wake()

    def _check_continuity(self, records: Iterable[Record]) -> None:
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            _check_not_before(partition, record.offset, self.next_offsets.get(partition, 0))

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def check(self) -> None:
        """Raise FeedFailed if the reader has stopped."""
        if self._failure is not None:
            if isinstance(self._failure, FeedFailed):
                raise self._failure
            raise FeedFailed(f"reading {', '.join(self.topics)} stopped: {self._failure!r}") from self._failure

    async def failed(self) -> None:
        """Wait until the reader has stopped, and raise FeedFailed."""
        while True:
            self.check()
            await self._wait(None)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The end offsets now (under read_committed the last stable ones); waits for a broker that is away.

        Raises FeedFailed where the log ends before what was read.
        """
        self.check()
        known = {partition: self.next_offsets.get(partition, 0) for partition in partitions}
        answers = await self._broker.ends.ask(known, committed=self._committed)
        ends = {partition: end for partition, end in answers.items() if end is not None}
        # Not at all at our offset: the begin of the log was deleted (a topic with a retention), or the log was lost.
        if strange := [partition for partition, end in answers.items() if end is None]:
            ends |= await self._listed_ends(strange)
        if self._stops_on_reset:
            for partition, end in ends.items():
                _check_not_before(partition, end, known[partition])
        return ends

    async def _listed_ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        while True:
            self.check()
            try:
                ends: dict[TopicPartition, int] = await self.consumer.end_offsets(list(partitions))
            except KafkaError as error:
                # A time-out is not `retriable` to aiokafka; to a reader it is a broker that is away for longer.
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise
                await asyncio.sleep(_RETRY)
            else:
                return ends

    async def reach(self, ends: Mapping[TopicPartition, int]) -> None:
        """Wait until the sink has every record below `ends`. Raises FeedFailed."""
        behind = dict(ends)
        while True:
            self.check()
            for partition, end in list(behind.items()):
                if await self._has_reached(partition, end):
                    del behind[partition]
            if not behind:
                return
            await self._wait(_LOOK)

    async def _has_reached(self, partition: TopicPartition, end: int) -> bool:
        if self.next_offsets.get(partition, 0) >= end:
            return True
        if self.consumer is None:
            return False
        try:
            position: int = await self.consumer.position(partition)
        except IllegalStateError:  # not assigned (any more)
            return False
        # The position moves when aiokafka hands a batch out. From there to the lock that FastStream holds while the
        # handler works nothing awaits, so with the lock free nothing is between the consumer and the sink.
        lock = cast(MultiLock, self.subscriber.lock)  # one, as the broker has a graceful time-out
        return position >= end and lock.empty

    async def _wait(self, seconds: float | None) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=seconds)
        finally:
            self._waiters.discard(waiter)

    def lag(self) -> int:
        """Records that the broker has told of and the sink has not seen, over all partitions."""
        consumer = self.consumer
        if consumer is None:
            return 0
        total = 0
        for partition in consumer.assignment():
            highwater = consumer.highwater(partition)
            if highwater is not None:
                total += max(0, highwater - self.next_offsets.get(partition, 0))
        return total


def _check_not_before(partition: TopicPartition, offset: int, known: int) -> None:
    if offset < known:
        raise FeedFailed(
            f"{partition.topic}/{partition.partition} is at offset {offset} although {known} was reached: "
            "the broker has lost its log or is another one; start this service again"
        )


async def _parse(batch: tuple[ConsumerRecord, ...]) -> StreamMessage[Any]:
    """FastStream's own parser decodes headers as UTF-8 and fails on the first foreign one; this one never raises."""
    return KafkaAckableMessage(
        raw_message=batch,
        body=b"",
        headers={},
        batch_headers=[],
        message_id=f"{batch[0].offset}-{batch[-1].offset}",
        consumer=FAKE_CONSUMER,
    )


async def _decode(message: StreamMessage[Any]) -> list[Record]:
    return [from_consumer(raw) for raw in message.raw_message]
