"""The ways in which a workload's pods may land in a cluster: as they are, or as a unit of a ResourcePolicy says.

A way is decided per cluster, because all replicas there come from one template. The first way that takes everything
wins, else the first with room for some.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gpufleet.model import names
from gpufleet.model.policy import ResourcePolicy, ResourceUnit, UnitResource
from gpufleet.model.resources import Labels
from gpufleet.model.selectors import Taint, Toleration
from gpufleet.model.workload import Component, PodShape, Workload
from services.scheduler.core.shapes import UNBOUNDED, Catalog, Shape

REGION = "topology.kubernetes.io/region"
VIRTUAL_TAINT = "virtual-kubelet.io/provider"
# Every virtual node's taint is tolerated by pods that a serverless unit takes (specification 15.3).
VIRTUAL_TOLERATION = Toleration(key=VIRTUAL_TAINT, operator="Exists")
_SERVERLESS = (UnitResource.ACS, UnitResource.ECI)
_ACS_DEFAULTS = ((names.COMPUTE_CLASS, "general-purpose"), (names.COMPUTE_QOS, "default"))
_QOS_STRATEGY = "alpha.alibabacloud.com/compute-qos-strategy"


@dataclass(frozen=True, slots=True)
class VirtualNeed:
    """What a pod asks of a virtual node: its region (empty: the cluster's own), a GPU model series, and GPUs."""

    region: str
    model: str
    gpus: int
    pinned: bool  # the selector names a region, so none is taken for granted


@dataclass(frozen=True, slots=True)
class Part:
    """How the pods of one component land: on nodes for ``shape``, or on virtual nodes if ``virtual`` is given."""

    component: str
    shape: Shape
    virtual: VirtualNeed | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """One way for all components. ``unit`` is the unit's index; ``limit`` bounds the pods in one cluster."""

    unit: int | None
    parts: tuple[Part, ...]
    limit: int = UNBOUNDED

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
    limit = UNBOUNDED if unit.max is None else unit.max
    for component in workload.components:
        if not policy.selector.matches(dict(component.labels)):
            parts.append(Part(component.name, catalog.shape(component.shape)))
            continue
        if unit.resource in _SERVERLESS:
            parts.append(_serverless(component, unit.node_selector, unit.pod_labels, catalog))
        else:
            parts.append(Part(component.name, catalog.shape(_selecting(component.shape, unit.node_selector))))
        requests = dict(component.shape.requests)
        for name, amount in unit.max_resources:
            if requests.get(name):
                limit = min(limit, amount // requests[name])
    return Way(index, tuple(parts), limit)


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
    # A switch only: it is neither written nor counted.
    labels.pop("k8s.aliyun.com/resource-policy-wait-for-ecs-scaling", None)
    return tuple(sorted(labels.items()))
