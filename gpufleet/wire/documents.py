"""Kubernetes-style documents, as users write them, to the domain and back.

`parse_documents` takes everything that a command may be given. It notes every problem of every document with its
file, document number, line and path, and raises them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpufleet.model import kinds
from gpufleet.model.cluster import Inventory
from gpufleet.model.kinds import Declaration, KindError, describe
from gpufleet.model.kinds.reading import Problem
from gpufleet.model.log import ClusterRegistration
from gpufleet.model.names import FREEZE_KEY
from gpufleet.model.overrides import OverridePolicy
from gpufleet.model.policy import PriorityClass, PropagationPolicy, ResourcePolicy
from gpufleet.model.quota import ElasticQuotaTree, QueueRule
from gpufleet.model.workload import Workload
from gpufleet.wire import (
    documents_cluster,
    documents_karmada,
    documents_kinds,
    documents_overrides,
    documents_placement,
    documents_policy,
    documents_queue,
    documents_quota,
    documents_resources,
)
from gpufleet.wire import documents_scenario as scenarios
from gpufleet.wire.documents_cluster import ClusterDocument
from gpufleet.wire.documents_cluster import dump as dump_cluster
from gpufleet.wire.documents_errors import DocumentError, DocumentErrors, DocumentWarning, Note
from gpufleet.wire.documents_ignored import Ignored, outside, read_later, read_outside
from gpufleet.wire.documents_lint import lint_policies, lint_workload
from gpufleet.wire.documents_lint_clusters import lint_clusters
from gpufleet.wire.documents_placement import PlacementDocument
from gpufleet.wire.documents_placement import dump as dump_placement
from gpufleet.wire.documents_queue import FULL_NAME
from gpufleet.wire.documents_resources import Freeze, dump_freeze
from gpufleet.wire.documents_schema import Findings, nearest
from gpufleet.wire.documents_writable import writable
from gpufleet.wire.records_keys import policy_key
from gpufleet.wire.yaml import Document, load

__all__ = [
    "ClusterDocument",
    "Document",
    "DocumentError",
    "DocumentErrors",
    "DocumentWarning",
    "Freeze",
    "Ignored",
    "Object",
    "Parsed",
    "PlacementDocument",
    "Policy",
    "dump_cluster",
    "dump_freeze",
    "dump_placement",
    "lint_clusters",
    "lint_policies",
    "load",
    "parse_documents",
    "parse_text",
    "read_policy",
]

Policy = (
    PropagationPolicy
    | OverridePolicy
    | ResourcePolicy
    | PriorityClass
    | ElasticQuotaTree
    | QueueRule
    | Freeze
    | Declaration
)


Value = ClusterDocument | Policy | PlacementDocument | scenarios.Scenario | Workload | Ignored


@dataclass(frozen=True, slots=True)
class Object:
    """What one document says. ``key`` is its key on its topic; a scenario has none."""

    document: Document
    key: str
    value: Value


@dataclass(slots=True)
class Parsed:
    """What documents say together, by key; a later file's object takes the place of an earlier one's."""

    objects: list[Object] = field(default_factory=list)
    clusters: dict[str, ClusterRegistration] = field(default_factory=dict)
    inventories: dict[str, Inventory] = field(default_factory=dict)
    policies: dict[str, PropagationPolicy] = field(default_factory=dict)
    overrides: dict[str, OverridePolicy] = field(default_factory=dict)
    resource_policies: dict[str, ResourcePolicy] = field(default_factory=dict)
    priority_classes: dict[str, PriorityClass] = field(default_factory=dict)
    quota_trees: dict[str, ElasticQuotaTree] = field(default_factory=dict)
    queues: dict[str, QueueRule] = field(default_factory=dict)
    kinds: dict[str, Declaration] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)
    placements: dict[str, PlacementDocument] = field(default_factory=dict)
    scenario: scenarios.Scenario | None = None
    freeze: Freeze | None = None
    ignored: list[Ignored] = field(default_factory=list)
    warnings: list[DocumentWarning] = field(default_factory=list)

    def document_of(self, key: str) -> Document | None:
        """Returns the document that an object of a key came from, or None."""
        return next((item.document for item in reversed(self.objects) if item.key == key), None)


def parse_text(text: str | bytes, source: str = "-") -> Parsed:
    """Returns what one text says. Raises DocumentErrors."""
    return parse_documents(load(text, source))


def parse_documents(documents: Iterable[Document], *, namespace: str = "default") -> Parsed:
    """Returns what documents say together. Raises DocumentErrors with every problem.

    ``namespace`` is that of objects that name none. Workloads arrive in the order of the documents.
    """
    documents = list(documents)
    # First of all what declares kinds: workloads of them may come in any order.
    with kinds.declaring(_declarations(documents)):
        return _parse(documents, namespace)


def _declarations(documents: Iterable[Document]) -> list[Declaration]:
    found = []
    for document in documents:
        for item in _items(document, []) if not document.errors else ():
            api_version, kind = item.manifest.get("apiVersion"), item.manifest.get("kind")
            if kind == "WorkloadKind" and api_version in documents_kinds.API_VERSIONS:
                findings = Findings()
                declaration = documents_kinds.read(item.manifest, findings)
                if declaration is not None and not findings.errors:
                    found.append(declaration)
    return found


def _parse(documents: Iterable[Document], namespace: str) -> Parsed:
    parsed = Parsed()
    errors: list[DocumentError] = []
    unknown_kinds = False
    seen: dict[tuple[str, str], Document] = {}
    for document in documents:
        errors.extend(document.errors)
        if document.errors:
            continue
        for item in _items(document, errors):
            findings = Findings(namespace)
            value = _read(item.manifest, findings, len(parsed.objects))
            unknown_kinds |= findings.unknown_kind
            errors.extend(sorted((item.error(*problem) for problem in findings.errors), key=_line))
            parsed.warnings.extend(sorted((item.warning(*problem) for problem in findings.warnings), key=_line))
            if value is None or findings.errors:
                continue
            key = _key(value)
            identity = (type(value).__name__, key)
            if (first := seen.get(identity)) is not None and first.source == item.source:
                errors.append(item.error("", f"{key or 'a scenario'} is already in document {first.index}", "keep one"))
                continue
            seen[identity] = item
            _add(parsed, Object(item, key, value))
    for key in list(parsed.quota_trees)[1:]:
        if (second := parsed.document_of(key)) is not None:
            known = next(iter(parsed.quota_trees))
            errors.append(second.error("metadata.name", f"{known} is already there", "a fleet has one tree"))
    parsed.warnings.extend(_queues_of_no_quota(parsed))
    if errors:
        raise DocumentErrors(errors, parsed.warnings, unknown_kinds=unknown_kinds)
    return parsed


def _queues_of_no_quota(parsed: Parsed) -> Iterator[DocumentWarning]:
    paths = [path for tree in parsed.quota_trees.values() for path in tree.paths()]
    for key, queue in parsed.queues.items() if paths else ():
        document = parsed.document_of(key)
        if document is not None and not any(queue.means(path) for path in paths):
            hint = f"name one of {', '.join('/'.join(path) for path in paths)} in the annotation {FULL_NAME}"
            yield document.warning("metadata.name", "is the queue of no leaf of the tree", hint)


def read_policy(manifest: Mapping[str, Any], version: int = 0) -> tuple[Policy | Ignored, tuple[str, ...]]:
    """Returns what goes on the policies topic, and warnings. Raises KindError with every problem.

    ``version`` is the offset of the record. An `Ignored` is of a kind that is not supported yet.
    """
    findings = Findings()
    entry = _entry(manifest, findings)
    value: Value | None = None
    if entry is not None and not isinstance(entry, kinds.KindSpec):
        value = entry.read(manifest, findings, version)
        if isinstance(value, Ignored) and value.outside:
            findings.error("kind", f"{manifest.get('kind')} is not a policy", "it is neither placed nor read here")
        elif not isinstance(value, Policy | Ignored | None):
            findings.error("kind", f"{manifest.get('kind')} is not a policy", "it belongs on another topic")
    elif entry is not None:
        findings.error("kind", f"{entry.kind} is not a policy", "workloads belong on the topic gpufleet.workloads")
    if findings.errors or not isinstance(value, Policy | Ignored):
        raise KindError(*(findings.errors or [Problem("", "cannot be read")]))
    return value, tuple(describe(problem) for problem in findings.warnings)


# --- Kinds --------------------------------------------------------------------------------------------------------

Reader = Callable[[Mapping[str, Any], Findings, int], Value | None]


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: str
    api_versions: tuple[str, ...]
    read: Reader


def _without_version(read: Callable[[Mapping[str, Any], Findings], Value | None]) -> Reader:
    return lambda manifest, findings, _: read(manifest, findings)


_ENTRIES = {
    entry.kind: entry
    for entry in (
        _Entry(
            "Cluster",
            (*documents_cluster.API_VERSIONS, *documents_karmada.API_VERSIONS),
            _without_version(documents_karmada.read_either),
        ),
        _Entry("PropagationPolicy", documents_policy.API_VERSIONS, documents_policy.read),
        _Entry("ClusterPropagationPolicy", documents_policy.API_VERSIONS, documents_policy.read),
        _Entry(
            "ResourcePolicy", documents_resources.RESOURCE_POLICY_VERSIONS, documents_resources.read_resource_policy
        ),
        _Entry("PriorityClass", documents_resources.PRIORITY_CLASS_VERSIONS, documents_resources.read_priority_class),
        _Entry("Freeze", documents_resources.FREEZE_VERSIONS, documents_resources.read_freeze),
        _Entry("Placement", documents_placement.API_VERSIONS, _without_version(documents_placement.read)),
        _Entry("Scenario", scenarios.API_VERSIONS, _without_version(scenarios.read)),
        _Entry("OverridePolicy", documents_policy.API_VERSIONS, documents_overrides.read),
        _Entry("ClusterOverridePolicy", documents_policy.API_VERSIONS, documents_overrides.read),
        _Entry("WorkloadKind", documents_kinds.API_VERSIONS, documents_kinds.read),
        _Entry("ElasticQuotaTree", documents_quota.API_VERSIONS, documents_quota.read),
        _Entry("Queue", documents_queue.API_VERSIONS, documents_queue.read),
        _Entry(
            "FederatedHPA",
            ("autoscaling.one.alibabacloud.com/v1alpha1", "autoscaling.karmada.io/v1alpha1"),
            read_later,
        ),
    )
}


def _entry(manifest: Mapping[str, Any], findings: Findings) -> _Entry | kinds.KindSpec | None:
    """Returns how a document is read; None where its kind is not known, which is noted."""
    api_version, kind = manifest.get("apiVersion"), manifest.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str) or not api_version or not kind:
        field_name = "kind" if isinstance(api_version, str) and api_version else "apiVersion"
        findings.error(field_name, "is missing or no text", "an object starts with apiVersion and kind")
        return None
    if spec := kinds.spec_for(api_version, kind):
        return spec
    entry = _ENTRIES.get(kind)
    if entry is not None and api_version in entry.api_versions:
        return entry
    if outside(api_version, kind):
        return _Entry(kind, (api_version,), read_outside)
    known = {spec.kind: spec.api_versions for spec in kinds.known()} | {
        e.kind: e.api_versions for e in _ENTRIES.values()
    }
    if kind in known:
        findings.error("apiVersion", f"{api_version} has no {kind}", f"use {' or '.join(known[kind])}")
        findings.unknown_kind = True
        return None
    near = nearest(kind, known)
    hint = f"did you mean {near} ({known[near][0]})?" if near else f"known are {', '.join(sorted(known))}"
    findings.error("kind", f"{kind} ({api_version}) is not a known kind", hint)
    findings.unknown_kind = True
    return None


def _read(manifest: Mapping[str, Any], findings: Findings, arrival: int) -> Value | None:
    entry = _entry(manifest, findings)
    if entry is None:
        return None
    if not writable(manifest, findings):
        return None
    if isinstance(entry, _Entry):
        return entry.read(manifest, findings, 0)
    try:
        workload = kinds.interpret(manifest, arrival=arrival, namespace=findings.namespace)
    except KindError as error:
        findings.errors.extend(error.problems)
        return None
    lint_workload(workload, findings)
    return workload


def _items(document: Document, errors: list[DocumentError]) -> list[Document]:
    """Returns the objects of a `List`, as `kubectl get -o yaml` writes it; anything else is itself."""
    items = document.manifest.get("items")
    if not str(document.manifest.get("kind", "")).endswith("List") or not isinstance(items, list):
        return [document]
    found = []
    for index, item in enumerate(items):
        if isinstance(item, Mapping):
            prefix = f"items[{index}]"
            found.append(Document(document.source, document.index, document.line, item, document.text, prefix))
        else:
            errors.append(
                document.error(f"items[{index}]", "is not a map", "an object starts with apiVersion and kind")
            )
    return found


def _line(note: Note) -> int:
    return note.line


def _key(value: Value) -> str:
    match value:
        case ClusterDocument():
            return value.registration.name
        case PropagationPolicy() | OverridePolicy() | ElasticQuotaTree() | QueueRule() | Workload():
            return value.key
        case ResourcePolicy():
            return policy_key("ResourcePolicy", value.namespace, value.name)
        case PriorityClass():
            return policy_key("PriorityClass", "", value.name)
        case Declaration():
            return policy_key("WorkloadKind", "", value.name)
        case Freeze():
            return FREEZE_KEY
        case PlacementDocument():
            return value.placement.workload
        case Ignored():
            return policy_key(value.kind, value.namespace, value.name)
    return ""


def _add(parsed: Parsed, item: Object) -> None:
    parsed.objects.append(item)
    key, value = item.key, item.value
    match value:
        case ClusterDocument():
            parsed.clusters[key] = value.registration
            parsed.inventories.pop(key, None)
            if value.inventory is not None:
                parsed.inventories[key] = value.inventory
        case PropagationPolicy():
            parsed.policies[key] = value
        case OverridePolicy():
            parsed.overrides[key] = value
        case ResourcePolicy():
            parsed.resource_policies[key] = value
        case PriorityClass():
            parsed.priority_classes[value.name] = value
        case ElasticQuotaTree():
            parsed.quota_trees[key] = value
        case QueueRule():
            parsed.queues[key] = value
        case Workload():
            parsed.workloads[key] = value
        case PlacementDocument():
            parsed.placements[key] = value
        case Declaration():
            parsed.kinds[value.name] = value
        case Freeze():
            parsed.freeze = value
        case Ignored():
            parsed.ignored.append(value)
        case scenarios.Scenario():
            parsed.scenario = value
