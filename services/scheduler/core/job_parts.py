"""A batch/v1 Job that a policy divides: parallelism by the division, completions in proportion to it (as upstream).

A part is a Job of its own in its cluster. Its completions are settled when it is placed: they cannot be changed in a
running Job, nor taken back. So parts stay where they are; a part that is lost is placed anew, whole and in another
cluster, with all of its completions. Where the Job's parallelism is changed the parts grow or shrink, none below one
pod, which would leave its completions undone. Without completions (a work queue) parallelism alone is divided, as
replicas are. Indexed Jobs are not divided, because their indexes would repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpufleet.model.placement import Assignment, AssignmentState, Placement
from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Division, Workload
from services.scheduler.core.divide import Mode, Option, descending, pour, static, webster
from services.scheduler.core.draft import Draft
from services.scheduler.core.filter import static_weights
from services.scheduler.core.state import Entry

Patch = Mapping[str, Any]
_PATH = "/spec/completions"
_PARALLELISM = "/spec/parallelism"


def may_divide(workload: Workload, division: DivisionType, *, is_gang: bool) -> bool:
    """Returns whether a policy divides a Job."""
    return workload.division is Division.PARALLELISM and division is not DivisionType.DUPLICATED and not is_gang


def settled(draft: Draft, total: int) -> tuple[dict[str, int], int]:
    """Returns the parts of a divided Job that are settled, by cluster, and how many pods the options are for.

    Of other workloads, and of parts that are divided anew, nothing is settled. ``total`` pods are wanted in all; a Job
    with more parts than that has one for each.
    """
    if draft.workload.division is not Division.PARALLELISM or not draft.before:
        return {}, total
    parts = {cluster: share.replicas for cluster, share in draft.before.items()}
    if draft.mode is Mode.FRESH:
        _stay(draft, parts)
    missing = total - sum(parts.values())
    completions = _completions(draft.workload)
    if completions is None:
        return ({}, total) if missing else (parts, 0)
    if _spare(draft, completions):
        draft.options = [option for option in draft.options if option.cluster not in parts]
        parts = _fewer(draft, parts, total - 1)
        missing = max(1, missing)
        draft.replicas = sum(parts.values()) + missing
        return parts, missing
    if missing > 0:
        return _more(draft, parts, total)
    parts = _fewer(draft, parts, total)
    draft.replicas = sum(parts.values())
    return parts, 0


def grows_in_place(draft: Draft) -> bool:
    """Returns whether what is left to divide is for the parts that are there, in whichever group they are."""
    if draft.workload.division is not Division.PARALLELISM or _completions(draft.workload) is None:
        return False
    return bool(draft.before) and all(option.cluster in draft.before for option in draft.options)


def kept(draft: Draft, total: int) -> dict[str, int] | None:
    """Returns the parts of a divided Job while nothing new is placed; None for other workloads."""
    if draft.workload.division is not Division.PARALLELISM or _completions(draft.workload) is None:
        return None
    parts = _fewer(draft, {cluster: share.replicas for cluster, share in draft.before.items()}, total)
    draft.replicas = max(draft.replicas, sum(parts.values()))
    return parts


def _stay(draft: Draft, parts: Mapping[str, int]) -> None:
    """Takes it back that everything may move: a Job that runs stays where it is."""
    draft.mode = Mode.STEADY
    for option in draft.options:
        option.assigned = parts.get(option.cluster, 0)
        option.running = max(0, option.running - option.assigned)


def _fewer(draft: Draft, parts: dict[str, int], total: int) -> dict[str, int]:
    """Returns parts that add up to no more than ``total``: the lowest group shrinks first, but each keeps a pod."""
    if sum(parts.values()) <= total:
        return parts
    options = [Option(cluster, draft.tier_of(cluster) or 0, count, 0) for cluster, count in sorted(parts.items())]
    options.sort(key=lambda option: option.tier)
    counts = pour(options, max(0, total), Mode.STEADY, last_first=descending(draft.uid))
    for cluster in [cluster for cluster, count in counts.items() if not count]:
        counts[cluster] = 1
        largest = max(counts, key=lambda name: (counts[name], name))
        counts[largest] = max(1, counts[largest] - 1)
    return counts


def _more(draft: Draft, parts: Mapping[str, int], total: int) -> tuple[dict[str, int], int]:
    """Lets the parts of a Job grow where they are, because a further part would have nothing to complete."""
    for option in draft.options:
        if option.cluster not in parts:
            message = "the Job is divided already, and its parts have all of its completions"
            reason = draft.refused.setdefault(option.cluster, Reason(Code.JOB_DIVIDED, message, option.cluster))
            draft.reasons.append(reason)
    draft.options = [option for option in draft.options if option.cluster in parts]
    draft.mode = Mode.FILL  # nothing is pulled from one part to another
    if draft.policy.placement.division is not DivisionType.STATIC:
        return {}, total
    static_weights(draft.policy, draft.state.fleet, draft.options)
    added = static(draft.options, total - sum(parts.values()), last_first=descending(draft.uid))
    return {cluster: count + added.get(cluster, 0) for cluster, count in parts.items()}, 0


def _spare(draft: Draft, total: int) -> bool:
    """Returns whether some completions are in no part, because the part that had them was lost."""
    known = [_known(draft.entry.assignments.get(cluster)) for cluster in draft.before]
    return None not in known and sum(count or 0 for count in known) < total


def _completions(workload: Workload) -> int | None:
    spec = workload.manifest.get("spec")
    total = spec.get("completions") if isinstance(spec, Mapping) else None
    return total if isinstance(total, int) else None


def goes_on(workload: Workload, known: Assignment | None) -> bool:
    """Returns whether a part runs on while another one has yet to be removed elsewhere."""
    divided = workload.division is Division.PARALLELISM
    return divided and known is not None and known.state is AssignmentState.ACTIVE


def completions(entry: Entry, placement: Placement, workload: Workload) -> dict[str, int]:
    """Returns the completions of each part by cluster; nothing for a Job that is whole or sets none."""
    if workload.division is not Division.PARALLELISM:
        return {}
    total = _completions(workload)
    if total is None or any(_whole(entry.assignments.get(share.cluster)) for share in placement.shares):
        return {}
    known = {share.cluster: _known(entry.assignments.get(share.cluster)) for share in placement.shares}
    found = {cluster: count for cluster, count in known.items() if count is not None}
    new = {share.cluster: share.replicas for share in placement.shares if known[share.cluster] is None}
    if not found and len(new) == 1 and not placement.unplaced:
        return {}  # all in one cluster
    # What is not placed yet keeps its part of the completions, under a name that no cluster can have.
    weights = {**new, "": placement.unplaced} if placement.unplaced else new
    rest = webster(max(0, total - sum(found.values())), weights, descending(workload.uid))
    return {**found, **{cluster: rest.get(cluster, 0) for cluster in new}}


def patched(patches: tuple[Patch, ...], count: int | None, replicas: int) -> tuple[Patch, ...]:
    """Returns the patches of a part with its completions, and the parallelism that it was given."""
    if count is None:
        return patches
    others = tuple(patch for patch in patches if patch.get("path") not in (_PATH, _PARALLELISM))
    return (
        *others,
        {"op": "add", "path": _PARALLELISM, "value": replicas},
        {"op": "add", "path": _PATH, "value": count},
    )


def _whole(assignment: Assignment | None) -> bool:
    """Returns whether a copy is there that was given all of the completions."""
    return assignment is not None and assignment.state is not AssignmentState.REMOVING and _known(assignment) is None


def _known(assignment: Assignment | None) -> int | None:
    if assignment is None or assignment.state is AssignmentState.REMOVING:
        return None
    return next((int(p["value"]) for p in assignment.patches if p.get("path") == _PATH), None)
