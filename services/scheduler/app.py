"""The scheduler as a service on the bus: everything in, placements and assignments out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import ClassVar

import structlog

from gpufleet.bus.alarm import Alarm
from gpufleet.bus.publisher import Acknowledgement, Failure
from gpufleet.bus.records import Record, trace_of
from gpufleet.bus.service import Bus, Service
from gpufleet.bus.shards import shard_of
from gpufleet.model.placement import AssignmentColumns, Placement, Version
from gpufleet.telemetry.metrics import values
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import (
    assignment_key,
    dump_assignment,
    dump_assignments,
    dump_history,
    dump_placement,
    split_assignment_key,
)
from services.scheduler.core import events as ev
from services.scheduler.core.decide import decide
from services.scheduler.core.outputs import AssignmentWrite, HistoryEntry, Outputs, PlacementWrite
from services.scheduler.core.state import State
from services.scheduler.history import history
from services.scheduler.intake import Intake
from services.scheduler.settings import SchedulerSettings

log = structlog.get_logger("gpufleet.scheduler")

# Fine around the targets: 25 ms on Apache Kafka, 40 ms on the embedded broker.
_PLACEMENT_BUCKETS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# Seconds after a decision until its history is written: the placement is acknowledged by then.
_HISTORY_DELAY = 0.01


class SchedulerService(Service):
    """One active instance; the others keep warm tables."""

    name: ClassVar[str] = "scheduler"
    reads: ClassVar[Sequence[str]] = (
        "clusters",
        "policies",
        "workloads",
        "scales",
        "inventory",
        "placements",
        "assignments",
        "observations",
        "evictions",
    )
    leads: ClassVar[bool] = True
    keeps_log_id: ClassVar[bool] = True

    def __init__(self, settings: SchedulerSettings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._clock = clock
        self._state = State(settings.core())
        self._queue: deque[list[ev.Event]] = deque()  # what one record means stays together
        self._epoch: int | None = None
        self._alarm = Alarm(self._decide)
        self._traces: dict[str, dict[str, str]] = {}  # workload: trace headers of its newest record
        self._arrived: dict[str, float] = {}  # submitted, no placement sent yet: the record's time
        self._counters: dict[str, float] = {}
        self._histories: deque[HistoryEntry] = deque()  # of decisions that are sent
        self._history_due = asyncio.Event()

    def bind(self, bus: Bus) -> None:
        """Adds metrics."""
        super().bind(bus)
        self._intake = Intake(bus.registry, bus.dead_letters.reject)
        self._own = frozenset(bus.registry.names(("placements", "assignments")))
        self._decisions = bus.metrics.histogram("decision_seconds", "Time that one batch of events takes to decide")
        self._waits = bus.metrics.histogram(
            "placement_seconds",
            "From a workload's record to the broker's acknowledgement of its placement",
            buckets=_PLACEMENT_BUCKETS,
        )
        bus.metrics.counter_of("outcomes", "What became of decisions", lambda: values(self._counters), ("outcome",))
        bus.metrics.gauge_of("queued_events", "Events that wait for a decision", lambda: [((), len(self._queue))])
        bus.metrics.gauge_of("workloads", "Workloads by verdict", lambda: values(self._state.verdicts()), ("verdict",))
        bus.metrics.gauge_of("active", "1 while this instance decides", lambda: [((), float(self._epoch is not None))])
        bus.metrics.gauge_of(
            "node_classes_in_doubt",
            "Node classes of which no further nodes are counted on, because some did not come",
            lambda: values(Counter(cluster for cluster, _ in self._state.doubts)),
            ("cluster",),
        )

    # -- records in ----------------------------------------------------------------------------------------------

    async def caught_up(self) -> None:
        """Begins to keep the history."""
        self.bus.spawn(self._keep_history(), "history")

    def on_records(self, records: list[Record]) -> None:
        """Turns records into events; the active instance decides on them a few milliseconds later."""
        workloads = self.bus.registry.name("workloads")
        for record in records:
            events = [] if self._is_echo(record) else self._intake.events(record)
            if events:
                self._queue.append(events)
            if record.topic == workloads and record.key:
                self._submitted(record, record.key)
        if self._epoch is None:
            self._absorb()
        elif self._queue:
            self._alarm.within(self.settings.coalesce)

    def _is_echo(self, record: Record) -> bool:
        """Whether a record is one that this instance wrote in its present term: that says nothing new."""
        return record.topic in self._own and record.value is not None and record.epoch == self._epoch is not None

    def _submitted(self, record: Record, key: str) -> None:
        """Remembers what the decision carries along, and when its clock began."""
        if "traceparent" in record.headers:
            self._traces[key] = trace_of([record])
        if self._epoch is not None and record.value is not None:
            self._arrived[key] = record.timestamp

    def _absorb(self) -> None:
        """An instance that stands by only keeps its tables."""
        events = [event for group in self._queue for event in group]
        self._queue.clear()
        decide(self._state, events, self._clock())

    # -- leadership ----------------------------------------------------------------------------------------------

    def activated(self, epoch: int) -> None:
        """The tables are read to their end: reconcile, then decide on what comes."""
        self._epoch = epoch
        log.info("scheduler.activated", epoch=epoch)
        self._queue.append([ev.Started(epoch, self.bus.epochs.log_id or "")])
        self._alarm.within(0.0)

    def deactivated(self, reason: str) -> None:
        """Stops deciding; the tables stay warm."""
        log.info("scheduler.deactivated", reason=reason)
        self._epoch = None
        self._alarm.cancel()
        self._histories.clear()
        self._queue.append([ev.Stopped()])
        self._absorb()

    async def stopping(self) -> None:
        """Decides nothing more, and writes down what it has decided."""
        self._epoch = None
        self._alarm.cancel()
        while self._histories:
            self._send_history(self._histories.popleft())

    # -- decisions out -------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        if self._epoch is None:
            return
        events: list[ev.Event] = []
        while self._queue and len(events) < self.settings.batch:
            events += self._queue.popleft()
        events = events or [ev.Tick()]
        now, begun = self._clock(), time.perf_counter()
        out = decide(self._state, events, now)
        self._decisions.observe(time.perf_counter() - begun)
        self._write(out)
        if self._queue:
            self._alarm.within(0.0)
            return
        self._arrived.clear()  # what was submitted and needed no new placement
        if out.wake_at is not None:
            self._alarm.within(max(0.001, out.wake_at - now))

    def _write(self, out: Outputs) -> None:
        """Placements first, then assignments: a crash between the two is healed on start."""
        for name, by in out.counters.items():
            self._counters[name] = self._counters.get(name, 0) + by
        if out.deposed_by is not None:
            log.warning("scheduler.deposed", by=out.deposed_by)
            return
        for placement in out.placements:
            self._send_placement(placement)
        for assignment in out.written():
            if isinstance(assignment, AssignmentColumns):
                self._send_assignments(assignment)
            else:
                self._send_assignment(assignment)
        if out.history:
            self._histories.extend(out.history)
            self._history_due.set()

    async def _keep_history(self) -> None:
        """Writes down what decisions were derived from, when these are sent: it takes longer than to decide."""
        while True:
            await self._history_due.wait()
            self._history_due.clear()
            await asyncio.sleep(_HISTORY_DELAY)
            while self._histories:
                self._send_history(self._histories.popleft())
                await asyncio.sleep(0)

    def _send_history(self, entry: HistoryEntry) -> None:
        try:
            value = dump_history(history(entry))
        except RecordError as error:
            log.warning("history.left_out", workload=entry.workload, error=str(error))
            return
        self._send("history", entry.workload, value, *entry.version)

    def _send_placement(self, write: PlacementWrite) -> None:
        placement = write.placement
        value = None if placement is None else dump_placement(placement)
        sent = self._send("placements", write.workload, value, *write.version, trace=write.workload)
        arrived = self._arrived.pop(write.workload, None)
        if placement is None:
            self._traces.pop(write.workload, None)
        else:
            sent.add_done_callback(lambda done: self._placed(placement, arrived, done))

    def _placed(self, placement: Placement, arrived: float | None, sent: asyncio.Future[Acknowledgement]) -> None:
        """The broker has a placement, unless it was not acknowledged: the publisher tells of that."""
        if sent.cancelled() or sent.exception() is not None:
            return
        waited = {}
        if arrived is not None:
            waited["seconds"] = round(max(0.0, self._clock() - arrived), 6)
            self._waits.observe(waited["seconds"])
        log.info(
            "workload.placed",
            workload=placement.workload,
            verdict=placement.verdict.value,
            placed=placement.placed,
            unplaced=placement.unplaced,
            clusters={s.cluster: s.replicas for s in placement.shares},
            **waited,
        )

    def _send_assignment(self, write: AssignmentWrite) -> None:
        value = None if write.assignment is None else dump_assignment(write.assignment)
        self._send_to(write.cluster, write.workload, value, write.version)

    def _send_assignments(self, columns: AssignmentColumns) -> None:
        common = columns.common
        for cluster, value in zip(columns.clusters, dump_assignments(columns), strict=True):
            self._send_to(cluster, common.workload, value, common.version)

    def _send_to(self, cluster: str, workload: str, value: bytes | None, version: Version) -> None:
        key = assignment_key(cluster, workload)
        shard = shard_of(cluster, self.bus.registry["assignments"].partitions)
        self._send("assignments", key, value, *version, shard=shard, trace=workload)

    def _send(
        self,
        topic: str,
        key: str,
        value: bytes | None,
        epoch: int,
        version: int,
        *,
        shard: int | None = None,
        trace: str = "",
    ) -> asyncio.Future[Acknowledgement]:
        headers = self._traces.get(trace)
        return self.bus.publisher.send(
            topic, key, value, epoch=epoch, version=version, partition=shard, headers=headers
        )

    def publish_failed(self, failure: Failure) -> None:
        """Writes the present truth about the key again, after a pause."""
        if self._epoch is None:
            return
        topic = self.bus.registry[failure.topic].short
        if topic in ("placements", "assignments"):
            asyncio.get_running_loop().call_later(1.0, self._write_again, topic, failure.key)

    def _write_again(self, topic: str, key: str) -> None:
        if self._epoch is None:
            return
        if topic == "placements":
            self._send_placement(self._state.placement_write(key))
        else:
            cluster, workload = split_assignment_key(key)
            self._send_assignment(self._state.assignment_write(workload, cluster))
