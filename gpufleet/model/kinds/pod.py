"""A bare Pod: one copy in one cluster, treated as a job because nobody starts it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpufleet.model.kinds import conditions
from gpufleet.model.kinds.base import KindSpec, Manifest, ObjectStatus, Pods, PodTemplate, pod_template
from gpufleet.model.kinds.pods import single
from gpufleet.model.kinds.reading import View
from gpufleet.model.names import MAIN
from gpufleet.model.placement import WorkloadHealth
from gpufleet.model.workload import Division


def _read(manifest: View) -> Pods:
    return single(MAIN, 1, manifest)


def _pod_templates(_: Manifest) -> tuple[PodTemplate, ...]:
    return (pod_template(MAIN),)


def _write_replicas(_: dict[str, Any], __: Mapping[str, int]) -> None:
    """A pod is one."""


def _read_status(manifest: Manifest) -> ObjectStatus:
    _, status = conditions.parts(manifest)
    phase = conditions.text(status, "phase")
    if phase == "Succeeded":
        return conditions.succeeded()
    if phase == "Failed":
        disrupted = conditions.find(status, "DisruptionTarget")
        cause = f"DisruptionTarget {conditions.text_of(disrupted)}" if disrupted else ""
        message = conditions.text(status, "message") or _exit_of(status)
        return conditions.failed(cause, conditions.text(status, "reason"), message)
    ready = int(conditions.find(status, "Ready") is not None)
    unschedulable = conditions.find(status, "PodScheduled", "False")
    message = conditions.text_of(unschedulable) if unschedulable else ""
    waiting = next((w for w in _states(status, "waiting") if conditions.text(w, "reason") in _STUCK), None)
    if waiting is not None:
        return ObjectStatus(WorkloadHealth.UNHEALTHY, 0, ((MAIN, 0),), message=conditions.text_of(waiting))
    return conditions.running(((MAIN, ready),), healthy=bool(ready), message=message)


_STUCK = frozenset({"CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerError"})


def _states(status: conditions.Fields, state: str) -> list[conditions.Fields]:
    return [conditions.sub(c.get("state"), state) for c in conditions.items(status, "containerStatuses")]


def _exit_of(status: conditions.Fields) -> str:
    ended = next((t for t in _states(status, "terminated") if conditions.count(t, "exitCode")), None)
    return f"container exited with {conditions.count(ended, 'exitCode')}" if ended else ""


KINDS = (
    KindSpec(
        group="",
        versions=("v1",),
        kind="Pod",
        division=Division.WHOLE,
        job=True,
        components=(MAIN,),
        read=_read,
        pod_templates=_pod_templates,
        write_replicas=_write_replicas,
        read_status=_read_status,
    ),
)
