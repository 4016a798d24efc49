"""A batch/v1 Job that a policy divides: parallelism by the division, completions in proportion to it (as upstream).

A part is a Job of its own in its cluster. Its numbers are settled when it is placed: completions cannot be changed in
a running Job, nor taken back. So parts stay as they are; only a part that is lost is placed anew, whole and in another
cluster, with all of its completions. Indexed Jobs are not divided, because their indexes would repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpufleet.model.placement import Assignment, AssignmentState, Placement
from gpufleet.model.policy import DivisionType
from gpufleet.model.workload import Division, Workload
from services.scheduler.core.divide import descending, webster
from services.scheduler.core.draft import Draft
from services.scheduler.core.state import Entry

Patch = Mapping[str, Any]
_PATH = "/spec/completions"
_PARALLELISM = "/spec/parallelism"


def may_divide(workload: Workload, division: DivisionType, *, is_gang: bool) -> bool:
    """Returns whether a policy divides a Job."""
    return workload.division is Division.PARALLELISM and division is not DivisionType.DUPLICATED and not is_gang


def settled(draft: Draft) -> dict[str, int]:
    """Returns the parts of a divided Job that stay, by cluster; its options become the clusters without one."""
    if draft.workload.division is not Division.PARALLELISM or not draft.before:
        return {}
    draft.options = [option for option in draft.options if option.cluster not in draft.before]
    return {cluster: share.replicas for cluster, share in draft.before.items()}


def goes_on(workload: Workload, known: Assignment | None) -> bool:
    """Returns whether a part runs on while another one has yet to be removed elsewhere."""
    divided = workload.division is Division.PARALLELISM
    return divided and known is not None and known.state is AssignmentState.ACTIVE


def completions(entry: Entry, placement: Placement, workload: Workload) -> dict[str, int]:
    """Returns the completions of each part by cluster; nothing for a Job that is whole or sets none."""
    if workload.division is not Division.PARALLELISM:
        return {}
    spec = workload.manifest.get("spec")
    total = spec.get("completions") if isinstance(spec, Mapping) else None
    if not isinstance(total, int):
        return {}
    if len(placement.shares) == 1 and placement.shares[0].replicas >= workload.replicas:
        return {}
    known = {share.cluster: _known(entry.assignments.get(share.cluster)) for share in placement.shares}
    found = {cluster: count for cluster, count in known.items() if count is not None}
    new = {share.cluster: share.replicas for share in placement.shares if known[share.cluster] is None}
    lost = workload.replicas - placement.placed
    # What is not placed yet keeps its part of the completions, under a name that no cluster can have.
    weights = {**new, "": lost} if lost > 0 else new
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


def _known(assignment: Assignment | None) -> int | None:
    if assignment is None or assignment.state is AssignmentState.REMOVING:
        return None
    return next((int(p["value"]) for p in assignment.patches if p.get("path") == _PATH), None)
