"""Workload kinds: how a manifest is read as components, and changed, and how its status is judged.

A new kind is one `KindSpec` in a module of its family, listed in `_TABLE`. Further ones are declared by operators, with
a WorkloadKind document (`declare`): a process has one table of them, as the topic of policies says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpufleet.model.kinds import apps, argo, batch, declared, kubeflow, pod, ray, spark, supporting
from gpufleet.model.kinds.base import KindSpec, Manifest, ObjectStatus, Path, PodTemplate, pointer
from gpufleet.model.kinds.declared import Declaration, PodSet, When
from gpufleet.model.kinds.digest import canonical, digest
from gpufleet.model.kinds.reading import MAX_REPLICAS, KindError, Problem, View, check_subdomain, describe
from gpufleet.model.placement import WorkloadHealth
from gpufleet.model.workload import Workload, workload_key

__all__ = [
    "MAX_REPLICAS",
    "Declaration",
    "KindError",
    "KindSpec",
    "Manifest",
    "ObjectStatus",
    "Path",
    "PodSet",
    "PodTemplate",
    "Problem",
    "When",
    "builtin",
    "canonical",
    "declaration_of",
    "declare",
    "declared_kinds",
    "declaring",
    "describe",
    "digest",
    "interpret",
    "key_kinds",
    "known",
    "pod_templates",
    "pointer",
    "references",
    "spec_for",
    "spec_of",
    "status",
    "with_replicas",
    "withdraw",
]

_TABLE = (
    *apps.KINDS,
    *pod.KINDS,
    *batch.KINDS,
    *kubeflow.KINDS,
    *spark.KINDS,
    *argo.KINDS,
    *ray.KINDS,
    *supporting.KINDS,
)
_BY_TYPE = {(version, spec.kind): spec for spec in _TABLE for version in spec.api_versions}


# Kinds that were declared, by the name of the declaration.
_DECLARED: dict[str, tuple[Declaration, KindSpec]] = {}


def known() -> tuple[KindSpec, ...]:
    """Returns every kind."""
    return (*_TABLE, *(spec for _, spec in _DECLARED.values()))


def builtin(api_version: str, kind: str) -> bool:
    """Returns whether a kind needs no declaration."""
    return (api_version, kind) in _BY_TYPE


def spec_for(api_version: str, kind: str) -> KindSpec | None:
    """Returns a kind by its API version and name, or None."""
    spec = _BY_TYPE.get((api_version, kind))
    if spec is None:
        for _, found in _DECLARED.values():
            if found.kind == kind and api_version in found.api_versions:
                return found
    return spec


def key_kinds(kind: str) -> tuple[str, ...]:
    """Returns what keys may call objects of a kind of this name."""
    return (kind, *(spec.key for _, spec in _DECLARED.values() if spec.kind == kind))


def declare(declaration: Declaration) -> bool:
    """Adds or replaces a declared kind; returns whether anything is new."""
    before = _DECLARED.get(declaration.name)
    if before is not None and before[0] == declaration:
        return False
    _DECLARED[declaration.name] = (declaration, declared.spec_of(declaration))
    return True


def withdraw(name: str) -> bool:
    """Forgets a declared kind by the name of its declaration; returns whether there was one."""
    return _DECLARED.pop(name, None) is not None


def declared_kinds() -> tuple[Declaration, ...]:
    """Returns every declaration."""
    return tuple(declaration for declaration, _ in _DECLARED.values())


def declaration_of(spec: KindSpec) -> Declaration | None:
    """Returns the declaration that a kind comes from; None for a builtin one."""
    return next((declaration for declaration, known_spec in _DECLARED.values() if known_spec is spec), None)


@contextmanager
def declaring(declarations: Iterable[Declaration]) -> Iterator[None]:
    """Knows some kinds besides those that are declared already, for a while."""
    before = dict(_DECLARED)
    try:
        for declaration in declarations:
            declare(declaration)
        yield
    finally:
        _DECLARED.clear()
        _DECLARED.update(before)


def spec_of(manifest: Manifest) -> KindSpec:
    """Returns the kind of a manifest. Raises KindError."""
    api_version, kind = manifest.get("apiVersion"), manifest.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str) or not api_version or not kind:
        missing = "kind" if isinstance(api_version, str) and api_version else "apiVersion"
        raise KindError(
            Problem(missing, "is missing", "an object needs apiVersion and kind, such as apps/v1 Deployment")
        )
    if spec := spec_for(api_version, kind):
        return spec
    if same := next((spec for spec in known() if spec.kind == kind), None):
        raise KindError(Problem("apiVersion", f"{api_version} has no {kind}", f"use {same.api_versions[0]}"))
    raise KindError(Problem("kind", f"{kind} ({api_version}) is not a known kind of workload", _known_kinds()))


def interpret(
    manifest: Manifest, *, uid: str = "", version: int = 0, arrival: int = 0, namespace: str = "default"
) -> Workload:
    """Returns a manifest as the scheduler reads it.

    ``uid`` is the envelope's; without one the manifest's `metadata.uid` counts. ``namespace`` is that of a manifest
    that names none. Raises KindError with every problem found.
    """
    spec = spec_of(manifest)
    problems: list[Problem] = []
    view = View(manifest, "", problems)
    metadata = view.map("metadata")
    name = metadata.text("name")
    if not name:
        generated = "; generateName is not enough" if "generateName" in metadata.value else ""
        metadata.problem("name", f"is missing{generated}", "give the object a name")
    else:
        check_subdomain(metadata, "name", name)
    namespace = metadata.text("namespace") or namespace
    check_subdomain(metadata, "namespace", namespace)
    labels, annotations = metadata.labels("labels"), metadata.strings("annotations")
    uid = uid or metadata.text("uid")
    pods = spec.read(view)
    _check_replicas(sum(c.replicas for c in pods.components), problems)
    fingerprint = _digest(manifest, f"{uid}@{spec.declared}" if spec.declared else uid, problems)
    if problems:
        raise KindError(*dict.fromkeys(problems))
    return Workload(
        key=workload_key(namespace, spec.key, name),
        api_version=manifest["apiVersion"],
        kind=spec.kind,
        namespace=namespace,
        name=name,
        components=pods.components,
        division=pods.division or spec.division,
        job=spec.job,
        uid=uid,
        version=version,
        arrival=arrival,
        labels=labels,
        annotations=annotations,
        digest=fingerprint,
        min_member=pods.min_member,
        priority_class=pods.priority_class,
        priority=pods.priority,
        manifest=manifest,
    )


def with_replicas(manifest: Manifest, components: Mapping[str, int] | Iterable[tuple[str, int]]) -> dict[str, Any]:
    """Returns a manifest with the replicas of its components set; the given one is not changed.

    A component that the kind cannot scale (a Pod, a Spark driver) keeps its one. Raises KindError for unknown kinds.
    """
    copy = dict(manifest)
    spec_of(manifest).write_replicas(copy, dict(components))
    return copy


def pod_templates(manifest: Manifest) -> tuple[PodTemplate, ...]:
    """Returns where the pods of each component take metadata and scheduling fields from. Raises KindError."""
    return spec_of(manifest).pod_templates(manifest)


def references(workload: Workload) -> frozenset[str]:
    """Returns the keys of the ConfigMaps, Secrets, claims and service accounts that a workload's pods name."""
    manifest = workload.manifest
    try:
        templates = pod_templates(manifest)
    except KindError:
        return frozenset()
    specs = [spec for template in templates if isinstance(spec := _at(manifest, template.spec), Mapping)]
    claims = _at(manifest, ("spec", "volumeClaimTemplates"))
    made = [_at(claim, ("metadata", "name")) for claim in (claims if isinstance(claims, list | tuple) else ())]
    return supporting.references(workload.namespace, specs, [name for name in made if isinstance(name, str)])


def _at(value: Any, path: Path) -> Any:
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(str(part))
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def status(obj: Manifest) -> ObjectStatus:
    """Returns what an object's status says; an unknown kind, or one without status yet, is Unknown."""
    spec = spec_for(str(obj.get("apiVersion")), str(obj.get("kind")))
    if spec is None or not obj.get("status"):
        return ObjectStatus(WorkloadHealth.UNKNOWN)
    return spec.read_status(obj)


def _check_replicas(replicas: int, problems: list[Problem]) -> None:
    if replicas > MAX_REPLICAS:
        problems.append(Problem("spec", f"asks for {replicas} pods, more than the limit of {MAX_REPLICAS}"))


def _digest(manifest: Manifest, uid: str, problems: list[Problem]) -> str:
    try:
        return digest(manifest, uid)
    except (TypeError, ValueError, RecursionError):
        problems.append(Problem("", "cannot be written as JSON", "use only texts, finite numbers, lists and maps"))
        return ""


def _known_kinds() -> str:
    names = ", ".join(sorted({spec.kind for spec in known()}))
    return f"known are {names}; a WorkloadKind document declares another"
