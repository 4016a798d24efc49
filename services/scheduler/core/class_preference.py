"""A preference for the node classes that a placement counted on, which goes into the cluster with the pods.

It is a preferred node affinity beside the user's own terms. Its weights are the lowest that there are: kube-scheduler
scales a pod's terms by the best match, so alone they count in full, and beside others they decide among nodes that are
alike in those. Classes are named in the order in which they were counted on, by labels that no other class of the
cluster has; where one cannot be told by its labels there is no preference.

It is a hint, taken from the inventory as it was when the object was first ordered, and stays as it was while the object
lives: another one would change the pod template, which restarts pods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpufleet.model import kinds
from gpufleet.model.kinds import PodTemplate, pointer
from gpufleet.model.placement import Assignment, ClusterShare, Source
from gpufleet.model.resources import Labels
from gpufleet.model.workload import Workload
from services.scheduler.core.member import Member
from services.scheduler.core.unit_patches import Patch, Rendering, at

_FIELD = ("affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution")
# A preference for more classes than that says nothing.
_CLASSES = 8
Terms = Sequence[Mapping[str, Any]]


def along(
    rendering: Rendering,
    workload: Workload,
    share: ClusterShare,
    member: Member,
    alive: Assignment | None,
    *,
    wanted: bool,
) -> Rendering:
    """Returns the objects of a share with their preferences. ``alive`` is the order that is being carried out."""
    if not wanted and (alive is None or not (alive.patches or alive.variants)):
        return rendering
    if alive is not None and alive.uid != workload.uid:
        alive = None
    before = _before(alive)
    if not wanted and not any(_is_preference(patch) for patches in before.values() for patch in patches):
        return rendering
    try:
        templates = kinds.pod_templates(workload.manifest)
    except kinds.KindError:
        return rendering

    def patched(unit: str, patches: tuple[Patch, ...]) -> tuple[Patch, ...]:
        found: list[Patch] = [patch for patch in patches if not _is_preference(patch)]
        for template in templates:
            if unit in before:
                terms = _known(before[unit], template)
            else:
                terms = _terms(share, unit, template.component, member) if wanted else ()
            found += _added(workload, template, terms)
        return tuple(found)

    return replace(
        rendering,
        patches=patched(rendering.unit, rendering.patches),
        variants=tuple(
            replace(variant, patches=patched(variant.unit, variant.patches)) if _wanted(variant.components) else variant
            for variant in rendering.variants
        ),
    )


def _wanted(components: Sequence[tuple[str, int]]) -> bool:
    return any(count for _, count in components)


def _before(alive: Assignment | None) -> dict[str, tuple[Patch, ...]]:
    """Returns the patches of the objects that are there, by unit."""
    if alive is None:
        return {}
    return {alive.unit: alive.patches} | {v.unit: v.patches for v in alive.variants if _wanted(v.components)}


def _is_preference(patch: Patch) -> bool:
    return f"/{_FIELD[-1]}" in patch["path"]


def _known(patches: Sequence[Patch], template: PodTemplate) -> Terms:
    path = pointer((*template.spec, *_FIELD))
    terms: list[Mapping[str, Any]] = []
    for patch in patches:
        if patch["path"] == path:
            terms += patch["value"]
        elif patch["path"] == f"{path}/-":
            terms.append(patch["value"])
    return terms


def _terms(share: ClusterShare, unit: str, component: str, member: Member) -> Terms:
    slots = [slot for slot in share.slots if slot.component == component and slot.variant == unit]
    classes = dict.fromkeys(s.node_class for s in slots if s.node_class and s.source is not Source.VIRTUAL)
    if len(classes) > _CLASSES:
        return ()
    terms = []
    for rank, name in enumerate(classes):
        pool = member.pool(name)
        labels = member.marks(pool) if pool is not None else None
        if not labels:
            return ()
        terms.append(_term(len(classes) - rank, labels))
    return terms


def _term(weight: int, labels: Labels) -> Mapping[str, Any]:
    expressions = [{"key": key, "operator": "In", "values": [value]} for key, value in labels]
    return {"weight": weight, "preference": {"matchExpressions": expressions}}


def _added(workload: Workload, template: PodTemplate, terms: Terms) -> Sequence[Patch]:
    if not terms:
        return ()
    path = (*template.spec, *_FIELD)
    if at(workload.manifest, path):
        return [{"op": "add", "path": f"{pointer(path)}/-", "value": term} for term in terms]
    return [{"op": "add", "path": pointer(path), "value": list(terms)}]
