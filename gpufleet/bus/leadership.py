"""One active instance of a service: the group says who is alive, the highest claim says who decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiokafka import TopicPartition

from gpufleet.bus.broker import FleetBroker
from gpufleet.bus.epochs import EpochTable, claim_key
from gpufleet.bus.ownership import Claimer, Ownership
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings


class LeaderSink(Protocol):
    """What a service with one active instance does. Called from the event loop, must not block."""

    def activated(self, epoch: int) -> None:
        """This instance decides, and its tables hold everything up to its claim. Called again with a higher epoch,
        without `deactivated` in between, when a rebalance left the leadership here."""

    def deactivated(self, reason: str) -> None:
        """Another instance decides, or this one may have been replaced. Stop; go on reading."""


class Leadership(Ownership):
    """A member of the group `<prefix>gpufleet.<service>` on the epochs topic, which has one partition.

    Becoming active: publish a claim (key: the service); its offset is the epoch; then `barrier` (of the service's
    tables: take the end offsets and read to them); then `sink.activated`. Everybody follows the claims in the epochs
    table: a higher claim of another instance deactivates this one at once, whatever the group says.
    """

    def __init__(
        self,
        broker: FleetBroker,
        epochs_topic: str,
        sink: LeaderSink,
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
            [epochs_topic],
            settings,
            group=f"{settings.topic_prefix}gpufleet.{service}",
            service=service,
            instance=instance,
            epochs=epochs,
            claim=claim,
            barrier=barrier,
            key_of=lambda _: claim_key(service),
        )
        self._leader_sink = sink

    @property
    def active(self) -> bool:
        return 0 in self.held

    @property
    def epoch(self) -> int:
        """The epoch of this instance while it is active, else -1."""
        return self.held.get(0, -1)

    def may_send(self, shard: int | None = None) -> bool:  # noqa: ARG002  leadership has no shards
        """Whether this instance may send now: active, not deposed, last heartbeat at most 2/3 of a session ago."""
        return super().may_send(0)

    def _assigned_now(self) -> None:
        # Membership is what counts; the claims are read with the service's other tables.
        self.consumer.pause(TopicPartition(self.topics[0], 0))

    def _taken(self, shard: int, epoch: int) -> None:  # noqa: ARG002
        self._leader_sink.activated(epoch)

    def _dropped(self, shard: int, reason: str) -> None:  # noqa: ARG002
        self._leader_sink.deactivated(reason)

    def _deliver(self, records: list[Record]) -> None:
        pass
