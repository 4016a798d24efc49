"""PropagationPolicy and ClusterPropagationPolicy, in ACK One's, Karmada's and the older form (specification 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from gpufleet.model import kinds
from gpufleet.model.policy import PropagationPolicy, ResourceSelector
from gpufleet.wire.documents_parts import LabelSelectorDoc, ObjectDoc, name_of, read_duration, read_selector
from gpufleet.wire.documents_policy_placement import PlacementDoc, read_placement
from gpufleet.wire.documents_schema import INT32_MAX, Doc, Findings, check, refuse_placeholders
from gpufleet.wire.documents_spellings import normalise, original

LEGACY = "one.alibabacloud.com/v1alpha1"
API_VERSIONS = ("policy.one.alibabacloud.com/v1alpha1", "policy.karmada.io/v1alpha1", LEGACY)
# What is read by Karmada only: what happens instead, and what helps.
_NOT_DONE = {
    ("placement", "workloadAffinity"): (
        "is not done: workloads are kept neither together nor apart by their labels",
        "name the clusters of each in a policy of its own",
    ),
    ("failover", "application"): (
        "is not done: replicas that run, but are unhealthy, stay in their cluster",
        "replicas that find no node are moved after rescheduler.pending_after",
    ),
    ("failover", "cluster"): (
        "is not read: replicas in a cluster that does not answer are placed anew after inventory.unreachable_after",
        "",
    ),
}


class SelectorDoc(Doc):
    """Which templates."""

    api_version: str = Field(min_length=1)
    kind: str = Field(min_length=1)
    namespace: str = ""
    name: str = ""
    label_selector: LabelSelectorDoc | None = None


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
    _say_what_is_not_done(manifest.get("spec", {}), findings)
    if not spec.resource_selectors:
        findings.error("spec.resourceSelectors", "is empty", "name at least one kind; empty never means everything")
    suspension = spec.suspension
    held = suspension.dispatching_on_clusters or ClusterNamesDoc()
    if suspension.dispatching and held.cluster_names:
        findings.error(
            "spec.suspension", "has dispatching and dispatchingOnClusters", "keep one: all clusters, or the named ones"
        )
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
        placement=read_placement(spec.placement, findings),
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


def _say_what_is_not_done(spec: Mapping[str, Any], findings: Findings) -> None:
    for (parent, field), (message, hint) in _NOT_DONE.items():
        inside = spec.get(parent)
        if isinstance(inside, Mapping) and inside.get(field) is not None:
            findings.warn(f"spec.{parent}.{field}", message, hint)
    if "association" in spec:
        findings.warn("spec.association", "does nothing, in Karmada neither", "write propagateDeps")


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
