"""Assignments: a pure function of placement, workload and policies (rule 4), and of what must be gone first (rule 8).

    (none) --share--> Active --share gone--> Removing --gone reported--> tombstone
    (none) --share of a job, a copy elsewhere not gone yet--> Waiting --every copy gone--> Active

An assignment is written again only if something in it but its version changes. Its version is that of the placement
that changed it, so the highest version among a workload's placement and assignments is the last decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gpufleet.model import kinds
from gpufleet.model.kinds import pointer
from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    Awaited,
    ClusterShare,
    ObservedPhase,
    Placement,
    Source,
    Version,
)
from gpufleet.model.policy import PropagationPolicy, ResourcePolicy
from gpufleet.model.reasons import Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core import overrides
from services.scheduler.core.outputs import AssignmentWrite, Outputs
from services.scheduler.core.state import Entry, State
from services.scheduler.core.units import VIRTUAL_TAINT, applying, written_labels

Patch = Mapping[str, Any]


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
    shares = {share.cluster: share for share in placement.shares}
    for cluster in sorted((entry.assignments.keys() | set(placement.leaving)) - shares.keys()):
        _remove(state, entry, placement, cluster, out)
    awaited = _awaited(entry, placement)
    if shares and entry.current is not None:
        policy = state.policies.get(placement.policy)
        parts = division(placement)
        for cluster in sorted(shares):
            _activate(state, entry, placement, shares[cluster], entry.current, policy, awaited, parts, out)
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
    return tuple(
        Awaited(cluster, a.version, a.incarnation)
        for cluster, a in sorted(entry.assignments.items())
        if a.state is AssignmentState.REMOVING and placement.share(cluster) is None
    )


def _activate(
    state: State,
    entry: Entry,
    placement: Placement,
    share: ClusterShare,
    workload: Workload,
    policy: PropagationPolicy | None,
    awaited: tuple[Awaited, ...],
    parts: tuple[tuple[str, int], ...],
    out: Outputs,
) -> None:
    known = entry.assignments.get(share.cluster)
    entry.gone.discard(share.cluster)
    alive = known is not None and known.state is not AssignmentState.REMOVING
    incarnation = _incarnation(state, share.cluster)
    if known is not None and alive and (workload.job or not incarnation or not known.incarnation):
        # A job's copy may live on in the cluster that bore the name before; it is not started here a second time.
        incarnation = known.incarnation
    patches = _patches(state, placement, share, workload, known if alive else None)
    kept = known or Assignment(entry.key, share.cluster, placement.version, AssignmentState.ACTIVE)
    wanted = Assignment(
        workload=entry.key,
        cluster=share.cluster,
        version=known.version if known is not None else placement.version,
        state=AssignmentState.WAITING if awaited else AssignmentState.ACTIVE,
        manifest=workload.manifest,
        components=share.components,
        division=parts,
        patches=patches,
        overrides=_overrides(state, share, workload, patches, known if alive else None),
        uid=workload.uid,
        waits_for=awaited,
        job=workload.job,
        # A policy that is gone changes nothing in the clusters.
        conflict_overwrite=kept.conflict_overwrite if policy is None else policy.conflict_overwrite,
        preserve_on_deletion=kept.preserve_on_deletion if policy is None else policy.preserve_on_deletion,
        create_namespaces=kept.create_namespaces if policy is None else policy.create_namespaces,
        suspended=kept.suspended if policy is None else _suspended(policy, share.cluster),
        incarnation=incarnation,
    )
    if known is None:
        _write(entry, wanted, out)
    elif wanted != known:
        _write(entry, replace(wanted, version=placement.version), out)


def _suspended(policy: PropagationPolicy, cluster: str) -> bool:
    return policy.suspend_dispatching or cluster in policy.suspend_dispatching_on


def _incarnation(state: State, cluster: str) -> str:
    member = state.fleet.members.get(cluster)
    return member.incarnation if member is not None else ""


def division(placement: Placement) -> tuple[tuple[str, int], ...]:
    """Returns the whole division of a placement: replicas by cluster."""
    return tuple((share.cluster, share.replicas) for share in placement.shares)


def _patches(
    state: State, placement: Placement, share: ClusterShare, workload: Workload, known: Assignment | None
) -> tuple[Patch, ...]:
    """Returns the patches that send the pods where their room was counted: a unit, or virtual nodes.

    What was rendered by an earlier edition of the ResourcePolicy stays as it is: an edit concerns later pods only.
    """
    units = {slot.component: slot.unit for slot in share.slots if slot.unit is not None}
    virtual = {slot.component for slot in share.slots if slot.source is Source.VIRTUAL}
    if not units and not virtual:
        return ()
    policies = state.resource_policies.get(workload.namespace, {})
    policy = applying(workload, policies.values())
    current = "" if policy is None else units_digest(policy)
    if known is not None and known.patches and dict(placement.inputs).get("units", "") != current:
        return known.patches
    try:
        templates = kinds.pod_templates(workload.manifest)
    except kinds.KindError:
        return ()
    patches: list[Patch] = []
    for template in templates:
        component = template.component
        unit = None
        index = units.get(component)
        if policy is not None and index is not None and index < len(policy.units):
            labels = next((dict(c.labels) for c in workload.components if c.name == component), {})
            if policy.selector.matches(labels):
                unit = policy.units[index]
        if unit is not None:
            for path, values in (
                (template.node_selector, unit.node_selector),
                (template.labels, written_labels(unit)),
                (template.annotations, unit.pod_annotations),
            ):
                patches.extend({"op": "add", "path": pointer((*path, key)), "value": value} for key, value in values)
        if component in virtual:
            present = _at(workload.manifest, template.tolerations)
            tolerations = list(present) if isinstance(present, list | tuple) else []
            added = {"key": VIRTUAL_TAINT, "operator": "Exists"}
            if added not in tolerations:
                value = [*tolerations, added]
                patches.append({"op": "add", "path": pointer(template.tolerations), "value": value})
    return tuple(patches)


def _overrides(
    state: State, share: ClusterShare, workload: Workload, patches: tuple[Patch, ...], known: Assignment | None
) -> tuple[Patch, ...]:
    """Returns what the override policies change in a cluster; what cannot be applied leaves the copy as it was."""
    policies = state.overrides.matching(workload)
    rules = overrides.rules_for(policies, state.fleet.member(share.cluster).spec) if policies else ()
    if not rules:
        return ()
    try:
        return overrides.override(workload.manifest, share.components, patches, rules)
    except overrides.OverrideError as error:
        if known is not None:
            return known.overrides
        # Nothing of it is written half done: the dispatcher refuses an operation that is none, in these words.
        return ({"op": "test", "path": "", "value": str(error)},)


def _at(manifest: Mapping[str, Any], path: tuple[str | int, ...]) -> Any:
    here: Any = manifest
    for part in path:
        if isinstance(here, Mapping):
            here = here.get(str(part))
        elif isinstance(here, list | tuple) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            return None
    return here


def units_digest(policy: ResourcePolicy) -> str:
    """Returns what a placement records of the ResourcePolicy that it was decided by."""
    return f"{policy.name}@{policy.digest or f'v{policy.version}'}"
