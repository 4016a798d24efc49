"""The dispatcher as a service on the bus: assignments in, observations out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import structlog

from gpufleet.bus.epochs import LOG_KEY
from gpufleet.bus.publisher import Failure
from gpufleet.bus.records import Record, trace_of
from gpufleet.bus.service import Bus, Service
from gpufleet.bus.shards import shard_of
from gpufleet.model.log import ClusterRegistration
from gpufleet.model.names import FREEZE_KEY, KIND_PREFIX
from gpufleet.model.placement import Assignment, AssignmentState, Observation, ObservedPhase, Version
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import (
    assignment_key,
    dump_observation,
    parse_assignment,
    parse_cluster,
    parse_observation,
    split_assignment_key,
    take_kind,
)
from services.dispatcher.cluster import ClusterWorker
from services.dispatcher.core.table import ClusterTable
from services.dispatcher.hub import meters
from services.dispatcher.settings import DispatcherSettings

log = structlog.get_logger("gpufleet.dispatcher")

# Seconds between two looks at what the log holds, and until a record that has not come back counts as lost.
_MEND_EVERY = 1.0
_MEND_AFTER = 3.0


class DispatcherService(Service):
    """Owns a share of the clusters: those whose shard of the assignments topic is this instance's."""

    name: ClassVar[str] = "dispatcher"
    reads: ClassVar[Sequence[str]] = ("clusters", "policies")
    owns: ClassVar[Sequence[str]] = ("assignments", "observations")

    def __init__(self, settings: DispatcherSettings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._clock = clock
        self._registrations: dict[str, ClusterRegistration] = {}
        self._frozen = False
        self._epochs: dict[int, int] = {}  # owned shard: epoch
        self._tables: dict[str, ClusterTable] = {}  # by cluster, of shards that are owned or being taken
        self._workers: dict[str, tuple[ClusterWorker, asyncio.Task[None]]] = {}
        self._traces: dict[tuple[str, str], dict[str, str]] = {}

    def bind(self, bus: Bus) -> None:
        """Adds metrics, and waits for the log's id where it has none yet."""
        super().bind(bus)
        self._meters = meters(bus.metrics)
        self._sent = bus.metrics.counter("observations", "Observations that were published")
        bus.metrics.gauge_of(
            "queue_depth",
            "Workloads that wait to be looked at",
            lambda: [((name,), float(len(worker.queue))) for name, (worker, _) in sorted(self._workers.items())],
            ("cluster",),
        )
        bus.metrics.gauge_of(
            "assignments",
            "Assignments of owned clusters",
            lambda: [((name,), float(len(self._tables[name].assignments))) for name in sorted(self._workers)],
            ("cluster",),
        )
        bus.epochs.on_change(self._epoch_changed)

    # -- what workers see ----------------------------------------------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether nothing may be written to clusters."""
        return self._frozen

    @property
    def log_id(self) -> str:
        """The id of the log; empty while it has none."""
        return self.bus.epochs.log_id or ""

    @property
    def incarnations(self) -> dict[str, str]:
        """The clusters that have answered, and which ones they are."""
        return {name: worker.incarnation for name, (worker, _) in self._workers.items() if worker.incarnation}

    def may_write(self, cluster: str) -> bool:
        """Whether the cluster's shard is this instance's, so far as it can know at this moment."""
        shard = self._shard(cluster)
        return shard in self._epochs and self.bus.may_send(shard)

    def publish(self, observation: Observation) -> None:
        """Sends an observation, with the trace of its assignment."""
        cluster, workload = observation.cluster, observation.workload
        table = self._table(cluster)
        last = table.last(workload)
        table.said(observation, time.monotonic())
        self._send(
            cluster,
            workload,
            dump_observation(observation),
            observation.version,
            self._traces.get((cluster, workload)),
        )
        self._sent.inc()
        # Counts and healths of pods change all the time; who wants to follow them reads the topic.
        step = last is None or (last.version, last.phase, last.code) != (
            observation.version,
            observation.phase,
            observation.code,
        )
        (log.info if step else log.debug)(
            "assignment.observed",
            cluster=cluster,
            workload=workload,
            phase=observation.phase.value,
            health=observation.health.value,
            ready=observation.ready,
            code=observation.code,
        )

    def _send(
        self,
        cluster: str,
        workload: str,
        value: bytes | None,
        version: Version,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.bus.publisher.send(
            "observations",
            assignment_key(cluster, workload),
            value,
            epoch=version.epoch,
            version=version.version,
            partition=self._shard(cluster),
            headers=headers,
        )

    def publish_failed(self, failure: Failure) -> None:
        """What was not acknowledged is sent again by `_mend`."""
        if self.bus.registry[failure.topic].short != "observations":
            return
        try:
            cluster, workload = split_assignment_key(failure.key)
        except ValueError:
            return
        table = self._tables.get(cluster)
        if table is not None:
            table.sent_at[workload] = 0.0

    async def caught_up(self) -> None:
        """Begins to mend the topic."""
        self.bus.spawn(self._mend(), "mend observations")

    async def _mend(self) -> None:
        """Sends again what the log does not hold as it was said: not acknowledged, or overwritten by a late writer."""
        while True:
            await asyncio.sleep(_MEND_EVERY)
            before = time.monotonic() - _MEND_AFTER
            for cluster, table in sorted(self._tables.items()):
                if self.may_write(cluster):
                    for observation in table.unheard(before):
                        self.publish(observation)
                    for workload in table.unerased(before):
                        self._erase(table, workload)

    # -- tables that everybody reads -----------------------------------------------------------------------------

    def on_records(self, records: list[Record]) -> None:
        """Takes registrations, and whether the fleet is frozen."""
        clusters = self.bus.registry.name("clusters")
        for record in records:
            if record.topic == clusters:
                self._on_registration(record)
            elif record.key == FREEZE_KEY:
                self._freeze(record.value is not None)
            elif record.key is not None and record.key.startswith(KIND_PREFIX) and take_kind(record):
                for worker, _ in self._workers.values():
                    worker.look_at_all()

    def _freeze(self, frozen: bool) -> None:
        if frozen == self._frozen:
            return
        self._frozen = frozen
        log.warning("fleet.frozen" if frozen else "fleet.unfrozen")
        for worker, _ in self._workers.values():
            worker.look_at_all()

    def _on_registration(self, record: Record) -> None:
        if record.value is None:
            if record.key is not None and self._registrations.pop(record.key, None) is not None:
                self._stop(record.key)
                self._left(record.key)
            return
        try:
            registration = parse_cluster(record)
        except RecordError as error:
            # Not taken, and what was registered before stays: a record that cannot be read changes nothing.
            self.bus.dead_letters.reject(record, error)
            return
        before = self._registrations.get(registration.name)
        self._registrations[registration.name] = registration
        if before is None or before.access != registration.access:
            self._restart(registration.name)

    def _epoch_changed(self, key: str) -> None:
        if key == LOG_KEY:
            for worker, _ in self._workers.values():
                worker.look_at_all()

    # -- shards --------------------------------------------------------------------------------------------------

    def on_shard_records(self, records: list[Record]) -> None:
        """Takes assignments, and what the log holds of observations."""
        assignments = self.bus.registry.name("assignments")
        for record in records:
            try:
                if record.topic == assignments:
                    self._on_assignment(record)
                else:
                    self._on_observation(record)
            except RecordError as error:
                self.bus.dead_letters.reject(record, error)

    def _on_assignment(self, record: Record) -> None:
        if record.value is None:
            self._on_tombstone(record)
            return
        assignment = parse_assignment(record)
        table = self._table(assignment.cluster)
        if self._shard(assignment.cluster) != record.partition or not table.take(assignment):
            return
        self._traces.pop((assignment.cluster, assignment.workload), None)
        if trace := trace_of([record]):
            self._traces[assignment.cluster, assignment.workload] = trace
        worker = self._workers.get(assignment.cluster)
        if worker is not None:
            worker[0].assigned(assignment.workload)
        elif record.partition in self._epochs and assignment.cluster not in self._registrations:
            self._report_left(table, assignment)

    def _on_tombstone(self, record: Record) -> None:
        try:
            cluster, workload = split_assignment_key(record.key or "")
        except ValueError:
            return
        version = None if record.epoch is None or record.version is None else Version(record.epoch, record.version)
        table = self._table(cluster)
        if not table.bury(workload, version):
            return
        self._traces.pop((cluster, workload), None)
        worker = self._workers.get(cluster)
        if worker is not None:
            worker[0].forgotten(workload)
        if record.partition in self._epochs:
            self._erase(table, workload)

    def _on_observation(self, record: Record) -> None:
        if record.value is None:
            try:
                cluster, workload = split_assignment_key(record.key or "")
            except ValueError:
                return
            self._table(cluster).note(workload, None)
            return
        observation = parse_observation(record)
        self._table(observation.cluster).note(observation.workload, observation)

    def acquired(self, shard: int, epoch: int) -> None:
        """Works for the clusters of the shard."""
        self._epochs[shard] = epoch
        for cluster, table in sorted(self._tables.items()):
            if self._shard(cluster) != shard:
                continue
            for workload in sorted(table.seen.keys() - table.assignments.keys()):
                if table.buried(workload) is not None or table.seen[workload].phase is ObservedPhase.GONE:
                    self._erase(table, workload)
            if cluster not in self._registrations:
                self._left(cluster)
        for cluster in sorted(self._registrations):
            if self._shard(cluster) == shard and cluster not in self._workers:
                self._restart(cluster)

    def lost(self, shard: int, reason: str) -> None:
        """Stops working for the clusters of the shard, and forgets what it held."""
        del reason  # the bus has logged it
        self._epochs.pop(shard, None)
        for cluster in [c for c in self._tables if self._shard(c) == shard]:
            self._stop(cluster)
            del self._tables[cluster]
        for cluster in [c for c in self._workers if self._shard(c) == shard]:
            self._stop(cluster)
        for key in [k for k in self._traces if self._shard(k[0]) == shard]:
            del self._traces[key]

    async def stopping(self) -> None:
        """Finishes the writes under way and says what became of them."""
        await asyncio.gather(*(worker.stop() for worker, _ in self._workers.values()))
        tasks = [task for _, task in self._workers.values()]
        for cluster in list(self._workers):
            self._stop(cluster)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _erase(self, table: ClusterTable, workload: str) -> None:
        """Tombstones the observation of an assignment that is no more."""
        version = table.erase(workload, time.monotonic())
        if version is not None:
            self._send(table.cluster, workload, None, version)

    # -- clusters that are not there -----------------------------------------------------------------------------

    def _left(self, cluster: str) -> None:
        """A cluster is not registered (any more)."""
        table = self._tables.get(cluster)
        if table is None or self._shard(cluster) not in self._epochs:
            return
        for workload in sorted(table.assignments):
            self._report_left(table, table.assignments[workload])

    def _report_left(self, table: ClusterTable, assignment: Assignment) -> None:
        """A removal from a cluster that left the fleet is over, so that nothing waits for it for ever."""
        if assignment.state is not AssignmentState.REMOVING:
            return
        gone = Observation(
            workload=assignment.workload,
            cluster=assignment.cluster,
            version=assignment.version,
            phase=ObservedPhase.GONE,
            incarnation=assignment.incarnation,
            message="the cluster left the fleet",
            observed_at=self._clock(),
        )
        last = table.last(assignment.workload)
        if last is not None and replace(last, observed_at=gone.observed_at) == gone:
            return
        self.publish(gone)

    # -- workers -------------------------------------------------------------------------------------------------

    def _restart(self, cluster: str) -> None:
        if self._shard(cluster) not in self._epochs:
            return
        self._stop(cluster)
        worker = ClusterWorker(
            self._registrations[cluster], self._table(cluster), self, self.settings, self._meters, self._clock
        )
        self._workers[cluster] = (worker, asyncio.create_task(worker.run(), name=f"cluster {cluster}"))

    def _stop(self, cluster: str) -> None:
        worker = self._workers.pop(cluster, None)
        if worker is not None:
            worker[1].cancel()

    def _table(self, cluster: str) -> ClusterTable:
        return self._tables.setdefault(cluster, ClusterTable(cluster))

    def _shard(self, cluster: str) -> int:
        return shard_of(cluster, self.bus.registry["assignments"].partitions)
