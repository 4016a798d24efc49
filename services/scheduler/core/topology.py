"""Which region, zone, provider or label value a cluster belongs to."""

from __future__ import annotations

from collections.abc import Iterable

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.policy import SpreadConstraint


def property_of(constraint: SpreadConstraint) -> str:
    """Returns what a constraint groups clusters by, in words."""
    return f"label {constraint.label}" if constraint.label else constraint.field


def groups_of(constraint: SpreadConstraint, spec: ClusterSpec | None) -> tuple[str, ...]:
    """Returns the groups that a cluster belongs to; one cluster may have several zones."""
    if spec is None:
        return ()
    if constraint.label:
        value = dict(spec.labels).get(constraint.label)
        return () if value is None else (value,)
    match constraint.field:
        case "provider":
            return (spec.provider,) if spec.provider else ()
        case "region":
            return (spec.region,) if spec.region else ()
        case "zone":
            return tuple(dict.fromkeys(spec.zones))
    return (spec.name,)


def missing_property(constraints: Iterable[SpreadConstraint], spec: ClusterSpec) -> str:
    """Returns what a cluster lacks to belong to a group of every constraint, in words, or nothing."""
    return next((property_of(c) for c in constraints if not groups_of(c, spec)), "")
