"""Placement documents as input: where workloads are now, told to a scheduler that has decided nothing yet."""

from __future__ import annotations

from dataclasses import replace

from gpufleet.model.placement import Placement, Version
from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Verdict
from gpufleet.wire.documents import PlacementDocument
from services.scheduler.core.divide_whole import whole
from services.scheduler.core.inputs import inputs_of
from services.scheduler.core.state import State

# Older than anything that is decided on top of it.
BEFORE = Version(0, 1)


def as_decided(state: State, given: Placement, now: float) -> Placement:
    """Returns a placement as if it had been decided on the submission and the policy that the tables have now.

    So nothing is moved that may stay. Where the workload asks for something else by now, or has no submission, its
    inputs are left open, and it is decided anew on top of where it is.
    """
    verdict = given.verdict
    if verdict is Verdict.SCHEDULED and given.unplaced:
        verdict = Verdict.PARTIALLY_SCHEDULED
    placement = replace(given, version=BEFORE, verdict=verdict, decided_at=now)
    entry = state.entries.get(given.workload)
    workload = entry.current if entry is not None else None
    if entry is None or workload is None:
        return placement
    placement = replace(placement, arrival=entry.arrival or 0, job=workload.job, uid=workload.uid)
    policy, _ = state.policies.select(workload, given.policy)
    if policy is None:
        return placement
    rule = policy.placement
    wanted = workload.replicas
    copies = rule.division is DivisionType.DUPLICATED and all(share.replicas == wanted for share in given.shares)
    if given.replicas != wanted and not copies:
        return placement
    return replace(
        placement,
        inputs=inputs_of(state, entry, workload, policy, placement),
        policy=policy.key,
        movable=rule.division in (DivisionType.DYNAMIC, DivisionType.AGGREGATED)
        or whole(workload, rule.division, is_gang=rule.gang),
        redispatch_user_failures=policy.redispatch_user_failures,
    )


def bound_pods(item: PlacementDocument, cluster: str) -> dict[str, int]:
    """Returns how many pods of each component are bound in a cluster; the document counts them together."""
    share = item.placement.share(cluster)
    left = item.bound_in(cluster)
    bound: dict[str, int] = {}
    for name, count in share.components if share is not None else ():
        bound[name] = min(left, count)
        left -= bound[name]
    return bound
