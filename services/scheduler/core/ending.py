"""Whether a workload has run to its end, by what its clusters observe."""

from __future__ import annotations

from gpufleet.model.placement import (
    AssignmentState,
    FailureClass,
    Observation,
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


def ended(
    entry: Entry, workload: Workload, placement: Placement | None, policy: PropagationPolicy | None
) -> Verdict | None:
    """Returns Finished or Failed if its copies have just ended so."""
    if placement is None or not placement.shares or placement.verdict in FINAL:
        return None
    if dict(placement.inputs).get("workload") != workload_digest(workload):
        return None
    clusters = clusters_of(placement.shares)
    common = entry.assignments.common_to(clusters)
    seen: list[Observation] = []
    succeeded = True
    for cluster in clusters:
        observation = entry.observations.get(cluster)
        if observation is None or observation.phase is not ObservedPhase.APPLIED:
            return None
        if observation.health is not WorkloadHealth.SUCCEEDED:
            succeeded = False
            if not workload.job:
                return None
        assignment = entry.assignments.get(cluster) if common is None else common
        if assignment is None or assignment.state is not AssignmentState.ACTIVE:
            return None
        if observation.version < assignment.version:
            return None
        seen.append(observation)
    if succeeded:
        return Verdict.FINISHED
    if policy is not None and policy.redispatch_user_failures:
        return None
    failed = (o for o in seen if o.health is WorkloadHealth.FAILED)
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
