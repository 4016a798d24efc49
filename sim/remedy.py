"""What would place a workload that is not placed: small changes, each tried by planning with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from gpufleet.model.cluster import Health, Inventory
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.reasons import Code
from gpufleet.model.selectors import Toleration, untolerated
from gpufleet.wire.documents import Parsed
from sim import remedy_pods, remedy_quota, remedy_room
from sim.remedy_case import Case, Remedy, case_of, same


def remedies(parsed: Parsed, workload: str) -> Iterator[str]:
    """Yields changes that would place all of a workload, each in a few words and the cheaper kinds first.

    Every one was tried: `plan` with this change alone places it, without the other workloads that wait. Where these
    would take the room first, the text says how much more it then takes, or that it has to be its turn. Of more nodes
    only the fewest are named. Nothing is yielded for a workload that is placed, or that no single change helps.
    """
    case = case_of(parsed, workload)
    if case is None:
        return
    if case.helps(same):
        yield "no change: only those that go before it are in the way"
        return
    for remedy in (*_of_policy(case), *remedy_pods.changes(case), *_of_clusters(case)):
        if case.helps(remedy.change):
            yield case.told(remedy)
    yield from remedy_quota.limits(case)
    for sized in (*remedy_pods.units(case), *remedy_room.namespaces(case), *remedy_room.regions(case)):
        count = case.least(sized)
        if count is not None:
            yield case.told_of(sized, count)
    fewest = remedy_room.nodes(case)
    if fewest is not None:
        yield case.told_of(*fewest)


def _of_policy(case: Case) -> Iterator[Remedy]:
    """Yields changes of the policy that its reasons suggest."""
    parsed, policy = case.alone, case.alone.policies.get(case.now.policy)
    if policy is None:
        return
    where = policy.key.split("/", 1)[0] + " " + "/".join(part for part in (policy.namespace, policy.name) if part)

    def remedy(text: str, changed: PropagationPolicy) -> Remedy:
        return Remedy(text, partial(_with_policy, policy=changed))

    if policy.suspend_scheduling:
        yield remedy(f"suspension.scheduling: false in {where}", replace(policy, suspend_scheduling=False))
    if not policy.ecs_provision and any(_elastic(inventory) for inventory in parsed.inventories.values()):
        yield remedy(f"ecsProvision: true in {where}, so that nodes are created", replace(policy, ecs_provision=True))
    if case.has(Code.NAMESPACE_MISSING):
        yield remedy(f"createNamespaces: true in {where}", replace(policy, create_namespaces=True))
    for cluster in case.named({Code.CLUSTER_TAINTED}):
        registration = parsed.clusters.get(cluster)
        taint = untolerated(registration.spec.taints, policy.placement.tolerations) if registration else None
        if taint is not None:
            tolerations = (*policy.placement.tolerations, Toleration(taint.key, "Equal", taint.value, taint.effect))
            yield remedy(
                f"a toleration of {taint.text} in {where}",
                replace(policy, placement=replace(policy.placement, tolerations=tolerations)),
            )
    for constraint in policy.placement.spread:
        rest = tuple(other for other in policy.placement.spread if other is not constraint)
        by = constraint.field or constraint.label
        yield remedy(
            f"without the spread over {constraint.min_groups} or more by {by} in {where}",
            replace(policy, placement=replace(policy.placement, spread=rest)),
        )


def _elastic(inventory: Inventory) -> bool:
    return any(found.elastic is not None and found.elastic.nodes > 0 for found in inventory.node_classes)


def _with_policy(parsed: Parsed, policy: PropagationPolicy) -> Parsed:
    changed = replace(policy, digest=f"{policy.digest}+")
    return replace(parsed, policies={**parsed.policies, policy.key: changed})


def _of_clusters(case: Case) -> Iterator[Remedy]:
    """Yields clusters that would take it if they answered."""
    for cluster in case.named({Code.CLUSTER_UNREACHABLE}):
        if cluster in case.alone.inventories:
            yield Remedy(f"{cluster} reachable again", partial(_reachable, cluster=cluster))


def _reachable(parsed: Parsed, cluster: str) -> Parsed:
    return remedy_room.with_inventory(parsed, replace(parsed.inventories[cluster], health=Health.READY))
