"""The step before the division: how much of a workload its quota lets in now (specification 13.3)."""

from __future__ import annotations

from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Workload
from services.scheduler.core import keeping
from services.scheduler.core.divide_replicas import partial
from services.scheduler.core.divide_whole import whole
from services.scheduler.core.draft import Draft
from services.scheduler.core.quota import beyond
from services.scheduler.core.quota_node import Node
from services.scheduler.core.quota_terms import gpu_model, named_quota, preemptible
from services.scheduler.core.shapes import is_gpu
from services.scheduler.core.state import State


def decides(state: State, workload: Workload) -> bool:
    """Returns whether a quota decides when a workload starts."""
    quotas = state.quotas
    return quotas.root is not None and (quotas.leaf_of(workload) is not None or workload.job)


def admit(draft: Draft) -> None:
    """Bounds the replicas of a draft by its quota, and says so where the quota is what it waits for."""
    quotas, workload = draft.state.quotas, draft.workload
    leaf = quotas.leaf_of(workload)
    refusal = _refusal(leaf, workload)
    if refusal is not None:
        draft.quota = refusal.code
        draft.limit = sum(share.replicas for share in draft.before.values())
        draft.reasons.append(refusal)
        return
    if leaf is None:
        return
    draft.leaf = leaf
    total = workload.replicas
    placed = sum(share.replicas for share in draft.before.values())
    division = draft.policy.placement.division
    at_once = whole(workload, division, is_gang=draft.policy.placement.gang)
    firm = not preemptible(workload)
    counts = {c.name: c.replicas for c in workload.components}
    if not at_once and len(workload.components) == 1 and (partial(draft) or division is DivisionType.DUPLICATED):
        # A copy (Duplicated) or a replica at a time.
        each = total if division is DivisionType.DUPLICATED else 1
        counts = {workload.components[0].name: each}
    else:
        each = total
    draft.unit = quotas.needs(workload, counts)
    before = keeping.kept_before(draft)
    kept = before.unit if before is not None else ()
    room, short = quotas.room(draft.entry.key, leaf, draft.unit, firm=firm, job=workload.job, kept=kept)
    wanted = total * len(draft.candidates.tier_of) if division is DivisionType.DUPLICATED and not at_once else total
    allowed = max(placed, room * each)
    if allowed >= wanted:
        return
    draft.limit = allowed
    draft.quota = Code.QUOTA_EXCEEDED
    if short is not None:
        if wanted > each:
            short = short.of_all(wanted // each, room)
        draft.reasons.append(Reason(Code.QUOTA_EXCEEDED, short.message(), needs=short.needs()))
    never = beyond(leaf, draft.unit, firm=firm, job=workload.job) if not allowed else None
    if never is not None:
        draft.reasons.append(Reason(Code.NEVER_FITS, never.never(), needs=never.needs()))


def _refusal(leaf: Node | None, workload: Workload) -> Reason | None:
    if leaf is None:
        named = named_quota(workload)
        if named:
            return Reason(Code.NO_QUOTA, f"its label names the quota {named}, which is no leaf of the tree")
        if workload.job:
            return Reason(
                Code.NO_QUOTA,
                f"the job doesn't belong to any elastic quota: no leaf names namespace {workload.namespace}",
            )
        return None
    bounded = {name.rpartition("/")[2] for node in leaf.path for name in node.max if name.count("/") > 1}
    allowed = leaf.quota.flavors
    if not bounded and not allowed:
        return None
    for component in workload.components:
        if not component.replicas or not any(is_gpu(name) for name, _ in component.shape.requests):
            continue
        model = gpu_model(component.shape, component.labels)
        if not model:
            models = ", ".join(allowed or sorted(bounded))
            return Reason(
                Code.NO_QUOTA,
                f"quota {leaf.name} counts GPUs by model, and the pods of {component.name} name none; "
                f"select nodes of one of {models}",
            )
        if allowed and model not in allowed:
            return Reason(Code.NO_QUOTA, f"quota {leaf.name} has no GPUs of model {model}, only {', '.join(allowed)}")
    return None
