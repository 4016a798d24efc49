"""More quota for a workload that waits for it: which limits of the tree have to be raised, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gpufleet.model import quantity
from gpufleet.model.quota import MAX_JOBS, ROOT, ElasticQuotaTree, Quota
from gpufleet.model.reasons import Code
from gpufleet.wire.documents import Parsed
from services.scheduler.core.quota import Quotas, Shortfall
from services.scheduler.core.quota_terms import preemptible
from sim import remedy_room
from sim.remedy_case import Case, Remedy, planned

_MOST_LIMITS = 32


@dataclass(frozen=True, slots=True)
class _Raise:
    """Other trees in place of those that are there."""

    trees: dict[str, ElasticQuotaTree]

    def __call__(self, parsed: Parsed) -> Parsed:
        return replace(parsed, quota_trees=self.trees)


def limits(case: Case) -> Iterator[str]:
    """Yields the limits to raise, all together, where quota is what it waits for.

    The tree stays a valid one: what a quota guarantees is raised above it too. Where there is no room either, the
    nodes that it then takes are named as well.
    """
    if not case.has(Code.QUOTA_EXCEEDED):
        return
    change = _Raise(_raised_trees(case))
    texts = [
        text for key, tree in case.alone.quota_trees.items() for text in _differences(tree.root, change.trees[key].root)
    ]
    text = "; ".join(texts)
    if not texts:
        return
    if case.helps(change):
        yield case.told(Remedy(text, change))
        return
    now = planned(change(case.alone), case.workload)
    if now is None:
        return
    together = None if case.together is None else change(case.together)
    beside = replace(case, alone=change(case.alone), together=together, now=now)
    fewest = remedy_room.nodes(beside)
    if fewest is not None:
        yield f"{text}, and {beside.told_of(*fewest)}"


def _raised_trees(case: Case) -> dict[str, ElasticQuotaTree]:
    parsed = case.alone
    workload = parsed.workloads[case.workload]
    trees = dict(parsed.quota_trees)
    # Copies (Duplicated) are so many times its replicas.
    copies = max(1, case.now.replicas // max(1, workload.replicas))
    counts = {component.name: component.replicas * copies for component in workload.components}
    # Each round raises one limit, and there are so many on the way from a leaf to the root.
    for _ in range(_MOST_LIMITS):
        quotas = Quotas()
        for tree in trees.values():
            quotas.put(tree)
        leaf = quotas.leaf_of(workload)
        if leaf is None:
            break
        for key, placed in parsed.placements.items():
            quotas.update(key, parsed.workloads.get(key), placed.placement)
        needs = quotas.needs(workload, counts)
        room, short = quotas.room(workload.key, leaf, needs, firm=not preemptible(workload), job=workload.job)
        if room > 0 or short is None:
            break
        trees = {key: replace(tree, root=_valid(_raised(tree.root, short))) for key, tree in trees.items()}
    return trees


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


def _valid(quota: Quota) -> Quota:
    """Returns a quota with limits that are as high as those of its children ask for (specification 13.1)."""
    children = tuple(_valid(child) for child in quota.children)
    low, high = dict(quota.min), dict(quota.max)
    for name in sorted({name for child in children for name, _ in child.min} - {MAX_JOBS}):
        low[name] = max(low.get(name, 0), sum(dict(child.min).get(name, 0) for child in children))
    for child in children:
        for name, amount in child.max:
            if name in high:
                high[name] = max(high[name], amount)
    for name in sorted(low.keys() & high.keys()):
        high[name] = max(high[name], low[name])
        if quota.name == ROOT and name != MAX_JOBS:
            low[name] = high[name]
    return replace(quota, min=tuple(sorted(low.items())), max=tuple(sorted(high.items())), children=children)


def _differences(before: Quota, after: Quota) -> Iterator[str]:
    """Yields what is more in a tree than in another of the same quotas, the quotas below first."""
    for one, other in zip(reversed(list(before.walk())), reversed(list(after.walk())), strict=True):
        low, high = _more(one.min, other.min), _more(one.max, other.max)
        for name in sorted(low.keys() | high.keys()):
            if low.get(name) == high.get(name):
                yield f"quota {one.name}: {quantity.render(low[name], name)} more {name} in min and max"
                continue
            for what, more in (("min", low), ("max", high)):
                if name in more:
                    yield f"quota {one.name}: {quantity.render(more[name], name)} more {name} in {what}"


def _more(before: tuple[tuple[str, int], ...], after: tuple[tuple[str, int], ...]) -> dict[str, int]:
    known = dict(before)
    return {name: amount - known.get(name, 0) for name, amount in after if amount > known.get(name, 0)}
