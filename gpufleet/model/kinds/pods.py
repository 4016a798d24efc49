"""What one pod needs of a node, read from a pod template (specification 11.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpufleet.model.kinds.base import Pods
from gpufleet.model.kinds.reading import View
from gpufleet.model.resources import Labels, Resources, resources
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
        priority=spec.optional_integer("priority"),
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
            if value.isdecimal() and int(value) > 0:
                return int(value)
            view.problem(key, f"is {value!r}, but must be a whole number of 1 or more")
    return None


def node_constraints(spec: View) -> tuple[Labels, tuple[NodeSelectorTerm, ...], tuple[Toleration, ...]]:
    """Returns node selector, required node affinity and tolerations."""
    return spec.labels("nodeSelector"), _affinity(spec), tuple(_toleration(t) for t in spec.items("tolerations"))


def container_requests(container: View) -> dict[str, int]:
    """Returns a container's requests; a resource that has only a limit requests that."""
    wanted = container.map("resources")
    limits, requests = wanted.quantities("limits"), wanted.quantities("requests")
    for name, amount in requests.items():
        if amount > limits.get(name, amount):
            wanted.map("requests").problem(name, "is more than the limit", f"raise resources.limits for {name}")
    return {**limits, **requests}


def with_pod(amounts: Mapping[str, int]) -> Resources:
    """Returns requests of one pod, which also takes one of a node's pod places."""
    return resources({**amounts, "pods": 1})


def _pod_requests(spec: View) -> Resources:
    """Returns what the kubelet reserves for a pod.

    As Kubernetes computes it: the sum of the containers and of the init containers that keep running (restartPolicy
    Always), or the largest moment of initialisation if that is more; plus the overhead. Requests of the pod itself
    (`spec.resources`) take the place of the sum.
    """
    containers = spec.items("containers")
    if not containers:
        spec.problem("containers", "is missing or empty", "a pod needs at least one container")
    running = _sum(container_requests(container) for container in containers)
    sidecars: dict[str, int] = {}
    highest: dict[str, int] = {}
    for container in spec.items("initContainers"):
        amounts = container_requests(container)
        moment = _sum((sidecars, amounts))
        if container.text("restartPolicy") == "Always":
            sidecars = moment
        highest = {name: max(highest.get(name, 0), moment.get(name, 0)) for name in {**highest, **moment}}
    running = _sum((running, sidecars))
    total = {name: max(running.get(name, 0), highest.get(name, 0)) for name in {**running, **highest}}
    total.update(container_requests(spec))
    return with_pod(_sum((total, spec.quantities("overhead"))))


def _sum(many: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for amounts in many:
        for name, amount in amounts.items():
            total[name] = total.get(name, 0) + amount
    return total


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
