"""Node classes of which no further nodes are counted on for a time, because some that were expected did not come.

That becomes known from the pods (the cluster's autoscaler said that it has no stock, or a node did not come within the
provisioning time) and from evictions, which name the classes and outlast the pods: so a restarted scheduler knows it
too. What is placed on such nodes keeps its reservation. A doubt ends after `provision_retry`, or when a node of the
class comes; one about stock also when the inventory shows stock again after it showed none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gpufleet.model.cluster import Inventory, WorkloadPods
from gpufleet.model.placement import Eviction
from services.scheduler.core.fleet import older
from services.scheduler.core.pool import Doubt

if TYPE_CHECKING:
    from services.scheduler.core.member import Member
    from services.scheduler.core.state import Entry, State


def pods_changed(state: State, entry: Entry, before: WorkloadPods | None, pods: WorkloadPods, now: float) -> None:
    """Learns from pods that wait in vain; what ``before`` said already says nothing new."""
    share = entry.placement.share(pods.cluster) if entry.placement is not None else None
    if share is None:
        return
    known = dict(before.components) if before is not None else {}
    for name, here in pods.components:
        last = known.get(name)
        late = here.timed_out > (last.timed_out if last is not None else 0)
        refused = here.no_stock and not (last is not None and last.no_stock)
        if not here.unschedulable or not (late or refused):
            continue
        if late:
            what = f"{here.timed_out} pods of {entry.key} waited for nodes that did not come"
        else:
            what = f"the cluster has no stock for {len(here.unschedulable)} pods of {entry.key}"
        for node_class in share.awaited(name, here.bound + here.finished):
            _doubt(state, pods.cluster, node_class, now, what, now, refused=not late)


def evicted(state: State, eviction: Eviction, before: Eviction | None, now: float) -> None:
    """Learns from replicas that were taken back because nodes did not come; from caps that are not new, nothing."""
    old = before.caps if before is not None else ()
    for cap in eviction.caps:
        for node_class in cap.node_classes if cap not in old else ():
            what = f"{eviction.workload} was taken back, {cap.message or cap.code}"
            _doubt(state, cap.cluster, node_class, eviction.at, what, now, refused=False)


def learn(state: State, entry: Entry, now: float) -> None:
    """Learns from an entry as it was read, in whatever order its records came."""
    for _, pods in sorted(entry.pods.items()):
        pods_changed(state, entry, None, pods, now)


def _doubt(state: State, cluster: str, node_class: str, at: float, what: str, now: float, *, refused: bool) -> None:
    until = at + state.settings.provision_retry
    member = state.fleet.member(cluster)
    known = member.doubts.get(node_class)
    if until <= now or (known is not None and known.until >= until):
        return
    clock = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state.fleet.set_doubt(member, node_class, Doubt(until, f"not counted on before {clock}: {what}", refused))
    state.doubts[cluster, node_class] = until


def inventory_changed(state: State, member: Member, inventory: Inventory) -> None:
    """Ends doubts about classes of which a node has come since the inventory that is known so far."""
    before = member.inventory
    if not member.doubts or before is None or older(inventory, before):
        return
    replaced = before.snapshot.incarnation != inventory.snapshot.incarnation
    known = {c.name: c for c in before.node_classes}
    for c in inventory.node_classes:
        doubt, last = member.doubts.get(c.name), known.get(c.name)
        if doubt is None:
            continue
        came = c.nodes > (last.nodes if last is not None else 0)
        stocked = c.elastic is not None and c.elastic.nodes > 0
        had = last is not None and last.elastic is not None and last.elastic.nodes > 0
        if replaced or came or (doubt.refused and stocked and not had):
            _end(state, member.name, c.name)


def expire(state: State, now: float) -> None:
    """Ends the doubts whose time is over."""
    for cluster, node_class in sorted(key for key, until in state.doubts.items() if until <= now):
        _end(state, cluster, node_class)


def next_end(state: State) -> float | None:
    """Returns when the next doubt ends by itself, or None."""
    return min(state.doubts.values(), default=None)


def _end(state: State, cluster: str, node_class: str) -> None:
    state.doubts.pop((cluster, node_class), None)
    state.fleet.set_doubt(state.fleet.member(cluster), node_class, None)
    state.grown[cluster] = None
