"""The ways in which a workload's pods may land in a cluster: as they are, or as a unit of a ResourcePolicy says
(specification 15).

A unit is known by the id of its content, its variant, so that an edited policy leaves alone what landed under an
earlier edition of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gpufleet.model import names
from gpufleet.model.cluster import NodeClass
from gpufleet.model.policy import ResourcePolicy, ResourceUnit, UnitResource
from gpufleet.model.resources import Labels
from gpufleet.model.selectors import Taint, Toleration
from gpufleet.model.workload import Component, Division, PodShape, Workload
from services.scheduler.core.shapes import UNBOUNDED, Catalog, Shape

REGION = "topology.kubernetes.io/region"
VIRTUAL_TAINT = "virtual-kubelet.io/provider"
# Every virtual node's taint is tolerated by pods that a serverless unit takes (specification 15.3).
VIRTUAL_TOLERATION = Toleration(key=VIRTUAL_TAINT, operator="Exists")
# A switch only: under TimeoutOrExceedMax pods wait for nodes in a unit that has it. It is neither written nor counted.
WAIT_LABEL = "k8s.aliyun.com/resource-policy-wait-for-ecs-scaling"
_SERVERLESS = (UnitResource.ACS, UnitResource.ECI)
_ACS_DEFAULTS = ((names.COMPUTE_CLASS, "general-purpose"), (names.COMPUTE_QOS, "default"))
_QOS_STRATEGY = "alpha.alibabacloud.com/compute-qos-strategy"
# Kinds that several objects of one cluster can hold together; others go into one unit per cluster.
_SPLIT_KINDS = frozenset({"Deployment", "CloneSet"})
# Labels of pods that controllers add, by kind of workload: one value per revision, or per workload.
_ADDED_LABELS: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("pod-template-hash",),
    "CloneSet": ("pod-template-hash", "controller-revision-hash"),
    "StatefulSet": ("controller-revision-hash",),
    "Job": ("job-name", "controller-uid", "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"),
    "SparkApplication": ("spark-app-selector", "sparkoperator.k8s.io/app-name", "sparkoperator.k8s.io/submission-id"),
    "PyTorchJob": ("training.kubeflow.org/job-name", "training.kubeflow.org/replica-type"),
    "TFJob": ("training.kubeflow.org/job-name", "training.kubeflow.org/replica-type"),
    "MPIJob": ("training.kubeflow.org/job-name", "training.kubeflow.org/replica-type"),
    "RayJob": ("ray.io/cluster", "ray.io/group", "ray.io/node-type"),
    "RayCluster": ("ray.io/cluster", "ray.io/group", "ray.io/node-type"),
    "Workflow": ("workflows.argoproj.io/workflow",),
}


@dataclass(frozen=True, slots=True)
class VirtualNeed:
    """What a pod asks of a virtual node: its region (empty: the cluster's own), a GPU model series, and GPUs."""

    region: str
    model: str
    gpus: int
    pinned: bool  # the selector names a region, so none is taken for granted


@dataclass(frozen=True, slots=True)
class Part:
    """How the pods of one component land: on nodes for ``shape``, or on virtual nodes if ``virtual`` is given.

    ``plain`` is the shape without what a unit adds. ``classes`` bounds node classes: ``idc`` are those that cannot
    grow, ``elastic`` those that can, empty means any.
    """

    component: str
    shape: Shape
    virtual: VirtualNeed | None = None
    plain: Shape | None = None
    classes: str = ""

    def takes(self, node_class: NodeClass) -> bool:
        """Returns whether a node class is of the kind that the unit means; selectors are the shape's business."""
        if not self.classes:
            return True
        return (node_class.elastic is not None) is (self.classes == "elastic")


@dataclass(frozen=True, slots=True)
class Way:
    """One way for all components. ``unit`` is the unit's index and ``variant`` its id; ``rule`` is None without one.

    ``limit`` bounds the workload's pods in one cluster.
    """

    unit: int | None
    parts: tuple[Part, ...]
    limit: int = UNBOUNDED
    variant: str = ""
    rule: ResourceUnit | None = None

    def part(self, component: str) -> Part | None:
        """Returns a component's part, or None."""
        return next((part for part in self.parts if part.component == component), None)


def applying(workload: Workload, policies: Iterable[ResourcePolicy]) -> ResourcePolicy | None:
    """Returns the ResourcePolicy that governs some pods of a workload, or None.

    Of several the most specific counts, then the newest, then the first by name.
    """
    matching = [p for p in policies if any(p.selector.matches(dict(c.labels)) for c in workload.components)]
    if not matching:
        return None
    return min(
        matching,
        key=lambda p: (-len(p.selector.match_labels) - len(p.selector.expressions), -p.version, p.name),
    )


def splits(workload: Workload) -> bool:
    """Returns whether a workload's pods in one cluster may land in several ways at once."""
    return (
        workload.division is Division.REPLICAS
        and not workload.job
        and len(workload.components) == 1
        and workload.kind in _SPLIT_KINDS
    )


def variant_of(policy: ResourcePolicy, unit: ResourceUnit) -> str:
    """Returns the id of a unit: what it is, and a digest of what it makes of pods. Bounds are no part of it."""
    content = [policy.name, unit.resource.value, unit.node_selector, unit.pod_labels, unit.pod_annotations]
    text = json.dumps(content, separators=(",", ":"))
    return f"{unit.resource.value}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def rejected(workload: Workload, policy: ResourcePolicy) -> str:
    """Returns the first of the `matchLabelKeys` that some pods of a workload will not have, or nothing.

    Such pods are rejected by the policy (specification 15.3). Labels that the kind's controller adds are there.
    """
    added = _ADDED_LABELS.get(workload.kind, ())
    for component in workload.components:
        known = dict(component.labels)
        if policy.selector.matches(known):
            missing = next((key for key in policy.match_label_keys if key not in known and key not in added), "")
            if missing:
                return missing
    return ""


def group_of(workload: Workload, component: Component, policy: ResourcePolicy) -> tuple[str, ...]:
    """Returns the values of the `matchLabelKeys`; a label that a controller adds is the workload's alone."""
    known = dict(component.labels)
    return tuple(known.get(key, f"\0{workload.key}") for key in policy.match_label_keys)


def ways(workload: Workload, policy: ResourcePolicy | None, catalog: Catalog) -> tuple[Way, ...]:
    """Returns the ways to try, in order."""
    if policy is None:
        return _plain(workload, catalog)
    return tuple(_unit(workload, policy, i, unit, catalog) for i, unit in enumerate(policy.units))


def _plain(workload: Workload, catalog: Catalog) -> tuple[Way, ...]:
    real = Way(None, tuple(Part(c.name, catalog.shape(c.shape)) for c in workload.components))
    if any(dict(c.labels).get(names.ACS) == "true" for c in workload.components):
        return (Way(None, tuple(_serverless(c, (), (), catalog) for c in workload.components)),)
    taint = Taint(VIRTUAL_TAINT, "NoSchedule", "alibabacloud")
    if workload.components and all(any(t.tolerates(taint) for t in c.shape.tolerations) for c in workload.components):
        return (real, Way(None, tuple(_serverless(c, (), (), catalog) for c in workload.components)))
    return (real,)


def _unit(workload: Workload, policy: ResourcePolicy, index: int, unit: ResourceUnit, catalog: Catalog) -> Way:
    parts = []
    for component in workload.components:
        plain = catalog.shape(component.shape)
        if not policy.selector.matches(dict(component.labels)):
            parts.append(Part(component.name, plain))
        elif unit.resource in _SERVERLESS:
            parts.append(_serverless(component, unit.node_selector, unit.pod_labels, catalog))
        else:
            classes = unit.resource.value if unit.resource in (UnitResource.IDC, UnitResource.ELASTIC) else ""
            shape = catalog.shape(_selecting(component.shape, unit.node_selector))
            parts.append(Part(component.name, shape, plain=plain, classes=classes))
    return Way(index, tuple(parts), variant=variant_of(policy, unit), rule=unit)


def _serverless(component: Component, selector: Labels, labels: Labels, catalog: Catalog) -> Part:
    known = {**dict(component.labels), **dict(labels)}
    shape = _selecting(component.shape, selector)
    shape = replace(shape, tolerations=(*shape.tolerations, VIRTUAL_TOLERATION))
    interned = catalog.shape(shape)
    return Part(
        component.name,
        interned,
        VirtualNeed(
            region=known.get(names.SERVERLESS_REGION, ""),
            model=known.get(names.GPU_MODEL_SERIES, ""),
            gpus=interned.gpus,
            pinned=any(key == REGION for key, _ in shape.node_selector),
        ),
        plain=catalog.shape(component.shape),
    )


def _selecting(shape: PodShape, selector: Labels) -> PodShape:
    if not selector:
        return shape
    merged: Mapping[str, str] = {**dict(shape.node_selector), **dict(selector)}
    return replace(shape, node_selector=tuple(sorted(merged.items())))


def written_labels(unit: ResourceUnit) -> Labels:
    """Returns the labels that pods get in a unit; an ``acs`` unit adds its defaults."""
    labels = dict(unit.pod_labels)
    if unit.resource is UnitResource.ACS:
        strategy = any(key == _QOS_STRATEGY for key, _ in unit.pod_annotations)
        for key, value in _ACS_DEFAULTS:
            if not (key == names.COMPUTE_QOS and strategy):
                labels.setdefault(key, value)
    labels.pop(WAIT_LABEL, None)
    return tuple(sorted(labels.items()))
