"""What is said of a workload as a whole, once it is placed as far as it can be."""

from __future__ import annotations

from gpufleet.model.placement import pods_of
from gpufleet.model.reasons import Verdict
from services.scheduler.core.draft import Draft


def verdict_of(draft: Draft) -> Verdict:
    """Returns the verdict on a draft that was placed, by its shares and by what blocks it."""
    placed = pods_of(draft.shares)
    if draft.blocked == "given up":
        return Verdict.GIVEN_UP
    if placed >= draft.replicas and (draft.shares or not draft.replicas) and draft.workload.components:
        return Verdict.SCHEDULED
    if draft.blocked == "suspended":
        return Verdict.SUSPENDED
    if not draft.workload.components and draft.shares:
        return Verdict.SCHEDULED
    if placed:
        return Verdict.PARTIALLY_SCHEDULED
    return Verdict.QUEUED if draft.blocked or draft.quota is not None else Verdict.UNSCHEDULABLE
