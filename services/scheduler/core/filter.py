"""Which clusters may take a workload, and why the others may not (specification 1.2, 2.3).

What depends only on the policy, the kind and the clusters' state is computed once per fleet generation; caps,
refusals and stale inventories are looked at per decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.policy import ClusterAffinity, PropagationPolicy
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.selectors import Requirement, untolerated
from gpufleet.model.workload import Workload
from services.scheduler.core.columns import Indexes
from services.scheduler.core.divide import Option
from services.scheduler.core.fleet import Fleet
from services.scheduler.core.member import Member
from services.scheduler.core.taints import tolerated_until
from services.scheduler.core.topology import missing_property

_CACHE = 4096


@dataclass(frozen=True, slots=True)
class Tier:
    """A priority group: its name and the clusters that may take new replicas, by name."""

    name: str
    members: tuple[Member, ...]
    indexes: Indexes = field(init=False, compare=False, repr=False)  # of the members in the fleet's columns

    def __post_init__(self) -> None:
        object.__setattr__(self, "indexes", np.array([member.index for member in self.members], np.intp))


@dataclass(frozen=True, slots=True)
class Candidates:
    """``tiers`` hold eligible clusters; ``tier_of`` every cluster that the policy means, eligible or not.

    A cluster belongs to the first group that means it. Where one group takes everything, ``shared`` gives the groups of
    clusters that several mean.
    ``evict`` names clusters whose taints drive out what runs there; ``until`` gives the time from which they do, for
    clusters whose taints are tolerated for a while.
    """

    tiers: tuple[Tier, ...]
    tier_of: dict[str, int]
    reasons: tuple[Reason, ...]
    evict: frozenset[str]
    until: Mapping[str, float] = field(default_factory=dict)
    shared: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    quotas: bool = False  # some eligible cluster has a ResourceQuota in the workload's namespace

    def driven_out(self, cluster: str, now: float) -> bool:
        """Returns whether a cluster's taints drive out what runs there."""
        return cluster in self.evict or (bool(self.until) and self.until.get(cluster, math.inf) <= now)


class CandidateCache:
    """Candidates by policy, kind and namespace, for one generation of the fleet."""

    def __init__(self) -> None:
        self._generation = -1
        self._known: dict[tuple[str, str, int, str, str, str], Candidates] = {}

    def candidates(self, fleet: Fleet, policy: PropagationPolicy, workload: Workload) -> Candidates:
        """Returns the candidates of a workload under its policy."""
        if self._generation != fleet.generation or len(self._known) > _CACHE:
            self._generation = fleet.generation
            self._known.clear()
        key = (
            policy.key,
            policy.digest,
            policy.version,
            workload.api_version,
            workload.kind,
            workload.namespace,
        )
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _candidates(fleet, policy, workload)
        return known


def _candidates(fleet: Fleet, policy: PropagationPolicy, workload: Workload) -> Candidates:
    groups = policy.placement.groups or (ClusterAffinity(),)
    registered = sorted((m for m in fleet.members.values() if m.spec is not None), key=lambda m: m.name)
    tiers: list[Tier] = []
    tier_of: dict[str, int] = {}
    reasons: list[Reason] = []
    evict: set[str] = set()
    until: dict[str, float] = {}
    shared: dict[str, tuple[int, ...]] = {}
    for number, group in enumerate(groups):
        eligible = []
        for member in registered:
            again = member.name in tier_of
            if again and not policy.placement.exclusive:
                continue
            if member.spec is None or not selects_cluster(group, member.spec):
                continue
            if again:
                shared[member.name] = (*shared.get(member.name, (tier_of[member.name],)), number)
                continue
            tier_of[member.name] = number
            reason = _refusal(member, member.spec, policy, workload)
            if reason is None:
                eligible.append(member)
            else:
                reasons.append(reason)
            if member.spec.taints:
                at = tolerated_until(member.spec.taints, policy.placement.tolerations)
                if at == -math.inf:
                    evict.add(member.name)
                elif at < math.inf:
                    until[member.name] = at
        for name in sorted(set(group.cluster_names) - set(group.exclude)):
            member_known = fleet.members.get(name)
            if name not in tier_of and (member_known is None or member_known.spec is None):
                tier_of[name] = number
                reasons.append(Reason(Code.CLUSTER_UNKNOWN, "no cluster of this name is registered", name))
        tiers.append(Tier(group.name, tuple(eligible)))
    if not tier_of:
        where = "the fleet has no clusters" if not registered else "the policy's cluster affinity selects no cluster"
        reasons.append(Reason(Code.NO_CLUSTERS, where))
    quotas = any(
        quota.namespace == workload.namespace
        for tier in tiers
        for member in tier.members
        for quota in (member.inventory.quotas if member.inventory is not None else ())
    )
    return Candidates(tuple(tiers), tier_of, tuple(reasons), frozenset(evict), until, shared, quotas)


def _refusal(member: Member, spec: ClusterSpec, policy: PropagationPolicy, workload: Workload) -> Reason | None:
    inventory = member.inventory
    if inventory is None:
        return Reason(Code.INVENTORY_MISSING, "no inventory was reported yet", member.name)
    if not member.ready:
        detail = f": {inventory.message}" if inventory.message else ""
        return Reason(Code.CLUSTER_UNREACHABLE, f"the cluster's API does not answer{detail}", member.name)
    taint = untolerated(spec.taints, policy.placement.tolerations)
    if taint is not None:
        return Reason(
            Code.CLUSTER_TAINTED, f"the policy does not tolerate the cluster's taint {taint.text}", member.name
        )
    api = f"{workload.api_version}/{workload.kind}"
    if inventory.apis is not None and api not in inventory.apis:
        return Reason(Code.API_NOT_SERVED, f"the cluster does not serve {api}", member.name)
    if (
        inventory.namespaces is not None
        and workload.namespace not in inventory.namespaces
        and not policy.create_namespaces
    ):
        return Reason(
            Code.NAMESPACE_MISSING,
            f"namespace {workload.namespace} does not exist; create it, or set createNamespaces in the policy",
            member.name,
        )
    if policy.placement.spread and (lacks := missing_property(policy.placement.spread, spec)):
        message = f"the policy spreads over it, but the cluster has no {lacks}"
        return Reason(Code.SPREAD_UNMET, message, member.name)
    return None


def selects_cluster(affinity: ClusterAffinity, spec: ClusterSpec) -> bool:
    """Returns whether an affinity means a cluster; an empty one means every cluster."""
    if spec.name in affinity.exclude:
        return False
    if affinity.cluster_names and spec.name not in affinity.cluster_names:
        return False
    if affinity.labels is not None and not affinity.labels.matches(dict(spec.labels)):
        return False
    return all(_field_matches(requirement, spec) for requirement in affinity.fields)


def _field_matches(requirement: Requirement, spec: ClusterSpec) -> bool:
    """Returns whether a cluster's field matches: In wants all its zones among the values, NotIn none, as upstream."""
    match requirement.key:
        case "provider":
            values: tuple[str, ...] = (spec.provider,)
        case "region":
            values = (spec.region,)
        case "zone":
            values = spec.zones
        case _:
            return False
    if requirement.operator == "In":
        return bool(values) and all(value in requirement.values for value in values)
    return not any(value in requirement.values for value in values)


def static_weights(policy: PropagationPolicy, fleet: Fleet, options: list[Option]) -> None:
    """Sets each option's weight: the greatest of the rules that mean the cluster, 0 without one."""
    for option in options:
        spec = fleet.members[option.cluster].spec
        option.weight = max(
            (
                rule.weight
                for rule in policy.placement.static_weights
                if spec is not None and selects_cluster(rule.target, spec)
            ),
            default=0,
        )
