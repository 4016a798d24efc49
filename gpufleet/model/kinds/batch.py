"""Kubernetes' own jobs: Job and CronJob. A Job may be divided once; completions cannot be taken back from a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpufleet.model.kinds import conditions
from gpufleet.model.kinds.base import KindSpec, Manifest, ObjectStatus, Path, Pods, PodTemplate, pod_template
from gpufleet.model.kinds.edit import editable
from gpufleet.model.kinds.pods import single
from gpufleet.model.kinds.reading import View
from gpufleet.model.names import MAIN
from gpufleet.model.placement import WorkloadHealth
from gpufleet.model.workload import Division

_JOB: Path = ("spec",)
_CRON: Path = ("spec", "jobTemplate", "spec")


def _read_job(manifest: View) -> Pods:
    spec = manifest.map("spec")
    # Indexes would repeat in every cluster.
    divided = spec.text("completionMode") != "Indexed"
    return _read(spec)._replace(division=Division.PARALLELISM if divided else None)


def _read_cron(manifest: View) -> Pods:
    spec = manifest.map("spec")
    if not spec.text("schedule"):
        spec.problem("schedule", "is missing", 'write when it runs, such as "0 3 * * *"')
    if "jobTemplate" not in spec.value:
        spec.problem("jobTemplate", "is missing", "describe the job in spec.jobTemplate.spec")
        return Pods(())
    return _read(spec.map("jobTemplate").map("spec"))


def _read(spec: View) -> Pods:
    pods = _pods(spec)
    if "template" not in spec.value:
        spec.problem("template", "is missing", "describe the pods in the job's template")
        return Pods(())
    return single(MAIN, pods, spec.map("template"))


def _pods(spec: View) -> int:
    """Returns the pods that run at once: Kubernetes never runs more than are still to be completed."""
    parallelism = spec.replicas("parallelism")
    return min(parallelism, spec.replicas("completions", default=parallelism))


def _write_replicas(path: Path, manifest: dict[str, Any], components: Mapping[str, int]) -> None:
    spec = editable(manifest, *path)
    if MAIN in components and components[MAIN] != _pods(View(spec, "", [])):
        spec["parallelism"] = components[MAIN]


def _write_job(manifest: dict[str, Any], components: Mapping[str, int]) -> None:
    _write_replicas(_JOB, manifest, components)


def _write_cron(manifest: dict[str, Any], components: Mapping[str, int]) -> None:
    _write_replicas(_CRON, manifest, components)


def _templates_of_job(_: Manifest) -> tuple[PodTemplate, ...]:
    return (pod_template(MAIN, *_JOB, "template"),)


def _templates_of_cron(_: Manifest) -> tuple[PodTemplate, ...]:
    return (pod_template(MAIN, *_CRON, "template"),)


def _status_of_job(manifest: Manifest) -> ObjectStatus:
    spec, status = conditions.parts(manifest)
    if done := conditions.find(status, "Complete"):
        return conditions.succeeded(conditions.text_of(done))
    if ended := conditions.find(status, "Failed"):
        # A deadline that passes before any pod was ready or failed means that it waited for room.
        ran = any(conditions.count(status, key) for key in ("ready", "failed", "succeeded"))
        started = ran or conditions.text(ended, "reason") != "DeadlineExceeded"
        return conditions.failed(conditions.text(ended, "reason"), conditions.text(ended, "message"), started=started)
    ready = conditions.count(status, "ready")
    wanted = conditions.count(spec, "parallelism", 1)
    left = conditions.count(spec, "completions", wanted) - conditions.count(status, "succeeded")
    return conditions.running(((MAIN, ready),), healthy=0 < min(wanted, left) <= ready)


def _status_of_cron(manifest: Manifest) -> ObjectStatus:
    _, status = conditions.parts(manifest)
    active = sum(1 for _ in conditions.items(status, "active"))
    return ObjectStatus(WorkloadHealth.HEALTHY, active, ((MAIN, active),))


KINDS = (
    KindSpec(
        group="batch",
        versions=("v1",),
        kind="Job",
        division=Division.WHOLE,
        job=True,
        components=(MAIN,),
        read=_read_job,
        pod_templates=_templates_of_job,
        write_replicas=_write_job,
        read_status=_status_of_job,
        suspend_path=("spec", "suspend"),
    ),
    KindSpec(
        group="batch",
        versions=("v1",),
        kind="CronJob",
        division=Division.WHOLE,
        job=True,
        components=(MAIN,),
        read=_read_cron,
        pod_templates=_templates_of_cron,
        write_replicas=_write_cron,
        read_status=_status_of_cron,
        suspend_path=("spec", "suspend"),
    ),
)
