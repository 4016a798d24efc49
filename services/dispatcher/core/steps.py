"""The next step towards an assignment, from what the cluster really holds (rules 6, 7 and 8 of the design).

`next_step` is asked again after every step, with the objects read anew, until it answers `Done`. So a step that lost
a race, a crash between two steps, and a first attempt are all the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

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
class Baseline:
    """What we applied last, and the server's answer: how it writes what we want."""

    sent: Json
    answer: Json


@dataclass(frozen=True, slots=True)
class Live:
    """What the cluster holds. ``pods`` counts the workload's pods that have not ended."""

    obj: Json | None = None
    fence: Json | None = None
    namespace: bool = True
    pods: int = 0
    baseline: Baseline | None = None


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


Write = Create | Update | Delete | Release | CreateNamespace
Step = Write | Done | Superseded
# How long until something is looked at again, in seconds, where no watch tells of a change.
_LOOK_AGAIN = 1.0
_ASK_AGAIN = 5.0
_REPLACED = "the cluster was replaced by a new one (another kube-system UID)"
_MAY_RUN = f"{_REPLACED}: the old one may still run this job"
_FENCE_PREFIX = "gpufleet-fence-"
# What is left on a released object. A Job without any label would get those of its template back, ours among them.
RELEASED_LABEL = "gpufleet.io/released"
# What an observation holds of an object's status at most.
STATUS_BYTES = 32 * 1024
_ENDED = (WorkloadHealth.SUCCEEDED, WorkloadHealth.FAILED)


def next_step(assignment: Assignment, facts: Facts, live: Live, rendered: render.Renderer = render.render) -> Step:
    """Returns what to do next for an assignment."""
    step = _next_step(assignment, facts, live, rendered)
    if not isinstance(step, Done) or step.phase is not ObservedPhase.PENDING:
        return step
    if live.obj is None or not _ours(live.obj, facts):
        return step
    # What waits has not happened: the pods of the copy that is there still run.
    return replace(step, ready=kinds.status(live.obj).ready)


def _next_step(assignment: Assignment, facts: Facts, live: Live, rendered: render.Renderer) -> Step:
    stamp = Stamp(facts.log, assignment.version.epoch, assignment.version.version)
    later = _later(stamp, live)
    if later is not None:
        return Superseded(later)
    if assignment.state is AssignmentState.WAITING:
        clusters = ", ".join(sorted({w.cluster for w in assignment.waits_for}))
        return _pending(Code.WAITING_FOR_REMOVAL, f"waits until its copy in {clusters} is gone")
    step = _remove(assignment, facts, live) if assignment.state is AssignmentState.REMOVING else None
    if step is None:
        step = _activate(assignment, facts, live, stamp, rendered)
    if not facts.frozen or isinstance(step, Done):
        return step
    if isinstance(step, Update) and stamp_of(step.live) == stamp and not _suspends(step.obj, step.live):
        return observed(step.live)  # applied; only its drift waits
    return _pending(Code.FROZEN, "the fleet is frozen: gpufleet unfreeze lets it go on")


def _activate(
    assignment: Assignment, facts: Facts, live: Live, stamp: Stamp, rendered: render.Renderer
) -> Write | Done:
    if assignment.incarnation and assignment.incarnation != facts.incarnation:
        return _pending(Code.CLUSTER_REPLACED, _MAY_RUN if assignment.job else f"{_REPLACED}: waits for a new decision")
    if assignment.suspended:
        return _pending(Code.SUSPENDED, "the policy suspends dispatching")
    namespace = render.namespace_of(assignment.workload)
    if not live.namespace:
        if assignment.create_namespaces:
            return CreateNamespace(namespace)
        return _pending(
            Code.NAMESPACE_MISSING,
            f"namespace {namespace} does not exist in {assignment.cluster}; create it there, or set "
            "createNamespaces: true in the policy",
            _ASK_AGAIN,
        )
    conflict = _conflict(assignment, facts, live)
    if conflict is not None:
        return conflict
    try:
        if assignment.job:
            return _activate_job(assignment, facts, live, stamp, rendered)
        wanted = stamped(rendered(assignment), stamp)
    except render.RenderError as error:
        if _undeclared(assignment.manifest):
            return _pending(Code.API_NOT_SERVED, f"{error}; waits for its WorkloadKind", _ASK_AGAIN)
        return Done(ObservedPhase.REFUSED, code=Code.DISPATCH_REFUSED, message=str(error))
    if live.obj is None:
        return Create(wanted)
    if _deleting(live.obj):
        return _pending(Code.WAITING_FOR_REMOVAL, "an earlier copy is still being deleted", _LOOK_AGAIN)
    return Update(wanted, live.obj) if _drifted(wanted, live.obj, live.baseline) else observed(live.obj)


def _undeclared(manifest: Json) -> bool:
    """Whether the kind's declaration has not come yet: it travels on another topic than the assignment."""
    api_version, kind = manifest.get("apiVersion"), manifest.get("kind")
    return isinstance(api_version, str) and isinstance(kind, str) and kinds.spec_for(api_version, kind) is None


def _activate_job(
    assignment: Assignment, facts: Facts, live: Live, stamp: Stamp, rendered: render.Renderer
) -> Write | Done:
    """A job starts behind its fence: fence, then the suspended object that it owns, then another look, then go."""
    if live.obj is None and _ended_before(facts):
        return _as_before(facts.last)
    fence = fence_object(
        render.fence_name(assignment.workload),
        render.namespace_of(assignment.workload),
        stamp,
        render.marks(assignment.workload),
    )
    if live.fence is None:
        if live.obj is not None and _ours(live.obj, facts):
            # Its fence was taken away: the collector removes it, and what is made after that is a new copy.
            ended = observed(live.obj)
            return ended if ended.health in _ENDED else _clear(live.obj)
        return Create(fence)
    if _deleting(live.fence) or (live.obj is not None and _deleting(live.obj)):
        return _pending(Code.WAITING_FOR_REMOVAL, "an earlier copy is still being deleted", _LOOK_AGAIN)
    if not _ours(live.fence, facts):
        return Update(fence, live.fence)  # a fence of another log that is taken over
    if live.obj is None:
        suspended = render.suspends(assignment.manifest) and not render.suspended(assignment.manifest)
        return Create(stamped(owned_by(rendered(assignment, suspend=suspended or None), live.fence), stamp))
    if not _owned(live.obj, live.fence) and _fenced(live.obj):
        return _clear(live.obj)  # a copy from before the last removal, not to be revived
    ended = observed(live.obj)
    if ended.health in _ENDED:
        return ended
    wanted = stamped(owned_by(rendered(assignment, suspend=_suspension(assignment, live.obj)), live.fence), stamp)
    return Update(wanted, live.obj) if _drifted(wanted, live.obj, live.baseline) else ended


def _clear(obj: Json) -> Write | Done:
    if _deleting(obj):
        return _pending(Code.WAITING_FOR_REMOVAL, "an earlier copy is still being deleted", _LOOK_AGAIN)
    return Delete(obj, foreground=True)


def _suspension(assignment: Assignment, obj: Json) -> bool | None:
    """Returns what to set a job's suspension to: false, unless the producer or a queue in the cluster decides on it."""
    if not render.suspends(assignment.manifest):
        return None
    now = render.suspended(obj)
    if render.suspended(assignment.manifest) or held_by_other(obj, render.suspend_path(assignment.manifest)):
        return now
    return False


def _suspends(wanted: Json, live: Json) -> bool:
    """Whether an update is what starts a suspended job."""
    return render.suspends(wanted) and render.suspended(live) and not render.suspended(wanted)


def _ended_before(facts: Facts) -> bool:
    """Whether a job that is not there any more has run to its end here; then it is not started again.

    A new run comes by way of a removal, after which the last observation says Gone, or of another incarnation.
    """
    last = facts.last
    return (
        last is not None
        and last.phase is ObservedPhase.APPLIED
        and last.health in _ENDED
        and last.incarnation == facts.incarnation
    )


def _as_before(last: Observation | None) -> Done:
    assert last is not None
    return Done(
        last.phase,
        last.health,
        last.failure,
        last.ready,
        last.code,
        last.message,
        last.object_uid,
        last.status,
    )


def _remove(assignment: Assignment, facts: Facts, live: Live) -> Write | Done:
    if assignment.incarnation and assignment.incarnation != facts.incarnation:
        if assignment.job:  # the scheduler does not take it from another incarnation
            return Done(ObservedPhase.GONE, code=Code.CLUSTER_REPLACED, message=_MAY_RUN)
        return Done(ObservedPhase.GONE, message=_REPLACED)
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
        status=brief(obj.get("status") or {}),
    )


def brief(status: Json, limit: int = STATUS_BYTES) -> Json:
    """Returns a status without its largest members where it has more than ``limit`` bytes as JSON.

    An Argo Workflow lists every step in its status, which would outgrow a record.
    """
    sizes = {name: len(msgspec.json.encode(value)) for name, value in status.items()}
    left = dict(status)
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if sum(sizes[kept] for kept in left) <= limit:
            break
        del left[name]
    return left


def _later(stamp: Stamp, live: Live) -> Stamp | None:
    """Returns the stamp of a later decision of the same log that the cluster holds, or None."""
    for obj in (live.fence, live.obj):
        found = stamp_of(obj) if obj is not None else None
        if found is not None and found.log == stamp.log and not found.allows(stamp):
            return found
    return None


def _conflict(assignment: Assignment, facts: Facts, live: Live) -> Done | None:
    if assignment.conflict_overwrite:
        return None
    for what, found in ((assignment.workload, live.obj), ("its fence", live.fence)):
        if found is None or _ours(found, facts):
            continue
        stamp = stamp_of(found)
        owner = f"by another log ({stamp.log})" if stamp else "by somebody else"
        return Done(
            ObservedPhase.REFUSED,
            code=Code.CONFLICT,
            message=f"{what} exists in {assignment.cluster} and is managed {owner}; delete it there, or set "
            "conflictResolution: Overwrite in the policy",
        )
    return None


def _ours(obj: Json, facts: Facts) -> bool:
    found = stamp_of(obj)
    return found is not None and (found.log == facts.log or found.log in facts.adopted_logs)


def _drifted(wanted: Json, obj: Json, baseline: Baseline | None) -> bool:
    """Returns whether the object is not as wanted, nor as the server wrote just that when it was applied."""
    if not render.differs(wanted, obj):
        return False
    if baseline is None or baseline.sent != wanted:
        return True
    return render.differs(render.projected(wanted, baseline.answer), obj)


def _owned(obj: Json, fence: Json) -> bool:
    uid = fence.get("metadata", {}).get("uid")
    return any(owner.get("uid") == uid for owner in _owners(obj))


def _fenced(obj: Json) -> bool:
    """Whether an object of ours names a fence as its owner."""
    return stamp_of(obj) is not None and any(str(o.get("name", "")).startswith(_FENCE_PREFIX) for o in _owners(obj))


def _owners(obj: Json) -> list[Json]:
    return list(obj.get("metadata", {}).get("ownerReferences") or ())


def held_by_other(obj: Json, path: tuple[str, ...]) -> bool:
    """Returns whether another field manager owns the field at a path, and we do not (`metadata.managedFields`)."""
    holders = {
        str(entry.get("manager"))
        for entry in obj.get("metadata", {}).get("managedFields") or ()
        if not entry.get("subresource") and _has_field(entry.get("fieldsV1"), path)
    }
    return bool(holders) and names.FIELD_MANAGER not in holders


def _has_field(fields: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        fields = fields.get(f"f:{key}") if isinstance(fields, Mapping) else None
    return isinstance(fields, Mapping)


def _deleting(obj: Json) -> bool:
    return bool(obj.get("metadata", {}).get("deletionTimestamp"))


def _pending(code: Code, message: str, retry_after: float | None = None) -> Done:
    return Done(ObservedPhase.PENDING, code=code, message=message, retry_after=retry_after)


def release_patch(obj: Json) -> dict[str, Any]:
    """Returns the merge patch that takes our marks off an object, bound to the version that was read."""
    metadata = obj.get("metadata", {})
    owners = [owner for owner in _owners(obj) if not str(owner.get("name", "")).startswith(_FENCE_PREFIX)]
    return {
        "metadata": {
            "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
            "labels": {names.WORKLOAD_LABEL: None, RELEASED_LABEL: "true"},
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
