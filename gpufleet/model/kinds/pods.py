"""What one pod needs of a node, read from a pod template (specification 11.2)."""

from __future__ import annotations

from gpufleet.model import requests
from gpufleet.model.kinds.base import Pods
from gpufleet.model.kinds.reading import MAX_REPLICAS, View
from gpufleet.model.resources import Labels, Resources
from gpufleet.model.selectors import NodeSelectorTerm, Requirement, Toleration
from gpufleet.model.workload import Component, PodShape

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
# Who says how many pods of a gang must start together (specification 12.2).
_MIN_AVAILABLE_LABEL = "pod-group.scheduling.sigs.k8s.io/min-available"
_MIN_AVAILABLE_ANNOTATION = "gang.scheduling.koordinator.sh/min-available"


def component(name: str, replicas: int, template: View) -> Component:
    """Returns a component of ordinary pods; ``template`` holds `metadata` and `spec`."""
    spec = template.map("spec")
    if not spec.value:
        template.problem("spec" if template.value else None, "is missing", "a pod template needs spec.containers")
    return Component(
        name=name,
        replicas=replicas,
        shape=PodShape(_pod_requests(spec) if spec.value else (), *node_constraints(spec)),
        labels=template.map("metadata").labels("labels"),
        priority_class=spec.text("priorityClassName"),
        priority=spec.priority(),
        scheduler_name=spec.text("schedulerName"),
    )


def single(name: str, replicas: int, template: View) -> Pods:
    """Returns the pods of a kind with one template, which is also what ranks it."""
    main = component(name, replicas, template)
    return Pods((main,), main.priority_class, main.priority, min_member(template))


def min_member(template: View) -> int | None:
    """Returns the gang size that a template's labels or annotations ask for, or None."""
    metadata = template.map("metadata")
    for field, key in (("labels", _MIN_AVAILABLE_LABEL), ("annotations", _MIN_AVAILABLE_ANNOTATION)):
        view = metadata.map(field)
        value = view.value.get(key)
        if isinstance(value, str):
            if value.isdecimal() and len(value) < 10 and 0 < int(value) <= MAX_REPLICAS:
                return int(value)
            view.problem(key, f"is {value[:40]!r}, but must be a whole number from 1 to {MAX_REPLICAS}")
    return None


def node_constraints(spec: View) -> tuple[Labels, tuple[NodeSelectorTerm, ...], tuple[Toleration, ...]]:
    """Returns node selector, required node affinity and tolerations."""
    return spec.labels("nodeSelector"), _affinity(spec), tuple(_toleration(t) for t in spec.items("tolerations"))


def container_requests(container: View) -> dict[str, int]:
    """Returns a container's requests; a resource that has only a limit requests that."""
    wanted = container.map("resources")
    limits, asked = wanted.quantities("limits"), wanted.quantities("requests")
    for name, amount in asked.items():
        if amount > limits.get(name, amount):
            wanted.map("requests").problem(name, "is more than the limit", f"raise resources.limits for {name}")
    return {**limits, **asked}


def _pod_requests(spec: View) -> Resources:
    containers = spec.items("containers")
    if not containers:
        spec.problem("containers", "is missing or empty", "a pod needs at least one container")
    return requests.of_pod(
        [container_requests(container) for container in containers],
        [(container_requests(c), c.text("restartPolicy") == "Always") for c in spec.items("initContainers")],
        pod=container_requests(spec),
        overhead=spec.quantities("overhead"),
    )


def _affinity(spec: View) -> tuple[NodeSelectorTerm, ...]:
    required = spec.map("affinity").map("nodeAffinity").map("requiredDuringSchedulingIgnoredDuringExecution")
    return tuple(
        NodeSelectorTerm(
            tuple(_requirement(e) for e in term.items("matchExpressions")),
            tuple(_requirement(f) for f in term.items("matchFields")),
        )
        for term in required.items("nodeSelectorTerms")
    )


def _requirement(view: View) -> Requirement:
    operator = view.text("operator")
    values = view.texts("values")
    if operator not in _OPERATORS:
        view.problem("operator", f"is {operator!r}", f"use one of {', '.join(_OPERATORS)}")
    elif operator in ("In", "NotIn") and not view.value.get("values"):
        view.problem("values", f"is empty, but {operator} needs at least one value")
    return Requirement(view.text("key"), operator, values)


def _toleration(view: View) -> Toleration:
    operator = view.text("operator", "Equal") or "Equal"
    effect = view.text("effect")
    if operator not in ("Equal", "Exists"):
        view.problem("operator", f"is {operator!r}", "use Equal or Exists")
    if effect not in _EFFECTS:
        view.problem("effect", f"is {effect!r}", f"use one of {', '.join(filter(None, _EFFECTS))}")
    seconds = view.optional_integer("tolerationSeconds")
    return Toleration(view.text("key"), operator, view.text("value"), effect, seconds)
