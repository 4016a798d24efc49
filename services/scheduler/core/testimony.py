"""A witness put into words: what a decision saw as `Evidence`, when somebody writes it down."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Set
from dataclasses import asdict, replace
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from gpufleet.model.cluster import FreeBlock, Inventory, NodeClass
from gpufleet.model.placement import Assignment
from gpufleet.model.workload import Division, Workload
from services.scheduler.core import evidence as ev
from services.scheduler.core.blocks import Blocks
from services.scheduler.core.columns import Column
from services.scheduler.core.pool import Pool
from services.scheduler.core.settings import Settings
from services.scheduler.core.unit_use import Use
from services.scheduler.core.witness import Witness


class _Detail(Enum):
    """How much of an inventory counted: free blocks, node classes of which the room is known, or neither."""

    FREE = auto()
    CLASSES = auto()
    HEAD = auto()


_LONG = sys.float_info.max
_KEPT = 4096
# Inventories as they are written, by identity, kind and namespace: snapshots are the same for many decisions.
_TRIMMED: dict[tuple[int, str, str, _Detail], tuple[Inventory, Inventory]] = {}


def testify(witness: Witness) -> ev.Evidence:
    """Returns what a decision saw, whole; what there is no place for is the writer's business (`cut`)."""
    seen, told = witness.seen, {known.member.name for known in witness.members}
    return ev.Evidence(
        format=ev.FORMAT,
        key=witness.key,
        now=witness.now,
        mode=witness.mode,
        epoch=witness.epoch,
        settings=_finite(witness.settings),
        workload=witness.workload,
        scale=witness.scale,
        deleted=witness.deleted,
        unreadable=witness.unreadable,
        arrival=witness.arrival,
        eviction=witness.eviction,
        before=witness.before,
        copies=tuple(_copy(copy, witness.workload) for copy in sorted(witness.copies, key=lambda a: a.cluster)),
        observations=tuple(
            replace(o, status={}) if o.status else o for o in sorted(witness.observations, key=lambda o: o.cluster)
        ),
        pods=tuple(sorted(witness.pods, key=lambda p: p.cluster)),
        gone=tuple(sorted(witness.gone)),
        held_in=tuple(sorted(witness.held_in)),
        expired=witness.expired,
        policies=witness.policies,
        applied=witness.applied if any(policy.lazy for policy in witness.policies) else None,
        overrides=witness.overrides,
        units=witness.units,
        classes=witness.classes,
        ranked=witness.ranked,
        tree=witness.tree,
        queues=witness.queues,
        use=tuple(seen.use[name] for name in sorted(seen.use)),
        line=witness.line,
        mix=tuple((shape.pod, weight) for shape, weight in witness.mix),
        unit_use=tuple(_unit_use(witness)),
        required=witness.required,
        clusters=tuple(_clusters(witness)),
        others=tuple(replace(o, workload=replace(o.workload, manifest={})) if o.workload else o for o in seen.others),
        taking=seen.taking,
        rest=tuple(_rest(witness, told)),
        refused=tuple(reason for reason in witness.refused if reason.cluster and reason.cluster not in told),
        more=witness.fleet - len(witness.members),
    )


@lru_cache(maxsize=16)
def _finite(settings: Settings) -> Settings:
    """Returns settings without what JSON cannot say: for ever is very long."""
    for_ever: dict[str, Any] = {name: _LONG for name, value in asdict(settings).items() if value == math.inf}
    return replace(settings, **for_ever)


def cut(evidence: ev.Evidence, step: int) -> ev.Evidence | None:
    """Returns evidence with less in it, more so with every step from 0 on; None where there is nothing left to cut."""
    if step == 0:
        return replace(evidence, rest=(), refused=())
    if step == 1:
        shares = {cluster.name for cluster in evidence.clusters if cluster.classes}
        few = tuple(c if c.name in shares else _without_free(c) for c in evidence.clusters)
        what = f"free blocks of {len(few) - len(shares)} of {len(few)} clusters"
        return replace(evidence, rest=(), refused=(), clusters=few, left_out=(what,))
    if step == 2:
        what = f"{len(evidence.clusters)} clusters"
        return replace(evidence, rest=(), refused=(), clusters=(), others=(), left_out=(what,))
    if step == 3:
        what = f"{len(evidence.clusters)} clusters, the manifest, what its pods do"
        workload = replace(evidence.workload, manifest={}) if evidence.workload is not None else None
        bare = replace(evidence, workload=workload, pods=(), observations=(), copies=(), unit_use=(), overrides=())
        return replace(bare, rest=(), refused=(), clusters=(), others=(), required=(), before=None, left_out=(what,))
    return None


def _without_free(cluster: ev.ClusterSeen) -> ev.ClusterSeen:
    inventory = cluster.inventory
    return cluster if inventory is None else replace(cluster, inventory=_bare(inventory))


def _bare(inventory: Inventory) -> Inventory:
    return replace(inventory, node_classes=tuple(replace(c, free=_devices(c)) for c in inventory.node_classes))


def _devices(node_class: NodeClass) -> tuple[FreeBlock, ...]:
    """Returns a block that lists as many devices as a class has, if any does."""
    listed = [block for block in node_class.free if block.gpu_free]
    return (max(listed, key=lambda block: len(block.gpu_free)),) if listed else ()


def _clusters(witness: Witness) -> Iterator[ev.ClusterSeen]:
    column = witness.seen.column
    for member, spec, inventory, pools, removed, doubts in witness.members:
        debt = witness.debts.get(member.name, 0)
        left = witness.seen.left.get(member.name)
        detail = _Detail.FREE
        if left is not None:
            inventory, debt = left.inventory, left.debt
        elif not witness.drafted:
            detail = _Detail.HEAD
        elif column is not None:
            detail = _Detail.CLASSES
        known = _known(inventory, witness.workload, detail) if inventory is not None else None
        if left is not None:
            yield ev.ClusterSeen(
                member.name,
                spec,
                known,
                removed,
                tuple(_class(*pool) for pool in left.pools if pool[1] is not None or pool[2] is not None),
                debt,
                tuple((name, tuple(sorted(models.items()))) for name, models in left.virtual),
                doubts,
                tuple(sorted(left.held.items())),
            )
        else:
            classes = _rooms(column, pools, member.index) if column is not None else ()
            yield ev.ClusterSeen(member.name, spec, known, removed, classes, debt, doubts=doubts)


def _known(inventory: Inventory, workload: Workload | None, detail: _Detail) -> Inventory:
    """Returns an inventory without what says nothing about a workload; the same one for the next of its kind."""
    api = f"{workload.api_version}/{workload.kind}" if workload is not None else ""
    namespace = workload.namespace if workload is not None else ""
    key = (id(inventory), api, namespace, detail)
    known = _TRIMMED.get(key)
    if known is None:
        if len(_TRIMMED) >= _KEPT:
            _TRIMMED.clear()
        if detail is _Detail.FREE:
            found = inventory
        elif detail is _Detail.CLASSES:
            found = _bare(inventory)
        else:
            found = replace(inventory, node_classes=(), virtual_nodes=())
        trimmed = replace(
            found,
            apis=None if inventory.apis is None else inventory.apis & {api},
            namespaces=None if inventory.namespaces is None else inventory.namespaces & {namespace},
            quotas=tuple(quota for quota in inventory.quotas if quota.namespace == namespace),
        )
        known = _TRIMMED[key] = (inventory, trimmed)  # kept, so that its identity is not another's
    return known[1]


def _class(name: str, running: Blocks | None, stock: tuple[int, Blocks] | None) -> ev.ClassSeen:
    fresh, coming = stock if stock is not None else (None, {})
    return ev.ClassSeen(name, None if running is None else _blocks(running), fresh, _blocks(coming))


def _blocks(blocks: Blocks) -> ev.Blocks:
    return tuple((nodes, *free) for free, nodes in sorted(blocks.items()))


def _rooms(column: Column, pools: list[Pool], index: int) -> tuple[ev.ClassSeen, ...]:
    running, stock, coming = column.pools
    if index >= running.shape[1]:
        return ()
    return tuple(
        ev.ClassSeen(
            pool.name,
            rooms=(
                int(running[row, index]),
                int(stock[row, index]) if stock is not None else 0,
                int(coming[row, index]) if coming is not None else 0,
            ),
        )
        for row, pool in enumerate(pools[: running.shape[0]])
    )


def _copy(copy: Assignment, workload: Workload | None) -> ev.Copy:
    divided = workload is not None and workload.division is Division.PARALLELISM
    patches = copy.patches if divided else ()
    return ev.Copy(copy.cluster, copy.state, copy.version, copy.incarnation, copy.job, patches)


def _unit_use(witness: Witness) -> Iterator[ev.UnitUse]:
    usage = witness.usage or {}
    for cluster, unit in sorted(usage.keys() | witness.terminating.keys()):
        use = usage.get((cluster, unit), Use())
        going = witness.terminating.get((cluster, unit))
        yield ev.UnitUse(cluster, unit, use.pods, tuple(sorted(use.amounts.items())), going)


def _rest(witness: Witness, told: Set[str]) -> Iterator[ev.Rest]:
    """Yields the room of eligible clusters that are not told of otherwise, as far as it was measured."""
    column, options = witness.seen.column, witness.seen.options
    if column is not None:
        for number, tier in enumerate(witness.tiers):
            members = [member for member in tier.members if member.name not in told]
            if members:
                stock = tuple(int(column.stock[m.index]) for m in members) if witness.stock else ()
                running = tuple(int(column.running[m.index]) for m in members)
                yield ev.Rest(number, tuple(m.name for m in members), running, stock)
    elif options:
        for number in sorted({option.tier for option in options}):
            here = [o for o in options if o.tier == number and o.cluster not in told]
            if here:
                yield ev.Rest(
                    number,
                    tuple(o.cluster for o in here),
                    tuple(o.running for o in here),
                    tuple(o.stock for o in here),
                )
