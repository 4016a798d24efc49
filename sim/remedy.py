"""What would place a workload that is not placed: small changes, each tried by planning with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from gpufleet.model.cluster import FreeBlock, Health, Inventory, ModelStock, NodeClass, VirtualNode
from gpufleet.model.placement import Placement
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.quota import Quota
from gpufleet.model.reasons import Code, Verdict
from gpufleet.model.selectors import Toleration, untolerated
from gpufleet.wire.documents import Parsed
from services.scheduler.core.quota import Quotas, Shortfall
from services.scheduler.core.quota_terms import preemptible
from sim.plan import plan

_MOST_LIMITS = 32
Change = Callable[[int], Parsed]

# What more room in a cluster may help against.
_ROOM = frozenset(
    {
        Code.INSUFFICIENT_RESOURCES,
        Code.NO_STOCK,
        Code.NEVER_FITS,
        Code.GANG_DOES_NOT_FIT,
        Code.NO_MATCHING_NODES,
        Code.NO_UNIT_HAS_ROOM,
    }
)


def remedies(parsed: Parsed, workload: str) -> Iterator[str]:
    """Yields changes that would place all of a workload, each in a few words and the cheaper kinds first.

    Every one was tried: `plan` with this change alone, and without the other workloads that wait, places it. Of more
    nodes only the fewest are named. Nothing is yielded for a workload that is placed, or that no single change helps.
    """
    parsed = _alone(parsed, workload)
    now = _placed(parsed, workload)
    if now is None or now.verdict is Verdict.SCHEDULED:
        return
    policy = parsed.policies.get(now.policy)
    if policy is not None:
        for text, changed in _of_policy(policy, parsed, now):
            if _helps(_with_policy(parsed, changed), workload):
                yield text
    yield from _of_quota(parsed, now)
    yield from _of_clusters(parsed, now)
    yield from _of_capacity(parsed, now)


def _alone(parsed: Parsed, workload: str) -> Parsed:
    """Returns the documents without the workloads that have no place."""
    kept = {
        key: item
        for key, item in parsed.workloads.items()
        if key == workload or (key in parsed.placements and parsed.placements[key].placement.shares)
    }
    return replace(parsed, workloads=kept)


def _placed(parsed: Parsed, workload: str) -> Placement | None:
    return next((placement for placement in plan(parsed) if placement.workload == workload), None)


def _helps(parsed: Parsed, workload: str) -> bool:
    placement = _placed(parsed, workload)
    return placement is not None and placement.verdict is Verdict.SCHEDULED


# -- the policy --------------------------------------------------------------------------------------------------------


def _of_policy(policy: PropagationPolicy, parsed: Parsed, now: Placement) -> Iterator[tuple[str, PropagationPolicy]]:
    """Yields changes of the policy that its reasons suggest."""
    where = policy.key.split("/", 1)[0] + " " + "/".join(part for part in (policy.namespace, policy.name) if part)
    codes = {reason.code for reason in now.reasons}
    if policy.suspend_scheduling:
        yield f"suspension.scheduling: false in {where}", replace(policy, suspend_scheduling=False)
    if not policy.ecs_provision and any(_elastic(inventory) for inventory in parsed.inventories.values()):
        yield f"ecsProvision: true in {where}, so that nodes are created", replace(policy, ecs_provision=True)
    if Code.NAMESPACE_MISSING in codes:
        yield f"createNamespaces: true in {where}", replace(policy, create_namespaces=True)
    for reason in now.reasons:
        registration = parsed.clusters.get(reason.cluster)
        if reason.code is not Code.CLUSTER_TAINTED or registration is None:
            continue
        taint = untolerated(registration.spec.taints, policy.placement.tolerations)
        if taint is not None:
            tolerations = (*policy.placement.tolerations, Toleration(taint.key, "Equal", taint.value, taint.effect))
            yield (
                f"a toleration of {taint.text} in {where}",
                replace(policy, placement=replace(policy.placement, tolerations=tolerations)),
            )
    for constraint in policy.placement.spread:
        rest = tuple(other for other in policy.placement.spread if other is not constraint)
        by = constraint.field or constraint.label
        yield (
            f"without the spread over {constraint.min_groups} or more by {by} in {where}",
            replace(policy, placement=replace(policy.placement, spread=rest)),
        )


def _elastic(inventory: Inventory) -> bool:
    return any(found.elastic is not None and found.elastic.nodes > 0 for found in inventory.node_classes)


def _with_policy(parsed: Parsed, policy: PropagationPolicy) -> Parsed:
    changed = replace(policy, digest=f"{policy.digest}+")
    return replace(parsed, policies={**parsed.policies, policy.key: changed})


# -- the quota ---------------------------------------------------------------------------------------------------------


def _of_quota(parsed: Parsed, now: Placement) -> Iterator[str]:
    """Yields the limits to raise, all together, where a quota is what it waits for."""
    if not any(reason.code is Code.QUOTA_EXCEEDED for reason in now.reasons):
        return
    workload = parsed.workloads[now.workload]
    trees = dict(parsed.quota_trees)
    counts = {component.name: component.replicas for component in workload.components}
    texts: dict[tuple[str, str, str], str] = {}
    # Each round raises one limit, and there are so many on the way from a leaf to the root.
    for _ in range(_MOST_LIMITS):
        quotas = Quotas()
        for tree in trees.values():
            quotas.put(tree)
        leaf = quotas.leaf_of(workload)
        if leaf is None:
            return
        for key, placed in parsed.placements.items():
            quotas.update(key, parsed.workloads.get(key), placed.placement)
        needs = quotas.needs(workload, counts)
        room, short = quotas.room(workload.key, leaf, needs, firm=not preemptible(workload))
        if room > 0 or short is None:
            break
        texts[short.quota, short.resource, short.what] = short.needs()
        trees = {key: replace(tree, root=_raised(tree.root, short)) for key, tree in trees.items()}
    if texts and _helps(replace(parsed, quota_trees=trees), now.workload):
        yield "; ".join(texts.values())


def _raised(quota: Quota, short: Shortfall) -> Quota:
    """Returns a quota with the limit that is in the way raised as far as needed, wherever it is below."""
    children = tuple(_raised(child, short) for child in quota.children)
    if quota.name != short.quota:
        return replace(quota, children=children)
    limits = dict(quota.min if short.what == "min" else quota.max)
    limits[short.resource] = short.used + short.needed
    amounts = tuple(sorted(limits.items()))
    if short.what == "min":
        return replace(quota, min=amounts, children=children)
    return replace(quota, max=amounts, children=children)


# -- clusters ----------------------------------------------------------------------------------------------------------


def _of_clusters(parsed: Parsed, now: Placement) -> Iterator[str]:
    """Yields clusters that would take it if they answered."""
    for cluster in _named(now, frozenset({Code.CLUSTER_UNREACHABLE})):
        inventory = parsed.inventories.get(cluster)
        if inventory is not None and _helps(
            _with_inventory(parsed, replace(inventory, health=Health.READY)), now.workload
        ):
            yield f"{cluster} reachable again"


def _of_capacity(parsed: Parsed, now: Placement) -> Iterator[str]:
    """Yields the fewest nodes, and the least stock of a serverless region, that would do."""
    pods = now.unplaced
    best: tuple[int, str] | None = None
    for cluster in _named(now, _ROOM):
        inventory = parsed.inventories.get(cluster)
        if inventory is None:
            continue
        for node_class in inventory.node_classes:
            bound = pods if best is None else min(pods, best[0] - 1)
            count = _least(partial(_with_nodes, parsed, inventory, node_class), bound, now.workload)
            if count is not None:
                best = (count, f"{count} more node{'s' if count > 1 else ''} of class {node_class.name} in {cluster}")
        for node in inventory.virtual_nodes:
            for stock in node.stock or ():
                change = partial(_with_stock, parsed, inventory, node, stock)
                count = _least(change, 8 * pods, now.workload)
                if count is not None:
                    gpus = f"{stock.model} GPU{'s' if count > 1 else ''}"
                    yield f"{count} more {gpus} in stock for {node.name} in {cluster}"
    if best is not None:
        yield best[1]


def _named(now: Placement, codes: frozenset[Code]) -> list[str]:
    return list(dict.fromkeys(reason.cluster for reason in now.reasons if reason.cluster and reason.code in codes))


def _least(change: Change, bound: int, workload: str) -> int | None:
    """Returns the smallest of 1 to ``bound`` that places the workload, or None if not even the largest does."""
    if bound < 1 or not _helps(change(bound), workload):
        return None
    low, high = 1, bound
    while low < high:
        middle = (low + high) // 2
        if _helps(change(middle), workload):
            high = middle
        else:
            low = middle + 1
    return low


def _with_nodes(parsed: Parsed, inventory: Inventory, node_class: NodeClass, count: int) -> Parsed:
    more = FreeBlock(count, node_class.allocatable)
    grown = replace(node_class, nodes=node_class.nodes + count, free=(*node_class.free, more))
    classes = tuple(grown if found is node_class else found for found in inventory.node_classes)
    return _with_inventory(parsed, replace(inventory, node_classes=classes))


def _with_stock(parsed: Parsed, inventory: Inventory, node: VirtualNode, stock: ModelStock, count: int) -> Parsed:
    known = tuple(replace(found, gpus=found.gpus + count) if found is stock else found for found in node.stock or ())
    nodes = tuple(replace(found, stock=known) if found is node else found for found in inventory.virtual_nodes)
    return _with_inventory(parsed, replace(inventory, virtual_nodes=nodes))


def _with_inventory(parsed: Parsed, inventory: Inventory) -> Parsed:
    return replace(parsed, inventories={**parsed.inventories, inventory.cluster: inventory})
