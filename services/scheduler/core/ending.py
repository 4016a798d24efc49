"""Whether a workload has run to its end, by what its clusters observe."""

from __future__ import annotations

from itertools import repeat
from operator import attrgetter, ge, is_

from gpufleet.model.placement import (
    AssignmentState,
    FailureClass,
    ObservedPhase,
    Placement,
    WorkloadHealth,
    clusters_of,
)
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core.activation import workload_digest
from services.scheduler.core.state import FINAL, Entry

_PHASE = attrgetter("phase")
_HEALTH = attrgetter("health")
_VERSION = attrgetter("version")


def ended(
    entry: Entry, workload: Workload, placement: Placement | None, policy: PropagationPolicy | None
) -> Verdict | None:
    """Returns Finished or Failed if its copies have just ended so."""
    if placement is None or not placement.shares or placement.verdict in FINAL:
        return None
    if dict(placement.inputs).get("workload") != workload_digest(workload):
        return None
    clusters = clusters_of(placement.shares)
    seen = list(map(entry.observations.get, clusters))
    if not all(seen) or not all(map(is_, map(_PHASE, seen), repeat(ObservedPhase.APPLIED))):
        return None
    succeeded = all(map(is_, map(_HEALTH, seen), repeat(WorkloadHealth.SUCCEEDED)))
    if not succeeded and not workload.job:
        return None
    common = entry.assignments.common_to(clusters)
    known = [common] if common is not None else list(map(entry.assignments.get, clusters))
    if not all(assignment is not None and assignment.state is AssignmentState.ACTIVE for assignment in known):
        return None
    ordered = repeat(common) if common is not None else known
    if not all(map(ge, map(_VERSION, seen), map(_VERSION, ordered))):
        return None
    if succeeded:
        return Verdict.FINISHED
    if policy is not None and policy.redispatch_user_failures:
        return None
    failed = (o for o in seen if o is not None and o.health is WorkloadHealth.FAILED)
    return Verdict.FAILED if any(o.failure is FailureClass.USER for o in failed) else None


def failure(entry: Entry, verdict: Verdict) -> tuple[Reason, ...]:
    """Returns why a job failed, in the words of its clusters."""
    if verdict is not Verdict.FAILED:
        return ()
    return tuple(
        Reason(Code.JOB_FAILED, seen.message or "the job failed by itself", cluster)
        for cluster, seen in sorted(entry.observations.items())
        if seen.health is WorkloadHealth.FAILED
    )
