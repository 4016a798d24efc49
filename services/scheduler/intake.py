"""From records to events: the only place where the scheduler reads the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gpufleet.bus.records import Record
from gpufleet.bus.topics import Registry
from gpufleet.model import kinds, names
from gpufleet.model.kinds import KindError
from gpufleet.model.manifest import pack, packed
from gpufleet.model.placement import Placement, Version
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.staging import Staging
from gpufleet.wire.documents import Freeze, read_policy
from gpufleet.wire.errors import RecordError, RecordReason
from gpufleet.wire.records import (
    parse_assignment,
    parse_cluster,
    parse_eviction,
    parse_inventory,
    parse_observation,
    parse_placement,
    parse_policy,
    parse_scale,
    parse_workload,
    split_assignment_key,
    take_kind,
)
from gpufleet.wire.records_base import check_key_present
from services.scheduler.core import events as ev

Reject = Callable[[Record, RecordError], None]
# So many editions of policies are read once for all placements that carry them.
_EDITIONS = 256


class Intake:
    """Keeps what is needed between records: unclosed snapshots. Bad records go to ``reject``; the rest goes on."""

    def __init__(self, registry: Registry, reject: Reject) -> None:
        self._registry = registry
        self._reject = reject
        self._staging = Staging()
        # Workloads of kinds that are, or may come to be, declared: read again when a declaration changes.
        self._declared: dict[str, Record] = {}
        # Policies that placements carry, by what the placements say of them; of many the last.
        self._editions: dict[str, PropagationPolicy | None] = {}

    def events(self, record: Record) -> list[ev.Event]:
        """Returns what a record means; nothing for one that cannot be read and says nothing about a workload."""
        topic = self._registry[record.topic].short
        try:
            return self._read(topic, record, check_key_present(record))
        except RecordError as error:
            self._reject(record, error)
            if topic == "workloads" and record.key:
                # It counts as present: nothing is deleted because of a typing error.
                return [ev.WorkloadUnreadable(record.key, str(error), record.offset)]
            return []

    def _read(self, topic: str, record: Record, key: str) -> list[ev.Event]:
        gone = record.value is None
        match topic:
            case "clusters":
                if gone:
                    return [ev.ClusterRemoved(key)]
                # A broker may give no time (-1).
                at = record.timestamp if record.timestamp > 0 else None
                return [ev.ClusterRegistered(parse_cluster(record).spec, at)]
            case "policies":
                return self._policy(record, key)
            case "workloads":
                if gone:
                    self._declared.pop(key, None)
                return [ev.WorkloadDeleted(key, record.offset) if gone else self._workload(record, key)]
            case "scales":
                return [ev.Scaled(key, None if gone else parse_scale(record).replicas)]
            case "inventory":
                return self._inventory(record, key)
            case "placements":
                return [self._placement(key, _version(record), None if gone else parse_placement(record))]
            case "assignments":
                cluster, workload = _split(record, key)
                assignment = None if gone else parse_assignment(record)
                if assignment is not None:
                    assignment = replace(assignment, manifest=pack(assignment.manifest))
                return [ev.AssignmentRead(workload, cluster, _version(record), assignment)]
            case "observations":
                cluster, workload = _split(record, key)
                return [ev.ObservationGone(workload, cluster) if gone else ev.Observed(parse_observation(record))]
            case "evictions":
                return [ev.EvictionGone(key) if gone else ev.Evicted(parse_eviction(record))]
        return []

    def _policy(self, record: Record, key: str) -> list[ev.Event]:
        if key == names.FREEZE_KEY:
            return [ev.FreezeChanged(record.value is not None)]
        if record.value is None:
            return [] if key.startswith(names.KIND_PREFIX) and take_kind(record) else [ev.PolicyRemoved(key)]
        policy = parse_policy(record)
        if isinstance(policy, kinds.Declaration):
            return self._again() if kinds.declare(policy) else []
        return [] if policy is None or isinstance(policy, Freeze) else [ev.PolicyChanged(policy)]

    def _placement(self, key: str, version: Version, placement: Placement | None) -> ev.Event:
        """Reads the policy that a placement carries, once for all that carry the same."""
        if placement is None or placement.edition is None:
            return ev.PlacementRead(key, version, placement)
        stamp = dict(placement.inputs).get("policy", "")
        if stamp not in self._editions:
            try:
                policy, _ = read_policy(placement.edition)
            except KindError:
                policy = None
            if len(self._editions) >= _EDITIONS:
                del self._editions[next(iter(self._editions))]
            self._editions[stamp] = policy if isinstance(policy, PropagationPolicy) else None
        edition = self._editions[stamp]
        if edition is not None:
            placement = replace(placement, edition=edition.manifest)
        return ev.PlacementRead(key, version, placement, edition)

    def _workload(self, record: Record, key: str) -> ev.Event:
        self._declared.pop(key, None)
        try:
            workload = parse_workload(record)
        except RecordError as error:
            if error.reason in (RecordReason.UNKNOWN_KIND, RecordReason.UNSUPPORTED_VERSION):
                self._declared[key] = record
            raise
        if not kinds.builtin(workload.api_version, workload.kind):
            self._declared[key] = record
        return ev.WorkloadSubmitted(packed(workload))

    def _again(self) -> list[ev.Event]:
        """Reads again what depends on declared kinds; what still cannot be read is as it was."""
        found: list[ev.Event] = []
        for record in list(self._declared.values()):
            try:
                found.append(ev.WorkloadSubmitted(packed(parse_workload(record))))
            except RecordError:
                continue
        return found

    def _inventory(self, record: Record, key: str) -> list[ev.Event]:
        if record.value is None:
            if "/" in key:
                return []  # the closing record says what belongs to the snapshot
            self._staging.gone(key)
            return [ev.InventoryGone(key)]
        closed = self._staging.take(parse_inventory(record))
        if closed is None:
            return []
        cluster = closed.inventory.cluster
        return [
            *(ev.PodsChanged(pods) for pods in closed.pods),
            *(ev.PodsGone(cluster, workload) for workload in closed.pods_gone),
            ev.InventoryChanged(closed.inventory),
        ]


def _version(record: Record) -> Version:
    return Version(record.epoch or 0, record.version or 0)


def _split(record: Record, key: str) -> tuple[str, str]:
    try:
        return split_assignment_key(key)
    except ValueError as error:
        raise RecordError(RecordReason.KEY_MISMATCH, "", f"{record.topic}: {error}", "see proto/README.md") from None
