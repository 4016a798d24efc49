"""Assignments: a pure function of placement, workload and policies (rule 4), and of what must be gone first (rule 8).

    (none) --share--> Active --share gone--> Removing --gone reported--> tombstone
    (none) --share of a job, a copy elsewhere not gone yet--> Waiting --every copy gone--> Active

An assignment is written again only if something in it but its version changes. Its version is that of the placement
that changed it, so the highest version among a workload's placement and assignments is the last decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from gpufleet.model.overrides import OverridePolicy
from gpufleet.model.placement import (
    Assignment,
    AssignmentColumns,
    AssignmentState,
    Awaited,
    ClusterShare,
    ObservedPhase,
    Placement,
    Variant,
    Version,
    clusters_of,
)
from gpufleet.model.policy import PropagationPolicy, ResourcePolicy
from gpufleet.model.reasons import Verdict
from gpufleet.model.values import value
from gpufleet.model.workload import Workload
from services.scheduler.core import class_preference, dependencies, job_parts, overrides, unit_patches
from services.scheduler.core.activation import edition
from services.scheduler.core.outputs import AssignmentWrite, Outputs
from services.scheduler.core.state import Entry, State
from services.scheduler.core.unit_patches import Patch
from services.scheduler.core.units import applying

_CLUSTER = attrgetter("cluster")


def is_gone(state: State, entry: Entry, cluster: str) -> bool:
    """Returns whether a cluster is known to hold no copy that was ordered before its removal.

    A ``gone`` counts at the removal's version or above. For a job it must come from the same incarnation: a new
    cluster under the old name knows nothing of the copy. A cluster that left the fleet is gone with all it had.
    """
    member = state.fleet.members.get(cluster)
    if member is not None and member.removed:
        return True
    if cluster in entry.gone:
        return True
    removal = entry.assignments.get(cluster)
    seen = entry.observations.get(cluster)
    if seen is None or seen.phase is not ObservedPhase.GONE:
        return False
    if removal is None:
        # After a restart: its tombstone was written already, if the removal is of the last decision.
        return entry.placement is not None and seen.version >= entry.placement.version
    if removal.state is not AssignmentState.REMOVING or seen.version < removal.version:
        return False
    return not removal.job or not removal.incarnation or seen.incarnation in ("", removal.incarnation)


def derive(state: State, entry: Entry, out: Outputs) -> None:
    """Writes what is missing or different among an entry's assignments."""
    placement = entry.placement
    if placement is None:
        return
    for cluster in _superfluous(entry, placement):
        _remove(state, entry, placement, cluster, out)
    if placement.shares and entry.current is not None:
        _activate_all(state, entry, placement, entry.current, out)
    for cluster in sorted(entry.overwritten):
        # Overwritten, and not just written anew.
        known = entry.assignments.get(cluster)
        if known is not None:
            out.assign(AssignmentWrite(entry.key, cluster, known.version, known))
            out.count("rewritten")
        elif placement is not None:
            out.assign(AssignmentWrite(entry.key, cluster, placement.version, None))
            out.count("rewritten")
    entry.overwritten.clear()


def _superfluous(entry: Entry, placement: Placement) -> list[str]:
    """Returns the clusters that may have a copy, but no share."""
    if not entry.assignments and not placement.leaving:
        return []
    shares = clusters_of(placement.shares)
    if not placement.leaving and entry.assignments.common_to(shares) is not None:
        return []
    return sorted((entry.assignments.keys() | set(placement.leaving)) - set(shares))


def _write(entry: Entry, assignment: Assignment, out: Outputs) -> None:
    entry.assignments[assignment.cluster] = assignment
    entry.overwritten.discard(assignment.cluster)
    out.assign(AssignmentWrite(entry.key, assignment.cluster, assignment.version, assignment))


def _remove(state: State, entry: Entry, placement: Placement, cluster: str, out: Outputs) -> None:
    known = entry.assignments.get(cluster)
    if is_gone(state, entry, cluster):
        bury(entry, cluster, placement.version, out)
        return
    deleting = placement.verdict is Verdict.DELETING and entry.workload is None
    if known is None:
        workload = entry.workload
        known = Assignment(
            entry.key,
            cluster,
            placement.version,
            AssignmentState.REMOVING,
            manifest=workload.manifest if workload is not None else {},
            uid=placement.uid,
            job=workload.job if workload is not None else True,
            incarnation=_incarnation(state, cluster),
        )
        _write(entry, known, out)
    elif known.state is not AssignmentState.REMOVING:
        removal = replace(
            known,
            version=placement.version,
            state=AssignmentState.REMOVING,
            components=(),
            division=division(placement),
            patches=(),
            variants=tuple(replace(v, components=(), patches=(), overrides=()) for v in known.variants),
            overrides=(),
            waits_for=(),
            suspended=False,
            preserve_on_deletion=False,
            # Only deleting the workload itself leaves its copies behind; a move never does.
            orphan=deleting and known.preserve_on_deletion,
        )
        _write(entry, removal, out)


def bury(entry: Entry, cluster: str, version: Version, out: Outputs) -> None:
    """Writes the tombstone of an assignment whose copy is gone."""
    entry.gone.add(cluster)
    known = entry.assignments.pop(cluster, None)
    if known is not None:
        entry.overwritten.discard(cluster)
        out.assign(AssignmentWrite(entry.key, cluster, max(version, known.version), None))


def _awaited(entry: Entry, placement: Placement) -> tuple[Awaited, ...]:
    workload = entry.workload
    if workload is None or not workload.job:
        return ()
    columns = entry.assignments.columns
    if columns is not None and columns.common.state is not AssignmentState.REMOVING:
        return ()  # all of them are alike
    return tuple(
        Awaited(cluster, a.version, a.incarnation)
        for cluster, a in sorted(entry.assignments.items())
        if a.state is AssignmentState.REMOVING and placement.share(cluster) is None
    )


def _activate_all(state: State, entry: Entry, placement: Placement, workload: Workload, out: Outputs) -> None:
    """Writes what is missing or different among the assignments of a placement's shares."""
    policy = edition(state, entry, placement)
    if policy is None and not workload.components and not workload.job:
        policy = dependencies.policy_of(state, entry)
    awaited = _awaited(entry, placement)
    overriding = state.overrides.matching(workload)
    units = state.resource_policies.get(workload.namespace)
    derived_from: tuple[object, ...] = (
        placement.shares,
        placement.inputs,
        workload,
        policy,
        awaited,
        overriding,
        tuple(units.values()) if units else (),
        state.fleet.generation,  # incarnations and registrations
    )
    if entry.derived is not None and entry.derived == (derived_from, entry.assignments.stamp()):
        return
    order = _Order(
        placement=placement,
        workload=workload,
        policy=policy,
        awaited=awaited,
        state=AssignmentState.WAITING if awaited else AssignmentState.ACTIVE,
        completions=job_parts.completions(entry, placement, workload),
        division=division(placement),
        overriding=overriding,
        units=applying(workload, units.values()) if units else None,
    )
    shares = sorted(placement.shares, key=_CLUSTER)
    if not entry.assignments and _alike(order, shares):
        _activate_new(state, entry, order, shares, out)
    else:
        for share in shares:
            _activate(state, entry, order, share, out)
    entry.derived = (derived_from, entry.assignments.stamp())


@value(frozen=True, slots=True)
class _Order:
    """What the assignments of one placement have in common."""

    placement: Placement
    workload: Workload
    policy: PropagationPolicy | None
    awaited: tuple[Awaited, ...]
    state: AssignmentState
    completions: Mapping[str, int]
    division: tuple[tuple[str, int], ...]
    overriding: tuple[OverridePolicy, ...]
    units: ResourcePolicy | None


def _alike(order: _Order, shares: Sequence[ClusterShare]) -> bool:
    """Returns whether new assignments differ in cluster, components and incarnation only."""
    if order.overriding or order.completions or order.units is not None or order.policy is None:
        return False
    if order.policy.suspend_dispatching_on or order.policy.prefer_node_class:
        return False
    return not unit_patches.apart(shares)


def _activate_new(state: State, entry: Entry, order: _Order, shares: Sequence[ClusterShare], out: Outputs) -> None:
    """Writes the first assignments of a workload, which are alike."""
    workload, policy = order.workload, order.policy
    assert policy is not None
    clusters = clusters_of(shares)
    columns = AssignmentColumns(
        common=Assignment(
            workload=entry.key,
            cluster="",
            version=order.placement.version,
            state=order.state,
            manifest=workload.manifest,
            division=order.division,
            uid=workload.uid,
            waits_for=order.awaited,
            job=workload.job,
            conflict_overwrite=policy.conflict_overwrite,
            preserve_on_deletion=policy.preserve_on_deletion,
            create_namespaces=policy.create_namespaces,
            suspended=policy.suspend_dispatching,
        ),
        clusters=clusters,
        components=tuple([share.components for share in shares]),
        incarnations=state.fleet.incarnations(clusters),
    )
    entry.gone.difference_update(clusters)
    entry.overwritten.difference_update(clusters)
    entry.assignments.fill(columns)
    out.assign_all(columns)


def _activate(state: State, entry: Entry, order: _Order, share: ClusterShare, out: Outputs) -> None:
    workload, policy, version = order.workload, order.policy, order.placement.version
    cluster = share.cluster
    known = entry.assignments.get(cluster)
    entry.gone.discard(cluster)
    alive = known if known is not None and known.state is not AssignmentState.REMOVING else None
    incarnation = _incarnation(state, cluster)
    if alive is not None and (workload.job or not incarnation or not alive.incarnation):
        # A job's copy may live on in the cluster that bore the name before; it is not started here a second time.
        incarnation = alive.incarnation
    rendering = unit_patches.render(workload, share, order.units, alive)
    prefers = policy is not None and policy.prefer_node_class
    member = state.fleet.member(cluster)
    rendering = class_preference.along(rendering, workload, share, member, alive, wanted=prefers)
    patches = job_parts.patched(rendering.patches, order.completions.get(cluster), share.replicas)
    waits = not job_parts.goes_on(workload, known)
    before = alive.overrides if alive is not None else None
    # A policy that is gone changes nothing in the clusters.
    kept: PropagationPolicy | Assignment | None = known if policy is None else policy
    if policy is not None:
        suspended = policy.suspend_dispatching or cluster in policy.suspend_dispatching_on
    else:
        suspended = known is not None and known.suspended
    wanted = Assignment(
        workload=entry.key,
        cluster=cluster,
        version=known.version if known is not None else version,
        state=order.state if waits else AssignmentState.ACTIVE,
        manifest=workload.manifest,
        components=rendering.components,
        division=order.division,
        patches=patches,
        overrides=_overrides(state, cluster, order, rendering.components, patches, before),
        uid=workload.uid,
        waits_for=order.awaited if waits else (),
        job=workload.job,
        conflict_overwrite=kept is not None and kept.conflict_overwrite,
        preserve_on_deletion=kept is not None and kept.preserve_on_deletion,
        create_namespaces=kept is not None and kept.create_namespaces,
        suspended=suspended,
        incarnation=incarnation,
        unit=rendering.unit,
        variants=_overridden(state, cluster, order, rendering.variants, alive) if rendering.variants else (),
    )
    if known is None:
        _write(entry, wanted, out)
    elif wanted != known:
        _write(entry, replace(wanted, version=version), out)


def _overridden(
    state: State, cluster: str, order: _Order, variants: tuple[Variant, ...], alive: Assignment | None
) -> tuple[Variant, ...]:
    earlier = {variant.name: variant.overrides for variant in alive.variants} if alive is not None else {}
    return tuple(
        replace(v, overrides=_overrides(state, cluster, order, v.components, v.patches, earlier.get(v.name)))
        for v in variants
    )


def _incarnation(state: State, cluster: str) -> str:
    member = state.fleet.members.get(cluster)
    return member.incarnation if member is not None else ""


def division(placement: Placement) -> tuple[tuple[str, int], ...]:
    """Returns the whole division of a placement: replicas by cluster."""
    return tuple([(share.cluster, share.replicas) for share in placement.shares])


def _overrides(
    state: State,
    cluster: str,
    order: _Order,
    components: tuple[tuple[str, int], ...],
    patches: tuple[Patch, ...],
    known: tuple[Patch, ...] | None,
) -> tuple[Patch, ...]:
    """Returns what the override policies change in a cluster; what cannot be applied leaves the copy as it was."""
    if not order.overriding:
        return ()
    rules = overrides.rules_for(order.overriding, state.fleet.member(cluster).spec)
    if not rules:
        return ()
    try:
        return overrides.override(order.workload.manifest, components, patches, rules)
    except overrides.OverrideError as error:
        if known is not None:
            return known
        # Nothing of it is written half done: the dispatcher refuses an operation that is none, in these words.
        return ({"op": "test", "path": "", "value": str(error)},)


def units_digest(policy: ResourcePolicy) -> str:
    """Returns what a placement records of the ResourcePolicy that it was decided by."""
    return f"{policy.name}@{policy.digest or f'v{policy.version}'}"
