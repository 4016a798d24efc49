"""The Scenario document: what happens to a fleet in virtual time, and what is expected of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from gpufleet.model.names import API_VERSION
from gpufleet.model.reasons import Verdict
from gpufleet.wire.documents_parts import MetadataDoc, read_duration
from gpufleet.wire.documents_schema import Count, Doc, Findings, check

API_VERSIONS = (API_VERSION,)
_ACTIONS = ("apply", "scale", "patch", "pods", "reschedule", "delete", "expect")

# A path relative to the scenario, or a document that is written in it.
Source = str | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Apply:
    """Documents are submitted."""

    documents: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """The total that overrides the manifest's replicas."""

    workload: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Patch:
    """A JSON merge patch of a Cluster document."""

    cluster: str
    merge: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pods:
    """So many pods of a workload in a cluster are unschedulable from now on, or fail, finish, or are evicted."""

    workload: str
    cluster: str
    unschedulable: int = 0
    failed: int = 0
    finished: int = 0
    component: str = ""
    evicted: int = 0


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Divide afresh, by hand."""

    workload: str


@dataclass(frozen=True, slots=True)
class Delete:
    """A workload is deleted."""

    workload: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one placement must be like; None is not checked. ``assignments`` is the full map."""

    verdict: Verdict | None = None
    replicas: int | None = None
    placed: int | None = None
    unplaced: int | None = None
    assignments: tuple[tuple[str, int], ...] | None = None
    queue_position: int | None = None
    codes: tuple[str, ...] | None = None  # reason codes that must be among the placement's


@dataclass(frozen=True, slots=True)
class Expect:
    """What is expected, by workload."""

    placements: tuple[tuple[str, Expectation], ...]


Action = Apply | Scale | Patch | Pods | Reschedule | Delete | Expect


@dataclass(frozen=True, slots=True)
class Step:
    """What happens ``at`` seconds after the start; ``path`` is where it stands in the document."""

    at: float
    action: Action
    path: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """Documents to start from, and steps in file order."""

    documents: tuple[Source, ...]
    steps: tuple[Step, ...]
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


class ScaleDoc(Doc):
    """A scale."""

    workload: str
    replicas: Count


class PatchDoc(Doc):
    """A merge patch."""

    cluster: str
    merge: dict[str, Any]


class PodsDoc(Doc):
    """What pods do."""

    workload: str
    cluster: str
    unschedulable: Count = 0
    failed: Count = 0
    finished: Count = 0
    evicted: Count = 0
    component: str = ""


class ReasonDoc(Doc):
    """A reason that must be there."""

    code: str


class ExpectationDoc(Doc):
    """What a placement must be like."""

    verdict: str | None = None
    replicas: Count | None = None
    placed: Count | None = None
    unplaced: Count | None = None
    assignments: dict[str, Count] | None = None
    queue_position: Count | None = None
    reasons: list[ReasonDoc] | None = None


class StepDoc(Doc):
    """One step."""

    at: Any
    apply: list[Any] | None = None
    scale: ScaleDoc | None = None
    patch: PatchDoc | None = None
    pods: PodsDoc | None = None
    reschedule: str | None = None
    delete: str | None = None
    expect: dict[str, ExpectationDoc] | None = None


class ScenarioDoc(Doc):
    """The whole document."""

    api_version: str
    kind: str
    metadata: MetadataDoc = Field(default_factory=MetadataDoc)
    documents: list[Any] = Field(default_factory=list)
    steps: list[StepDoc] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)


def read(manifest: Mapping[str, Any], findings: Findings) -> Scenario | None:
    """Returns a scenario; None where too little of it is right."""
    doc = check(ScenarioDoc, manifest, findings)
    if doc is None:
        return None
    steps = []
    for index, item in enumerate(doc.steps):
        path = f"steps[{index}]"
        at = read_duration(item.at, f"{path}.at", findings)
        action = _action(item, path, findings)
        if action is not None:
            steps.append(Step(at, action, path))
    documents = _sources(doc.documents, "documents", findings)
    return Scenario(documents, tuple(steps), doc.metadata.name, doc.settings)


def _action(doc: StepDoc, path: str, findings: Findings) -> Action | None:
    given = [name for name in _ACTIONS if getattr(doc, name) is not None]
    if len(given) != 1:
        message = f"has {' and '.join(given)}" if given else "does nothing"
        findings.error(path, message, f"give each step one of {', '.join(_ACTIONS)}")
        return None
    if doc.apply is not None:
        return Apply(_sources(doc.apply, f"{path}.apply", findings))
    if doc.scale is not None:
        return Scale(_workload(doc.scale.workload, f"{path}.scale.workload", findings), doc.scale.replicas)
    if doc.patch is not None:
        return Patch(doc.patch.cluster, doc.patch.merge)
    if doc.pods is not None:
        pods = doc.pods
        workload = _workload(pods.workload, f"{path}.pods.workload", findings)
        return Pods(
            workload, pods.cluster, pods.unschedulable, pods.failed, pods.finished, pods.component, pods.evicted
        )
    if doc.reschedule is not None:
        return Reschedule(_workload(doc.reschedule, f"{path}.reschedule", findings))
    if doc.delete is not None:
        return Delete(_workload(doc.delete, f"{path}.delete", findings))
    return Expect(
        tuple(
            (_workload(key, f"{path}.expect", findings), _expectation(item, f"{path}.expect[{key}]", findings))
            for key, item in sorted((doc.expect or {}).items())
        )
    )


def _sources(values: list[Any], path: str, findings: Findings) -> tuple[Source, ...]:
    for index, value in enumerate(values):
        if not isinstance(value, str | Mapping) or not value:
            findings.error(f"{path}[{index}]", "must be a path or a document")
    return tuple(value for value in values if isinstance(value, str | Mapping) and value)


def _workload(key: str, path: str, findings: Findings) -> str:
    if key.count("/") != 2 or not all(key.split("/")):
        findings.error(path, f"{key!r} is not a workload", "write namespace/Kind/name, such as test/Deployment/llm")
    return key


def _expectation(doc: ExpectationDoc, path: str, findings: Findings) -> Expectation:
    verdicts = [verdict.value for verdict in Verdict]
    if doc.verdict is not None and doc.verdict not in verdicts:
        findings.error(f"{path}.verdict", f"is {doc.verdict!r}", f"use one of {', '.join(verdicts)}")
    return Expectation(
        verdict=Verdict(doc.verdict) if doc.verdict in verdicts else None,
        replicas=doc.replicas,
        placed=doc.placed,
        unplaced=doc.unplaced,
        assignments=None if doc.assignments is None else tuple(sorted(doc.assignments.items())),
        queue_position=doc.queue_position,
        codes=None if doc.reasons is None else tuple(reason.code for reason in doc.reasons),
    )
