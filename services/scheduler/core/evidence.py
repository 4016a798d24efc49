"""What a decision saw, in values that JSON can say: the `state` of a record of `gpufleet.history`.

It is made of the core's own types, so only a scheduler of the same `FORMAT` reads it; new fields have defaults. Amounts
are in base units, times in epoch seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gpufleet.model.cluster import ClusterSpec, FreeBlock, Inventory, NodeClass, WorkloadPods
from gpufleet.model.overrides import OverridePolicy
from gpufleet.model.placement import AssignmentState, Eviction, Observation, Placement, Slot, Source, Version
from gpufleet.model.policy import PriorityClass, PropagationPolicy, ResourcePolicy
from gpufleet.model.quota import Amounts, ElasticQuotaTree, QueueRule
from gpufleet.model.reasons import Reason
from gpufleet.model.resources import Resources
from gpufleet.model.workload import PodShape, Workload
from services.scheduler.core.divide import Mode
from services.scheduler.core.pool import Doubt
from services.scheduler.core.settings import Settings

FORMAT = 2
# Free blocks of a node class: how many nodes, then what each has left, by column of its layout.
Blocks = tuple[tuple[int, ...], ...]


class ClassSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node class of a cluster, and what was left of it; ``kind`` is its place in `Evidence.kinds`.

    ``nodes`` are all that run, ``listed`` those that the inventory's free blocks list; the others are full. ``elastic``
    is how many could be added at most, and how many are in stock. ``running`` are blocks of nodes that run; of nodes
    that could be created ``fresh`` are those in stock, ``coming`` the rests of those that somebody needed anyway.
    ``free`` is what the inventory lists, where somebody had to yield, so that it counts which nodes these are.
    ``rooms`` stands for all of these where only one shape was asked for: for how many of its pods there was room on
    nodes that run, and in stock, and how much of the latter on nodes that were coming.
    """

    kind: int
    nodes: int = 0
    listed: int = 0
    elastic: tuple[int, int] | None = None
    running: Blocks | None = None
    fresh: int | None = None
    coming: Blocks = ()
    rooms: tuple[int, int, int] | None = None
    free: tuple[FreeBlock, ...] = ()


class HoldSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a workload had reserved: pods of one shape on a node class, of which ``provisioning`` wait for nodes."""

    workload: str
    version: Version
    component: str
    shape: PodShape
    pool: str
    count: int
    source: Source = Source.RUNNING
    provisioning: int = 0


class ClusterSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """A cluster as a decision saw it: ``debt`` in pods; ``held`` is what reservations hold in the namespace's quota.

    ``spec`` and ``inventory`` are places in `Evidence.specs` and `Evidence.inventories`, None: there was none.
    ``virtual`` is what virtual nodes had left by GPU model series, of those with a bound; ``doubts`` says of which
    classes no further nodes were counted on. ``holds`` are the reservations on nodes where somebody had to yield; then
    ``classes`` are without any.
    """

    name: str
    spec: int | None = None
    inventory: int | None = None
    incarnation: str = ""
    observed_at: float = 0.0
    removed: bool = False
    classes: tuple[ClassSeen, ...] = ()
    debt: int = 0
    virtual: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    doubts: tuple[tuple[str, Doubt], ...] = ()
    held: Resources = ()
    holds: tuple[HoldSeen, ...] = ()


class Copies(msgspec.Struct, frozen=True, omit_defaults=True):
    """What counts of assignments that were there before, and are alike but for ``clusters`` and their incarnations.

    ``patches`` are those of a part of a divided Job.
    """

    clusters: tuple[str, ...]
    incarnations: tuple[str, ...]
    state: AssignmentState
    version: Version
    job: bool = False
    patches: tuple[Mapping[str, Any], ...] = ()


class ShareColumn(msgspec.Struct, frozen=True):
    """Shares of some clusters that are pods of one component on one node class each, all the same ``slot``."""

    slot: Slot
    clusters: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Other:
    """Another workload that the decision took something from, or that says nothing certain about what it needs.

    ``shares`` are those that its ``placement`` does not list; ``policies`` the one that it was placed by, and the one
    that selects it now.
    """

    key: str
    placement: Placement
    workload: Workload | None = None
    scale: int | None = None
    arrival: int | None = None
    pods: tuple[WorkloadPods, ...] = ()
    policies: tuple[PropagationPolicy, ...] = ()
    applied: PropagationPolicy | None = None
    shares: tuple[ShareColumn, ...] = ()


@dataclass(frozen=True, slots=True)
class Taking:
    """Where others made room for so many units, and who lost something in which cluster.

    ``without_stock``: while nodes that could be created did not count yet; ``ways`` is how many ways to land did.
    """

    cluster: str
    units: int
    losses: tuple[tuple[str, str], ...] = ()
    without_stock: bool = False
    ways: int = 1


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """What a quota used, with everything below it."""

    name: str
    used: Amounts = ()
    firm: Amounts = ()
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class LineSeen:
    """A queue as far as it bounds a decision: who is first, how many wait before it, who a cluster is kept for.

    ``beside`` is how many pods fit there beside that one, None: as many as you like.
    """

    name: str = ""
    first: tuple[int, int, str] | None = None
    kept_for: tuple[int, int, str] | None = None
    kept: str = ""
    unit: Amounts = ()
    ahead: int = 0
    beside: int | None = None


@dataclass(frozen=True, slots=True)
class UnitUse:
    """Pods of other workloads in a unit of a ResourcePolicy; ``terminating`` None: nobody asked for those."""

    cluster: str
    unit: str
    pods: int = 0
    amounts: Amounts = ()
    terminating: int | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Eligible clusters of a priority group that got nothing and are not told of otherwise: room by name."""

    tier: int
    clusters: tuple[str, ...]
    running: tuple[int, ...]
    stock: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that one decision was derived from; see `Entry` for what the fields of a workload mean.

    ``yields`` is where it had yet to give up pods to whoever took their place, and what it kept there.
    ``before_shares`` are those that the placement ``before`` does not list. ``policies`` are those that select it, the
    one that counts first; ``classes`` every PriorityClass; ``mix`` what placing whole was weighed by. ``specs``,
    ``inventories`` and ``kinds`` (of nodes) say once what clusters have alike. ``more`` counts the clusters of the
    fleet that are not in ``clusters``, which took no part in what was divided; ``rest`` and ``refused`` tell of them as
    far as there is a place for it. ``left_out`` says what had none: then a replay cannot be exact.
    """

    format: int
    key: str
    now: float
    mode: Mode
    epoch: int = 0
    settings: Settings = field(default_factory=Settings)
    workload: Workload | None = None
    scale: int | None = None
    deleted: bool = False
    unreadable: str = ""
    arrival: int | None = None
    eviction: Eviction | None = None
    before: Placement | None = None
    before_shares: tuple[ShareColumn, ...] = ()
    copies: tuple[Copies, ...] = ()
    observations: tuple[Observation, ...] = ()
    pods: tuple[WorkloadPods, ...] = ()
    gone: tuple[str, ...] = ()
    held_in: tuple[str, ...] = ()
    expired: bool = False
    policies: tuple[PropagationPolicy, ...] = ()
    applied: PropagationPolicy | None = None
    overrides: tuple[OverridePolicy, ...] = ()
    units: ResourcePolicy | None = None
    classes: tuple[PriorityClass, ...] = ()
    ranked: bool = False
    tree: ElasticQuotaTree | None = None
    queues: tuple[QueueRule, ...] = ()
    use: tuple[QuotaUse, ...] = ()
    line: LineSeen = LineSeen()
    mix: tuple[tuple[PodShape, int], ...] = ()
    unit_use: tuple[UnitUse, ...] = ()
    required: tuple[tuple[str, tuple[str, ...]], ...] = ()
    specs: tuple[ClusterSpec, ...] = ()
    inventories: tuple[Inventory, ...] = ()
    kinds: tuple[NodeClass, ...] = ()
    clusters: tuple[ClusterSeen, ...] = ()
    others: tuple[Other, ...] = ()
    taking: Taking | None = None
    yields: tuple[tuple[str, int], ...] = ()
    rest: tuple[Rest, ...] = ()
    refused: tuple[Reason, ...] = ()
    more: int = 0
    left_out: tuple[str, ...] = ()
