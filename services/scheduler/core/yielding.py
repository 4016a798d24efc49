"""Who was told to yield and has not done so yet gets nothing back in that cluster: its pods would just stay.

A cluster is told how many replicas a workload has there, not which. If these were as many as before, whether counted
on other nodes or in stock, nobody would go and the preemptor would wait in vain. So they are fewer first. It follows
from the placement, which says who lost pods where, and from the pods, so a restarted scheduler knows it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpufleet.model.reasons import Code

if TYPE_CHECKING:
    from services.scheduler.core.state import Entry, State


def bounds(state: State, entry: Entry) -> dict[str, int]:
    """Returns where more pods are bound than the workload has there since it yielded, and how many it has there.

    Only as long as who took its place still waits for it.
    """
    if state.recalled is not None:
        return dict(state.recalled.yields)
    placement = entry.placement
    found: dict[str, int] = {}
    for reason in placement.reasons if placement is not None and entry.pods else ():
        if reason.code is Code.PREEMPTED and reason.cluster in entry.pods and placement is not None:
            share = placement.share(reason.cluster)
            assigned = share.replicas if share is not None else 0
            bound = sum(here.bound for _, here in entry.pods[reason.cluster].components)
            if bound > assigned and _awaited(state, reason.cluster):
                found[reason.cluster] = assigned
    return found


def _awaited(state: State, cluster: str) -> bool:
    """Returns whether somebody has a reservation in a cluster for which others had to yield there."""
    for key in state.fleet.member(cluster).held:
        other = state.entries.get(key)
        for reason in other.placement.reasons if other is not None and other.placement is not None else ():
            if reason.code is Code.PREEMPTS and reason.cluster == cluster:
                return True
    return False
