"""KubeRay's RayCluster and RayJob: a head and any number of worker groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpufleet.model.kinds import conditions
from gpufleet.model.kinds.base import KindSpec, Manifest, ObjectStatus, Path, Pods, PodTemplate, pod_template
from gpufleet.model.kinds.edit import editable
from gpufleet.model.kinds.pods import component, min_member
from gpufleet.model.kinds.reading import MAX_REPLICAS, View, is_label_value
from gpufleet.model.placement import WorkloadHealth
from gpufleet.model.workload import Component, Division

HEAD = "head"
_CLUSTER: Path = ("spec",)
_JOB: Path = ("spec", "rayClusterSpec")


def _read_cluster(manifest: View) -> Pods:
    return _read(manifest.map("spec"))


def _read_job(manifest: View) -> Pods:
    spec = manifest.map("spec")
    if not spec.map("rayClusterSpec").value:
        spec.problem("rayClusterSpec", "is missing", "a RayJob for an existing cluster cannot be placed")
        return Pods(())
    return _read(spec.map("rayClusterSpec"))


def _read(spec: View) -> Pods:
    head = spec.map("headGroupSpec")
    if "template" not in head.value:
        spec.problem("headGroupSpec", "has no template", "describe the head's pod in headGroupSpec.template")
        return Pods(())
    main = component(HEAD, 1, head.map("template"))
    components: list[Component] = [main]
    for group in spec.items("workerGroupSpecs"):
        name = group.text("groupName")
        if not name or not is_label_value(name) or name in {c.name for c in components}:
            group.problem("groupName", f"is {name!r}", "give each worker group a name of its own")
        elif "template" not in group.value:
            group.problem("template", "is missing", "describe the group's pods in its template")
        else:
            components.append(component(name, _workers(group), group.map("template")))
    return Pods(tuple(components), main.priority_class, main.priority, min_member(head.map("template")))


def _workers(group: View) -> int:
    """Returns the pods of a group as KubeRay counts them: replicas within its bounds, times the hosts of each."""
    if group.flag("suspend"):
        return 0
    most = group.integer("maxReplicas", MAX_REPLICAS)
    least = group.replicas("minReplicas", 0)
    if least > most:
        group.problem("minReplicas", f"is {least}, more than maxReplicas {most}")
    replicas = min(most, max(least, group.replicas("replicas", 0)))
    return replicas * group.integer("numOfHosts", 1, minimum=1, maximum=1000)


def _groups(manifest: Manifest, path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    spec: Any = manifest
    for key in path:
        spec = conditions.sub(spec, str(key))
    return list(enumerate(conditions.items(spec, "workerGroupSpecs")))


def _templates(manifest: Manifest, path: Path) -> tuple[PodTemplate, ...]:
    groups = (
        pod_template(conditions.text(group, "groupName"), *path, "workerGroupSpecs", index, "template")
        for index, group in _groups(manifest, path)
    )
    return (pod_template(HEAD, *path, "headGroupSpec", "template"), *groups)


def _templates_of_cluster(manifest: Manifest) -> tuple[PodTemplate, ...]:
    return _templates(manifest, _CLUSTER)


def _templates_of_job(manifest: Manifest) -> tuple[PodTemplate, ...]:
    return _templates(manifest, _JOB)


def _write(path: Path, manifest: dict[str, Any], components: Mapping[str, int]) -> None:
    for index, group in _groups(manifest, path):
        view = View(group, "", [])
        wanted = components.get(conditions.text(group, "groupName"))
        if wanted is not None and wanted != _workers(view):
            target = editable(manifest, *path, "workerGroupSpecs", index)
            target["replicas"] = wanted // view.integer("numOfHosts", 1, minimum=1)
            if conditions.count(target, "minReplicas") > target["replicas"]:
                target["minReplicas"] = target["replicas"]


def _write_cluster(manifest: dict[str, Any], components: Mapping[str, int]) -> None:
    _write(_CLUSTER, manifest, components)


def _write_job(manifest: dict[str, Any], components: Mapping[str, int]) -> None:
    _write(_JOB, manifest, components)


def _ready(manifest: Manifest, path: Path, status: conditions.Fields) -> tuple[tuple[tuple[str, int], ...], bool]:
    """Returns ready pods by component and whether all are; the status sums the groups, so they are filled in order."""
    wanted = [(conditions.text(g, "groupName"), _workers(View(g, "", []))) for _, g in _groups(manifest, path)]
    head = conditions.find(status, "HeadPodReady") is not None or conditions.text(status, "state") == "ready"
    left = conditions.count(status, "readyWorkerReplicas", conditions.count(status, "availableWorkerReplicas"))
    ready = [(HEAD, int(head))]
    for name, count in wanted:
        ready.append((name, min(left, count)))
        left -= ready[-1][1]
    return tuple(ready), head and all(n >= count for (_, n), (_, count) in zip(ready[1:], wanted, strict=True))


def _status_of_cluster(manifest: Manifest) -> ObjectStatus:
    _, status = conditions.parts(manifest)
    ready, healthy = _ready(manifest, _CLUSTER, status)
    message = conditions.text(status, "reason")
    if conditions.text(status, "state") == "failed":
        return ObjectStatus(WorkloadHealth.UNHEALTHY, sum(n for _, n in ready), ready, message=message)
    return conditions.running(ready, healthy=healthy, message=message)


def _status_of_job(manifest: Manifest) -> ObjectStatus:
    _, status = conditions.parts(manifest)
    job, deployment = conditions.text(status, "jobStatus"), conditions.text(status, "jobDeploymentStatus")
    reason, message = conditions.text(status, "reason"), conditions.text(status, "message")
    if job == "SUCCEEDED":
        return conditions.succeeded(message)
    if job in ("FAILED", "STOPPED") or deployment == "Failed":
        started = reason == "AppFailed" or job in ("FAILED", "STOPPED") or bool(conditions.text(status, "startTime"))
        return conditions.failed(reason, message, started=started)
    ready, _ = _ready(manifest, _JOB, conditions.sub(status, "rayClusterStatus"))
    return conditions.running(ready, healthy=job == "RUNNING", message=message)


KINDS = (
    KindSpec(
        group="ray.io",
        versions=("v1", "v1alpha1"),
        kind="RayJob",
        division=Division.WHOLE,
        job=True,
        components=(),
        read=_read_job,
        pod_templates=_templates_of_job,
        write_replicas=_write_job,
        read_status=_status_of_job,
        suspend_path=("spec", "suspend"),
    ),
    KindSpec(
        group="ray.io",
        versions=("v1", "v1alpha1"),
        kind="RayCluster",
        division=Division.WHOLE,
        job=False,
        components=(),
        read=_read_cluster,
        pod_templates=_templates_of_cluster,
        write_replicas=_write_cluster,
        read_status=_status_of_cluster,
        suspend_path=("spec", "suspend"),
    ),
)
