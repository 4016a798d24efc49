"""The next step towards an assignment, from what the cluster really holds (rules 6, 7 and 8 of the design).

`next_step` is asked again after every step, with the objects read anew, until it answers `Done`. So a step that lost
a race, a crash between two steps, and a first attempt are all the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpufleet.kube.fencing import Stamp, fence_object, owned_by, stamp_of, stamped
from gpufleet.model import kinds, names
from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    FailureClass,
    Observation,
    ObservedPhase,
    WorkloadHealth,
)
from gpufleet.model.reasons import Code
from services.dispatcher.core import render

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the dispatcher knows besides the objects.

    ``log`` is the id of the log that it reads, ``incarnation`` the UID of the cluster's namespace kube-system,
    ``last`` the last observation that was published for this assignment's key.
    """

    log: str
    incarnation: str
    frozen: bool = False
    adopted_logs: frozenset[str] = frozenset()
    last: Observation | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """What the cluster holds, read just now. ``pods`` counts the workload's pods that have not ended.

    ``applied`` is the resourceVersion that our last write of this assignment was answered with: an object that still
    has it is as we want it, however the server writes it.
    """

    obj: Json | None = None
    fence: Json | None = None
    namespace: bool = True
    pods: int = 0
    applied: str = ""


@dataclass(frozen=True, slots=True)
class Create:
    """Create the object unless one exists."""

    obj: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """Apply the object if it is still ``live``."""

    obj: dict[str, Any]
    live: Json


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object if it is still ``live``."""

    live: Json
    foreground: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """Take our marks and the fence's ownership off the object if it is still ``live``; it stays, unmanaged."""

    live: Json


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    """Create the workload's namespace."""

    name: str


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing to do now. ``retry_after`` (seconds) asks to look again although nothing tells of a change."""

    phase: ObservedPhase
    health: WorkloadHealth = WorkloadHealth.UNKNOWN
    failure: FailureClass = FailureClass.NONE
    ready: int = 0
    code: str = ""
    message: str = ""
    object_uid: str = ""
    status: Json = field(default_factory=dict)
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Superseded:
    """The cluster holds a later decision: nothing is written and nothing is said."""

    by: Stamp


Step = Create | Update | Delete | Release | CreateNamespace | Done | Superseded
# How long until a removal is looked at again, in seconds, where no watch tells of the last pod.
_LOOK_AGAIN = 1.0


def next_step(assignment: Assignment, facts: Facts, live: Live) -> Step:
    """Returns what to do next for an assignment."""
    stamp = Stamp(facts.log, assignment.version.epoch, assignment.version.version)
    later = _later(stamp, live)
    if later is not None:
        return Superseded(later)
    if assignment.state is AssignmentState.WAITING:
        clusters = ", ".join(sorted({w.cluster for w in assignment.waits_for}))
        return _pending(Code.WAITING_FOR_REMOVAL, f"waits until its copy in {clusters} is gone")
    if facts.frozen:
        return _pending(Code.FROZEN, "the fleet is frozen: gpufleet unfreeze lets it go on")
    if assignment.state is AssignmentState.REMOVING:
        return _remove(assignment, facts, live)
    if assignment.incarnation and assignment.incarnation != facts.incarnation:
        return _pending(
            Code.INVENTORY_STALE,
            "the cluster is not the one that was decided on (another kube-system UID); waits for a new decision",
        )
    if assignment.suspended:
        return _pending(Code.SUSPENDED, "the policy suspends dispatching")
    try:
        return _activate(assignment, facts, live, stamp)
    except render.RenderError as error:
        return Done(ObservedPhase.REFUSED, code=Code.DISPATCH_REFUSED, message=str(error))


def _activate(assignment: Assignment, facts: Facts, live: Live, stamp: Stamp) -> Step:
    if not live.namespace:
        if assignment.create_namespaces:
            return CreateNamespace(render.namespace_of(assignment.workload))
        return _pending(
            Code.NAMESPACE_MISSING,
            f"namespace {render.namespace_of(assignment.workload)} does not exist in {assignment.cluster}; create it "
            "there, or set createNamespaces: true in the policy",
        )
    conflict = _conflict(assignment, facts, live)
    if conflict is not None:
        return conflict
    if assignment.job:
        return _activate_job(assignment, facts, live, stamp)
    if live.obj is None:
        return Create(stamped(render.render(assignment), stamp))
    if _deleting(live.obj):
        return _pending(Code.WAITING_FOR_REMOVAL, "an earlier copy is still being deleted", _LOOK_AGAIN)
    wanted = stamped(render.render(assignment), stamp)
    return Update(wanted, live.obj) if _drifted(wanted, live) else observed(live.obj)


def _activate_job(assignment: Assignment, facts: Facts, live: Live, stamp: Stamp) -> Step:
    """A job starts behind its fence: fence, then the suspended object that it owns, then another look, then go."""
    last = facts.last
    if (
        live.obj is None
        and last is not None
        and last.version == assignment.version
        and last.health in (WorkloadHealth.SUCCEEDED, WorkloadHealth.FAILED)
    ):
        return Done(last.phase, last.health, last.failure, last.ready, last.code, last.message, last.object_uid)
    if live.fence is None:
        namespace = render.namespace_of(assignment.workload)
        name = render.fence_name(assignment.workload)
        return Create(dict(fence_object(name, namespace, stamp, render.marks(assignment.workload))))
    if _deleting(live.fence) or (live.obj is not None and _deleting(live.obj)):
        return _pending(Code.WAITING_FOR_REMOVAL, "an earlier copy is still being deleted", _LOOK_AGAIN)
    suspendable = render.starts_suspended(assignment.manifest)
    if live.obj is None:
        return Create(stamped(owned_by(render.render(assignment, suspend=suspendable or None), live.fence), stamp))
    if not _owned(live.obj, live.fence):
        if _stale_copy(live.obj):
            return Delete(live.obj, foreground=True)
        return Update(stamped(owned_by(render.render(assignment), live.fence), stamp), live.obj)
    ended = observed(live.obj)
    if ended.health in (WorkloadHealth.SUCCEEDED, WorkloadHealth.FAILED):
        return ended
    wanted = stamped(owned_by(render.render(assignment, suspend=False if suspendable else None), live.fence), stamp)
    return Update(wanted, live.obj) if _drifted(wanted, live) else ended


def _remove(assignment: Assignment, facts: Facts, live: Live) -> Step:
    if assignment.incarnation and assignment.incarnation != facts.incarnation:
        return Done(ObservedPhase.GONE, message="the cluster was replaced by a new one")
    ours = live.obj is not None and _ours(live.obj, facts)
    if assignment.orphan or assignment.preserve_on_deletion:
        if ours and live.obj is not None:
            return Release(live.obj)
        if live.fence is not None and _ours(live.fence, facts):
            return Delete(live.fence)
        return Done(ObservedPhase.GONE, message="left in the cluster, no longer managed")
    if live.fence is not None and _ours(live.fence, facts):
        if not _deleting(live.fence):
            return Delete(live.fence)
        return _pending(Code.WAITING_FOR_REMOVAL, "its fence is being deleted", _LOOK_AGAIN)
    if ours and live.obj is not None:
        if not _deleting(live.obj):
            return Delete(live.obj, foreground=assignment.job)
        return _pending(Code.WAITING_FOR_REMOVAL, "it is being deleted", _LOOK_AGAIN)
    if assignment.job and live.pods and live.obj is None:
        return _pending(Code.WAITING_FOR_REMOVAL, f"{live.pods} of its pods have not ended yet", _LOOK_AGAIN)
    return Done(ObservedPhase.GONE)


def observed(obj: Json) -> Done:
    """Returns what an applied object's status says."""
    status = kinds.status(obj)
    return Done(
        ObservedPhase.APPLIED,
        status.health,
        status.failure,
        status.ready,
        message=status.message,
        object_uid=str(obj.get("metadata", {}).get("uid", "")),
        status=obj.get("status") or {},
    )


def _later(stamp: Stamp, live: Live) -> Stamp | None:
    """Returns the stamp of a later decision of the same log that the cluster holds, or None."""
    for obj in (live.fence, live.obj):
        found = stamp_of(obj) if obj is not None else None
        if found is not None and found.log == stamp.log and not found.allows(stamp):
            return found
    return None


def _conflict(assignment: Assignment, facts: Facts, live: Live) -> Done | None:
    if live.obj is None or _ours(live.obj, facts) or assignment.conflict_overwrite:
        return None
    found = stamp_of(live.obj)
    owner = f"by another log ({found.log}); gpufleet adopt takes it over" if found else "by somebody else"
    return Done(
        ObservedPhase.REFUSED,
        code=Code.CONFLICT,
        message=f"{assignment.workload} exists in {assignment.cluster} and is managed {owner}; delete it there, or set "
        "conflictResolution: Overwrite in the policy",
    )


def _ours(obj: Json, facts: Facts) -> bool:
    found = stamp_of(obj)
    return found is not None and (found.log == facts.log or found.log in facts.adopted_logs)


def _drifted(wanted: Json, live: Live) -> bool:
    assert live.obj is not None
    version = live.obj.get("metadata", {}).get("resourceVersion")
    return version != live.applied and render.differs(wanted, live.obj)


def _owned(obj: Json, fence: Json) -> bool:
    uid = fence.get("metadata", {}).get("uid")
    return any(o.get("uid") == uid for o in obj.get("metadata", {}).get("ownerReferences") or ())


def _stale_copy(obj: Json) -> bool:
    """Whether an object of ours names another fence: a copy from before the last removal, not to be revived."""
    return stamp_of(obj) is not None and any(
        str(o.get("name", "")).startswith("gpufleet-fence-")
        for o in obj.get("metadata", {}).get("ownerReferences") or ()
    )


def _deleting(obj: Json) -> bool:
    return bool(obj.get("metadata", {}).get("deletionTimestamp"))


def _pending(code: Code, message: str, retry_after: float | None = None) -> Done:
    return Done(ObservedPhase.PENDING, code=code, message=message, retry_after=retry_after)


def release_patch(obj: Json) -> dict[str, Any]:
    """Returns the merge patch that takes our marks off an object, bound to the version that was read."""
    metadata = obj.get("metadata", {})
    owners = [
        o for o in metadata.get("ownerReferences") or () if not str(o.get("name", "")).startswith("gpufleet-fence-")
    ]
    return {
        "metadata": {
            "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
            "labels": {names.WORKLOAD_LABEL: None},
            "annotations": {names.WORKLOAD_ANNOTATION: None, names.VERSION_ANNOTATION: None},
            "ownerReferences": owners or None,
        }
    }


def observation(assignment: Assignment, done: Done, facts: Facts, now: float) -> Observation:
    """Returns the record of a finished look."""
    return Observation(
        workload=assignment.workload,
        cluster=assignment.cluster,
        version=assignment.version,
        phase=done.phase,
        incarnation=facts.incarnation,
        health=done.health,
        failure=done.failure,
        ready=done.ready,
        code=done.code,
        message=done.message,
        observed_at=now,
        object_uid=done.object_uid,
        status=done.status,
    )
