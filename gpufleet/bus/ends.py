"""Where logs end, asked in a way that is right on every broker and does not wait.

`AIOKafkaConsumer.end_offsets` (ListOffsets) has two faults for us. The embedded broker answers with the first offset
of the last batch plus one, and of two batches that were written at the same time it may take the wrong one for the
last. And the question goes over the connection on which a fetch is waiting: the broker answers it only after that.
So this asks with a fetch of next to nothing, on a connection of its own, and takes the end that the answer tells.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, KafkaTimeoutError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

_RETRY: Final = 0.1
_WAIT_MS: Final = 32
_READ_COMMITTED: Final = 1


class Ends:
    """One connection for questions. `open` before use, `close` at the end."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options`: of the client, as `broker.client_options` gives them."""
        self._options = dict(options)
        self._client: AIOKafkaClient | None = None
        self._topics: set[str] = set()

    async def open(self) -> None:
        self._client = AIOKafkaClient(**self._options)
        await self._client.bootstrap()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def ask(
        self, positions: Mapping[TopicPartition, int], *, committed: bool
    ) -> dict[TopicPartition, int | None]:
        """The end of each partition, given an offset in it (any; best the one that would be read next).

        `committed`: the last stable offset instead of the high watermark. None where the broker does not have that
        offset: it is before the begin or beyond the end. Waits for a broker that is away. The topics must exist.
        """
        answers: dict[TopicPartition, int | None] = {}
        wait_ms = 1
        while open_ := {partition: offset for partition, offset in positions.items() if partition not in answers}:
            client = self._client
            if client is None:
                raise ConnectionError("the connection to Kafka is closed")
            await self._know(client, {partition.topic for partition in open_})
            by_leader: dict[int, dict[TopicPartition, int]] = defaultdict(dict)
            for partition, offset in open_.items():
                leader = client.cluster.leader_for_partition(partition)
                if leader is not None and leader >= 0:
                    by_leader[leader][partition] = offset
            requests = [
                _ask_leader(client, leader, offsets, committed, wait_ms) for leader, offsets in by_leader.items()
            ]
            for found in await asyncio.gather(*requests):
                answers.update(found)
            if len(answers) < len(positions):
                wait_ms = min(2 * wait_ms, _WAIT_MS)
                if wait_ms == _WAIT_MS:
                    await asyncio.sleep(_RETRY)
                    await client.force_metadata_update()
        return answers

    async def _know(self, client: AIOKafkaClient, topics: set[str]) -> None:
        if not topics <= self._topics:
            self._topics |= topics
            await client.set_topics(self._topics)


async def _ask_leader(
    client: AIOKafkaClient, leader: int, positions: Mapping[TopicPartition, int], committed: bool, wait_ms: int
) -> dict[TopicPartition, int | None]:
    """The answers of one broker; partitions that must be asked again are left out."""
    topics: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for partition, offset in positions.items():
        topics[partition.topic].append((partition.partition, offset, 1))
    request = FetchRequest(
        # The embedded broker answers a wait of 0, and on a busy machine one of 1, without any partition.
        max_wait_time=wait_ms,
        min_bytes=0,
        max_bytes=1,
        isolation_level=_READ_COMMITTED if committed else 0,
        topics=list(topics.items()),
    )
    try:
        response = await client.send(leader, request)
    except KafkaError as error:
        if not (error.retriable or isinstance(error, KafkaTimeoutError)):
            raise
        return {}
    answers: dict[TopicPartition, int | None] = {}
    for topic, partitions in response.topics:
        for number, code, highwater, *rest in partitions:
            error_type = for_code(code)
            if not code:
                stable = rest[0] if committed and response.API_VERSION >= 4 else -1
                answers[TopicPartition(topic, number)] = stable if stable >= 0 else highwater
            elif error_type is OffsetOutOfRangeError:
                answers[TopicPartition(topic, number)] = None
            elif not error_type.retriable:
                raise error_type(f"{topic}/{number}")
    return answers
