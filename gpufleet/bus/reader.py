"""A FastStream batch subscriber that hands `Record`s to a synchronous sink and knows how far it has read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, KafkaTimeoutError
from faststream import AckPolicy
from faststream._internal.endpoint.subscriber.utils import MultiLock
from faststream.kafka import KafkaBroker
from faststream.kafka.message import FAKE_CONSUMER, KafkaAckableMessage
from faststream.kafka.subscriber.usecase import BatchSubscriber
from faststream.message import StreamMessage

from gpufleet.bus.assignor import ShardAssignor
from gpufleet.bus.records import Record, from_consumer
from gpufleet.bus.settings import KafkaSettings

Sink = Callable[[list[Record]], None]
"""Takes records in offset order per partition. What it raises is a bug and stops the reader for good."""

MAX_RECORDS: Final = 1000
_LOOK: Final = 0.01
_RETRY: Final = 0.2
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
        broker: KafkaBroker,
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
        self._stops_on_reset = group is None
        self._isolation = settings.isolation
        self._ends: dict[TopicPartition, int] = {}
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

    @property
    def consumer(self) -> Any:
        """The aiokafka consumer; None before the broker is started and after it is stopped."""
        return self.subscriber.consumer

    @property
    def failure(self) -> BaseException | None:
        return self._failure

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
        """The end offsets now, for `reach`; waits for a broker that is away.

        Under read_committed they are the last stable ones. The embedded broker answers with the first offset of the
        last batch plus one; `reach` knows. Raises FeedFailed where an end is lower than in an earlier answer.
        """
        while partitions:
            self.check()
            known = dict(self._ends)  # before the question: another one may be answered meanwhile
            try:
                ends: dict[TopicPartition, int] = await self.consumer.end_offsets(list(partitions))
            except KafkaError as error:
                # A time-out is not `retriable` to aiokafka; to a reader it is a broker that is away for longer.
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise
                await asyncio.sleep(_RETRY)
            else:
                for partition, end in ends.items():
                    if self._stops_on_reset:
                        _check_not_before(partition, end, known.get(partition, 0))
                    self._ends[partition] = max(end, self._ends.get(partition, 0))
                return ends
        return {}

    async def reach(self, ends: Mapping[TopicPartition, int]) -> None:
        """Wait until the sink has every record below `ends`, which `end_offsets` gave. Raises FeedFailed."""
        behind = dict(ends)
        whole: set[TopicPartition] = set()
        while True:
            self.check()
            for partition in list(behind):
                while await self._has_reached(partition, behind[partition]):
                    # The answer may point into the last batch: what brought its first record told the true end too.
                    told = self._told_end(partition)
                    if partition in whole or told is None or told <= behind[partition]:
                        del behind[partition]
                        break
                    whole.add(partition)
                    behind[partition] = told
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

    def _told_end(self, partition: TopicPartition) -> int | None:
        """The end that the last fetch of the partition told."""
        consumer = self.consumer
        if consumer is None or partition not in consumer.assignment():
            return None
        committed = self._isolation == "read_committed"
        end: int | None = (consumer.last_stable_offset if committed else consumer.highwater)(partition)
        return end

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
