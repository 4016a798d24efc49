"""ResourcePolicy (specification 15.3), PriorityClass and Freeze."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from gpufleet.model import kinds
from gpufleet.model.names import API_VERSION, FREEZE_NAME, REWRITTEN_LABELS
from gpufleet.model.policy import PriorityClass, ResourcePolicy, ResourceUnit, UnitResource
from gpufleet.model.resources import labels
from gpufleet.model.selectors import LabelSelector
from gpufleet.wire.documents_lint_pods import lint_labels
from gpufleet.wire.documents_parts import (
    ObjectDoc,
    RequirementDoc,
    name_of,
    read_duration,
    read_labels,
    read_requirement,
)
from gpufleet.wire.documents_schema import INT32_MAX, Count, Doc, Findings, check, refuse_placeholders

RESOURCE_POLICY_VERSIONS = ("scheduling.alibabacloud.com/v1alpha1",)
PRIORITY_CLASS_VERSIONS = ("scheduling.k8s.io/v1",)
FREEZE_VERSIONS = (API_VERSION,)
# Values above are left to the classes that every cluster has.
_HIGHEST_OF_USERS = 1_000_000_000
_SYSTEM = "system-"
# How long a pod waits in a unit under TimeoutOrExceedMax, in seconds.
DEFAULT_TIMEOUT = 900.0
_NEXT = ("LackResourceOrExceedMax", "ExceedMax", "TimeoutOrExceedMax", "LackResourceAndNoTerminating")
# The product's own type spells it so.
_NEXT_SPELLINGS = {"LackResourceAndNoterminating": "LackResourceAndNoTerminating"}


class UnitDoc(Doc):
    """One unit."""

    resource: Literal["idc", "ecs", "eci", "acs", "elastic"]
    node_selector: dict[str, str] = Field(default_factory=dict)
    max: Count | None = None
    max_resources: dict[str, Any] = Field(default_factory=dict)
    pod_labels: dict[str, str] = Field(default_factory=dict)
    pod_annotations: dict[str, str] = Field(default_factory=dict)
    spot_instance: Any = None
    scale_in_weight: Any = None


class NextUnitsDoc(Doc):
    """When a pod may go on to the next unit."""

    policy: str = "LackResourceOrExceedMax"
    timeout: Any = None


class ResourcePolicySpecDoc(Doc):
    """The policy."""

    selector: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[RequirementDoc] = Field(default_factory=list)
    strategy: Literal["prefer"] = "prefer"
    units: list[UnitDoc]
    preempt_policy: Literal["BeforeNextUnit", "AfterAllUnits"] = "AfterAllUnits"
    ignore_previous_pod: bool = False
    ignore_terminating_pod: bool = True
    match_label_keys: list[str] = Field(default_factory=list)
    when_try_next_units: NextUnitsDoc = Field(default_factory=NextUnitsDoc)


class ResourcePolicyDoc(ObjectDoc):
    """The whole document."""

    spec: ResourcePolicySpecDoc
    status: Any = None


class PriorityClassDoc(ObjectDoc):
    """The whole document."""

    value: Annotated[int, Field(ge=-INT32_MAX - 1, le=INT32_MAX)]
    global_default: bool = False
    preemption_policy: Literal["PreemptLowerPriority", "Never"] = "PreemptLowerPriority"
    description: str = ""


class FreezeSpecDoc(Doc):
    """Why."""

    reason: str = ""


class FreezeDoc(ObjectDoc):
    """The whole document."""

    spec: FreezeSpecDoc = Field(default_factory=FreezeSpecDoc)


@dataclass(frozen=True, slots=True)
class Freeze:
    """While it is there, nothing is written to clusters."""

    reason: str = ""
    version: int = 0


def read_resource_policy(manifest: Mapping[str, Any], findings: Findings, version: int = 0) -> ResourcePolicy | None:
    """Returns a ResourcePolicy; ``version`` is the offset of its record. None where too little of it is right."""
    refuse_placeholders(manifest, findings)
    doc = check(ResourcePolicyDoc, manifest, findings)
    if doc is None:
        return None
    namespace, name = name_of(doc.metadata, findings, namespaced=True)
    spec = doc.spec
    if not spec.units:
        findings.error("spec.units", "is empty", "name at least one unit")
    next_units = spec.when_try_next_units
    when = _NEXT_SPELLINGS.get(next_units.policy, next_units.policy)
    if when not in _NEXT:
        findings.error("spec.whenTryNextUnits.policy", f"is {when!r}", f"use one of {', '.join(_NEXT)}")
    timeout = DEFAULT_TIMEOUT if when == "TimeoutOrExceedMax" else None
    if next_units.timeout is not None:
        timeout = read_duration(next_units.timeout, "spec.whenTryNextUnits.timeout", findings)
        if when in _NEXT and when != "TimeoutOrExceedMax":
            findings.warn("spec.whenTryNextUnits.timeout", f"does nothing with {when}", "use TimeoutOrExceedMax")
    for index, unit in enumerate(spec.units):
        if spec.preempt_policy == "BeforeNextUnit" and unit.resource == "acs":
            findings.warn("spec.preemptPolicy", f"BeforeNextUnit does nothing in units[{index}], which is acs")
    if next_units.timeout is not None and spec.units and all(unit.resource == "acs" for unit in spec.units):
        findings.warn("spec.whenTryNextUnits.timeout", "does nothing, because every unit is acs")
    for key in sorted(REWRITTEN_LABELS.intersection(spec.selector)):
        findings.warn(
            f"spec.selector[{key}]",
            "is a label that units write to pods, so the selection would depend on where they land",
            "select pods by labels of your own",
        )
    for index, key in enumerate(spec.match_label_keys):
        if not key:
            findings.error(f"spec.matchLabelKeys[{index}]", "is empty", "name a label of the pods")
    if not any(unit.max is not None or unit.max_resources for unit in spec.units):
        for field in ("ignorePreviousPod", "matchLabelKeys"):
            if _given(manifest, field):
                findings.warn(f"spec.{field}", "does nothing while no unit has max or maxResources")
    return ResourcePolicy(
        name=name,
        namespace=namespace,
        units=tuple(_unit(unit, f"spec.units[{index}]", findings) for index, unit in enumerate(spec.units)),
        selector=LabelSelector(
            read_labels(spec.selector, "spec.selector", findings),
            tuple(
                read_requirement(
                    expression,
                    f"spec.matchExpressions[{index}]",
                    findings,
                    ("In", "NotIn", "Exists", "DoesNotExist"),
                )
                for index, expression in enumerate(spec.match_expressions)
            ),
        ),
        when_try_next=when,
        timeout=timeout,
        preempt_policy=spec.preempt_policy,
        ignore_previous_pod=spec.ignore_previous_pod,
        ignore_terminating_pod=spec.ignore_terminating_pod,
        match_label_keys=tuple(spec.match_label_keys),
        version=version,
        digest=kinds.digest(manifest),
    )


def _given(manifest: Mapping[str, Any], field: str) -> bool:
    spec = manifest.get("spec")
    return isinstance(spec, Mapping) and bool(spec.get(field))


def _unit(doc: UnitDoc, path: str, findings: Findings) -> ResourceUnit:
    for field, value in (("spotInstance", doc.spot_instance), ("scaleInWeight", doc.scale_in_weight)):
        if value is not None:
            findings.warn(f"{path}.{field}", "is not supported yet and is ignored")
    lint_labels(doc.pod_labels, f"{path}.podLabels", findings)
    view = findings.view(doc.max_resources, f"{path}.maxResources")
    limits = {name: view.quantity(name) for name in doc.max_resources}
    return ResourceUnit(
        resource=UnitResource(doc.resource),
        node_selector=read_labels(doc.node_selector, f"{path}.nodeSelector", findings),
        max=doc.max,
        max_resources=tuple(sorted((name, amount) for name, amount in limits.items() if amount is not None)),
        pod_labels=read_labels(doc.pod_labels, f"{path}.podLabels", findings),
        pod_annotations=labels(doc.pod_annotations),
    )


def read_priority_class(manifest: Mapping[str, Any], findings: Findings, version: int = 0) -> PriorityClass | None:
    """Returns a PriorityClass; None where too little of it is right."""
    doc = check(PriorityClassDoc, manifest, findings)
    if doc is None:
        return None
    _, name = name_of(doc.metadata, findings, namespaced=False)
    if doc.value > _HIGHEST_OF_USERS and not name.startswith(_SYSTEM):
        findings.warn(
            "value",
            f"is {doc.value}, but Kubernetes takes {_HIGHEST_OF_USERS} at most, so clusters will not have the class",
            "write a smaller one",
        )
    preempts = doc.preemption_policy != "Never"
    return PriorityClass(name, doc.value, doc.global_default, preempts, version)


def read_freeze(manifest: Mapping[str, Any], findings: Findings, version: int = 0) -> Freeze | None:
    """Returns a Freeze; None where too little of it is right."""
    doc = check(FreezeDoc, manifest, findings)
    if doc is None:
        return None
    _, name = name_of(doc.metadata, findings, namespaced=False)
    if name and name != FREEZE_NAME:
        findings.error("metadata.name", f"is {name!r}", f"only the whole fleet can be frozen: name it {FREEZE_NAME}")
    return Freeze(doc.spec.reason, version)


def dump_freeze(reason: str = "") -> dict[str, Any]:
    """Returns the Freeze document."""
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "Freeze", "metadata": {"name": FREEZE_NAME}}
    if reason:
        document["spec"] = {"reason": reason}
    return document
