"""A share of the shards: which instance owns which partition of a by-cluster topic, and since which epoch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiokafka import TopicPartition

from gpufleet.bus.broker import FleetBroker
from gpufleet.bus.epochs import EpochTable, claim_key
from gpufleet.bus.ownership import Claimer, Ownership
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings


class ShardSink(Protocol):
    """What an owner of shards does. All calls come from the event loop and must not block."""

    def on_records(self, records: list[Record]) -> None:
        """Records of shards that are owned or being taken, in offset order per partition. May repeat older ones."""

    def acquired(self, shard: int, epoch: int) -> None:
        """`shard` is ours since `epoch`, and everything in it up to the claim has been seen. Called again with a higher
        epoch, without `lost` in between, when a rebalance left the shard here."""

    def lost(self, shard: int, reason: str) -> None:
        """`shard` is not ours: stop working on it, forget its state. It is read from the beginning when it returns."""


class OwnedFeed(Ownership):
    """A member of the group `<prefix>gpufleet.<service>` on by-cluster `topics` (partition p of each goes together).

    Taking a shard: publish a claim (`gpufleet.epochs`, key `service/shard`); its offset is the epoch; then take the end
    offsets of the shard's partitions; read them from the beginning to there; the same for the service's tables
    (`barrier`); then `sink.acquired`. Offsets are never
    committed. `may_send(shard)` guards what is sent for it.
    """

    def __init__(
        self,
        broker: FleetBroker,
        topics: Sequence[str],
        sink: ShardSink,
        settings: KafkaSettings,
        *,
        service: str,
        instance: str,
        epochs: EpochTable,
        claim: Claimer,
        barrier: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(
            broker,
            topics,
            settings,
            group=f"{settings.topic_prefix}gpufleet.{service}",
            service=service,
            instance=instance,
            epochs=epochs,
            claim=claim,
            barrier=barrier,
            key_of=lambda shard: claim_key(service, shard),
        )
        self._shard_sink = sink

    def _taken(self, shard: int, epoch: int) -> None:
        self._shard_sink.acquired(shard, epoch)

    def _dropped(self, shard: int, reason: str) -> None:
        self._shard_sink.lost(shard, reason)

    def _deliver(self, records: list[Record]) -> None:
        self._shard_sink.on_records(records)

    async def _prepare(self, shards: Sequence[int], *, fresh: bool) -> None:
        partitions = [TopicPartition(topic, shard) for topic in self.topics for shard in shards]
        if not fresh:  # else the rebalance has rewound them
            self.rewind(partitions)
        await self.reach(await self.end_offsets(partitions))
        await self._barrier()
