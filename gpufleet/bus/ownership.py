"""Membership in a group, claims and epochs: what OwnedFeed and Leadership have in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from gpufleet.bus.broker import FleetBroker
from gpufleet.bus.epochs import EpochTable
from gpufleet.bus.lease import Lease
from gpufleet.bus.publisher import PublishError
from gpufleet.bus.reader import FeedFailed, Reader
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings

log = structlog.get_logger("gpufleet.bus")

Claimer = Callable[[str, int | None, Callable[[], bool]], Awaitable[int]]
"""Publishes a claim of (key, shard or None for leadership) if the guard holds, returns its offset, the epoch."""

_RETRY: Final = 0.5


class Ownership(Reader):
    """One member of a consumer group whose partitions are owned with an epoch.

    A shard goes: assigned by the group → claimed → prepared (read) → held. aiokafka revokes everything at each
    rebalance and hands out anew; what comes back to this member is claimed again under a higher epoch, without
    `_dropped` in between, and until then `may_send` is false for it. A shard is dropped when the group gives it to
    another one, when a higher claim of another instance is seen, or when there was no heartbeat for a whole session.
    If the group still says that it is ours some time later, it is taken again.
    """

    def __init__(
        self,
        broker: FleetBroker,
        topics: Sequence[str],
        settings: KafkaSettings,
        *,
        group: str,
        service: str,
        instance: str,
        epochs: EpochTable,
        claim: Claimer,
        barrier: Callable[[], Awaitable[None]],
        key_of: Callable[[int], str],
    ) -> None:
        super().__init__(
            broker, topics, self._on_batch, settings, group=group, listener=_Listener(self._revoked, self._assigned)
        )
        self.service = service
        self.instance = instance
        self.group = group
        self.lease = Lease(settings.session_timeout)
        self.held: dict[int, int] = {}
        self.assigned: frozenset[int] = frozenset()
        self._settings = settings
        self._epochs = epochs
        self._claim = claim
        self._barrier = barrier
        self._key_of = key_of
        self._current: set[int] = set()  # held under a claim of the present assignment
        self._live: set[int] = set()  # whose records go to the sink
        self._taking: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._stopped = False
        epochs.on_change(self._claim_seen)

    # What differs between shards and leadership.

    def _assigned_now(self) -> None:
        """The group has assigned something; called inside the rebalance, must not wait."""

    def _taken(self, shard: int, epoch: int) -> None:
        raise NotImplementedError

    def _dropped(self, shard: int, reason: str) -> None:
        raise NotImplementedError

    def _deliver(self, records: list[Record]) -> None:
        raise NotImplementedError

    async def _prepare(self, shards: Sequence[int], *, fresh: bool) -> None:  # noqa: ARG002
        """Read what must be known before the service acts; called when the claims are acknowledged."""
        await self._barrier()

    # For the service.

    def may_send(self, shard: int | None = None) -> bool:
        """Whether records for `shard` may be sent now: held under a claim of the present assignment, and the last
        heartbeat is at most 2/3 of the session time-out ago."""
        return shard in self._current and self.lease.safe and not self._stopped

    def epoch_of(self, shard: int) -> int:
        """The epoch of a shard that is held, else -1."""
        return self.held.get(shard, -1)

    @property
    def joined(self) -> bool:
        """Whether the group has accepted this member and heartbeats arrive."""
        return not self.lease.expired

    async def stop(self, reason: str = "stopping") -> None:
        """Give everything up; the group learns of it when the broker is stopped."""
        self._stopped = True
        for task in (self._ticker, self._taking):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        for shard in sorted(self.held):
            self._drop(shard, reason)

    # Callbacks of the group. They run inside the rebalance, which waits for them: so they only take note.

    def _revoked(self, _revoked: Collection[TopicPartition]) -> None:
        self._current.clear()
        self.assigned = frozenset()
        self._cancel_taking()

    def _assigned(self, assigned: Collection[TopicPartition]) -> None:
        if self._stopped:
            return
        self.lease.attach(self.consumer)
        self.lease.renew()
        self.assigned = frozenset(partition.partition for partition in assigned)
        log.debug("bus.assigned", group=self.group, shards=sorted(self.assigned))
        if assigned:
            self.rewind(assigned)  # before anything is fetched, which is after this
            self._assigned_now()
        for shard in sorted(set(self.held) - self.assigned):
            self._drop(shard, "given to another instance")
        self._cancel_taking()
        self._live &= self.assigned
        self._take(self.assigned, fresh=True)
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick(), name=f"{self.group} ownership")

    # Taking and dropping.

    def _take(self, shards: Collection[int], *, fresh: bool) -> None:
        if shards:
            self._live.update(shards)
            self._taking = asyncio.create_task(self._take_all(sorted(shards), fresh=fresh))

    async def _take_all(self, shards: Sequence[int], *, fresh: bool) -> None:
        """Claim all, then prepare all, then hold all. The task is cancelled by the next rebalance."""
        try:
            epochs = await asyncio.gather(*(self._claim_one(shard) for shard in shards))
            await self._prepare(shards, fresh=fresh)
        except (KafkaError, PublishError, ConnectionError) as error:
            log.warning("bus.take.failed", group=self.group, shards=list(shards), error=str(error) or repr(error))
            self._retry_at = asyncio.get_running_loop().time() + _RETRY
            self._taking = None
            return
        except FeedFailed:
            return  # whoever watches the feed stops the service
        except Exception as error:
            self._fail(error)
            log.exception("bus.take.failed", group=self.group, shards=list(shards))
            return
        for shard, epoch in zip(shards, epochs, strict=True):
            claim = self._epochs.highest(self._key_of(shard))
            if claim is not None and claim.epoch > epoch:
                if claim.instance != self.instance:
                    continue  # overtaken while we read; the ticker tries again if it is still ours
                epoch = claim.epoch  # a retry of the producer has written the claim twice
            self.held[shard] = epoch
            self._current.add(shard)
            log.info("bus.acquired", group=self.group, shard=shard, epoch=epoch)
            self._call(self._taken, shard, epoch)
        self._taking = None

    async def _claim_one(self, shard: int) -> int:
        return await self._claim(self._key_of(shard), shard, lambda: shard in self.assigned and self.lease.safe)

    def _drop(self, shard: int, reason: str) -> None:
        self._current.discard(shard)
        self._live.discard(shard)
        if self.held.pop(shard, None) is not None:
            log.info("bus.lost", group=self.group, shard=shard, reason=reason)
            self._call(self._dropped, shard, reason)

    def _claim_seen(self, key: str) -> None:
        for shard, epoch in list(self.held.items()):
            if self._key_of(shard) != key:
                continue
            claim = self._epochs.highest(key)
            if claim is not None and claim.instance != self.instance and claim.epoch > epoch:
                # Two instances that both believe in their group must not depose each other without end.
                self._retry_at = asyncio.get_running_loop().time() + self._settings.session_timeout / 3
                self._drop(shard, f"{claim.instance} has claimed it with epoch {claim.epoch}")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self._settings.heartbeat_interval / 2))
            if self.lease.expired:
                for shard in sorted(self.held):
                    self._drop(shard, f"no heartbeat for {self._settings.session_timeout:g} s")
            missing = self.assigned - self._current
            if missing and self.lease.safe and self._taking is None and loop.time() >= self._retry_at:
                self._take(missing, fresh=False)

    def _cancel_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _on_batch(self, records: list[Record]) -> None:
        live = [record for record in records if record.partition in self._live]
        if live:
            self._deliver(live)

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:
            self._fail(error)
            log.exception("bus.sink.failed", group=self.group)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(
        self,
        revoked: Callable[[Collection[TopicPartition]], None],
        assigned: Callable[[Collection[TopicPartition]], None],
    ) -> None:
        self._on_revoked = revoked
        self._on_assigned = assigned

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._on_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._on_assigned(assigned)
