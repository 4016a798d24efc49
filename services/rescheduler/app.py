"""The rescheduler as a service on the bus: placements, inventory and observations in, evictions out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import structlog

from gpufleet.bus.alarm import Alarm
from gpufleet.bus.publisher import Failure
from gpufleet.bus.records import Record
from gpufleet.bus.service import Bus, Service
from gpufleet.model import names
from gpufleet.model.placement import Eviction, Version
from gpufleet.model.staging import Staging
from gpufleet.telemetry.metrics import values
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import (
    dump_eviction,
    parse_eviction,
    parse_inventory,
    parse_observation,
    parse_placement,
    split_assignment_key,
)
from services.rescheduler.core import State, decide
from services.rescheduler.core import events as ev
from services.rescheduler.settings import ReschedulerSettings

log = structlog.get_logger("gpufleet.rescheduler")

_COALESCE = 0.02  # seconds: what belongs together arrives within it, and nothing here is in a hurry


class ReschedulerService(Service):
    """One active instance; the others keep warm tables."""

    name: ClassVar[str] = "rescheduler"
    reads: ClassVar[Sequence[str]] = ("placements", "inventory", "observations", "evictions", "policies")
    leads: ClassVar[bool] = True

    def __init__(self, settings: ReschedulerSettings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._clock = clock
        self._staging = Staging()
        self._events: list[ev.Event] = []
        self._state = State(limits=settings.limits())
        self._epoch: int | None = None
        self._alarm = Alarm(self._decide)
        self._moved: dict[str, float] = {}
        self._held_back = 0

    def bind(self, bus: Bus) -> None:
        """Adds metrics."""
        super().bind(bus)
        bus.metrics.counter_of(
            "evictions", "Cluster shares that were evicted, by reason", lambda: values(self._moved), ("reason",)
        )
        bus.metrics.counter_of("held_back", "Moves that the fleet-wide rate put off", lambda: [((), self._held_back)])
        bus.metrics.gauge_of(
            "pending_workloads", "Workloads with unschedulable pods", lambda: [((), len(self._state.pending))]
        )

    def on_records(self, records: list[Record]) -> None:
        """Turns records into events; the active instance decides on them shortly after."""
        for record in records:
            try:
                self._take(record)
            except RecordError as error:
                self.bus.dead_letters.reject(record, error)
        if self._epoch is None:
            events, self._events = self._events, []
            decide(self._state, events, self._clock(), active=False)
        elif self._events:
            self._alarm.within(_COALESCE)

    def _take(self, record: Record) -> None:
        topic, key, value = self.bus.registry[record.topic].short, record.key, record.value
        if topic == "policies":
            if key == names.FREEZE_KEY:
                self._events.append(ev.FreezeChanged(value is not None))
            return
        if key is None:
            return
        if topic == "inventory":
            self._take_inventory(record, key)
        elif topic == "placements":
            placement = None if value is None else parse_placement(record)
            self._events.append(ev.PlacementChanged(key, placement, _version(record)))
        elif topic == "evictions":
            self._events.append(ev.EvictionRead(key, None if value is None else parse_eviction(record)))
        else:
            cluster, workload = _split(key)
            self._events.append(ev.Observed(cluster, workload, None if value is None else parse_observation(record)))

    def _take_inventory(self, record: Record, key: str) -> None:
        if record.value is None:
            if "/" not in key:
                self._staging.gone(key)
                self._events.append(ev.ClusterChanged(key, None))
            return
        closed = self._staging.take(parse_inventory(record))
        if closed is None:
            return
        cluster = closed.inventory.cluster
        self._events.append(ev.ClusterChanged(cluster, closed.inventory))
        self._events += [ev.PodsChanged(cluster, p.workload, p) for p in closed.pods]
        self._events += [ev.PodsChanged(cluster, w, None) for w in closed.pods_gone]

    # -- deciding ------------------------------------------------------------------------------------------------

    def activated(self, epoch: int) -> None:
        """The tables are read to their end: act from here on."""
        self._epoch = epoch
        self._alarm.within(0.0)

    def deactivated(self, reason: str) -> None:
        """Stops deciding; the tables stay warm."""
        log.info("rescheduler.deactivated", reason=reason)
        self._epoch = None
        self._alarm.cancel()

    def _decide(self) -> None:
        if self._epoch is None:
            return
        events, self._events = self._events, []
        now = self._clock()
        out = decide(self._state, events, now)
        for eviction in out.evictions:
            self._send(eviction.workload, eviction)
            log.info(
                "workload.evicted",
                workload=eviction.workload,
                clusters=[cap.cluster for cap in eviction.caps],
                reasons=sorted({cap.code for cap in eviction.caps}),
                attempts=eviction.attempts,
                give_up=eviction.give_up,
            )
        for workload in out.forget:
            self._send(workload, None)
        for reason, count in out.moved.items():
            self._moved[reason] = self._moved.get(reason, 0) + count
        self._held_back += out.held_back
        if out.wake_at is not None:
            self._alarm.within(max(0.0, out.wake_at - now))

    def _send(self, workload: str, eviction: Eviction | None) -> None:
        value = None if eviction is None else dump_eviction(eviction)
        version = None if eviction is None else eviction.judged.version
        self.bus.publisher.send("evictions", workload, value, epoch=self._epoch, version=version)

    def publish_failed(self, failure: Failure) -> None:
        """Sends what is known of the workload again."""
        if self._epoch is None:
            return
        tracked = self._state.tracked.get(failure.key)
        self._send(failure.key, tracked.eviction if tracked else None)

    async def stopping(self) -> None:
        """Decides nothing more."""
        self._epoch = None
        self._alarm.cancel()


def _version(record: Record) -> Version | None:
    return None if record.epoch is None or record.version is None else Version(record.epoch, record.version)


def _split(key: str) -> tuple[str, str]:
    try:
        return split_assignment_key(key)
    except ValueError:
        return "", key
