"""Tables: whole topics, read from the beginning by every instance and kept up to date.

`OwnedFeed` (a share of a by-cluster topic) and `Leadership` are in their own modules and can be imported from here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from aiokafka import TopicPartition

from gpufleet.bus.broker import FleetBroker
from gpufleet.bus.leadership import Leadership
from gpufleet.bus.owned import OwnedFeed
from gpufleet.bus.reader import FeedFailed, Reader, Sink
from gpufleet.bus.settings import KafkaSettings

_LOOK: Final = 0.01

__all__ = ["FeedFailed", "Leadership", "OwnedFeed", "Sink", "TableFeed"]


class TableFeed(Reader):
    """Reads `topics` (names on the broker) without a group, from the beginning, and goes on for ever.

    Make it before `broker.start()`, which starts the reading. The sink is called in the event loop with up to 1,000
    records at a time, in offset order per partition; between topics there is no order.
    """

    def __init__(self, broker: FleetBroker, topics: Sequence[str], sink: Sink, settings: KafkaSettings) -> None:
        super().__init__(broker, topics, sink, settings)
        self._begun = False
        self._caught_up = False
        self._first: asyncio.Task[None] | None = None

    @property
    def is_caught_up(self) -> bool:
        """Whether the sink has seen everything that was there at the first call of `caught_up`."""
        return self._caught_up

    async def caught_up(self) -> None:
        """Wait until the sink has everything that was in the topics when this was called first.

        Raises FeedFailed. Use `asyncio.timeout` for a limit.
        """
        if self._caught_up:
            self.check()
            return
        if self._first is None:
            self._first = asyncio.create_task(self.barrier())
        await asyncio.shield(self._first)
        self._caught_up = True

    async def barrier(self) -> None:
        """Wait until the sink has everything that is in the topics now: reads what was acknowledged before the call.

        Raises FeedFailed.
        """
        await self._started()
        await self.reach(await self.end_offsets(self._partitions()))

    async def watch(self, interval: float = 5.0) -> None:
        """Run until the feed fails, and raise FeedFailed.

        Looks every `interval` seconds whether the log still reaches as far as it was read: Apache Kafka tells a reader
        beyond the end, which then starts anew; the embedded broker lets it wait, for ever after a restart. And whether
        the topics are still there: aiokafka goes on without those that are not.
        """
        await self._started()
        gone: set[str] = set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self.failed()
            try:
                before, gone = gone, set(self.topics) - {partition.topic for partition in self._partitions()}
                if gone & before:  # twice, as a broker that starts may not know everything yet
                    raise FeedFailed(f"the broker has no topic {', '.join(sorted(gone & before))} any more")
                await self.end_offsets(self._partitions())
            except FeedFailed as error:
                self._fail(error)
                raise

    async def _started(self) -> None:
        while not self._begun:
            self.check()
            self._begun = self.consumer is not None and bool(self.consumer.assignment())
            if not self._begun:  # FastStream is starting it
                await asyncio.sleep(_LOOK)

    def _partitions(self) -> list[TopicPartition]:
        consumer = self.consumer
        return [] if consumer is None else sorted(consumer.assignment())
