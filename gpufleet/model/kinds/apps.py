"""Kinds whose replicas may run anywhere: Deployment, StatefulSet, and Kruise's CloneSet."""

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
    spec = manifest.map("spec")
    template = spec.map("template")
    if "template" not in spec.value:
        spec.problem("template", "is missing", "describe the pods in spec.template")
        return Pods(())
    wanted = dict(spec.map("selector").strings("matchLabels"))
    labels = dict(template.map("metadata").strings("labels"))
    missing = sorted(key for key, value in wanted.items() if labels.get(key) != value)
    if missing:
        spec.map("selector").problem(
            "matchLabels",
            f"asks for {missing[0]}={wanted[missing[0]]}, which the pods do not have",
            "give spec.template.metadata.labels the same labels",
        )
    return single(MAIN, spec.replicas("replicas"), template)


def _pod_templates(_: Manifest) -> tuple[PodTemplate, ...]:
    return (pod_template(MAIN, "spec", "template"),)


def _write_replicas(manifest: dict[str, Any], components: Mapping[str, int]) -> None:
    if MAIN in components:
        manifest["spec"] = {**(manifest.get("spec") or {}), "replicas": components[MAIN]}


def _read_status(manifest: Manifest) -> ObjectStatus:
    """Healthy when the newest revision is there in full, as Karmada's interpreter has it."""
    spec, status = conditions.parts(manifest)
    wanted = conditions.count(spec, "replicas", 1)
    ready = conditions.count(status, "readyReplicas")
    updated = conditions.count(status, "updatedReplicas")
    available = conditions.count(status, "availableReplicas", ready)
    blocked = conditions.find(status, "Progressing", "False") or conditions.find(status, "ReplicaFailure", "True")
    message = ""
    if conditions.observed(manifest) and updated >= wanted and available >= wanted and ready >= wanted:
        health = WorkloadHealth.HEALTHY
    elif blocked is not None:
        health, message = WorkloadHealth.UNHEALTHY, conditions.text_of(blocked)
    else:
        health = WorkloadHealth.PROGRESSING
    return ObjectStatus(health, ready, ((MAIN, ready),), message=message)


def _kind(group: str, versions: tuple[str, ...], kind: str) -> KindSpec:
    return KindSpec(
        group=group,
        versions=versions,
        kind=kind,
        division=Division.REPLICAS,
        job=False,
        components=(MAIN,),
        read=_read,
        pod_templates=_pod_templates,
        write_replicas=_write_replicas,
        read_status=_read_status,
    )


KINDS = (
    _kind("apps", ("v1",), "Deployment"),
    _kind("apps", ("v1",), "StatefulSet"),
    _kind("apps.kruise.io", ("v1alpha1", "v1beta1"), "CloneSet"),
)
