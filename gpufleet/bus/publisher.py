"""Ordered, batched publishing that says what was not acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from gpufleet.bus.broker import FleetBroker
from gpufleet.bus.records import event_headers, raw
from gpufleet.bus.topics import Registry

log = structlog.get_logger("gpufleet.bus")

Guard = Callable[[int | None], bool]
"""Whether a record for this partition (None: the topic has one) may be sent now."""

_FAILURES_KEPT: Final = 10_000


class RecordTooLarge(ValueError):
    """A record above the limit of its topic (512 KiB for what outsiders write); refused before it is sent."""


class NotInCharge(RuntimeError):
    """The guard forbade the record at the moment of sending: this instance may have been replaced."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Where a record is. `offset` below 0: written, but the broker did not say where."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that was not acknowledged. It may have been written nevertheless."""

    topic: str
    key: str
    error: BaseException


class PublishError(RuntimeError):
    """Records were not acknowledged. The caller sends the present truth about `failures`' keys again."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        self.failures = tuple(failures)
        first = self.failures[0]
        cause = str(first.error) or type(first.error).__name__
        more = f" and {len(self.failures) - 1} more" if len(self.failures) > 1 else ""
        super().__init__(f"not acknowledged: {first.topic} {first.key!r}{more}: {cause}")

    @property
    def keys(self) -> frozenset[tuple[str, str]]:
        """(topic, key) of every record that failed."""
        return frozenset((failure.topic, failure.key) for failure in self.failures)


class _Text(str):
    """A header whose bytes need not be UTF-8 (see `records`). FastStream calls `encode()`, which would refuse them."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        return super().encode(encoding, errors)


@dataclass(slots=True, eq=False)
class _Item:
    topic: str
    key: str
    value: bytes | None
    partition: int | None
    headers: dict[str, str]
    guard: Guard | None
    done: asyncio.Future[Acknowledgement] = field(repr=False)


class Publisher:
    """Sends records in the order of `send`, without waiting for each; `flush` waits for all.

    `send` is synchronous, so that a sink or a core's shell can use it; a task hands the records to FastStream
    (`publish(no_confirm=True)`), one after the other, since concurrent sends could change places when aiokafka's
    buffer is full. What aiokafka has accepted before the guard turned false may still go out when a broker returns;
    it carries the old epoch, which readers ignore.
    """

    def __init__(
        self,
        broker: FleetBroker,
        registry: Registry,
        *,
        source: str,
        guard: Guard | None = None,
        on_failure: Callable[[Failure], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`source`: the CloudEvents source, for example `gpufleet/scheduler`. `guard` holds for every record that
        brings none of its own. `on_failure` hears of each failure when it happens, whether or not somebody flushes."""
        self.guard = guard
        self.sent = 0
        self.failed = 0
        self._broker = broker
        self._registry = registry
        self._source = source
        self._on_failure = on_failure
        self._clock = clock
        self._queue: deque[_Item] = deque()
        self._open: set[_Item] = set()
        self._failures: deque[Failure] = deque(maxlen=_FAILURES_KEPT)
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """Records that are not acknowledged yet."""
        return len(self._open)

    def send(
        self,
        topic: str,
        key: str,
        value: bytes | None,
        *,
        epoch: int | None = None,
        version: int | None = None,
        partition: int | None = None,
        headers: Mapping[str, str] | None = None,
        guard: Guard | None = None,
        plain: bool = False,
    ) -> asyncio.Future[Acknowledgement]:
        """Queue a record; `value` None is a tombstone. `topic` in any form that the registry knows.

        `partition` is needed for by-cluster topics (`shard_of`). `headers` are added to the CloudEvents ones and win;
        `plain` leaves the CloudEvents ones out. The future is done with the acknowledgement, or with the error that
        `on_failure` and `flush` tell of as well; it must not be cancelled, and nobody has to look at it. Raises
        RecordTooLarge, RegistryError, or ValueError for an empty key or a missing partition.
        """
        return self._queue_item(topic, key, value, epoch, version, partition, headers, guard, plain).done

    async def confirm(
        self,
        topic: str,
        key: str,
        value: bytes | None,
        *,
        epoch: int | None = None,
        version: int | None = None,
        partition: int | None = None,
        headers: Mapping[str, str] | None = None,
        guard: Guard | None = None,
    ) -> Acknowledgement:
        """Send one record behind those that are queued and wait for it. Raises PublishError; `flush` does not again."""
        item = self._queue_item(topic, key, value, epoch, version, partition, headers, guard, plain=False)
        try:
            return await asyncio.shield(item.done)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failures = deque((f for f in self._failures if f.error is not error), maxlen=_FAILURES_KEPT)
            raise PublishError([Failure(item.topic, key, error)]) from error

    async def flush(self) -> None:
        """Wait until everything queued before this call is acknowledged or has failed.

        Raises PublishError with all failures since the last flush. An idempotent producer waits for a broker that is
        away; limit it with `asyncio.timeout` where that matters, and then assume nothing of what was written.
        """
        waiting = [item.done for item in self._open]
        if waiting:
            await asyncio.wait(waiting)
        if self._failures:
            failures = list(self._failures)
            self._failures.clear()
            raise PublishError(failures)

    async def stop(self) -> None:
        """Stop sending; what is queued fails. Flush before."""
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
            self._pump = None
        while self._queue:
            self._finish(self._queue.popleft(), NotInCharge("the publisher was stopped"))

    def _queue_item(
        self,
        topic: str,
        key: str,
        value: bytes | None,
        epoch: int | None,
        version: int | None,
        partition: int | None,
        headers: Mapping[str, str] | None,
        guard: Guard | None,
        plain: bool,
    ) -> _Item:
        known = self._registry[topic]
        if not key:
            raise ValueError(f"a record of {known.name} needs a key: its identity")
        if known.partitions > 1 and partition is None:
            raise ValueError(f"{known.name} is partitioned by cluster: give the partition (shard_of)")
        if value is not None and len(value) > known.max_bytes:
            raise RecordTooLarge(
                f"the record {key!r} for {known.name} has {len(value)} bytes, the limit is {known.max_bytes}: "
                "make it smaller, for example by moving large data to a ConfigMap or an image"
            )
        item = _Item(
            topic=known.name,
            key=key,
            value=value,
            partition=partition if known.partitions > 1 else 0,
            headers=dict(headers or {})
            if plain
            else event_headers(
                topic=known.name,
                key=key,
                source=self._source,
                type_=known.message,
                time=self._clock(),
                epoch=epoch,
                version=version,
                extra=headers,
            ),
            guard=guard or self.guard,
            done=asyncio.get_running_loop().create_future(),
        )
        self._open.add(item)
        self._queue.append(item)
        self._wake.set()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name="publisher")
        return item

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._hand_over(self._queue.popleft())

    async def _hand_over(self, item: _Item) -> None:
        if item.guard is not None and not item.guard(item.partition):
            self._finish(item, NotInCharge("not in charge any more: no heartbeat in time, or a higher claim"))
            return
        try:
            future: asyncio.Future[Any] = await self._broker.publish(
                item.value,
                topic=item.topic,
                key=raw(item.key),
                partition=item.partition,
                headers={name: _Text(value) for name, value in item.headers.items()},
                # Else FastStream makes up a random one.
                correlation_id=_Text(item.headers.get("ce_id", item.key)),
                no_confirm=True,
            )
        except asyncio.CancelledError:
            self._finish(item, NotInCharge("the publisher was stopped"))
            raise
        except Exception as error:
            self._finish(item, error)
        else:
            future.add_done_callback(lambda done: self._acknowledged(item, done))

    def _acknowledged(self, item: _Item, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self._finish(item, NotInCharge("the producer was closed"))
        elif (error := future.exception()) is not None:
            self._finish(item, error)
        else:
            place = future.result()
            self.sent += 1
            self._open.discard(item)
            if not item.done.done():
                item.done.set_result(Acknowledgement(item.topic, place.partition, place.offset))

    def _finish(self, item: _Item, error: BaseException) -> None:
        self.failed += 1
        self._open.discard(item)
        failure = Failure(item.topic, item.key, error)
        if not self._failures:  # one line until the next flush, which names them all
            log.warning("bus.publish.failed", topic=item.topic, key=item.key, error=str(error) or repr(error))
        self._failures.append(failure)
        if not item.done.done():
            item.done.set_exception(error)
            item.done.exception()  # flush reports it; the future itself may have no reader
        if self._on_failure is not None:
            self._on_failure(failure)
