"""From the slots of a share to objects: the patches that send pods where their room was counted.

All pods of one template are alike, so pods in several units of one cluster are several objects: the workload's own
name keeps the unit that it has, the others are variants of it. What was rendered stays while its pods live: neither an
edited ResourcePolicy nor a change of the division may roll running pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from gpufleet.model import kinds, names
from gpufleet.model.kinds import PodTemplate, pointer
from gpufleet.model.placement import Assignment, ClusterShare, Source, Variant
from gpufleet.model.policy import ResourcePolicy, ResourceUnit, UnitResource
from gpufleet.model.selectors import Taint
from gpufleet.model.values import value
from gpufleet.model.workload import Component, Workload
from services.scheduler.core.units import VIRTUAL_TAINT, splits, variant_of, written_labels

Patch = Mapping[str, Any]
Counts = tuple[tuple[str, int], ...]
_TAINT = Taint(VIRTUAL_TAINT, "NoSchedule", "alibabacloud")
_LONGEST_NAME = 253
# Scaling in takes pods of lower cost first, so earlier units cost more.
_COST_STEP = 100
_SLOTS = attrgetter("slots")


@value(frozen=True, slots=True)
class Rendering:
    """The object of the workload's name, and the others."""

    components: Counts
    patches: tuple[Patch, ...] = ()
    unit: str = ""
    variants: tuple[Variant, ...] = ()


def render(
    workload: Workload, share: ClusterShare, policy: ResourcePolicy | None, known: Assignment | None
) -> Rendering:
    """Returns the objects of a share. ``known`` is the assignment that is being carried out, if there is one."""
    if (known is None or not (known.unit or known.variants)) and not apart((share,)):
        return Rendering(share.components)
    try:
        templates = kinds.pod_templates(workload.manifest)
    except kinds.KindError:
        return Rendering(share.components)
    maker = _Maker(workload, share, policy, templates, _patches_of(known))
    primary = known.unit if known is not None else _first(share)
    if not splits(workload):
        return Rendering(share.components, maker.patches(primary), primary)
    counts = _counts(share)
    before = {variant.unit: variant for variant in known.variants} if known is not None else {}
    component = workload.components[0].name
    variants = []
    for unit in sorted((counts.keys() | before.keys()) - {primary}):
        known_variant = before.get(unit)
        name = known_variant.name if known_variant is not None else _name(workload.name, unit)
        count = counts.get(unit, 0)
        if count or known_variant is not None:
            patches = (*maker.patches(unit), *_apart(name, unit)) if count else ()
            variants.append(Variant(unit, name, ((component, count),), patches))
    components = ((component, counts.get(primary, 0)),) if variants else share.components
    return Rendering(components, maker.patches(primary), primary, tuple(variants))


def apart(shares: Iterable[ClusterShare]) -> bool:
    """Returns whether some pods of some shares are not just as their template says."""
    slots = list(map(_SLOTS, shares))
    for some in dict(zip(map(id, slots), slots, strict=True)).values():  # many shares have the same
        for slot in some:
            if slot.variant or slot.source is Source.VIRTUAL:
                return True
    return False


def _counts(share: ClusterShare) -> dict[str, int]:
    """Returns pods by unit; pods that no slot stands for are of no unit."""
    counts: dict[str, int] = {}
    for slot in share.slots:
        counts[slot.variant] = counts.get(slot.variant, 0) + slot.count
    bare = share.replicas - sum(counts.values())
    if bare > 0:
        counts[""] = counts.get("", 0) + bare
    return counts


def _first(share: ClusterShare) -> str:
    """Returns the first unit of a share, in the order of the policy that it was decided by."""
    units = [(slot.unit, slot.variant) for slot in share.slots if slot.unit is not None]
    return min(units)[1] if units else ""


def _patches_of(known: Assignment | None) -> dict[str, tuple[Patch, ...]]:
    if known is None:
        return {}
    return {known.unit: known.patches} | {v.unit: v.patches for v in known.variants if v.patches}


def _name(name: str, unit: str) -> str:
    return f"{name[: _LONGEST_NAME - 1 - len(unit)]}-{unit}"


def _apart(name: str, unit: str) -> tuple[Patch, ...]:
    """Returns what makes a variant an object of its own: its name, and a selector that only its pods satisfy.

    The first object's selector stays as it is, and so do Services: they select the pods of all variants.
    """
    selector = ("spec", "selector", "matchLabels", names.UNIT_LABEL)
    return (
        {"op": "add", "path": pointer(("metadata", "name")), "value": name},
        {"op": "add", "path": pointer(selector), "value": unit},
    )


@dataclass(frozen=True, slots=True)
class _Maker:
    workload: Workload
    share: ClusterShare
    policy: ResourcePolicy | None
    templates: Sequence[PodTemplate]
    before: Mapping[str, tuple[Patch, ...]]

    def patches(self, variant: str) -> tuple[Patch, ...]:
        """Returns the patches of a unit. Of a unit that the policy has no more, what was rendered is kept."""
        units = list(enumerate(self.policy.units)) if self.policy is not None else []
        index, unit = next(
            ((i, u) for i, u in units if self.policy is not None and variant_of(self.policy, u) == variant), (0, None)
        )
        if variant and unit is None:
            own = {pointer(("metadata", "name"))}
            return tuple(
                patch
                for patch in self.before.get(variant, ())
                if patch["path"] not in own and "/spec/selector/" not in patch["path"]
            )
        return tuple(
            patch for template in self.templates for patch in self._of_template(template, index, unit, variant)
        )

    def _of_template(
        self, template: PodTemplate, index: int, unit: ResourceUnit | None, variant: str
    ) -> Sequence[Patch]:
        component = next((c for c in self.workload.components if c.name == template.component), None)
        found: list[Patch] = []
        selected = (
            self.policy is not None and component is not None and self.policy.selector.matches(dict(component.labels))
        )
        if unit is not None and selected:
            labels = (*written_labels(unit), (names.UNIT_LABEL, variant))
            for path, values in (
                (template.node_selector, unit.node_selector),
                (template.labels, labels),
                (template.annotations, unit.pod_annotations),
            ):
                found += [{"op": "add", "path": pointer((*path, key)), "value": value} for key, value in values]
            found += self._cost(template, index, unit, variant)
        virtual = any(
            slot.source is Source.VIRTUAL and slot.variant == variant and slot.component == template.component
            for slot in self.share.slots
        ) or (unit is not None and selected and unit.resource in (UnitResource.ACS, UnitResource.ECI))
        if virtual and not _tolerated(component):
            present = at(self.workload.manifest, template.tolerations)
            tolerations = list(present) if isinstance(present, list | tuple) else []
            value = [*tolerations, {"key": VIRTUAL_TAINT, "operator": "Exists"}]
            found.append({"op": "add", "path": pointer(template.tolerations), "value": value})
        return found

    def _cost(self, template: PodTemplate, index: int, unit: ResourceUnit, variant: str) -> Sequence[Patch]:
        """Returns the annotation that ranks pods for scaling in; a user's own stands, except in ``acs`` units."""
        assert self.policy is not None
        path = pointer((*template.annotations, names.DELETION_COST))
        written = at(self.workload.manifest, (*template.annotations, names.DELETION_COST))
        if len(self.policy.units) < 2 or (written is not None and unit.resource is not UnitResource.ACS):
            return ()
        known = next((p for p in self.before.get(variant, ()) if p["path"] == path), None)
        cost = str(_COST_STEP * (len(self.policy.units) - index))
        return (known or {"op": "add", "path": path, "value": cost},)


def _tolerated(component: Component | None) -> bool:
    return component is not None and any(t.tolerates(_TAINT) for t in component.shape.tolerations)


def at(manifest: Mapping[str, Any], path: tuple[str | int, ...]) -> Any:
    """Returns the field at a path, or None."""
    here: Any = manifest
    for part in path:
        if isinstance(here, Mapping):
            here = here.get(str(part))
        elif isinstance(here, list | tuple) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            return None
    return here
