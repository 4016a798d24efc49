"""Decisions and what became of them: the messages of `placement.proto`, `assignment.proto`, `observation.proto` and
`eviction.proto`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    Awaited,
    ClusterCap,
    ClusterShare,
    DispatchRecord,
    Eviction,
    FailureClass,
    Observation,
    ObservedPhase,
    Placement,
    Slot,
    Source,
    UnitWait,
    Variant,
    Version,
    WorkloadHealth,
)
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.wire.records_base import (
    Count,
    Counts,
    Int32,
    Offset,
    Pairs,
    Struct,
    Text,
    Time,
    Wire,
    compact,
    render_time,
    time_or_none,
)

# --- gpufleet.placements ----------------------------------------------------------------------------------------


class SlotMessage(Wire):
    """`Slot`: pods of a component on a node class."""

    component: Text
    node_class: str = ""
    count: Count = 0
    source: Source
    unit: Count | None = None
    variant: str = ""


class UnitWaitMessage(Wire):
    """`UnitWait`: pods wait for room in a unit."""

    cluster: Text
    unit: str = ""
    since: Time = 0.0


class ClusterShareMessage(Wire):
    """`ClusterShare`: one cluster's part."""

    cluster: Text
    components: Counts = ()
    slots: tuple[SlotMessage, ...] = ()


class ReasonMessage(Wire):
    """`Reason`: why, with numbers."""

    code: Code
    message: str = ""
    cluster: str = ""
    needs: str = ""


class PlacementMessage(Wire):
    """`Placement`: the decision about one workload."""

    workload: Text
    epoch: Count = 0
    version: Count = 0
    verdict: Verdict
    replicas: Count = 0
    shares: tuple[ClusterShareMessage, ...] = ()
    reasons: tuple[ReasonMessage, ...] = ()
    policy: str = ""
    uid: str = ""
    workload_version: Offset = 0
    inputs: Pairs = ()
    decided_at: Time = 0.0
    queue_position: Count | None = None
    leaving: tuple[str, ...] = ()
    arrival: Offset = 0
    job: bool = False
    movable: bool = False
    redispatch_user_failures: bool = False
    min_member: Count | None = None
    unit_waits: tuple[UnitWaitMessage, ...] = ()
    edition: Struct | None = None
    queue: str = ""
    priority: Int32 = 0
    waiting_since: Time | None = None
    group: str = ""

    def to_model(self) -> Placement:
        """Returns the domain's placement."""
        return Placement(
            workload=self.workload,
            version=Version(self.epoch, self.version),
            verdict=self.verdict,
            replicas=self.replicas,
            shares=tuple(
                ClusterShare(
                    share.cluster,
                    share.components,
                    tuple(Slot(s.component, s.node_class, s.count, s.source, s.unit, s.variant) for s in share.slots),
                )
                for share in self.shares
            ),
            reasons=tuple(Reason(r.code, r.message, r.cluster, r.needs) for r in self.reasons),
            policy=self.policy,
            uid=self.uid,
            workload_version=int(self.workload_version),
            inputs=self.inputs,
            decided_at=self.decided_at,
            queue_position=self.queue_position,
            leaving=self.leaving,
            arrival=int(self.arrival),
            job=self.job,
            movable=self.movable,
            redispatch_user_failures=self.redispatch_user_failures,
            min_member=self.min_member,
            unit_waits=tuple(UnitWait(w.cluster, w.unit, w.since) for w in self.unit_waits),
            edition=self.edition,
            queue=self.queue,
            priority=self.priority,
            waiting_since=self.waiting_since,
            group=self.group,
        )


def placement_object(placement: Placement, *, parts: bool = True) -> dict[str, Any]:
    """Returns the message as a plain object, with or without its shares and reasons."""
    value = compact(
        {
            "workload": placement.workload,
            "epoch": placement.version.epoch,
            "version": placement.version.version,
            "verdict": placement.verdict.value,
            "replicas": placement.replicas,
            "shares": [share_object(share) for share in placement.shares] if parts else None,
            "reasons": [reason_object(reason) for reason in placement.reasons] if parts else None,
            "policy": placement.policy,
            "uid": placement.uid,
            "workloadVersion": placement.workload_version,
            "inputs": dict(placement.inputs),
            "decidedAt": time_or_none(placement.decided_at),
            "leaving": placement.leaving,
            "arrival": placement.arrival,
            "job": placement.job,
            "movable": placement.movable,
            "redispatchUserFailures": placement.redispatch_user_failures,
            "queue": placement.queue,
            "priority": placement.priority,
            "group": placement.group,
            "unitWaits": [
                compact({"cluster": w.cluster, "unit": w.unit, "since": time_or_none(w.since)})
                for w in placement.unit_waits
            ],
        }
    )
    if placement.queue_position is not None:
        value["queuePosition"] = placement.queue_position
    if placement.waiting_since is not None:
        value["waitingSince"] = render_time(placement.waiting_since)
    if placement.min_member is not None:
        value["minMember"] = placement.min_member
    if placement.edition is not None:
        value["edition"] = placement.edition
    return value


def share_object(share: ClusterShare) -> dict[str, Any]:
    """Returns a share as a plain object."""
    value: dict[str, Any] = {"cluster": share.cluster}
    if share.components:
        value["components"] = dict(share.components)
    if share.slots:
        value["slots"] = slots_array(share.slots)
    return value


def slots_array(slots: Iterable[Slot]) -> list[dict[str, Any]]:
    """Returns the slots of a share as a plain array."""
    return [_slot_object(slot) for slot in slots]


def _slot_object(slot: Slot) -> dict[str, Any]:
    value: dict[str, Any] = {"component": slot.component, "source": slot.source.value}
    if slot.node_class:
        value["nodeClass"] = slot.node_class
    if slot.count:
        value["count"] = slot.count
    if slot.unit is not None:
        value["unit"] = slot.unit
    if slot.variant:
        value["variant"] = slot.variant
    return value


def reason_object(reason: Reason) -> dict[str, Any]:
    """Returns a reason as a plain object."""
    return compact(
        {"code": reason.code.value, "message": reason.message, "cluster": reason.cluster, "needs": reason.needs}
    )


# --- gpufleet.assignments ---------------------------------------------------------------------------------------


class AwaitedMessage(Wire):
    """`Awaited`: a copy that must be gone."""

    cluster: Text
    epoch: Count = 0
    version: Count = 0
    incarnation: str = ""


class VariantMessage(Wire):
    """`Variant`: a further object, for the pods of another unit."""

    unit: str = ""
    name: Text
    components: Counts = ()
    patches: tuple[Struct, ...] = ()
    overrides: tuple[Struct, ...] = ()


class AssignmentMessage(Wire):
    """`Assignment`: one cluster's work order."""

    workload: Text
    cluster: Text
    epoch: Count = 0
    version: Count = 0
    state: AssignmentState
    manifest: Struct = Field(default_factory=dict)
    components: Counts = ()
    division: Counts = ()
    patches: tuple[Struct, ...] = ()
    overrides: tuple[Struct, ...] = ()
    uid: str = ""
    waits_for: tuple[AwaitedMessage, ...] = ()
    job: bool = False
    conflict_overwrite: bool = False
    preserve_on_deletion: bool = False
    create_namespaces: bool = False
    suspended: bool = False
    orphan: bool = False
    incarnation: str = ""
    unit: str = ""
    variants: tuple[VariantMessage, ...] = ()

    def to_model(self) -> Assignment:
        """Returns the domain's assignment."""
        return Assignment(
            workload=self.workload,
            cluster=self.cluster,
            version=Version(self.epoch, self.version),
            state=self.state,
            manifest=self.manifest,
            components=self.components,
            division=self.division,
            patches=self.patches,
            overrides=self.overrides,
            uid=self.uid,
            waits_for=tuple(Awaited(a.cluster, Version(a.epoch, a.version), a.incarnation) for a in self.waits_for),
            job=self.job,
            conflict_overwrite=self.conflict_overwrite,
            preserve_on_deletion=self.preserve_on_deletion,
            create_namespaces=self.create_namespaces,
            suspended=self.suspended,
            orphan=self.orphan,
            incarnation=self.incarnation,
            unit=self.unit,
            variants=tuple(Variant(v.unit, v.name, v.components, v.patches, v.overrides) for v in self.variants),
        )


def assignment_object(assignment: Assignment) -> dict[str, Any]:
    """Returns the message as a plain object."""
    return compact(
        {
            "workload": assignment.workload,
            "cluster": assignment.cluster,
            "epoch": assignment.version.epoch,
            "version": assignment.version.version,
            "state": assignment.state.value,
            "manifest": assignment.manifest,
            "components": dict(assignment.components),
            "division": dict(assignment.division),
            "patches": assignment.patches,
            "overrides": assignment.overrides,
            "uid": assignment.uid,
            "waitsFor": [
                compact(
                    {
                        "cluster": awaited.cluster,
                        "epoch": awaited.version.epoch,
                        "version": awaited.version.version,
                        "incarnation": awaited.incarnation,
                    }
                )
                for awaited in assignment.waits_for
            ],
            "job": assignment.job,
            "conflictOverwrite": assignment.conflict_overwrite,
            "preserveOnDeletion": assignment.preserve_on_deletion,
            "createNamespaces": assignment.create_namespaces,
            "suspended": assignment.suspended,
            "orphan": assignment.orphan,
            "incarnation": assignment.incarnation,
            "unit": assignment.unit,
            "variants": [
                compact(
                    {
                        "unit": v.unit,
                        "name": v.name,
                        "components": dict(v.components),
                        "patches": v.patches,
                        "overrides": v.overrides,
                    }
                )
                for v in assignment.variants
            ],
        }
    )


# --- gpufleet.observations --------------------------------------------------------------------------------------


class ObservationMessage(Wire):
    """`Observation`: what a cluster made of an assignment."""

    workload: Text
    cluster: Text
    epoch: Count = 0
    version: Count = 0
    phase: ObservedPhase
    incarnation: str = ""
    health: WorkloadHealth = WorkloadHealth.UNKNOWN
    failure: FailureClass = FailureClass.NONE
    ready: Count = 0
    code: str = ""
    message: str = ""
    observed_at: Time = 0.0
    object_uid: str = ""
    status: Struct = Field(default_factory=dict)

    def to_model(self) -> Observation:
        """Returns the domain's observation."""
        return Observation(
            workload=self.workload,
            cluster=self.cluster,
            version=Version(self.epoch, self.version),
            phase=self.phase,
            incarnation=self.incarnation,
            health=self.health,
            failure=self.failure,
            ready=self.ready,
            code=self.code,
            message=self.message,
            observed_at=self.observed_at,
            object_uid=self.object_uid,
            status=self.status,
        )


def observation_object(observation: Observation) -> dict[str, Any]:
    """Returns the message as a plain object."""
    return compact(
        {
            "workload": observation.workload,
            "cluster": observation.cluster,
            "epoch": observation.version.epoch,
            "version": observation.version.version,
            "phase": observation.phase.value,
            "incarnation": observation.incarnation,
            "health": observation.health.value,
            "failure": observation.failure.value,
            "ready": observation.ready,
            "code": observation.code,
            "message": observation.message,
            "observedAt": time_or_none(observation.observed_at),
            "objectUid": observation.object_uid,
            "status": observation.status,
        }
    )


# --- gpufleet.evictions -----------------------------------------------------------------------------------------


class ClusterCapMessage(Wire):
    """`ClusterCap`: bounds a workload's replicas in a cluster."""

    cluster: Text
    max_replicas: Count = 0
    until: Time
    code: Text
    message: str = ""
    node_classes: tuple[Text, ...] = ()


class DispatchRecordMessage(Wire):
    """`DispatchRecord`: one past stay of a job in a cluster."""

    cluster: Text
    start: Time
    end: Time
    reason: str = ""


class EvictionMessage(Wire):
    """`Eviction`: the rescheduler's whole word about a workload."""

    workload: Text
    judged_epoch: Count = 0
    judged_version: Count = 0
    caps: tuple[ClusterCapMessage, ...] = ()
    attempts: Count = 0
    history: tuple[DispatchRecordMessage, ...] = ()
    not_before: Time = 0.0
    give_up: bool = False
    at: Time = 0.0

    def to_model(self) -> Eviction:
        """Returns the domain's eviction."""
        return Eviction(
            workload=self.workload,
            judged=Version(self.judged_epoch, self.judged_version),
            caps=tuple(
                ClusterCap(c.cluster, c.max_replicas, c.until, c.code, c.message, c.node_classes) for c in self.caps
            ),
            attempts=self.attempts,
            history=tuple(DispatchRecord(h.cluster, h.start, h.end, h.reason) for h in self.history),
            not_before=self.not_before,
            give_up=self.give_up,
            at=self.at,
        )


def eviction_object(eviction: Eviction) -> dict[str, Any]:
    """Returns the message as a plain object."""
    return compact(
        {
            "workload": eviction.workload,
            "judgedEpoch": eviction.judged.epoch,
            "judgedVersion": eviction.judged.version,
            "caps": [
                compact(
                    {
                        "cluster": cap.cluster,
                        "maxReplicas": cap.max_replicas,
                        "until": render_time(cap.until),
                        "code": cap.code,
                        "message": cap.message,
                        "nodeClasses": list(cap.node_classes),
                    }
                )
                for cap in eviction.caps
            ],
            "attempts": eviction.attempts,
            "history": [
                compact(
                    {
                        "cluster": stay.cluster,
                        "start": render_time(stay.start),
                        "end": render_time(stay.end),
                        "reason": stay.reason,
                    }
                )
                for stay in eviction.history
            ],
            "notBefore": time_or_none(eviction.not_before),
            "giveUp": eviction.give_up,
            "at": time_or_none(eviction.at),
        }
    )
