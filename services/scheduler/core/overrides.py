"""Which override policies change a workload's object in which cluster (specification 1.3).

ClusterOverridePolicies go before OverridePolicies; within each the more general selector goes first, then the name,
so the last word is the most specific one's. They run after replicas are divided and units chosen, and no decision
counts with what they change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet.model import kinds
from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.kinds.digest import digest
from gpufleet.model.overrides import OverridePolicy, OverrideRule
from gpufleet.model.patch import PatchError, apply_patch
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Workload
from services.scheduler.core.filter import selects_cluster
from services.scheduler.core.fleet import Fleet
from services.scheduler.core.overriders import Patch, patches
from services.scheduler.core.select import selects

# A policy, its rule's number and the rule.
Applied = tuple[OverridePolicy, int, OverrideRule]


class OverrideError(ValueError):
    """An override that cannot be applied to a workload's object."""


class Overrides:
    """Every override policy, by namespace; cluster-wide ones are in the empty one."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, OverridePolicy]] = {}

    @property
    def empty(self) -> bool:
        """Whether there is no policy at all."""
        return not self._known

    def put(self, policy: OverridePolicy) -> OverridePolicy | None:
        """Adds or replaces a policy and returns the one before, or None."""
        known = self._known.setdefault(policy.namespace, {})
        before = known.get(policy.name)
        known[policy.name] = policy
        return before

    def remove(self, namespace: str, name: str) -> OverridePolicy | None:
        """Removes a policy and returns it, or None."""
        known = self._known.get(namespace, {})
        policy = known.pop(name, None)
        if policy is not None and not known:
            del self._known[namespace]
        return policy

    def named(self, namespace: str, names: Iterable[str]) -> tuple[OverridePolicy, ...]:
        """Returns the policies of some names that are there."""
        known = self._known.get(namespace, {})
        return tuple(known[name] for name in names if name in known)

    def has(self, namespace: str, name: str) -> bool:
        """Returns whether there is a policy of a name; a cluster-wide one where the namespace is empty."""
        return name in self._known.get(namespace, {})

    def matching(self, workload: Workload) -> tuple[OverridePolicy, ...]:
        """Returns the policies that concern a workload, in the order in which they are applied."""
        if not self._known:
            return ()
        found = []
        for namespace in ("", workload.namespace):
            ranked = [(_rank(p, workload), p.name, p) for p in self._known.get(namespace, {}).values()]
            found += [policy for rank, _, policy in sorted(ranked, key=lambda item: item[:2]) if rank]
        return tuple(found)


def absent(overrides: Overrides, policy: PropagationPolicy) -> Reason | None:
    """Returns which of the override policies that a policy depends on are missing, if any."""
    names = [name for name in policy.dependent_overrides if not overrides.has(policy.namespace, name)]
    if not names:
        return None
    kind = "OverridePolicy" if policy.namespace else "ClusterOverridePolicy"
    return Reason(Code.OVERRIDES_MISSING, f"{policy.key} waits for the {kind} {', '.join(names)}")


def _rank(policy: OverridePolicy, workload: Workload) -> int:
    """Returns how specifically a policy means a workload: by name 3, by label 2, by kind or wholly 1, not at all 0."""
    return max((selects(s, workload) for s in policy.selectors), default=1)


def concerns(policy: OverridePolicy, workload: Workload) -> bool:
    """Returns whether a policy may change a workload's object."""
    return policy.namespace in ("", workload.namespace) and bool(_rank(policy, workload))


def rules_for(policies: Iterable[OverridePolicy], spec: ClusterSpec | None) -> tuple[Applied, ...]:
    """Returns the rules that mean a cluster, in order; one that is not registered is meant by rules for all only."""
    return tuple(
        (policy, index, rule)
        for policy in policies
        for index, rule in enumerate(policy.rules)
        if rule.target is None or (spec is not None and selects_cluster(rule.target, spec))
    )


def stamp(overrides: Overrides, fleet: Fleet, workload: Workload, clusters: Iterable[str]) -> str:
    """Returns a digest of what is overridden where, for a placement's inputs (rule 4); empty for nothing."""
    policies = overrides.matching(workload)
    if not policies:
        return ""
    found = {
        cluster: [f"{policy.key}@{policy.digest or policy.version}/{index}" for policy, index, _ in rules]
        for cluster in clusters
        if (rules := rules_for(policies, fleet.member(cluster).spec))
    }
    return digest({"rules": found})[:16] if found else ""


def override(
    manifest: Mapping[str, Any],
    components: Iterable[tuple[str, int]],
    first: Iterable[Patch],
    rules: Iterable[Applied],
) -> tuple[Patch, ...]:
    """Returns the operations of some rules on a manifest that has had ``first`` applied and its replicas set.

    Raises OverrideError, which names the policy and the operation.
    """
    obj = dict(manifest)
    obj.pop("status", None)
    found: list[Patch] = []
    try:
        for patch in first:
            apply_patch(obj, patch)
        obj = kinds.with_replicas(obj, components)
    except (kinds.KindError, PatchError) as error:
        raise OverrideError(str(error)) from error
    for policy, index, rule in rules:
        try:
            found.extend(patches(obj, rule))
        except PatchError as error:
            raise OverrideError(f"{policy.key}, overrideRules[{index}]: {error}") from error
    return tuple(found)


def failures(overrides: Overrides, workload: Workload, specs: Iterable[ClusterSpec]) -> dict[str, Reason]:
    """Returns by cluster why the workload's object cannot be overridden for it."""
    policies = overrides.matching(workload)
    if not policies:
        return {}
    found: dict[str, Reason] = {}
    tried: dict[tuple[tuple[str, int], ...], str] = {}
    for spec in specs:
        rules = rules_for(policies, spec)
        key = tuple((policy.key, index) for policy, index, _ in rules)
        if key not in tried:
            try:
                override(workload.manifest, [(c.name, c.replicas) for c in workload.components], (), rules)
                tried[key] = ""
            except OverrideError as error:
                tried[key] = str(error)
        if tried[key]:
            found[spec.name] = Reason(Code.OVERRIDE_FAILED, tried[key], spec.name)
    return found
