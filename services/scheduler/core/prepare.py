"""The first step of a decision: what counts as placed, and which clusters are bounded or avoided."""

from __future__ import annotations

from dataclasses import replace

from gpufleet.model.cluster import WorkloadPods
from gpufleet.model.placement import AssignmentState, ClusterShare, ObservedPhase, Placement
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Workload
from services.scheduler.core import assign, ledger, overrides, yielding
from services.scheduler.core.divide import Mode
from services.scheduler.core.divide_whole import whole
from services.scheduler.core.draft import Draft
from services.scheduler.core.filter import Candidates
from services.scheduler.core.room import clock
from services.scheduler.core.state import Entry, State
from services.scheduler.core.units import applying, rejected


def prepare(
    state: State,
    entry: Entry,
    workload: Workload,
    policy: PropagationPolicy,
    placement: Placement | None,
    mode: Mode,
    now: float,
    *,
    applies: bool,
    changed: bool,
) -> Draft:
    """Returns the draft of a decision.

    ``applies``: the eviction takes replicas back now; ``changed``: the submission is another than last time, so what
    was refused may be taken.
    """
    candidates = state.candidates.candidates(state.fleet, policy, workload)
    eviction = entry.eviction
    caps: dict[str, int] = {}
    for cap in eviction.caps if eviction is not None else ():
        if cap.until > now:
            caps[cap.cluster] = min(cap.max_replicas, caps.get(cap.cluster, cap.max_replicas))
    yields = yielding.bounds(state, entry)
    for cluster, assigned in yields.items():
        caps[cluster] = min(assigned, caps.get(cluster, assigned))
    refused = _refused(entry, placement, forget=mode is Mode.FRESH or changed)
    if workload.job:
        for cluster, known in entry.assignments.items():
            if known.state is AssignmentState.REMOVING and not assign.is_gone(state, entry, cluster):
                message = "an earlier copy is still being removed there"
                refused.setdefault(cluster, Reason(Code.WAITING_FOR_REMOVAL, message, cluster))
    for cluster, until in candidates.until.items():
        if until <= now:
            message = f"the policy tolerated the cluster's NoExecute taint until {clock(until)}"
            refused.setdefault(cluster, Reason(Code.CLUSTER_TAINTED, message, cluster))
    broken = _not_overridden(state, workload, candidates, placement, refused)
    bounds = {c.cluster: c.max_replicas for c in eviction.caps} if applies and eviction is not None else {}
    at_once = whole(workload, policy.placement.division, is_gang=policy.placement.gang)
    before: dict[str, ClusterShare] = {}
    for share in placement.shares if placement is not None else ():
        cluster = share.cluster
        member = state.fleet.member(cluster)
        lost = member.removed or cluster in candidates.evict or cluster in refused
        if state.settings.lost_when_unreachable and member.inventory is not None and not member.ready:
            lost = True
        kept = bounded(share, bounds.get(cluster), entry.pods.get(cluster), at_once=at_once)
        if kept is not None and not lost and _meant(state, candidates.tier_of, cluster):
            before[cluster] = kept
    policies = state.resource_policies.get(workload.namespace)
    units = applying(workload, policies.values()) if policies else None
    waits = placement.unit_waits if placement is not None and units is not None else ()
    draft = Draft(
        state=state,
        entry=entry,
        workload=workload,
        policy=policy,
        mode=mode,
        now=now,
        before=before,
        caps=caps,
        refused=refused,
        ways=ledger.ways_of(state, entry),
        candidates=candidates,
        units=units,
        rejected=rejected(workload, units) if units is not None else "",
        waited={(wait.cluster, wait.unit): wait.since for wait in waits},
    )
    draft.seen.yields = yields
    draft.reasons.extend(broken)
    return draft


def _not_overridden(
    state: State,
    workload: Workload,
    candidates: Candidates,
    placement: Placement | None,
    refused: dict[str, Reason],
) -> list[Reason]:
    """Refuses clusters for which the object cannot be overridden; a copy that runs already stays as it is."""
    specs = (m.spec for tier in candidates.tiers for m in tier.members if m.spec is not None)
    found = overrides.failures(state.overrides, workload, specs)
    stays = []
    for cluster, reason in found.items():
        if placement is not None and placement.share(cluster) is not None:
            stays.append(reason)
        else:
            refused.setdefault(cluster, reason)
    return stays


def _meant(state: State, tier_of: dict[str, int], cluster: str) -> bool:
    # A registration that is missing, but was never deleted, takes nothing away.
    return cluster in tier_of or state.fleet.member(cluster).spec is None


def bounded(share: ClusterShare, bound: int | None, pods: WorkloadPods | None, *, at_once: bool) -> ClusterShare | None:
    """Returns what an eviction leaves of a share: all, some of a divided one, or nothing.

    Where pods are known by unit, the units with pods that run nowhere yet are taken from first.
    """
    if bound is None or share.replicas <= bound:
        return share
    if bound <= 0 or at_once or len(share.components) != 1:
        return None
    name = share.components[0][0]
    slots = list(share.slots)
    excess = max(0, sum(slot.count for slot in slots) - bound)
    there = {u.unit: u.bound + u.finished for _, c in (pods.components if pods is not None else ()) for u in c.units}
    for spare in (True, False) if there else (False,):
        for index in range(len(slots) - 1, -1, -1):
            slot = slots[index]
            most = slot.count
            if spare:
                placed = sum(s.count for s in slots if s.variant == slot.variant)
                most = min(most, max(0, placed - there.get(slot.variant, 0)))
            cut = min(excess, most)
            slots[index] = replace(slot, count=slot.count - cut)
            excess -= cut
    return ClusterShare(share.cluster, ((name, bound),), tuple(slot for slot in slots if slot.count))


def _refused(entry: Entry, placement: Placement | None, *, forget: bool) -> dict[str, Reason]:
    """Returns the clusters that do not take the workload as it is, now or since its inputs last changed."""
    refused: dict[str, Reason] = {}
    if placement is not None and not forget:
        for reason in placement.reasons:
            if reason.cluster and reason.code in (Code.DISPATCH_REFUSED, Code.CONFLICT):
                refused[reason.cluster] = reason
    for cluster, seen in entry.observations.items():
        known = entry.assignments.get(cluster)
        if (
            seen.phase is ObservedPhase.REFUSED
            and known is not None
            and known.state is AssignmentState.ACTIVE
            and seen.version == known.version
            and not forget
        ):
            code = Code.CONFLICT if seen.code == Code.CONFLICT else Code.DISPATCH_REFUSED
            refused[cluster] = Reason(code, seen.message or "the cluster's API refuses it", cluster)
    return refused
