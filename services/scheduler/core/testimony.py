"""A witness put into words: what a decision saw as `Evidence`, when somebody writes it down."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from gpufleet.model.placement import Assignment, AssignmentState, Version
from gpufleet.model.workload import Division
from services.scheduler.core import evidence as ev
from services.scheduler.core import shares_seen
from services.scheduler.core.clusters_seen import Told
from services.scheduler.core.settings import Settings
from services.scheduler.core.unit_use import Use
from services.scheduler.core.witness import Witness

_LONG = sys.float_info.max
# What evidence says in the words of the witness.
_AS_NOTED = (
    *("key", "now", "mode", "epoch", "workload", "scale", "deleted", "unreadable", "arrival", "eviction"),
    *("expired", "policies", "overrides", "units", "classes", "ranked", "tree", "queues", "line", "required"),
)


def testify(witness: Witness) -> ev.Evidence:
    """Returns what a decision saw, whole; what there is no place for is the writer's business (`cut`)."""
    seen, told = witness.seen, {known.member.name for known in witness.members}
    clusters = Told(witness)
    said: dict[str, Any] = {name: getattr(witness, name) for name in _AS_NOTED}
    said |= {name: getattr(clusters, name) for name in ("clusters", "specs", "inventories", "kinds")}
    before, shares = shares_seen.told(witness.before) if witness.before is not None else (None, ())
    return ev.Evidence(
        **said,
        before=before,
        before_shares=shares,
        format=ev.FORMAT,
        settings=_finite(witness.settings),
        copies=tuple(_copies(witness)),
        observations=tuple(
            replace(o, status={}) if o.status else o for o in sorted(witness.observations, key=lambda o: o.cluster)
        ),
        pods=tuple(sorted(witness.pods, key=lambda p: p.cluster)),
        gone=tuple(sorted(witness.gone)),
        held_in=tuple(sorted(witness.held_in)),
        applied=witness.applied if any(policy.lazy for policy in witness.policies) else None,
        use=tuple(seen.use[name] for name in sorted(seen.use)),
        taking=seen.taking,
        yields=tuple(sorted(seen.yields.items())),
        mix=tuple((shape.pod, weight) for shape, weight in witness.mix),
        unit_use=tuple(_unit_use(witness)),
        others=tuple(map(_other, seen.others)),
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
    if step > 2:
        return None
    what = f"{len(evidence.clusters)} clusters"
    few = replace(evidence, specs=(), inventories=(), kinds=(), clusters=(), others=(), rest=(), refused=())
    if step == 1:
        return replace(few, left_out=(what,))
    workload = replace(evidence.workload, manifest={}) if evidence.workload is not None else None
    bare = replace(few, workload=workload, pods=(), observations=(), copies=(), unit_use=(), overrides=())
    return replace(
        bare, required=(), before=None, before_shares=(), left_out=(f"{what}, the manifest, what its pods do",)
    )


def _copies(witness: Witness) -> Iterator[ev.Copies]:
    workload = witness.workload
    divided = workload is not None and workload.division is Division.PARALLELISM
    ordered = sorted(witness.copies, key=lambda copy: copy.cluster)
    if divided:
        for copy in ordered:
            yield _alike([copy], copy.patches)
        return
    groups: dict[tuple[AssignmentState, Version, bool], list[Assignment]] = {}
    for copy in ordered:
        groups.setdefault((copy.state, copy.version, copy.job), []).append(copy)
    yield from map(_alike, groups.values())


def _alike(copies: list[Assignment], patches: tuple[Mapping[str, Any], ...] = ()) -> ev.Copies:
    clusters, incarnations = tuple(c.cluster for c in copies), tuple(c.incarnation for c in copies)
    return ev.Copies(clusters, incarnations, copies[0].state, copies[0].version, copies[0].job, patches)


def _other(other: ev.Other) -> ev.Other:
    workload = replace(other.workload, manifest={}) if other.workload is not None else None
    placement, shares = shares_seen.told(other.placement)
    return replace(other, workload=workload, placement=placement, shares=shares)


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
