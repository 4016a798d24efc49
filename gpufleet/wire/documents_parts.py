"""Parts that many documents have: metadata, selectors, taints, tolerations, durations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gpufleet.model.kinds.reading import (
    check_subdomain,
    is_label_key,
    is_label_value,
    is_placeholder,
    join,
    key_problem,
    label_problem,
)
from gpufleet.model.resources import Labels, labels
from gpufleet.model.selectors import LabelSelector, Requirement, Taint, Toleration
from gpufleet.wire.documents_schema import INT32_MAX, INT64_MAX, Doc, Findings, shown
from gpufleet.wire.records_base import parse_time

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


class MetadataDoc(Doc):
    """`metadata`; what only an API server sets is known, and not used."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    uid: str = ""
    generate_name: str = ""
    generation: Any = None
    resource_version: Any = None
    creation_timestamp: Any = None
    managed_fields: Any = None
    finalizers: Any = None
    owner_references: Any = None
    self_link: Any = None


class ObjectDoc(Doc):
    """What every object has."""

    api_version: str
    kind: str
    metadata: MetadataDoc


class RequirementDoc(Doc):
    """One expression of a selector."""

    key: str = Field(min_length=1)
    operator: str
    values: list[str] = Field(default_factory=list)


class LabelSelectorDoc(Doc):
    """A label selector."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[RequirementDoc] = Field(default_factory=list)


class TaintDoc(Doc):
    """A taint of a cluster, a node class or a virtual node."""

    key: str = Field(min_length=1)
    value: str = ""
    effect: str
    time_added: str | None = None


class TolerationDoc(Doc):
    """A toleration."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = Field(default=None, ge=-INT64_MAX - 1, le=INT64_MAX)


def name_of(metadata: MetadataDoc, findings: Findings, *, namespaced: bool) -> tuple[str, str]:
    """Returns namespace (empty for kinds without one) and name, both checked."""
    view = findings.view({}, "metadata")
    if not metadata.name:
        findings.error("metadata.name", "is missing", "give the object a name")
    else:
        check_subdomain(view, "name", metadata.name)
    namespace = (metadata.namespace or findings.namespace) if namespaced else ""
    if namespace:
        check_subdomain(view, "namespace", namespace)
    if metadata.namespace and not namespaced:
        findings.warn("metadata.namespace", "is ignored, because the kind has no namespace")
    return namespace, metadata.name


def name_in(metadata: MetadataDoc, findings: Findings, namespace: str, what: str) -> str:
    """Returns the name, checked, of an object that has effect in one namespace only; ``what`` is said of others."""
    if metadata.namespace != namespace:
        given = f"is {metadata.namespace!r}" if metadata.namespace else "is missing"
        findings.error("metadata.namespace", given, f"{what} only in {namespace}")
    return name_of(metadata, findings, namespaced=True)[1]


def read_labels(values: Mapping[str, str], path: str, findings: Findings) -> Labels:
    """Returns labels, with keys and values that Kubernetes takes."""
    for key, value in values.items():
        if not is_label_key(key):
            findings.error(join(path, key), *key_problem(key, "the key of a label"))
        if not is_label_value(value) and not is_placeholder(value):
            findings.error(join(path, key), *label_problem(value))
    return labels(values)


def read_annotations(values: Mapping[str, str], path: str, findings: Findings) -> Labels:
    """Returns annotations, with keys that Kubernetes takes (it does not mind the case of theirs)."""
    for key in values:
        if not is_label_key(key.lower()):
            findings.error(join(path, key), *key_problem(key, "the key of an annotation"))
    return labels(values)


def read_requirement(doc: RequirementDoc, path: str, findings: Findings, operators: tuple[str, ...]) -> Requirement:
    """Returns an expression."""
    if doc.operator not in operators:
        findings.error(f"{path}.operator", f"is {doc.operator!r}", f"use one of {', '.join(operators)}")
    elif doc.operator in ("In", "NotIn") and not doc.values:
        findings.error(f"{path}.values", f"is empty, but {doc.operator} needs at least one value")
    elif doc.operator in ("Exists", "DoesNotExist") and doc.values:
        findings.error(f"{path}.values", f"must be left out for {doc.operator}")
    return Requirement(doc.key, doc.operator, tuple(doc.values))


def read_selector(doc: LabelSelectorDoc, path: str, findings: Findings) -> LabelSelector:
    """Returns a label selector."""
    operators = ("In", "NotIn", "Exists", "DoesNotExist")
    return LabelSelector(
        labels(doc.match_labels),
        tuple(
            read_requirement(expression, f"{path}.matchExpressions[{index}]", findings, operators)
            for index, expression in enumerate(doc.match_expressions)
        ),
    )


def read_taints(docs: list[TaintDoc], path: str, findings: Findings) -> tuple[Taint, ...]:
    """Returns taints."""
    taints = []
    for index, doc in enumerate(docs):
        here = f"{path}[{index}]"
        if doc.effect not in EFFECTS:
            findings.error(f"{here}.effect", f"is {doc.effect!r}", f"use one of {', '.join(EFFECTS)}")
        since = None
        if doc.time_added is not None:
            try:
                since = parse_time(doc.time_added)
            except ValueError as error:
                findings.error(f"{here}.timeAdded", str(error), "write a time as 2026-01-31T12:00:00Z")
        taints.append(Taint(doc.key, doc.effect, doc.value, since))
    return tuple(taints)


def read_tolerations(docs: list[TolerationDoc], path: str, findings: Findings) -> tuple[Toleration, ...]:
    """Returns tolerations."""
    for index, doc in enumerate(docs):
        here = f"{path}[{index}]"
        if doc.operator not in ("", "Equal", "Exists"):
            findings.error(f"{here}.operator", f"is {doc.operator!r}", "use Equal or Exists")
        elif not doc.key and doc.operator != "Exists":
            findings.error(f"{here}.key", "is missing", "name a key, or tolerate everything with operator: Exists")
        if doc.effect and doc.effect not in EFFECTS:
            findings.error(f"{here}.effect", f"is {doc.effect!r}", f"use one of {', '.join(EFFECTS)}")
    return tuple(Toleration(d.key, d.operator or "Equal", d.value, d.effect, d.toleration_seconds) for d in docs)


def read_duration(value: object, path: str, findings: Findings) -> float:
    """Returns seconds, 68 years at most: of ``90s``, ``1m30s``, ``2h`` and the like; a bare number is seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= INT32_MAX:
        return float(value)
    if isinstance(value, str) and len(value) <= 32:
        parts = _DURATION.findall(value)
        if parts and "".join(number + unit for number, unit in parts) == value:
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
            if seconds <= INT32_MAX:
                return seconds
            findings.error(path, f"{shown(value)} is too long", f"write {INT32_MAX // 3600}h at most")
            return 0.0
    findings.error(path, f"{shown(value)} is not a duration", "write one such as 90s, 1m30s or 2h")
    return 0.0
