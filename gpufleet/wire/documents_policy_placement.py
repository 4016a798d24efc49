"""The `placement` of a policy: clusters, groups in order of priority, spread, and how replicas are divided.

Defaults and what is refused are Karmada's (specification 1.2, 1.4). What Karmada refuses, but has one meaning all the
same, is warned about.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gpufleet.model.kinds.reading import is_label_key, key_problem
from gpufleet.model.policy import ClusterAffinity, DivisionType, Placement, SpreadConstraint, StaticWeight
from gpufleet.wire.documents_parts import (
    LabelSelectorDoc,
    RequirementDoc,
    TolerationDoc,
    read_requirement,
    read_selector,
    read_tolerations,
)
from gpufleet.wire.documents_schema import INT32_MAX, Count, Doc, Findings
from gpufleet.wire.documents_spellings import RIGHT_PATH


class FieldSelectorDoc(Doc):
    """By provider, region or zone."""

    match_expressions: list[RequirementDoc] = Field(default_factory=list)


class AffinityDoc(Doc):
    """A set of clusters."""

    cluster_names: list[str] = Field(default_factory=list)
    label_selector: LabelSelectorDoc | None = None
    field_selector: FieldSelectorDoc | None = None
    exclude: list[str] = Field(default_factory=list)


class OverflowDoc(AffinityDoc):
    """A group that takes what does not fit into the ones before."""

    affinity_name: str = Field(min_length=1, max_length=32)


class GroupDoc(OverflowDoc):
    """A priority group, and groups that follow it."""

    overflow_affinities: list[OverflowDoc] = Field(default_factory=list)


class WeightDoc(Doc):
    """A static weight."""

    target_cluster: AffinityDoc
    weight: Annotated[int, Field(ge=1, le=INT32_MAX)]


class WeightPreferenceDoc(Doc):
    """How replicas are weighted."""

    static_weight_list: list[WeightDoc] = Field(default_factory=list)
    dynamic_weight: Literal["AvailableReplicas"] | None = None


class ReplicaSchedulingDoc(Doc):
    """How replicas are divided."""

    replica_scheduling_type: Literal["Duplicated", "Divided"] = "Divided"
    replica_division_preference: Literal["Weighted", "Aggregated"] | None = None
    weight_preference: WeightPreferenceDoc | None = None
    custom_scheduling_type: Literal["Gang"] | None = None


class SpreadDoc(Doc):
    """Spread over groups of clusters."""

    spread_by_field: Literal["cluster", "region", "zone", "provider"] | None = None
    spread_by_label: str = ""
    min_groups: Count = 1
    max_groups: Count = 0


class PlacementDoc(Doc):
    """Where."""

    cluster_affinity: AffinityDoc | None = None
    cluster_affinities: list[GroupDoc] = Field(default_factory=list)
    cluster_tolerations: list[TolerationDoc] = Field(default_factory=list)
    spread_constraints: list[SpreadDoc] = Field(default_factory=list)
    replica_scheduling: ReplicaSchedulingDoc | None = None
    custom_scheduling_type: Literal["Gang"] | None = None
    workload_affinity: Any = None


def read_placement(doc: PlacementDoc, findings: Findings) -> Placement:
    """Returns the placement part of a policy."""
    path = "spec.placement"
    if doc.cluster_affinity is not None and doc.cluster_affinities:
        findings.error(
            path,
            "has both clusterAffinity and clusterAffinities",
            "keep clusterAffinity for one set of clusters, or clusterAffinities for groups in order of priority",
        )
    groups = _groups(doc.cluster_affinities, f"{path}.clusterAffinities", findings)
    if doc.cluster_affinity is not None and not groups:
        groups = (read_affinity(doc.cluster_affinity, f"{path}.clusterAffinity", findings),)
    scheduling = doc.replica_scheduling
    gang = "Gang" in (doc.custom_scheduling_type, scheduling and scheduling.custom_scheduling_type)
    division, weights = _division(scheduling, findings, gang=gang)
    overflow = any(group.overflow_affinities for group in doc.cluster_affinities)
    if overflow and division not in (DivisionType.DYNAMIC, DivisionType.AGGREGATED) and not gang:
        findings.error(
            f"{path}.clusterAffinities",
            f"has overflowAffinities, which do not go with {division.value}",
            "use dynamicWeight: AvailableReplicas, or replicaDivisionPreference: Aggregated",
        )
    elif doc.cluster_affinities and division is not DivisionType.DYNAMIC and not gang and not overflow:
        findings.warn(
            f"{path}.clusterAffinities",
            f"replicas overflow into the next group only with dynamic weights, not with {division.value}",
            "the first group that takes all replicas is used",
        )
    return Placement(
        groups=groups,
        prioritized=bool(doc.cluster_affinities),
        tolerations=read_tolerations(doc.cluster_tolerations, f"{path}.clusterTolerations", findings),
        spread=_spreads(doc.spread_constraints, f"{path}.spreadConstraints", findings, division),
        division=division,
        static_weights=weights,
        gang=gang,
        overflow=overflow,
    )


def _groups(docs: list[GroupDoc], path: str, findings: Findings) -> tuple[ClusterAffinity, ...]:
    """Returns all groups in order of priority, each followed by those that it overflows into.

    The names of the groups differ from each other; those of overflow groups only within their group, as upstream.
    """
    listed: list[tuple[str, OverflowDoc]] = []
    names: list[str] = []
    for index, doc in enumerate(docs):
        here = f"{path}[{index}]"
        _check_name(doc, here, names, findings)
        listed.append((here, doc))
        inside = [doc.affinity_name]
        for i, after in enumerate(doc.overflow_affinities):
            _check_name(after, f"{here}.overflowAffinities[{i}]", inside, findings)
            listed.append((f"{here}.overflowAffinities[{i}]", after))
        set_here = doc.cluster_names or doc.label_selector or doc.field_selector or doc.exclude
        if doc.overflow_affinities and not set_here:
            findings.error(
                f"{here}.overflowAffinities",
                "follow a group that means every cluster, so nothing is left for them",
                "give the group its clusterNames or labelSelector",
            )
    return tuple(read_affinity(group, here, findings, group.affinity_name) for here, group in listed)


def _check_name(group: OverflowDoc, path: str, taken: list[str], findings: Findings) -> None:
    """Notes a name that is none, or is among those that are taken; then it is taken, too."""
    name = group.affinity_name
    if name and not is_label_key(name):
        findings.error(f"{path}.affinityName", *key_problem(name, "the name of a group"))
    elif name in taken:
        findings.error(f"{path}.affinityName", f"{name!r} occurs twice", "give each group its name")
    taken.append(name)


def _spreads(
    docs: list[SpreadDoc], path: str, findings: Findings, division: DivisionType
) -> tuple[SpreadConstraint, ...]:
    found = tuple(_spread(item, f"{path}[{index}]", findings) for index, item in enumerate(docs))
    for index, constraint in enumerate(found):
        if any((c.field, c.label) == (constraint.field, constraint.label) for c in found[:index]):
            what = f"label {constraint.label}" if constraint.label else constraint.field
            findings.error(f"{path}[{index}]", f"is a second constraint by {what}", "keep one of them")
    if found and division is DivisionType.STATIC:
        findings.warn(path, "is ignored with static weights", "the clusters that have a weight are used")
    elif any(c.field for c in found) and not any(c.field == "cluster" for c in found):
        findings.warn(
            path,
            "says nothing about clusters, which Karmada demands beside other fields; any number of them is meant",
            "add spreadByField: cluster with its minGroups and maxGroups",
        )
    return found


def _division(
    doc: ReplicaSchedulingDoc | None, findings: Findings, *, gang: bool
) -> tuple[DivisionType, tuple[StaticWeight, ...]]:
    if doc is None:
        # A gang goes to one cluster, so without more said its one copy is divided, not repeated.
        return (DivisionType.DYNAMIC if gang else DivisionType.DUPLICATED), ()
    preference = doc.weight_preference or WeightPreferenceDoc()
    if doc.replica_scheduling_type == "Duplicated":
        if doc.replica_division_preference is not None:
            findings.warn(f"{RIGHT_PATH}.replicaDivisionPreference", "is ignored, because the type is Duplicated")
        return DivisionType.DUPLICATED, ()
    if doc.replica_division_preference is None:
        if gang:
            return DivisionType.DYNAMIC, ()
        findings.error(
            f"{RIGHT_PATH}.replicaDivisionPreference",
            "is missing, but the type is Divided",
            "use Weighted or Aggregated, or replicaSchedulingType: Duplicated",
        )
    if doc.replica_division_preference == "Aggregated":
        return DivisionType.AGGREGATED, ()
    if preference.dynamic_weight is not None:
        if preference.static_weight_list:
            findings.warn(f"{RIGHT_PATH}.weightPreference.staticWeightList", "is ignored, because dynamicWeight is set")
        return DivisionType.DYNAMIC, ()
    return DivisionType.STATIC, tuple(
        StaticWeight(
            read_affinity(
                item.target_cluster,
                f"{RIGHT_PATH}.weightPreference.staticWeightList[{index}].targetCluster",
                findings,
            ),
            item.weight,
        )
        for index, item in enumerate(preference.static_weight_list)
    )


def read_affinity(doc: AffinityDoc, path: str, findings: Findings, name: str = "") -> ClusterAffinity:
    """Returns a set of clusters."""
    fields = []
    for index, expression in enumerate(doc.field_selector.match_expressions if doc.field_selector else ()):
        here = f"{path}.fieldSelector.matchExpressions[{index}]"
        if expression.key not in ("provider", "region", "zone"):
            findings.error(f"{here}.key", f"is {expression.key!r}", "use provider, region or zone")
        fields.append(read_requirement(expression, here, findings, ("In", "NotIn")))
    for index, cluster in enumerate(doc.cluster_names):
        if cluster in doc.cluster_names[:index]:
            findings.warn(f"{path}.clusterNames[{index}]", f"{cluster!r} is named twice")
    labels = doc.label_selector
    return ClusterAffinity(
        name=name,
        cluster_names=tuple(dict.fromkeys(doc.cluster_names)),
        labels=None if labels is None else read_selector(labels, f"{path}.labelSelector", findings),
        fields=tuple(fields),
        exclude=tuple(doc.exclude),
    )


def _spread(doc: SpreadDoc, path: str, findings: Findings) -> SpreadConstraint:
    if doc.spread_by_field and doc.spread_by_label:
        findings.error(path, "has both spreadByField and spreadByLabel", "keep one of the two")
    if doc.max_groups and doc.max_groups < doc.min_groups:
        findings.error(f"{path}.maxGroups", f"is {doc.max_groups}, less than minGroups {doc.min_groups}")
    # Without either, clusters are meant; at least one group is always wanted.
    spread_by = doc.spread_by_field or ("" if doc.spread_by_label else "cluster")
    return SpreadConstraint(spread_by, doc.spread_by_label, max(1, doc.min_groups), doc.max_groups)
