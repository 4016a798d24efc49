"""The training operator's jobs: PyTorchJob, TFJob, MPIJob. One component per role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gpufleet.model.kinds import conditions
from gpufleet.model.kinds.base import KindSpec, Manifest, ObjectStatus, Pods, PodTemplate, pod_template
from gpufleet.model.kinds.edit import editable
from gpufleet.model.kinds.pods import component, min_member
from gpufleet.model.kinds.reading import MAX_REPLICAS, View
from gpufleet.model.workload import Division


def _reader(field: str, roles: tuple[str, ...]) -> Callable[[View], Pods]:
    def read(manifest: View) -> Pods:
        spec = manifest.map("spec")
        specs = spec.map(field)
        if not specs.value:
            spec.problem(field, "is missing or empty", f"name at least one role: {', '.join(roles)}")
            return Pods(())
        components, member = [], None
        for role in specs.value:
            if role not in roles:
                specs.problem(str(role), "is not a role of this kind", f"use {', '.join(roles)}")
        for role in roles:
            if role not in specs.value:
                continue
            part = specs.map(role)
            if "template" not in part.value:
                part.problem("template", "is missing", "describe the pods of the role in its template")
                continue
            template = part.map("template")
            components.append(component(role, part.replicas("replicas"), template))
            member = member or min_member(template)
        scheduling = spec.map("runPolicy").map("schedulingPolicy")
        if "minAvailable" in scheduling.value:
            member = scheduling.integer("minAvailable", 0, minimum=1, maximum=MAX_REPLICAS) or None
        # The first role that is not Master ranks the job; a Master alone has no rank (specification 14).
        first = next((c for c in components if c.name != "Master"), None)
        if not specs.value.keys().isdisjoint(roles) and components and not any(c.replicas for c in components):
            specs.problem(None, "asks for no pods at all", "give a role one replica or more")
        if first is None:
            return Pods(tuple(components), min_member=member)
        return Pods(tuple(components), first.priority_class, first.priority, member)

    return read


def _writer(field: str) -> Callable[[dict[str, Any], Mapping[str, int]], None]:
    def write(manifest: dict[str, Any], components: Mapping[str, int]) -> None:
        specs = editable(manifest, "spec", field)
        for role, count in components.items():
            if role in specs and specs[role].get("replicas", 1) != count:
                editable(specs, role)["replicas"] = count

    return write


def _templates(field: str, roles: tuple[str, ...]) -> Callable[[Manifest], tuple[PodTemplate, ...]]:
    def pod_templates(manifest: Manifest) -> tuple[PodTemplate, ...]:
        specs = conditions.sub(conditions.sub(manifest, "spec"), field)
        return tuple(pod_template(role, "spec", field, role, "template") for role in roles if role in specs)

    return pod_templates


def _status_reader(field: str, roles: tuple[str, ...]) -> Callable[[Manifest], ObjectStatus]:
    def read_status(manifest: Manifest) -> ObjectStatus:
        spec, status = conditions.parts(manifest)
        replicas = conditions.sub(status, "replicaStatuses")
        active = tuple(
            (role, conditions.count(conditions.sub(replicas, role), "active"))
            for role in roles
            if role in conditions.sub(spec, field)
        )
        if done := conditions.find(status, "Succeeded"):
            return conditions.succeeded(conditions.text_of(done))
        if ended := conditions.find(status, "Failed"):
            reason, message = conditions.text(ended, "reason"), conditions.text(ended, "message")
            ran = any(
                conditions.count(conditions.sub(replicas, role), key)
                for role in roles
                for key in ("failed", "succeeded")
            )
            # The operator turns Running to False at the end, so any status of it means that pods ran.
            running = any(c.get("type") == "Running" for c in conditions.items(status, "conditions"))
            verdict = conditions.failed(reason, message, started=ran or running)
            return replace(verdict, components=active)
        wanted = sum(conditions.count(conditions.sub(conditions.sub(spec, field), r), "replicas", 1) for r, _ in active)
        suspended = conditions.find(status, "Suspended")
        message = conditions.text_of(suspended) if suspended else ""
        healthy = conditions.find(status, "Running") is not None and sum(n for _, n in active) >= wanted
        return conditions.running(active, healthy=healthy, message=message)

    return read_status


def _kind(kind: str, versions: tuple[str, ...], field: str, roles: tuple[str, ...]) -> KindSpec:
    return KindSpec(
        group="kubeflow.org",
        versions=versions,
        kind=kind,
        division=Division.WHOLE,
        job=True,
        components=roles,
        read=_reader(field, roles),
        pod_templates=_templates(field, roles),
        write_replicas=_writer(field),
        read_status=_status_reader(field, roles),
        suspend_path=("spec", "runPolicy", "suspend"),
    )


KINDS = (
    _kind("PyTorchJob", ("v1",), "pytorchReplicaSpecs", ("Master", "Worker")),
    _kind("TFJob", ("v1",), "tfReplicaSpecs", ("PS", "Worker", "Chief", "Master", "Evaluator")),
    _kind("MPIJob", ("v1", "v2beta1"), "mpiReplicaSpecs", ("Launcher", "Worker")),
)
