"""PropagationPolicy and ClusterPropagationPolicy, in ACK One's, Karmada's and the older form (specification 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from gpufleet.model import kinds
from gpufleet.model.policy import (
    ClusterAffinity,
    DivisionType,
    Placement,
    PropagationPolicy,
    ResourceSelector,
    SpreadConstraint,
    StaticWeight,
)
from gpufleet.wire.documents_parts import (
    LabelSelectorDoc,
    ObjectDoc,
    RequirementDoc,
    TolerationDoc,
    name_of,
    read_duration,
    read_requirement,
    read_selector,
    read_tolerations,
)
from gpufleet.wire.documents_schema import INT32_MAX, Count, Doc, Findings, check, refuse_placeholders
from gpufleet.wire.documents_spellings import RIGHT_PATH, normalise, original

LEGACY = "one.alibabacloud.com/v1alpha1"
API_VERSIONS = ("policy.one.alibabacloud.com/v1alpha1", "policy.karmada.io/v1alpha1", LEGACY)
_LATER = ("failover",)
_LATER_IN_PLACEMENT = ("workloadAffinity",)


class SelectorDoc(Doc):
    """Which templates."""

    api_version: str = Field(min_length=1)
    kind: str = Field(min_length=1)
    namespace: str = ""
    name: str = ""
    label_selector: LabelSelectorDoc | None = None


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


class AutoScalingDoc(Doc):
    """Inventory awareness."""

    ecs_provision: bool = False
    preempt_before_provision: bool = False
    existing_capacity_first: bool = False


class ClusterNamesDoc(Doc):
    """Some clusters."""

    cluster_names: list[str] = Field(default_factory=list)


class SuspensionDoc(Doc):
    """What is held back."""

    scheduling: bool = False
    dispatching: bool = False
    dispatching_on_clusters: ClusterNamesDoc | None = None


class SchedulePriorityDoc(Doc):
    """What ranks workloads: a class that is named here, or the one that their pods name."""

    priority_class_source: Literal["KubePriorityClass", "PodPriorityClass"]
    priority_class_name: str = ""


class SpecDoc(Doc):
    """The policy."""

    resource_selectors: list[SelectorDoc]
    placement: PlacementDoc = Field(default_factory=PlacementDoc)
    auto_scaling: AutoScalingDoc = Field(default_factory=AutoScalingDoc)
    suspension: SuspensionDoc = Field(default_factory=SuspensionDoc)
    priority: Annotated[int, Field(ge=-INT32_MAX - 1, le=INT32_MAX)] = 0
    preemption: Literal["Always", "Never"] = "Never"
    preserve_resources_on_deletion: bool = False
    conflict_resolution: Literal["Abort", "Overwrite"] = "Abort"
    scheduler_name: str = "default-scheduler"
    propagate_deps: bool = False
    activation_preference: Literal["", "Lazy"] = ""
    create_namespaces: bool = False
    partial_stateful_sets: bool = False
    redispatch_user_failures: bool = False
    prefer_node_class: bool = False
    queue_timeout: Any = None
    dependent_overrides: list[str] = Field(default_factory=list)
    failover: Any = None
    schedule_priority: SchedulePriorityDoc | None = None
    association: Any = None


class PolicyDoc(ObjectDoc):
    """The whole document."""

    spec: SpecDoc
    status: Any = None


def read(manifest: Mapping[str, Any], findings: Findings, version: int = 0) -> PropagationPolicy | None:
    """Returns a policy; ``version`` is the offset of its record. None where too little of it is right."""
    refuse_placeholders(manifest, findings)
    namespaced = manifest.get("kind") == "PropagationPolicy"
    normal, moved = normalise(manifest, findings)
    inner = Findings(findings.namespace)
    doc = check(PolicyDoc, normal, inner)
    policy = None if doc is None else _policy(doc, manifest, inner, version, namespaced=namespaced)
    findings.errors.extend(original(problem, moved) for problem in inner.errors)
    findings.warnings.extend(original(problem, moved) for problem in inner.warnings)
    return policy


def _queue_timeout(given: Any, findings: Findings) -> float | None:
    if given is None:
        return None
    before = len(findings.errors)
    seconds = read_duration(given, "spec.queueTimeout", findings)
    if not seconds and len(findings.errors) == before:
        findings.error("spec.queueTimeout", "must be more than 0", "leave it out to wait for ever")
    return seconds


def _priority_class(doc: SchedulePriorityDoc | None, findings: Findings) -> str:
    if doc is None or doc.priority_class_source == "PodPriorityClass":
        return ""
    if not doc.priority_class_name:
        findings.error("spec.schedulePriority.priorityClassName", "is missing", "name the PriorityClass")
    return doc.priority_class_name


def _policy(
    doc: PolicyDoc, manifest: Mapping[str, Any], findings: Findings, version: int, *, namespaced: bool
) -> PropagationPolicy:
    namespace, name = name_of(doc.metadata, findings, namespaced=namespaced)
    spec = doc.spec
    given = manifest.get("spec", {})
    placement = given.get("placement")
    later = [f"spec.{field}" for field in _LATER if field in given]
    if isinstance(placement, Mapping):
        later += [f"spec.placement.{field}" for field in _LATER_IN_PLACEMENT if field in placement]
    for path in later:
        findings.warn(path, "is not supported yet and is ignored")
    if "association" in given:
        findings.warn("spec.association", "does nothing, in Karmada neither", "write propagateDeps")
    if not spec.resource_selectors:
        findings.error("spec.resourceSelectors", "is empty", "name at least one kind; empty never means everything")
    suspension = spec.suspension
    if suspension.dispatching and suspension.dispatching_on_clusters is not None:
        findings.error(
            "spec.suspension", "has dispatching and dispatchingOnClusters", "keep one: all clusters, or the named ones"
        )
    held = suspension.dispatching_on_clusters or ClusterNamesDoc()
    if spec.preemption == "Always":
        for index, selector in enumerate(spec.resource_selectors):
            if not selector.name:
                findings.warn(
                    f"spec.resourceSelectors[{index}].name",
                    "is missing, so preemption: Always may take over every object of the kind",
                    "name the object, as Karmada demands",
                )
    return PropagationPolicy(
        name=name,
        namespace=namespace,
        selectors=tuple(
            read_resource_selector(selector, namespace, f"spec.resourceSelectors[{index}]", findings)
            for index, selector in enumerate(spec.resource_selectors)
        ),
        placement=_placement(spec.placement, findings),
        priority=spec.priority,
        preempts_policies=spec.preemption == "Always",
        ecs_provision=spec.auto_scaling.ecs_provision,
        preempt_before_provision=spec.auto_scaling.preempt_before_provision,
        existing_capacity_first=spec.auto_scaling.existing_capacity_first,
        partial_statefulsets=spec.partial_stateful_sets,
        suspend_scheduling=suspension.scheduling,
        suspend_dispatching=suspension.dispatching,
        suspend_dispatching_on=tuple(held.cluster_names),
        preserve_on_deletion=spec.preserve_resources_on_deletion,
        conflict_overwrite=spec.conflict_resolution == "Overwrite",
        create_namespaces=spec.create_namespaces,
        scheduler_name=spec.scheduler_name,
        propagate_deps=spec.propagate_deps,
        lazy=spec.activation_preference == "Lazy",
        redispatch_user_failures=spec.redispatch_user_failures,
        priority_class=_priority_class(spec.schedule_priority, findings),
        dependent_overrides=tuple(spec.dependent_overrides),
        prefer_node_class=spec.prefer_node_class,
        queue_timeout=_queue_timeout(spec.queue_timeout, findings),
        version=version,
        digest=kinds.digest(manifest),
        manifest=manifest,
    )


def read_resource_selector(doc: SelectorDoc, namespace: str, path: str, findings: Findings) -> ResourceSelector:
    """Returns a selector of templates; ``namespace`` is the policy's own, empty for a cluster-wide one."""
    if namespace and doc.namespace and doc.namespace != namespace:
        findings.error(
            f"{path}.namespace",
            f"is {doc.namespace!r}, but the policy can only select in its own namespace {namespace!r}",
            "move the policy there, or use a ClusterPropagationPolicy",
        )
    if kinds.spec_for(doc.api_version, doc.kind) is None:
        findings.warn(path, f"{doc.kind} ({doc.api_version}) is not a kind that is scheduled, so this selects nothing")
    if doc.name and doc.label_selector is not None:
        findings.warn(f"{path}.labelSelector", "is ignored, because name is set")
    labels = None
    if doc.label_selector is not None and not doc.name:
        labels = read_selector(doc.label_selector, f"{path}.labelSelector", findings)
    return ResourceSelector(doc.api_version, doc.kind, doc.namespace or namespace, doc.name, labels)


def _placement(doc: PlacementDoc, findings: Findings) -> Placement:
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
    """Returns all groups in order of priority, each followed by those that it overflows into."""
    listed: list[tuple[str, OverflowDoc]] = []
    for index, doc in enumerate(docs):
        here = f"{path}[{index}]"
        listed.append((here, doc))
        listed += [(f"{here}.overflowAffinities[{i}]", after) for i, after in enumerate(doc.overflow_affinities)]
        set_here = doc.cluster_names or doc.label_selector or doc.field_selector or doc.exclude
        if doc.overflow_affinities and not set_here:
            findings.error(
                f"{here}.overflowAffinities",
                "follow a group that means every cluster, so nothing is left for them",
                "give the group its clusterNames or labelSelector",
            )
    names = [doc.affinity_name for _, doc in listed]
    for number, (here, _) in enumerate(listed):
        if names[number] in names[:number]:
            findings.error(f"{here}.affinityName", f"{names[number]!r} occurs twice", "give each group its name")
    return tuple(read_affinity(group, here, findings, group.affinity_name) for here, group in listed)


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
