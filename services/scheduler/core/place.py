"""One decision: the steps from a workload and its policy to shares, each in a module of its own.

A step takes the draft and changes it. A rule that comes later (quota, preemption, spread) is a further step in
`_STEPS`, between those that it needs.
"""

from __future__ import annotations

from collections.abc import Callable

from services.scheduler.core import divide_replicas, divide_whole, fresh, unit_fill, witness
from services.scheduler.core.draft import Draft
from services.scheduler.core.refusals import add_refusals
from services.scheduler.core.slots import build


def place(draft: Draft) -> None:
    """Runs the steps: options, division, notes of what is taken from, shares, reasons."""
    for step in _STEPS:
        step(draft)


def _divide(draft: Draft) -> None:
    """Decides replicas by cluster and component, and how many are wanted over all."""
    placement = draft.policy.placement
    workload = draft.workload
    total = workload.replicas
    draft.replicas = total
    if not workload.components and not workload.job:
        divide_replicas.without_pods(draft)
        return
    granted = total if draft.limit is None else min(total, draft.limit)
    if divide_whole.whole(workload, placement.division, is_gang=placement.gang):
        if granted < total:
            divide_replicas.keep(draft)
        else:
            divide_whole.divide(draft)
        return
    divide_replicas.divide(draft, total, granted)


def _shares(draft: Draft) -> None:
    """Turns counts into shares with slots."""
    if draft.divided is not None and draft.counts == draft.divided[0]:
        draft.shares = fresh.shares(draft, draft.divided[1])
        return
    components = draft.workload.components
    one = len(components) == 1
    wanted: dict[str, dict[str, int]] = {}
    for cluster, count in (draft.counts or {}).items():
        before = draft.before.get(cluster)
        if one:
            wanted[cluster] = {components[0].name: count}
        elif count == draft.workload.replicas or before is None:
            wanted[cluster] = {c.name: c.replicas for c in components}
        else:
            wanted[cluster] = dict(before.components)  # does not fit as it is wanted: stays as it was
    draft.shares = build(draft, wanted)
    draft.unit_waits = unit_fill.note_waits(draft, draft.replicas - sum((draft.counts or {}).values()))


Step = Callable[[Draft], None]
_STEPS: tuple[Step, ...] = (_divide, witness.look, _shares, add_refusals)
