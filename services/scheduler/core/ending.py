"""Whether a workload has run to its end, by what its clusters observe."""

from __future__ import annotations

from gpufleet.model.placement import AssignmentState, FailureClass, ObservedPhase, Placement, WorkloadHealth
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
    seen = []
    alike = entry.assignments.common_to([share.cluster for share in placement.shares])
    for share in placement.shares:
        observation = entry.observations.get(share.cluster)
        if observation is None or observation.phase is not ObservedPhase.APPLIED:
            return None
        known = alike or entry.assignments.get(share.cluster)
        if known is None or known.state is not AssignmentState.ACTIVE or observation.version < known.version:
            return None
        seen.append(observation)
    if all(o.health is WorkloadHealth.SUCCEEDED for o in seen):
        return Verdict.FINISHED
    if (
        workload.job
        and any(o.health is WorkloadHealth.FAILED and o.failure is FailureClass.USER for o in seen)
        and not (policy is not None and policy.redispatch_user_failures)
    ):
        return Verdict.FAILED
    return None


def failure(entry: Entry, verdict: Verdict) -> tuple[Reason, ...]:
    """Returns why a job failed, in the words of its clusters."""
    if verdict is not Verdict.FAILED:
        return ()
    return tuple(
        Reason(Code.JOB_FAILED, seen.message or "the job failed by itself", cluster)
        for cluster, seen in sorted(entry.observations.items())
        if seen.health is WorkloadHealth.FAILED
    )
