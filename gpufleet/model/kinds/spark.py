"""SparkApplication: one driver and its executors, sized by Spark's own fields (specification 11.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from gpufleet.model import quantity
from gpufleet.model.kinds import conditions
from gpufleet.model.kinds.base import KindSpec, Manifest, ObjectStatus, Path, Pods, PodTemplate
from gpufleet.model.kinds.edit import editable
from gpufleet.model.kinds.pods import node_constraints
from gpufleet.model.kinds.reading import View
from gpufleet.model.requests import one_pod
from gpufleet.model.workload import Component, Division, PodShape

DRIVER, EXECUTOR = "driver", "executor"
_MEMORY = re.compile(r"^(\d{1,15})\s*(b|k|kb|m|mb|g|gb|t|tb|p|pb)?$", re.IGNORECASE)
_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_MIB = 2**20
_MIN_OVERHEAD = 384 * _MIB


def memory(text: str) -> int:
    """Returns the bytes of a Spark memory text: ``512m``, ``1g``; a bare number is MiB, as Spark reads it.

    Kubernetes quantities such as ``1Gi`` are taken too. Raises QuantityError.
    """
    match = _MEMORY.match(text.strip())
    if match is None:
        try:
            return quantity.parse(text, "memory")
        except quantity.QuantityError:
            pass
    elif (value := int(match[1]) * (1024 ** _POWERS[match[2][0].lower()] if match[2] else _MIB)) <= quantity.LIMIT:
        return value
    raise quantity.QuantityError(f"{text[:64]!r} is not an amount of memory; write one such as 512m or 4g")


def _read(manifest: View) -> Pods:
    spec = manifest.map("spec")
    kind = spec.text("type", "Java")
    java = kind in ("Java", "Scala")
    if kind not in ("Java", "Scala", "Python", "R"):
        spec.problem("type", f"is {kind!r}", "use Java, Scala, Python or R")
    components = []
    # In client mode the driver runs outside of the cluster's pods.
    if spec.text("mode", "cluster") != "client":
        components.append(_component(spec, DRIVER, 1, java=java))
    components.append(_component(spec, EXECUTOR, _executors(spec), java=java))
    ranked_by = spec.map("batchSchedulerOptions").text("priorityClassName") or components[0].priority_class
    return Pods(tuple(components), ranked_by)


def _executors(spec: View) -> int:
    instances = spec.map(EXECUTOR).replicas("instances")
    dynamic = spec.map("dynamicAllocation")
    if dynamic.flag("enabled"):
        instances = max(instances, dynamic.replicas("initialExecutors", 0), dynamic.replicas("minExecutors", 0))
    return instances


def _component(spec: View, name: str, replicas: int, *, java: bool) -> Component:
    part = spec.map(name)
    amounts = {"cpu": _cpu(part), "memory": _memory(spec, part, java=java)}
    gpu = part.map("gpu")
    if gpu.value:
        resource = gpu.text("name")
        if not resource:
            gpu.problem("name", "is missing", "name the resource, such as nvidia.com/gpu")
        else:
            amounts[resource] = gpu.integer("quantity", 0, maximum=1000)
    selector, affinity, tolerations = node_constraints(part)
    return Component(
        name=name,
        replicas=replicas,
        shape=PodShape(one_pod(amounts), selector or spec.labels("nodeSelector"), affinity, tolerations),
        labels=part.labels("labels"),
        priority_class=part.text("priorityClassName"),
        scheduler_name=part.text("schedulerName") or spec.text("batchScheduler"),
    )


def _cpu(part: View) -> int:
    for key in ("coreRequest", "cores", "coreLimit"):
        if part.value.get(key) is not None:
            return part.quantity(key, "cpu") or 0
    return 1000


def _memory(spec: View, part: View, *, java: bool) -> int:
    base = _amount(part, "memory", 1024 * _MIB)
    if part.value.get("memoryOverhead") is not None:
        return base + _amount(part, "memoryOverhead", 0)
    overhead = max(int(base * _factor(spec, java=java)), _MIN_OVERHEAD)
    return base + overhead // _MIB * _MIB


def _amount(part: View, key: str, default: int) -> int:
    value = part.value.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, str | int):
        part.problem(key, f"is {value!r}", "write an amount of memory such as 512m or 4g")
        return default
    try:
        return memory(str(value)[:80])
    except quantity.QuantityError as error:
        message, _, hint = str(error).partition("; ")
        part.problem(key, message, hint)
        return default


def _factor(spec: View, *, java: bool) -> Fraction:
    value = spec.value.get("memoryOverheadFactor")
    if value is not None:
        try:
            factor = Fraction(str(value)) if len(str(value)) <= 16 else None
        except (ValueError, ZeroDivisionError):
            factor = None
        if factor is not None and 0 <= factor <= 10:
            return factor
        spec.problem("memoryOverheadFactor", f"is {value!r}", 'write a factor such as "0.1"')
    return Fraction(1, 10) if java else Fraction(4, 10)


def _template(component: str) -> PodTemplate:
    path: Path = ("spec", component)
    return PodTemplate(component, path, (*path, "labels"), (*path, "annotations"), path)


def _pod_templates(_: Manifest) -> tuple[PodTemplate, ...]:
    return _template(DRIVER), _template(EXECUTOR)


def _write_replicas(manifest: dict[str, Any], components: Mapping[str, int]) -> None:
    if EXECUTOR in components and components[EXECUTOR] != _executors(View(manifest, "", []).map("spec")):
        editable(manifest, "spec", EXECUTOR)["instances"] = components[EXECUTOR]


def _read_status(manifest: Manifest) -> ObjectStatus:
    spec, status = conditions.parts(manifest)
    application = conditions.sub(status, "applicationState")
    state = conditions.text(application, "state")
    message = conditions.text(application, "errorMessage")
    if state == "COMPLETED":
        return conditions.succeeded(message)
    if state == "FAILED":
        started = bool(conditions.text(conditions.sub(status, "driverInfo"), "podName")) or not status
        return conditions.failed(state, message, started=started)
    executors = sum(1 for value in conditions.sub(status, "executorState").values() if value == "RUNNING")
    dynamic = conditions.sub(spec, "dynamicAllocation")
    if dynamic.get("enabled") is True:
        wanted = conditions.count(dynamic, "minExecutors")  # it gives back those that are idle
    else:
        wanted = conditions.count(conditions.sub(spec, EXECUTOR), "instances", 1)
    running = state == "RUNNING"
    components = ((DRIVER, int(running)), (EXECUTOR, executors))
    return conditions.running(components, healthy=running and executors >= wanted, message=message)


KINDS = (
    KindSpec(
        group="sparkoperator.k8s.io",
        versions=("v1beta2",),
        kind="SparkApplication",
        division=Division.WHOLE,
        job=True,
        components=(DRIVER, EXECUTOR),
        read=_read,
        pod_templates=_pod_templates,
        write_replicas=_write_replicas,
        read_status=_read_status,
        # `spec.suspend` exists in new operators only; older ones drop the field and start at once.
        suspend_path=None,
    ),
)
