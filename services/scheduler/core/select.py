"""Which policy places a workload (specification 1.2, 1.4).

A policy of the workload's namespace goes before a cluster-wide one; then the higher priority, then the more specific
selector (name, label, kind), then the first by name. A template stays with the policy that has claimed it while that
one still selects it, unless another preempts policies and ranks higher.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpufleet.model.policy import PropagationPolicy, ResourceSelector
from gpufleet.model.workload import Workload


def specificity(selector: ResourceSelector, policy_namespace: str, workload: Workload) -> int:
    """Returns 3 for a match by name, 2 by label, 1 by kind, 0 for none."""
    if policy_namespace:
        if workload.namespace != policy_namespace:
            return 0
    elif not selector.namespace and workload.namespace.startswith("kube-"):
        return 0  # a cluster-wide policy does not reach into system namespaces by itself
    return selects(selector, workload)


def selects(selector: ResourceSelector, workload: Workload) -> int:
    """Returns how specifically a selector means a workload, whoever has it: 3 by name, 2 by label, 1 by kind, or 0."""
    if selector.api_version != workload.api_version or selector.kind != workload.kind:
        return 0
    if selector.namespace not in ("", workload.namespace):
        return 0
    if selector.name:
        return 3 if selector.name == workload.name else 0
    if selector.labels is not None:
        return 2 if selector.labels.matches(dict(workload.labels)) else 0
    return 1


def matches(policy: PropagationPolicy, workload: Workload) -> int:
    """Returns the best specificity of a policy's selectors, 0 if it does not select the workload."""
    best = 0
    for selector in policy.selectors:
        best = max(best, specificity(selector, policy.namespace, workload))
    return best


def select(
    policies: Iterable[PropagationPolicy], workload: Workload, claimed_by: str = ""
) -> tuple[PropagationPolicy | None, tuple[PropagationPolicy, ...]]:
    """Returns the policy that counts, or None, and the others that match too (ignored), best first."""
    ranked = [(policy, found) for policy in policies if (found := matches(policy, workload))]
    if not ranked:
        return None, ()
    if len(ranked) == 1:
        return ranked[0][0], ()
    ranked.sort(key=lambda item: (not item[0].namespace, -item[0].priority, -item[1], item[0].name))
    matching = [policy for policy, _ in ranked]
    chosen = next((policy for policy in matching if policy.key == claimed_by), matching[0])
    if chosen is not matching[0] and (best := _preempting(matching, chosen)) is not None:
        chosen = best
    return chosen, tuple(policy for policy in matching if policy is not chosen)


def _preempting(matching: list[PropagationPolicy], claimed: PropagationPolicy) -> PropagationPolicy | None:
    for policy in matching:
        if policy is claimed:
            return None
        if policy.preempts_policies and (
            policy.priority > claimed.priority or (policy.namespace and not claimed.namespace)
        ):
            return policy
    return None


class PolicyIndex:
    """Propagation policies by what they may select: a look-up touches those of one kind, of its namespace or of all."""

    def __init__(self) -> None:
        self._by_key: dict[str, PropagationPolicy] = {}
        self.ranking: set[str] = set()  # policies that say what ranks the workloads that they select
        self._by_kind: dict[tuple[str, str, str], dict[str, PropagationPolicy]] = {}

    def get(self, key: str) -> PropagationPolicy | None:
        """Returns a policy by its key, or None."""
        return self._by_key.get(key)

    def all(self) -> Mapping[str, PropagationPolicy]:
        """Returns every policy by key."""
        return self._by_key

    def put(self, policy: PropagationPolicy) -> None:
        """Adds or replaces a policy."""
        self.remove(policy.key)
        self._by_key[policy.key] = policy
        if policy.priority_class:
            self.ranking.add(policy.key)
        for selector in policy.selectors:
            kind = (selector.api_version, selector.kind, policy.namespace)
            self._by_kind.setdefault(kind, {})[policy.key] = policy

    def remove(self, key: str) -> PropagationPolicy | None:
        """Removes a policy and returns it, or None."""
        policy = self._by_key.pop(key, None)
        self.ranking.discard(key)
        if policy is not None:
            for selector in policy.selectors:
                self._by_kind.get((selector.api_version, selector.kind, policy.namespace), {}).pop(key, None)
        return policy

    def select(
        self, workload: Workload, claimed_by: str = ""
    ) -> tuple[PropagationPolicy | None, tuple[PropagationPolicy, ...]]:
        """Returns the policy that counts for a workload, or None, and the ignored ones."""
        found: list[PropagationPolicy] = []
        for namespace in {workload.namespace, ""}:
            found += self._by_kind.get((workload.api_version, workload.kind, namespace), {}).values()
        return select(found, workload, claimed_by)
