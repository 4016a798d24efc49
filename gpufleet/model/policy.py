"""Policies: which workloads go where, how they are divided, and which serverless units a pod tries.

Field meanings follow Karmada's policy API, which ACK One's is compatible with; defaults are filled in already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gpufleet.model.resources import Labels
from gpufleet.model.selectors import LabelSelector, Requirement, Toleration


@dataclass(frozen=True, slots=True)
class ResourceSelector:
    """Which templates a policy selects; an empty ``name`` selects every object of the kind."""

    api_version: str
    kind: str
    namespace: str = ""
    name: str = ""
    labels: LabelSelector | None = None


@dataclass(frozen=True, slots=True)
class ClusterAffinity:
    """A set of clusters; as an entry of `clusterAffinities` it is a priority group called ``name``."""

    name: str = ""
    cluster_names: tuple[str, ...] = ()
    labels: LabelSelector | None = None
    fields: tuple[Requirement, ...] = ()  # provider, region, zone
    exclude: tuple[str, ...] = ()


class DivisionType(StrEnum):
    """`replicaSchedulingType` and `replicaDivisionPreference` together."""

    DUPLICATED = "Duplicated"
    STATIC = "StaticWeight"
    DYNAMIC = "DynamicWeight"
    AGGREGATED = "Aggregated"


@dataclass(frozen=True, slots=True)
class StaticWeight:
    """A weight of 1 or more for the clusters of an affinity."""

    target: ClusterAffinity
    weight: int


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """Spread over groups of clusters: ``field`` is cluster, region, zone or provider, or ``label`` names a label."""

    field: str = ""
    label: str = ""
    min_groups: int = 1
    max_groups: int = 0  # 0: no bound


@dataclass(frozen=True, slots=True)
class Placement:
    """The `placement` part: groups in order of priority, and how replicas are divided over them."""

    groups: tuple[ClusterAffinity, ...] = ()  # empty: every cluster is a candidate
    prioritized: bool = False  # True: from clusterAffinities, an ordered overflow
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[SpreadConstraint, ...] = ()
    division: DivisionType = DivisionType.DUPLICATED
    static_weights: tuple[StaticWeight, ...] = ()
    gang: bool = False
    overflow: bool = False  # from overflowAffinities: aggregated replicas overflow into the next group too

    @property
    def exclusive(self) -> bool:
        """Whether one priority group takes everything: without dynamic weights they do not overflow."""
        if not self.prioritized or self.division is DivisionType.DYNAMIC:
            return False
        return not (self.overflow and self.division is DivisionType.AGGREGATED)


@dataclass(frozen=True, slots=True)
class PropagationPolicy:
    """A PropagationPolicy, or a ClusterPropagationPolicy where ``namespace`` is empty."""

    name: str
    namespace: str
    selectors: tuple[ResourceSelector, ...]
    placement: Placement = field(default_factory=Placement)
    priority: int = 0
    preempts_policies: bool = False  # `preemption: Always`
    ecs_provision: bool = False
    preempt_before_provision: bool = False
    existing_capacity_first: bool = False
    partial_statefulsets: bool = False
    suspend_scheduling: bool = False
    suspend_dispatching: bool = False
    suspend_dispatching_on: tuple[str, ...] = ()
    preserve_on_deletion: bool = False
    conflict_overwrite: bool = False
    create_namespaces: bool = False
    scheduler_name: str = "default-scheduler"
    propagate_deps: bool = False
    lazy: bool = False
    redispatch_user_failures: bool = False
    priority_class: str = ""  # ranks what the policy selects, in place of the class that the pods name
    dependent_overrides: tuple[str, ...] = ()  # override policies that must be there before anything is placed
    prefer_node_class: bool = False  # pods go along with a preference for the node class that was counted on
    queue_timeout: float | None = None  # seconds that it may wait with nothing placed; None: for ever
    version: int = 0
    digest: str = ""
    manifest: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)  # as it was written

    @property
    def key(self) -> str:
        """``kind/namespace/name``, the key on the policies topic."""
        kind = "PropagationPolicy" if self.namespace else "ClusterPropagationPolicy"
        return f"{kind}/{self.namespace}/{self.name}"


class UnitResource(StrEnum):
    """Kinds of a ResourcePolicy unit."""

    IDC = "idc"
    ECS = "ecs"
    ECI = "eci"
    ACS = "acs"
    ELASTIC = "elastic"


@dataclass(frozen=True, slots=True)
class ResourceUnit:
    """One unit of a ResourcePolicy, tried in order; the labels are written to pods that land in it."""

    resource: UnitResource
    node_selector: Labels = ()
    max: int | None = None
    max_resources: tuple[tuple[str, int], ...] = ()
    pod_labels: Labels = ()
    pod_annotations: Labels = ()


@dataclass(frozen=True, slots=True)
class ResourcePolicy:
    """A ResourcePolicy of one namespace; an empty selector selects every pod of it."""

    name: str
    namespace: str
    units: tuple[ResourceUnit, ...]
    selector: LabelSelector = field(default_factory=LabelSelector)
    when_try_next: str = "LackResourceOrExceedMax"
    timeout: float | None = None  # seconds
    preempt_policy: str = "AfterAllUnits"
    ignore_previous_pod: bool = False
    ignore_terminating_pod: bool = True
    match_label_keys: tuple[str, ...] = ()
    version: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class PriorityClass:
    """A PriorityClass object."""

    name: str
    value: int
    global_default: bool = False
    preempts: bool = True
    version: int = 0
