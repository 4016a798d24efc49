"""How much of a ResourcePolicy unit is in use in a cluster, over all workloads that the policy governs.

Pods count as soon as they are placed. Counted per cluster: a ResourcePolicy is an object of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpufleet.model.cluster import UnitPods
from gpufleet.model.placement import Slot
from gpufleet.model.policy import ResourcePolicy
from gpufleet.model.workload import Component, Workload
from services.scheduler.core.shapes import UNBOUNDED
from services.scheduler.core.units import Way, group_of, written_labels

if TYPE_CHECKING:
    from services.scheduler.core.draft import Draft
    from services.scheduler.core.state import Entry


@dataclass(slots=True)
class Use:
    """Pods in one unit, and what they ask for together."""

    pods: int = 0
    amounts: dict[str, int] = field(default_factory=dict)

    def add(self, component: Component, count: int) -> None:
        """Counts some pods of a component."""
        self.pods += count
        for name, amount in component.shape.requests:
            self.amounts[name] = self.amounts.get(name, 0) + amount * count


# By cluster and unit.
Usage = dict[tuple[str, str], Use]


def of_others(draft: Draft) -> Usage:
    """Returns what the other workloads use, where some unit is bounded; computed once per decision."""
    if draft.usage is None and draft.state.recalled is not None:
        draft.usage = draft.state.recalled.usage
    if draft.usage is None:
        draft.usage = {}
        policy = draft.units
        if policy is not None and any(u.max is not None or u.max_resources for u in policy.units):
            groups = {group_of(draft.workload, c, policy) for c in draft.workload.components}
            state = draft.state
            for key in sorted(state.in_namespace.get(draft.workload.namespace, ())):
                entry = state.entries.get(key)
                if entry is not None and entry.current is not None:
                    _add(draft, draft.usage, entry, entry.current, policy, groups)
    return draft.usage


def _add(
    draft: Draft, usage: Usage, entry: Entry, workload: Workload, policy: ResourcePolicy, groups: set[tuple[str, ...]]
) -> None:
    own = entry is draft.entry
    components = {
        c.name: c
        for c in workload.components
        if policy.selector.matches(dict(c.labels)) and (own or group_of(workload, c, policy) in groups)
    }
    if not components:
        return
    placement = entry.placement
    # Under these verdicts nothing runs any more.
    live = placement is not None and placement.verdict.value not in ("Finished", "Failed", "Deleting")
    for share in placement.shares if placement is not None and live and not own else ():
        for slot in share.slots:
            if slot.component in components:
                for variant in _variants(draft, share.cluster, slot, components[slot.component]):
                    usage.setdefault((share.cluster, variant), Use()).add(components[slot.component], slot.count)
    if not policy.ignore_terminating_pod:
        for cluster, pods in entry.pods.items():
            for name, known in pods.components:
                for unit in known.units:
                    if name in components and unit.unit and unit.terminating:
                        usage.setdefault((cluster, unit.unit), Use()).add(components[name], unit.terminating)


def _variants(draft: Draft, cluster: str, slot: Slot, component: Component) -> Iterator[str]:
    """Yields the units that a slot counts in: its own, or those on whose nodes it was before the policy was there."""
    policy = draft.units
    if policy is None or any(way.variant == slot.variant for way in draft.ways):
        yield slot.variant
        return
    if policy.ignore_previous_pod or not slot.node_class:
        return
    member = draft.state.fleet.members.get(cluster)
    labels: Mapping[str, str] = {}
    if member is not None:
        known_labels = {pool.name: pool.identity.labels for pool in member.pools}
        known_labels |= {node.name: node.identity.labels for node in member.virtual}
        labels = known_labels.get(slot.node_class, {})
    for way in draft.ways:
        unit = way.rule
        if unit is None or any(labels.get(key) != value for key, value in unit.node_selector):
            continue
        known = dict(component.labels)
        if all(known.get(key) == value for key, value in written_labels(unit)) and not unit.pod_annotations:
            yield way.variant


def _own(draft: Draft, cluster: str, way: Way, own: Sequence[Slot]) -> Use:
    use = Use()
    components = {c.name: c for c in draft.workload.components}
    for slot in own:
        if slot.component in components and way.variant in _variants(draft, cluster, slot, components[slot.component]):
            use.add(components[slot.component], slot.count)
    return use


def left(draft: Draft, cluster: str, way: Way, own: Sequence[Slot]) -> int:
    """Returns how many more pods of the (one) component the bounds of a unit allow in a cluster."""
    unit = way.rule
    if unit is None:
        return UNBOUNDED
    if draft.rejected:
        return 0
    if unit.max is None and not unit.max_resources:
        return UNBOUNDED
    others = of_others(draft).get((cluster, way.variant), Use())
    mine = _own(draft, cluster, way, own)
    most = UNBOUNDED if unit.max is None else unit.max - others.pods - mine.pods
    requests = dict(draft.workload.components[0].shape.requests)
    for name, amount in unit.max_resources:
        if requests.get(name):
            used = others.amounts.get(name, 0) + mine.amounts.get(name, 0)
            most = min(most, (amount - used) // requests[name])
    return max(0, most)


def within(draft: Draft, cluster: str, way: Way, counts: Mapping[str, int], own: Sequence[Slot]) -> bool:
    """Returns whether so many more pods of each component are within the bounds of a unit in a cluster."""
    unit = way.rule
    if unit is None:
        return True
    if draft.rejected:
        return False
    if unit.max is None and not unit.max_resources:
        return True
    policy = draft.units
    use = of_others(draft).get((cluster, way.variant), Use())
    total = _own(draft, cluster, way, own)
    for component in draft.workload.components:
        if policy is not None and policy.selector.matches(dict(component.labels)):
            total.add(component, counts.get(component.name, 0))
    if unit.max is not None and use.pods + total.pods > unit.max:
        return False
    return all(use.amounts.get(n, 0) + total.amounts.get(n, 0) <= amount for n, amount in unit.max_resources)


def terminating(draft: Draft, cluster: str, variant: str) -> int:
    """Returns how many pods of a unit are being deleted in a cluster, of all workloads of the namespace."""
    state = draft.state
    if state.recalled is not None:
        return state.recalled.terminating.get((cluster, variant), 0)
    count = draft.terminating[cluster, variant] = sum(
        unit.terminating
        for key in state.in_namespace.get(draft.workload.namespace, ())
        if (entry := state.entries.get(key)) is not None and cluster in entry.pods
        for unit in _unit_pods(entry, cluster)
        if unit.unit == variant
    )
    return count


def _unit_pods(entry: Entry, cluster: str) -> Iterable[UnitPods]:
    return (unit for _, pods in entry.pods[cluster].components for unit in pods.units)
