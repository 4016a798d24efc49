"""More room for a workload that waits: nodes, GPUs of a serverless region, what a ResourceQuota leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from gpufleet.model import quantity
from gpufleet.model.cluster import FreeBlock, Inventory, NamespaceQuota
from gpufleet.model.reasons import Code
from gpufleet.model.workload import Workload
from gpufleet.wire.documents import Parsed
from sim.remedy_case import Case, Sized

# What more room in a cluster may help against.
_SHORTAGES = (
    Code.INSUFFICIENT_RESOURCES,
    Code.NO_STOCK,
    Code.STOCK_NOT_TRUSTED,
    Code.NEVER_FITS,
    Code.GANG_DOES_NOT_FIT,
    Code.NO_MATCHING_NODES,
    Code.NO_UNIT_HAS_ROOM,
    Code.WAITING_IN_UNIT,
)


def nodes(case: Case) -> tuple[Sized, int] | None:
    """Returns the fewest nodes of one class in one cluster that would do, or None."""
    best: tuple[Sized, int] | None = None
    for cluster in case.named(_SHORTAGES):
        inventory = case.alone.inventories.get(cluster)
        for node_class in inventory.node_classes if inventory is not None else ():
            sized = Sized(
                partial(_nodes_text, name=node_class.name, cluster=cluster),
                partial(_with_nodes, cluster=cluster, name=node_class.name),
                case.now.unplaced if best is None else min(case.now.unplaced, best[1] - 1),
            )
            count = case.least(sized)
            if count is not None:
                best = (sized, count)
    return best


def _nodes_text(count: int, name: str, cluster: str) -> str:
    return f"{count} more node{'s' if count > 1 else ''} of class {name} in {cluster}"


def _with_nodes(parsed: Parsed, count: int, cluster: str, name: str) -> Parsed:
    inventory = parsed.inventories[cluster]
    classes = tuple(
        replace(found, nodes=found.nodes + count, free=(*found.free, FreeBlock(count, found.allocatable)))
        if found.name == name
        else found
        for found in inventory.node_classes
    )
    return with_inventory(parsed, replace(inventory, node_classes=classes))


def regions(case: Case) -> Iterator[Sized]:
    """Yields GPUs of a model in the stock of a serverless region."""
    for cluster in case.named(_SHORTAGES):
        inventory = case.alone.inventories.get(cluster)
        for node in inventory.virtual_nodes if inventory is not None else ():
            for stock in node.stock or ():
                yield Sized(
                    partial(_stock_text, model=stock.model, node=node.name, cluster=cluster),
                    partial(_with_stock, model=stock.model, node=node.name, cluster=cluster),
                    8 * case.now.unplaced,
                )


def _stock_text(count: int, model: str, node: str, cluster: str) -> str:
    return f"{count} more {model} GPU{'s' if count > 1 else ''} in stock for {node} in {cluster}"


def _with_stock(parsed: Parsed, count: int, model: str, node: str, cluster: str) -> Parsed:
    inventory = parsed.inventories[cluster]
    virtual = tuple(
        replace(
            found, stock=tuple(replace(s, gpus=s.gpus + count) if s.model == model else s for s in found.stock or ())
        )
        if found.name == node
        else found
        for found in inventory.virtual_nodes
    )
    return with_inventory(parsed, replace(inventory, virtual_nodes=virtual))


def namespaces(case: Case) -> Iterator[Sized]:
    """Yields what a ResourceQuota of the workload's namespace in a cluster has to allow more, by pods of it."""
    workload = case.alone.workloads[case.workload]
    for cluster in case.named({Code.NAMESPACE_QUOTA}):
        inventory = case.alone.inventories[cluster]
        bounds = {name for quota in _of(inventory, workload) for name in quota.bounds}
        one = len(workload.components) == 1 and not workload.job
        needs: dict[str, int] = {}
        for component in workload.components:
            for name, amount in component.shape.requests:
                if name in bounds:
                    needs[name] = needs.get(name, 0) + amount * (1 if one else component.replicas)
        if needs:
            yield Sized(
                partial(_quota_text, needs=needs, workload=workload, inventory=inventory),
                partial(_with_quota, needs=needs, workload=workload, cluster=cluster),
                case.now.replicas if one else 1,
            )


def _of(inventory: Inventory, workload: Workload) -> list[NamespaceQuota]:
    return [quota for quota in inventory.quotas if quota.namespace == workload.namespace]


def _quota_text(count: int, needs: dict[str, int], workload: Workload, inventory: Inventory) -> str:
    most = [
        f"{name} {quantity.render(max(_raised(quota, needs, count)[name] for quota in bounding), name)}"
        for name in sorted(needs)
        if (bounding := [q for q in _of(inventory, workload) if name in _raised(q, needs, count)])
    ]
    return f"{', '.join(most)} in the ResourceQuota of namespace {workload.namespace} in {inventory.cluster}"


def _raised(quota: NamespaceQuota, needs: dict[str, int], count: int) -> dict[str, int]:
    """Returns what a ResourceQuota has to allow for so many more pods, where that is more than it does."""
    hard, used = dict(quota.hard), dict(quota.used)
    wanted = {name: used.get(name, 0) + needs[name] * count for name in quota.bounds if name in needs}
    return {name: amount for name, amount in wanted.items() if amount > hard.get(name, 0)}


def _with_quota(parsed: Parsed, count: int, needs: dict[str, int], workload: Workload, cluster: str) -> Parsed:
    inventory = parsed.inventories[cluster]
    quotas = tuple(
        replace(quota, hard=tuple(sorted({**dict(quota.hard), **_raised(quota, needs, count)}.items())))
        if quota.namespace == workload.namespace
        else quota
        for quota in inventory.quotas
    )
    return with_inventory(parsed, replace(inventory, quotas=quotas))


def with_inventory(parsed: Parsed, inventory: Inventory) -> Parsed:
    """Returns the documents with another state of a cluster."""
    return replace(parsed, inventories={**parsed.inventories, inventory.cluster: inventory})
