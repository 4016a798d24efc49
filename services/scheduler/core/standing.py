"""Whether a placement may stand as it is, or has to be decided on again."""

from __future__ import annotations

from gpufleet.model.placement import ObservedPhase, Placement, clusters_of
from gpufleet.model.policy import DivisionType, PropagationPolicy
from gpufleet.model.reasons import Code, Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core import assign, dependencies
from services.scheduler.core.inputs import Inputs, overridden_alike, same
from services.scheduler.core.state import Entry, State


def stands(
    state: State,
    entry: Entry,
    placement: Placement,
    inputs: Inputs,
    policy: PropagationPolicy | None,
    workload: Workload,
    now: float,
) -> bool:
    """Returns whether a placement is complete, stands on the same inputs, and nothing that it uses was lost."""
    if policy is None or placement.verdict is not Verdict.SCHEDULED or not same(placement.inputs, inputs):
        return False
    if policy.placement.division is DivisionType.DUPLICATED and not workload.job:
        return False  # copies go wherever they may
    if any(assign.is_gone(state, entry, cluster) for cluster in placement.leaving):
        return False
    if not overridden_alike(state, workload, placement) or not dependencies.stands(state, entry, workload, placement):
        return False
    unreadable = any(r.code is Code.INVALID_RECORD for r in placement.reasons)
    if bool(entry.unreadable) is not unreadable:
        return False
    candidates = state.candidates.candidates(state.fleet, policy, workload)
    for share in placement.shares:
        member = state.fleet.member(share.cluster)
        seen = entry.observations.get(share.cluster)
        if member.removed or candidates.driven_out(share.cluster, now):
            return False
        if seen is not None and seen.phase is ObservedPhase.REFUSED:
            return False
        if state.settings.lost_when_unreachable and member.inventory is not None and not member.ready:
            return False
    return True


def replaced(state: State, entry: Entry, placement: Placement) -> bool:
    """Returns whether a cluster that it uses was replaced by a new one under the old name, which has nothing of it."""
    columns = entry.assignments.columns
    now = state.fleet.incarnations(clusters_of(placement.shares))
    if columns is not None and columns.incarnations == now:
        return False
    for share, incarnation in zip(placement.shares, now, strict=True):
        known = entry.assignments.get(share.cluster)
        if known is not None and known.incarnation and incarnation and known.incarnation != incarnation:
            return True
    return False
