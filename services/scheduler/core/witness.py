"""What a decision looked at, noted while it is made, so that it can be made again (`replay`).

Notes are references to what does not change, and copies only of what the decision itself is about to change: the free
blocks of the clusters that it takes from. Where room comes as columns these are kept as they are, so that by far the
most decisions copy nothing. Everything else is put into words by `testimony`, when somebody writes it down.

Clusters without a share are not kept: they do not change what the others get, neither in a division by Webster's method
(which gives any part of the clusters the same seats) nor where the best one is chosen. Where they do, because a spread
or a group that has to take all looks at every candidate, all candidates are kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpufleet.model.cluster import WorkloadPods
from gpufleet.model.overrides import OverridePolicy
from gpufleet.model.placement import Assignment, AssignmentColumns, Eviction, Observation, Placement, clusters_of
from gpufleet.model.policy import DivisionType, PriorityClass, PropagationPolicy, ResourcePolicy
from gpufleet.model.quota import ElasticQuotaTree, QueueRule
from gpufleet.model.reasons import Reason
from gpufleet.model.workload import Workload
from services.scheduler.core.divide import Mode
from services.scheduler.core.divide_whole import whole
from services.scheduler.core.evidence import LineSeen, Other, QuotaUse, Taking
from services.scheduler.core.reserve import requested
from services.scheduler.core.room import plain
from services.scheduler.core.seen import Left, Seen
from services.scheduler.core.settings import Settings
from services.scheduler.core.shapes import Shape
from services.scheduler.core.unit_use import Usage
from services.scheduler.core.units import applying

if TYPE_CHECKING:
    from services.scheduler.core.draft import Draft
    from services.scheduler.core.filter import Tier
    from services.scheduler.core.losses import Preemption
    from services.scheduler.core.member import Known, Member
    from services.scheduler.core.quota_node import Node
    from services.scheduler.core.state import Entry, State

# In a fleet of so many clusters all are kept, so that nothing is left to be counted.
_SMALL = 12
_LEFT = "left"  # the key of what a cluster has left among its notes


@dataclass(slots=True)
class Witness:
    """References to everything that a decision was derived from; `testimony` puts it into words."""

    key: str
    now: float
    mode: Mode
    epoch: int
    settings: Settings
    workload: Workload | None
    scale: int | None
    deleted: bool
    unreadable: str
    arrival: int | None
    eviction: Eviction | None
    before: Placement | None
    copies: AssignmentColumns | Sequence[Assignment]
    observations: tuple[Observation, ...]
    pods: tuple[WorkloadPods, ...]
    gone: tuple[str, ...]
    held_in: tuple[str, ...]
    expired: bool
    policies: tuple[PropagationPolicy, ...]
    applied: PropagationPolicy | None
    overrides: tuple[OverridePolicy, ...]
    units: ResourcePolicy | None
    classes: tuple[PriorityClass, ...]
    ranked: bool
    tree: ElasticQuotaTree | None
    queues: tuple[QueueRule, ...]
    line: LineSeen
    mix: tuple[tuple[Shape, int], ...]
    usage: Usage | None
    terminating: Mapping[tuple[str, str], int]
    required: tuple[tuple[str, tuple[str, ...]], ...]
    members: list[Known]
    debts: Mapping[str, int]
    drafted: bool  # whether anything was to be placed, so that room counts
    tiers: tuple[Tier, ...]
    refused: tuple[Reason, ...]
    stock: bool
    shape: Shape | None  # all that was asked for, if that is so: then room says as much as free blocks
    seen: Seen
    fleet: int


def look(draft: Draft) -> None:
    """The step between the division and the shares: copies what is going to be taken from."""
    seen = draft.seen
    if draft.divided is not None:
        return  # room by columns; nothing else was looked at
    seen.options = draft.measured
    names = {name: None for name, count in (draft.counts or {}).items() if count}
    names.update(dict.fromkeys(draft.before))
    if seen.column is None:
        names.update(dict.fromkeys(_compared(draft)))
    see(draft, names)


def _compared(draft: Draft) -> Iterable[str]:
    """Returns the candidates if all of them have to be known: each counts for what the others get."""
    placement = draft.policy.placement
    if placement.exclusive or placement.spread or len(draft.state.fleet.members) <= _SMALL:
        return [member.name for tier in draft.candidates.tiers for member in tier.members]
    return ()


def see(draft: Draft, clusters: Iterable[str]) -> None:
    """Copies what some clusters have left, if that has not been done before."""
    known = draft.seen.left
    members = draft.state.fleet.members
    for name in clusters:
        member = members.get(name)
        if member is not None and name not in known:
            known[name] = _left(member, draft.workload.namespace)


def _left(member: Member, namespace: str) -> Left:
    member.settle()
    inventory = member.inventory
    if inventory is None or not inventory.quotas:
        known: Left | None = member.notes.get(_LEFT)
        if known is None or known.inventory is not inventory or known.debt != member.debt:
            known = _copied(member, {})
            member.note(_LEFT, known)
        return known
    bounded = any(quota.namespace == namespace for quota in inventory.quotas)
    return _copied(member, requested(member.held, namespace) if bounded else {})


def _copied(member: Member, held: Mapping[str, int]) -> Left:
    return Left(
        member.inventory,
        member.debt,
        [(pool, *pool.left()) for pool in member.pools],
        [(node.name, dict(node.left)) for node in member.virtual if node.left is not None],
        held,
    )


def quotas(draft: Draft) -> None:
    """Notes what the quotas use that may bound a draft."""
    leaf = draft.state.quotas.leaf_of(draft.workload)
    if leaf is not None:
        _note(draft.seen.use, leaf)


def _note(use: dict[str, QuotaUse], leaf: Node) -> None:
    for node in leaf.path:
        for each in (node, *node.children):
            if each.name not in use:
                use[each.name] = QuotaUse(each.name, tuple(each.used.items()), tuple(each.firm.items()), each.jobs)


def preemption(draft: Draft, found: Preemption) -> None:
    """Notes who is going to yield where, and what their clusters and quotas look like until then."""
    state, seen = draft.state, draft.seen
    losses = tuple((loss.victim.key, loss.cluster) for loss in found.losses)
    seen.taking = Taking(found.cluster, found.units, losses, draft.without_stock, len(draft.ways))
    clusters = sorted({found.cluster, *(loss.cluster for loss in found.losses)})
    see(draft, clusters)
    for name in clusters:
        member, left = draft.member(name), seen.left[name]
        # Who yields has reservations, and without these it is another cluster.
        pools = [(pool, dict(pool.shown), None) for pool in member.pools]
        seen.left[name] = replace(left, pools=pools, holds=tuple(member.held.items()))
    for key in sorted({loss.victim.key for loss in found.losses}):
        entry = state.entries[key]
        if entry.placement is None:
            continue
        seen.others.append(_yields(state, entry, entry.placement))
        leaf = state.quotas.leaf_of(entry.current) if entry.current is not None else None
        if leaf is not None:
            _note(seen.use, leaf)


def _yields(state: State, entry: Entry, placement: Placement) -> Other:
    rules = [state.policies.get(placement.policy)]
    if entry.current is not None:
        rules.append(state.policies.select(entry.current, placement.policy)[0])
    policies = {rule.key: rule for rule in rules if rule is not None}
    lazy = any(rule.lazy for rule in policies.values())
    return Other(
        entry.key,
        placement,
        entry.workload,
        entry.scale,
        entry.arrival,
        tuple(entry.pods.values()),
        tuple(policies.values()),
        entry.applied if lazy else None,
    )


def witness(
    state: State,
    entry: Entry,
    placement: Placement,
    draft: Draft | None,
    applied: PropagationPolicy | None,
    mode: Mode,
    now: float,
) -> Witness:
    """Returns what a decision was derived from. To be called before it is made the truth (`commit.put`).

    ``applied`` is the edition of the policy that it was decided by before.
    """
    before, workload, fleet = entry.placement, entry.workload, state.fleet.members
    seen = draft.seen if draft is not None else Seen()
    at_once = draft is not None and whole(
        draft.workload, draft.policy.placement.division, is_gang=draft.policy.placement.gang
    )
    names = set(clusters_of(placement.shares))
    names.update([reason.cluster for reason in placement.reasons])
    if len(fleet) <= _SMALL:
        names.update(fleet)
    if before is not None:
        names.update(clusters_of(before.shares), before.leaving)
    names.update(entry.assignments, seen.left)
    if draft is not None:
        if draft.policy.placement.division is DivisionType.DUPLICATED and not at_once:
            names.update(draft.candidates.tier_of)  # a quota is asked for as many copies
        elif names.isdisjoint(fleet):
            names.update([tier.members[0].name for tier in draft.candidates.tiers if tier.members])
        if draft.divided is None:
            names.update(_compared(draft))
        if seen.column is None:
            see(draft, names)
    members = list(filter(None, map(fleet.get, sorted(names))))
    return Witness(
        key=entry.key,
        now=now,
        mode=mode,
        epoch=state.epoch,
        settings=state.settings,
        workload=workload,
        scale=entry.scale,
        deleted=entry.deleted,
        unreadable=entry.unreadable,
        arrival=entry.arrival,
        eviction=entry.eviction,
        before=before,
        copies=entry.assignments.stamp(),
        observations=tuple(entry.observations.values()) if entry.observations else (),
        pods=tuple(entry.pods.values()) if entry.pods else (),
        gone=tuple(entry.gone) if entry.gone else (),
        held_in=tuple(entry.held_in) if entry.held_in else (),
        expired=entry.expired,
        policies=_policies(state, entry, placement, draft),
        applied=applied,
        overrides=() if state.overrides.empty or workload is None else _overrides(state, workload, draft),
        units=draft.units if draft is not None else _units(state, workload),
        classes=tuple(state.priority_classes.values()) if state.priority_classes else (),
        ranked=state.ranked,
        tree=state.quotas.tree,
        queues=tuple(state.quotas.queues.values()) if state.quotas.queues else (),
        line=_line(state, entry, seen),
        mix=state.mix.ranked if at_once else (),
        usage=draft.usage if draft is not None else None,
        terminating=draft.terminating if draft is not None else {},
        required=_required(state, entry, seen),
        members=[member.known for member in members],
        debts={member.name: member.debt for member in members if member.debt},
        drafted=draft is not None,
        tiers=draft.candidates.tiers if draft is not None else (),
        refused=draft.candidates.reasons if draft is not None else (),
        stock=draft is not None and draft.stock,
        shape=_only_shape(draft, at_once=at_once),
        seen=seen,
        fleet=len(fleet),
    )


def _only_shape(draft: Draft | None, *, at_once: bool) -> Shape | None:
    if draft is None or at_once or draft.seen.taking is not None or len(draft.ways) != 1 or not plain(draft.ways[0]):
        return None
    return draft.ways[0].parts[0].shape


def _policies(state: State, entry: Entry, placement: Placement, draft: Draft | None) -> tuple[PropagationPolicy, ...]:
    """Returns the editions on the log of the policies that select the workload, and of the one that it is placed by."""
    known = state.policies.get(draft.policy.key if draft is not None else placement.policy)
    if draft is not None and known is draft.policy:
        return (known, *draft.seen.ignored)
    if entry.current is None:
        return ()
    # Decided by an edition that the log has no more, because the policy that selects it now is lazy; or not at all.
    claimed = entry.placement.policy if entry.placement is not None else ""
    policy, ignored = state.policies.select(entry.current, claimed)
    return tuple({rule.key: rule for rule in (policy, *ignored, known) if rule is not None}.values())


def _units(state: State, workload: Workload | None) -> ResourcePolicy | None:
    """Returns the ResourcePolicy that governs a workload, which is among the inputs even where nothing is placed."""
    known = state.resource_policies.get(workload.namespace) if workload is not None else None
    return applying(workload, known.values()) if workload is not None and known else None


def _overrides(state: State, workload: Workload, draft: Draft | None) -> tuple[OverridePolicy, ...]:
    """Returns the override policies that mean a workload, and those that its policy waits for."""
    found = state.overrides.matching(workload)
    if draft is None or not draft.policy.dependent_overrides:
        return found
    awaited = state.overrides.named(draft.policy.namespace, draft.policy.dependent_overrides)
    return (*found, *(policy for policy in awaited if policy not in found))


def _line(state: State, entry: Entry, seen: Seen) -> LineSeen:
    leaf = None
    if state.quotas.root is not None and entry.current is not None:
        leaf = state.quotas.leaf_of(entry.current)
    name = leaf.name if leaf is not None else ""
    line = state.queue.line(name)
    if not line.waiting and line.kept_for is None:
        return LineSeen(name)
    ahead = bisect_left(line.waiting, state.order(entry))
    return LineSeen(name, line.first, line.kept_for, line.kept, line.unit, ahead, seen.beside)


def _required(state: State, entry: Entry, seen: Seen) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns who needs an object without pods where; notes who may, as nothing certain is known of them."""
    workload = entry.workload
    if workload is None or workload.components or workload.job:
        return ()
    for share in entry.placement.shares if entry.placement is not None else ():
        for key in sorted(state.on_cluster.get(share.cluster, ())):
            other = state.entries.get(key)
            if (
                key != entry.key
                and key.partition("/")[0] == workload.namespace
                and other is not None
                and other.placement is not None
                and (other.workload is None or not other.placement.policy)
                and not other.deleted
            ):
                seen.others.append(Other(key, other.placement, other.workload, other.scale, other.arrival))
    return tuple(state.required_by.of(entry.key).items())
