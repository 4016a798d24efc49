"""What would happen: the scheduler's own decision on documents, without clusters and without a clock."""

from __future__ import annotations

import math
from collections.abc import Iterable

from gpufleet.model.cluster import ComponentPods, Inventory, WorkloadPods
from gpufleet.model.placement import Placement, Version
from gpufleet.wire.documents import Parsed, PlacementDocument
from services.scheduler.core import State, decide
from services.scheduler.core import events as ev
from services.scheduler.core.settings import Settings

_SETTINGS = Settings(stale_after=math.inf, hold_timeout=math.inf, lost_when_unreachable=True)


def plan(parsed: Parsed) -> list[Placement]:
    """Returns where everything would go, ordered by workload.

    Placements among the documents say where workloads are now; an unreachable cluster's replicas are lost.
    """
    state = State(_SETTINGS)
    found: dict[str, Placement] = {key: item.placement for key, item in parsed.placements.items()}
    out = decide(state, [*_fleet(parsed), ev.Started(1, "plan")], 0.0)
    for write in out.placements:
        if write.placement is not None:
            found[write.workload] = write.placement
    return [found[key] for key in sorted(found)]


def _fleet(parsed: Parsed) -> Iterable[ev.Event]:
    for name, registration in parsed.clusters.items():
        yield ev.ClusterRegistered(registration.spec)
        yield ev.InventoryChanged(parsed.inventories.get(name) or Inventory(name))
    for policy in (*parsed.policies.values(), *parsed.resource_policies.values(), *parsed.priority_classes.values()):
        yield ev.PolicyChanged(policy)
    for item in parsed.placements.values():
        yield from _placed(item)
    for workload in parsed.workloads.values():
        yield ev.WorkloadSubmitted(workload)


def _placed(item: PlacementDocument) -> Iterable[ev.Event]:
    placement = item.placement
    yield ev.PlacementRead(placement.workload, Version(0, 1), placement)
    for share in placement.shares:
        left = item.bound_in(share.cluster)
        components = []
        for name, count in share.components:
            bound = min(left, count)
            left -= bound
            components.append((name, ComponentPods(bound=bound, ready=bound)))
        yield ev.PodsChanged(WorkloadPods(share.cluster, placement.workload, components=tuple(components)))
