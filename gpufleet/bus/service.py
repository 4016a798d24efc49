"""What a service is to the runner: its tables, what it owns or leads, and the means it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gpufleet.bus.broker import FleetBroker
from gpufleet.bus.dlq import DeadLetters
from gpufleet.bus.epochs import EpochTable
from gpufleet.bus.feed import TableFeed
from gpufleet.bus.leadership import Leadership
from gpufleet.bus.owned import OwnedFeed
from gpufleet.bus.publisher import Failure, Publisher
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry
from gpufleet.telemetry.health import Health
from gpufleet.telemetry.metrics import Metrics


@dataclass
class Bus:
    """What a service works with. `owned` is there for a service that owns shards, `leadership` for one that leads."""

    service: str
    instance: str
    settings: KafkaSettings
    registry: Registry
    broker: FleetBroker
    publisher: Publisher
    dead_letters: DeadLetters
    epochs: EpochTable
    tables: TableFeed
    health: Health
    metrics: Metrics
    spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
    """Run a coroutine (with a name) beside the service; if it raises, the service stops with that error."""
    owned: OwnedFeed | None = None
    leadership: Leadership | None = None
    background: set[asyncio.Task[None]] = field(default_factory=set)

    def may_send(self, shard: int | None = None) -> bool:
        """Whether the service may send now (for a shard, where it owns shards). The publisher's guard."""
        if self.leadership is not None:
            return self.leadership.may_send()
        return self.owned is not None and self.owned.may_send(shard)


class Service:
    """Base of the four services. All methods without `async` are called in the event loop and must not block.

    Order: `bind` → reading starts → `on_records` … → `caught_up` → (claim, read to the end) → `activated` or `acquired`
    → … → `stopping`. What is read before `activated`/`acquired` builds state only; decisions come after.
    """

    name: ClassVar[str]
    reads: ClassVar[Sequence[str]] = ()
    """Short names of the topics that every instance reads whole. `epochs` need not be named."""
    owns: ClassVar[Sequence[str]] = ()
    """By-cluster topics of which this instance owns a share; the same shards of each."""
    leads: ClassVar[bool] = False
    """Whether one instance is active and the others stand by."""

    keeps_log_id: ClassVar[bool] = False
    """Whether this service gives the log its id where there is none, when it becomes active. One service only."""

    bus: Bus

    def bind(self, bus: Bus) -> None:
        """Before anything starts: keep the bus, add health checks and metrics."""
        self.bus = bus

    def on_records(self, records: list[Record]) -> None:
        """Records of `reads`, in offset order per partition. What cannot be read: `bus.dead_letters.reject`."""

    async def caught_up(self) -> None:
        """Everything that was in `reads` at start has been seen. Start background work here."""

    def activated(self, epoch: int) -> None:
        """See `LeaderSink`."""

    def deactivated(self, reason: str) -> None:
        """See `LeaderSink`."""

    def on_shard_records(self, records: list[Record]) -> None:
        """See `ShardSink.on_records`."""

    def acquired(self, shard: int, epoch: int) -> None:
        """See `ShardSink`."""

    def lost(self, shard: int, reason: str) -> None:
        """See `ShardSink`."""

    def publish_failed(self, failure: Failure) -> None:
        """A record was not acknowledged: send the present truth about its key again when there is one."""

    async def stopping(self) -> None:
        """Finish what is under way, in some seconds at most. Then what was sent is flushed and the group is left."""
