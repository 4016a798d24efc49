"""What is accepted, but will not do what its author wants."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING

from gpufleet.model import quantity
from gpufleet.model.kinds.reading import join
from gpufleet.model.names import REWRITTEN_LABELS
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.workload import Division, Workload
from gpufleet.wire.documents_errors import DocumentWarning
from gpufleet.wire.documents_lint_pods import lint_pods
from gpufleet.wire.documents_schema import Findings, path_of

if TYPE_CHECKING:
    from gpufleet.wire.documents import Document, Parsed

_SYSTEM = "system-"  # classes that every cluster has

# The policy that counts for a workload, or None, and the others that match too.
Select = Callable[[Workload], tuple[PropagationPolicy | None, tuple[PropagationPolicy, ...]]]


def lint_workload(workload: Workload, findings: Findings) -> None:
    """Notes what is odd about one workload."""
    if workload.division is Division.REPLICAS:
        spec = workload.manifest.get("spec")
        selector = spec.get("selector") if isinstance(spec, Mapping) else None
        for key, path in _selected(selector):
            if key in REWRITTEN_LABELS:
                findings.warn(
                    path,
                    "is a label that schedulers rewrite, so the controller would create pods without end",
                    "leave it out of the selector",
                )
    if workload.min_member is not None and workload.min_member > workload.replicas:
        findings.warn(
            "",
            f"the gang starts with {workload.min_member} pods, but there are only {workload.replicas} of them",
            "lower min-available (minAvailable), or a scheduler of gangs inside the cluster never starts it",
        )
    lint_pods(workload, findings)


def _selected(selector: object) -> list[tuple[str, str]]:
    """Returns the labels that a selector names, each with its path."""
    if not isinstance(selector, Mapping):
        return []
    labels, expressions = selector.get("matchLabels"), selector.get("matchExpressions")
    found = [
        (key, f"spec.selector.matchLabels[{key}]") for key in sorted(labels if isinstance(labels, Mapping) else ())
    ]
    for index, item in enumerate(expressions if isinstance(expressions, list | tuple) else ()):
        if isinstance(item, Mapping):
            found.append((str(item.get("key")), f"spec.selector.matchExpressions[{index}].key"))
    return found


def lint_policies(parsed: Parsed, select: Select, classes: Container[str] = ()) -> list[DocumentWarning]:
    """Returns what is odd about the workloads of the documents together with the policies.

    A workload that several policies match, or that names a PriorityClass which is neither among the documents nor in
    ``classes``.
    """
    warnings = []
    for key, workload in sorted(parsed.workloads.items()):
        chosen, others = select(workload)
        document = parsed.document_of(key)
        if chosen is not None and others and document is not None:
            ignored = ", ".join(policy.key for policy in others)
            warnings.append(
                document.warning(
                    "",
                    f"{key} is matched by {chosen.key} and by {ignored}; only {chosen.key} counts",
                    "narrow one policy's resourceSelectors, or set spec.priority",
                )
            )
        warnings += _lint_units(parsed, key, workload)
        warnings += _lint_priority(parsed, key, workload, classes)
    warnings += _lint_quotas(parsed)
    for key, policy in sorted(parsed.policies.items()):
        document = parsed.document_of(key)
        if document is not None and policy.priority_class and _missing(policy.priority_class, parsed, classes):
            warnings.append(_no_class(document, "spec.schedulePriority.priorityClassName", policy.priority_class))
    return warnings


def _lint_quotas(parsed: Parsed) -> list[DocumentWarning]:
    """Returns what the root of a quota tree promises beyond what the clusters have, stock included."""
    inventories = parsed.inventories.values()
    if not inventories or any(inventory.virtual_nodes for inventory in inventories):
        return []
    total: dict[str, int] = {}
    for found in (found for inventory in inventories for found in inventory.node_classes):
        nodes = found.nodes + (found.elastic.nodes if found.elastic is not None else 0)
        for name, amount in found.allocatable:
            total[name] = total.get(name, 0) + nodes * amount
    warnings = []
    for key, tree in sorted(parsed.quota_trees.items()):
        document = parsed.document_of(key)
        for name, amount in tree.root.max if document is not None else ():
            if amount > total.get(name, amount) and document is not None:
                given, there = quantity.render(amount, name), quantity.render(total[name], name)
                warnings.append(
                    document.warning(
                        join("spec.root.max", name),
                        f"is {given}, but the nodes of all clusters, those in stock too, have {there}",
                        "the root has what the fleet has; what is guaranteed beyond it cannot be kept",
                    )
                )
    return warnings


def _missing(name: str, parsed: Parsed, classes: Container[str]) -> bool:
    return name not in parsed.priority_classes and name not in classes and not name.startswith(_SYSTEM)


def _no_class(document: Document, path: str, name: str) -> DocumentWarning:
    message = f"there is no PriorityClass {name!r}, so it says nothing"
    return document.warning(path, message, "add the PriorityClass, or name another")


def _lint_priority(parsed: Parsed, key: str, workload: Workload, classes: Container[str]) -> list[DocumentWarning]:
    document = parsed.document_of(key)
    if document is None:
        return []
    return [
        _no_class(document, path, name)
        for path, name in _classes(workload.manifest, ())
        if name and _missing(name, parsed, classes)
    ]


def _classes(value: object, parts: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
    """Yields the PriorityClasses that a manifest names, each with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "priorityClassName" and isinstance(item, str):
                yield path_of((*parts, key)), item
            else:
                yield from _classes(item, (*parts, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _classes(item, (*parts, index))


def _lint_units(parsed: Parsed, key: str, workload: Workload) -> list[DocumentWarning]:
    """Returns what is odd about the ResourcePolicies that select a workload's pods."""
    matching = [
        (policy_key, policy)
        for policy_key, policy in sorted(parsed.resource_policies.items())
        if policy.namespace == workload.namespace
        and any(policy.selector.matches(dict(c.labels)) for c in workload.components)
    ]
    document = parsed.document_of(key)
    if not matching or document is None:
        return []
    warnings = []
    if len(matching) > 1:
        names = ", ".join(policy.name for _, policy in matching)
        warnings.append(
            document.warning(
                "",
                f"{key} is selected by the ResourcePolicies {names}; the most specific selector counts",
                "narrow their selectors",
            )
        )
    spec = workload.manifest.get("spec")
    selected = dict(_selected(spec.get("selector") if isinstance(spec, Mapping) else None))
    for _, policy in matching:
        for index, unit in enumerate(policy.units):
            for label, _ in unit.pod_labels:
                if label in selected and label not in REWRITTEN_LABELS:
                    warnings.append(
                        document.warning(
                            selected[label],
                            f"is a label that units[{index}] of ResourcePolicy {policy.name} writes to pods",
                            "leave it out of the selector, or the pods will not match it",
                        )
                    )
    return warnings
