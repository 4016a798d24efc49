"""What would happen: the scheduler's own decision on documents, without clusters and without a clock."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gpufleet.model import kinds
from gpufleet.model.cluster import ComponentPods, Inventory, WorkloadPods
from gpufleet.model.placement import Placement
from gpufleet.model.queueing import counted
from gpufleet.wire.documents import Parsed, PlacementDocument
from services.scheduler.core import State, decide
from services.scheduler.core import events as ev
from services.scheduler.core.settings import Settings
from sim.placed import as_decided, bound_pods

_SETTINGS = Settings(stale_after=math.inf, hold_timeout=math.inf, lost_when_unreachable=True)
_NOW = 0.0


def plan(parsed: Parsed) -> list[Placement]:
    """Returns where everything would go, ordered by workload.

    Placements among the documents say where workloads are now; an unreachable cluster's replicas are lost. One whose
    workload is not among the documents stays as it is.
    """
    with kinds.declaring(parsed.kinds.values()):
        state = State(_SETTINGS)
        decide(state, list(_tables(parsed)), _NOW)
        known = {key: item for key, item in parsed.placements.items() if key in parsed.workloads}
        placed = [event for item in known.values() for event in _placed(state, item)]
        decide(state, [*placed, ev.Started(1, "plan")], _NOW)
        found = {key: item.placement for key, item in parsed.placements.items()}
        found |= {placement.workload: placement for placement in state.placements()}
        return counted(found[key] for key in sorted(found))


def _tables(parsed: Parsed) -> Iterator[ev.Event]:
    for name, registration in parsed.clusters.items():
        yield ev.ClusterRegistered(registration.spec)
        yield ev.InventoryChanged(parsed.inventories.get(name) or Inventory(name))
    yield from map(ev.PolicyChanged, parsed.policies.values())
    yield from map(ev.PolicyChanged, parsed.overrides.values())
    yield from map(ev.PolicyChanged, parsed.resource_policies.values())
    yield from map(ev.PolicyChanged, parsed.priority_classes.values())
    yield from map(ev.PolicyChanged, parsed.quota_trees.values())
    yield from map(ev.PolicyChanged, parsed.queues.values())
    for workload in parsed.workloads.values():
        yield ev.WorkloadSubmitted(workload)


def _placed(state: State, item: PlacementDocument) -> Iterator[ev.Event]:
    placement = as_decided(state, item.placement, _NOW)
    yield ev.PlacementRead(placement.workload, placement.version, placement)
    for share in placement.shares:
        bound = bound_pods(item, share.cluster)
        components = tuple((name, ComponentPods(bound=count, ready=count)) for name, count in bound.items())
        yield ev.PodsChanged(WorkloadPods(share.cluster, placement.workload, components=components))
