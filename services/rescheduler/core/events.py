"""What the rescheduler reads: one event per record of a table; None in a field means that the record is gone."""

from __future__ import annotations

from dataclasses import dataclass

from gpufleet.model.cluster import Inventory, WorkloadPods
from gpufleet.model.placement import Eviction, Observation, Placement, Version


@dataclass(frozen=True, slots=True)
class PlacementChanged:
    """A placement was written, or removed. ``version`` is the tombstone's; None counts always."""

    workload: str
    placement: Placement | None
    version: Version | None = None


@dataclass(frozen=True, slots=True)
class PodsChanged:
    """A cluster's pods of a workload changed, or are no longer there."""

    cluster: str
    workload: str
    pods: WorkloadPods | None


@dataclass(frozen=True, slots=True)
class ClusterChanged:
    """A cluster's snapshot was closed, or the cluster left the fleet."""

    cluster: str
    inventory: Inventory | None


@dataclass(frozen=True, slots=True)
class Observed:
    """The dispatcher's word about an assignment, or its end."""

    cluster: str
    workload: str
    observation: Observation | None


@dataclass(frozen=True, slots=True)
class EvictionRead:
    """An own record, read back at start or written by a lower epoch."""

    workload: str
    eviction: Eviction | None


@dataclass(frozen=True, slots=True)
class FreezeChanged:
    """While the fleet is frozen nothing is evicted."""

    frozen: bool


Event = PlacementChanged | PodsChanged | ClusterChanged | Observed | EvictionRead | FreezeChanged
