"""WorkloadKind: a kind of workload that gpufleet does not know by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from gpufleet.model import kinds
from gpufleet.model.kinds import Declaration, Path, PodSet, When
from gpufleet.model.names import API_VERSION
from gpufleet.model.workload import Division
from gpufleet.wire.documents_parts import ObjectDoc, name_of
from gpufleet.wire.documents_schema import Count, Doc, Findings, check

API_VERSIONS = (API_VERSION,)
_PLAIN = re.compile(r"^[^.\[\]/\s]+(\.[^.\[\]/\s]+)*$")


class PodSetDoc(Doc):
    """Pods of one template."""

    name: str = ""
    template: str
    replicas: str = ""
    default_replicas: Count = 1
    ready: str = ""
    each: str = ""
    name_path: str = ""


class WhenDoc(Doc):
    """A state of the object."""

    condition: str = ""
    path: str = ""
    values: list[str] = Field(default_factory=list)


class StatusDoc(Doc):
    """What its status says."""

    succeeded: WhenDoc | None = None
    failed: WhenDoc | None = None
    healthy: WhenDoc | None = None
    message: str = "status.message"


class WorkloadKindSpecDoc(Doc):
    """The declaration."""

    group: str = ""
    versions: list[str] = Field(min_length=1)
    kind: str = Field(min_length=1)
    plural: str = ""
    job: bool = True
    division: Literal["Whole", "Replicas"] = "Whole"
    pods: list[PodSetDoc] = Field(min_length=1)
    suspend: str = ""
    priority_class: str = ""
    min_member: str = ""
    status: StatusDoc = Field(default_factory=StatusDoc)


class WorkloadKindDoc(ObjectDoc):
    """The whole document."""

    spec: WorkloadKindSpecDoc


def read(manifest: Mapping[str, Any], findings: Findings, version: int = 0) -> Declaration | None:
    """Returns a declared kind; None where too little of it is right."""
    doc = check(WorkloadKindDoc, manifest, findings)
    if doc is None:
        return None
    _, name = name_of(doc.metadata, findings, namespaced=False)
    spec = doc.spec
    for index, value in enumerate(spec.versions):
        if kinds.builtin(f"{spec.group}/{value}" if spec.group else value, spec.kind):
            findings.error(f"spec.versions[{index}]", f"{value} {spec.kind} is builtin", "it needs no declaration")
    names: set[str] = set()
    for index, pods in enumerate(spec.pods):
        _check_pods(pods, f"spec.pods[{index}]", names, findings)
    if spec.division == "Replicas" and (spec.job or len(spec.pods) != 1 or spec.pods[0].each):
        findings.error(
            "spec.division",
            "is Replicas, but only one set of pods of a kind that is no job can be divided",
            "set job: false and describe one set of pods, or use Whole",
        )
    if spec.division == "Replicas" and not spec.pods[0].replicas:
        findings.error("spec.pods[0].replicas", "is missing", "say where the replicas are that are to be divided")
    if spec.job and spec.status.succeeded is None:
        findings.warn("spec.status.succeeded", "is missing, so that a job of this kind never counts as finished")
    return Declaration(
        name=name,
        group=spec.group,
        versions=tuple(spec.versions),
        kind=spec.kind,
        pod_sets=tuple(_pod_set(pods, f"spec.pods[{i}]", findings) for i, pods in enumerate(spec.pods)),
        job=spec.job,
        division=Division(spec.division),
        suspend=_path(spec.suspend, "spec.suspend", findings),
        priority_class=_path(spec.priority_class, "spec.priorityClass", findings),
        min_member=_path(spec.min_member, "spec.minMember", findings),
        succeeded=_when(spec.status.succeeded, "spec.status.succeeded", findings),
        failed=_when(spec.status.failed, "spec.status.failed", findings),
        healthy=_when(spec.status.healthy, "spec.status.healthy", findings),
        message=_path(spec.status.message, "spec.status.message", findings),
        plural=spec.plural,
        version=version,
        digest=kinds.digest(manifest)[:16],
    )


def _check_pods(doc: PodSetDoc, path: str, names: set[str], findings: Findings) -> None:
    if doc.each:
        if not doc.name_path:
            findings.error(f"{path}.namePath", "is missing", "say where an item of `each` has its name")
        if doc.name or doc.ready:
            field = "name" if doc.name else "ready"
            findings.error(f"{path}.{field}", "does not go with each", "leave it out")
    elif not doc.name:
        findings.error(f"{path}.name", "is missing", "name the set of pods, such as Worker")
    elif doc.name in names:
        findings.error(f"{path}.name", f"{doc.name!r} is named twice")
    names.add(doc.name)


def _pod_set(doc: PodSetDoc, path: str, findings: Findings) -> PodSet:
    return PodSet(
        template=_path(doc.template, f"{path}.template", findings),
        name=doc.name,
        replicas=_path(doc.replicas, f"{path}.replicas", findings),
        default=doc.default_replicas,
        ready=_path(doc.ready, f"{path}.ready", findings),
        each=_path(doc.each, f"{path}.each", findings),
        name_at=_path(doc.name_path, f"{path}.namePath", findings),
    )


def _when(doc: WhenDoc | None, path: str, findings: Findings) -> When | None:
    if doc is None:
        return None
    if bool(doc.condition) is bool(doc.path):
        findings.error(path, "needs a condition, or a path with values", "write one of the two")
    elif doc.path and not doc.values:
        findings.error(f"{path}.values", "is empty", "name the texts that mean this state")
    return When(doc.condition, _path(doc.path, f"{path}.path", findings), tuple(doc.values))


def _path(text: str, path: str, findings: Findings) -> Path:
    """Returns a path: ``spec.replicas``, or a JSON pointer where a key has dots."""
    if not text:
        return ()
    if text.startswith("/"):
        return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
    if not _PLAIN.match(text):
        findings.error(path, f"{text!r} is not a path", "write one such as spec.replicas, or a JSON pointer")
        return ()
    return tuple(text.split("."))
