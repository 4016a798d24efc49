"""Argo Workflow: one unit whose needs an annotation states, because its pods come one after another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gpufleet.model import quantity
from gpufleet.model.kinds import conditions
from gpufleet.model.kinds.base import KindSpec, Manifest, ObjectStatus, Pods, PodTemplate
from gpufleet.model.kinds.pods import node_constraints
from gpufleet.model.kinds.reading import View
from gpufleet.model.names import MAIN
from gpufleet.model.placement import WorkloadHealth
from gpufleet.model.requests import one_pod
from gpufleet.model.workload import Component, Division, PodShape

# A map of resources as YAML or JSON; the second name is the open-source one.
MIN_RESOURCES = ("kube-queue/min-resources", "koord-queue/min-resources")


def _read(manifest: View) -> Pods:
    spec = manifest.map("spec")
    if not spec.value:
        manifest.problem("spec", "is missing", "describe the workflow in spec.templates or spec.workflowTemplateRef")
    templates = spec.items("templates")
    if not templates and not spec.map("workflowTemplateRef").value:
        spec.problem("templates", "is missing or empty", "name templates, or a workflowTemplateRef")
    entry = spec.text("entrypoint")
    names = {template.text("name"): template for template in templates}
    if templates and entry not in names:
        known = ", ".join(sorted(filter(None, names))) or "none has a name"
        spec.problem("entrypoint", f"is {entry!r}, which is no template", f"use one of: {known}")
    entry_class = names[entry].text("priorityClassName") if entry in names else ""
    component = Component(
        name=MAIN,
        replicas=1,
        shape=PodShape(one_pod(_min_resources(manifest)), *node_constraints(spec)),
        labels=spec.map("podMetadata").labels("labels"),
        priority_class=entry_class or spec.text("podPriorityClassName"),
        priority=spec.priority(),
        scheduler_name=spec.text("schedulerName"),
    )
    # The literal priority goes first here (specification 14).
    ranked_by = "" if component.priority is not None else component.priority_class
    return Pods((component,), ranked_by, component.priority)


def _min_resources(manifest: View) -> dict[str, int]:
    annotations = manifest.map("metadata").map("annotations")
    for key in MIN_RESOURCES:
        written = annotations.value.get(key)
        if isinstance(written, str):
            return _amounts(annotations, key, written)
    return {}


def _amounts(annotations: View, key: str, written: str) -> dict[str, int]:
    hint = "write a map of resources, such as {cpu: 5, memory: 5G}"
    pairs = _pairs(written)
    if pairs is None:
        annotations.problem(key, "is not a map of resources", hint)
        return {}
    amounts = {}
    for name, value in pairs.items():
        try:
            amounts[name] = quantity.parse(value, name)
        except quantity.QuantityError as error:
            annotations.problem(key, f"{name}: {error}")
    return amounts


def _pairs(written: str) -> dict[str, str] | None:
    """Returns a flat map that is written as JSON, as a YAML block, or as a YAML flow map; None if it is none."""
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        lines = written.strip().removeprefix("{").removesuffix("}").replace(",", "\n").splitlines()
        value = {}
        for line in filter(None, (line.split("#")[0].strip() for line in lines)):
            name, colon, amount = line.partition(":")
            if not colon:
                return None
            value[name.strip().strip("\"'")] = amount.strip().strip("\"'")
    if not isinstance(value, dict):
        return None
    return {str(name): str(amount) for name, amount in value.items()}


def _pod_templates(manifest: Manifest) -> tuple[PodTemplate, ...]:
    """The workflow's own fields reach every pod, except where a template has scheduling fields of its own."""
    found = [PodTemplate(MAIN, ("spec",), _metadata("labels"), _metadata("annotations"), ("spec",))]
    templates = conditions.sub(manifest, "spec").get("templates")
    for index, template in enumerate(templates if isinstance(templates, list | tuple) else ()):
        if isinstance(template, Mapping) and (template.get("nodeSelector") or template.get("tolerations")):
            path = ("spec", "templates", index)
            metadata = (*path, "metadata")
            found.append(PodTemplate(MAIN, path, (*metadata, "labels"), (*metadata, "annotations"), path))
    return tuple(found)


def _metadata(field: str) -> tuple[str, ...]:
    return "spec", "podMetadata", field


def _write_replicas(_: dict[str, Any], __: Mapping[str, int]) -> None:
    """A workflow is one unit."""


def _read_status(manifest: Manifest) -> ObjectStatus:
    _, status = conditions.parts(manifest)
    phase, message = conditions.text(status, "phase"), conditions.text(status, "message")
    if phase == "Succeeded":
        return conditions.succeeded(message)
    nodes = [node for node in conditions.sub(status, "nodes").values() if isinstance(node, Mapping)]
    pods = [node for node in nodes if node.get("type") == "Pod"]
    if phase in ("Failed", "Error"):
        # The workflow's own message only names the step; the steps that failed say why.
        causes = [conditions.text(n, "message") for n in pods if n.get("phase") in ("Failed", "Error")]
        started = not pods or any(n.get("phase") not in ("Pending", "Omitted", "Skipped") for n in pods)
        return conditions.failed(*causes, message, started=started)
    running = int(any(node.get("phase") == "Running" for node in pods))
    components = ((MAIN, running),)
    if not phase:
        return ObjectStatus(WorkloadHealth.PROGRESSING, components=components, message=message)
    return conditions.running(components, healthy=phase == "Running", message=message)


KINDS = (
    KindSpec(
        group="argoproj.io",
        versions=("v1alpha1",),
        kind="Workflow",
        division=Division.WHOLE,
        job=True,
        components=(MAIN,),
        read=_read,
        pod_templates=_pod_templates,
        write_replicas=_write_replicas,
        read_status=_read_status,
        suspend_path=("spec", "suspend"),
    ),
)
