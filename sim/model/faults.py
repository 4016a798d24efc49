"""Faults that an operator of the simulation asks for, read from a ConfigMap, and the writes that ask for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpufleet.model.names import WORKLOAD_ANNOTATION
from sim.model.api import Create, Json, Patch, Ref, View, Write
from sim.model.names import FAULTS, FAULTS_KEY, NODE_DOWN, SYSTEM_NAMESPACE
from sim.model.objects import CONFIG_MAP, NODE, annotations_of, integer, number

FAULTS_REF = Ref(*CONFIG_MAP, SYSTEM_NAMESPACE, FAULTS)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the pods of a workload, or of a namespace with a name prefix. None: as without the fault."""

    workload: str = ""
    namespace: str = ""
    pod_prefix: str = ""
    exit_code: int | None = None
    run_seconds: float | None = None
    image_pull_error: str = ""
    unschedulable: int = 0

    def covers(self, pod: Mapping[str, Any]) -> bool:
        """Whether a pod is meant; a fault that names nothing covers no pod."""
        if self.workload:
            return annotations_of(pod).get(WORKLOAD_ANNOTATION) == self.workload
        metadata = pod["metadata"]
        if not self.namespace or metadata.get("namespace") != self.namespace:
            return False
        return str(metadata["name"]).startswith(self.pod_prefix)

    def document(self) -> Json:
        """The fault as it is written in the ConfigMap."""
        fields = {
            "workload": self.workload,
            "namespace": self.namespace,
            "podPrefix": self.pod_prefix,
            "exitCode": self.exit_code,
            "runSeconds": self.run_seconds,
            "imagePullError": self.image_pull_error,
            "unschedulable": self.unschedulable or None,
        }
        return {name: value for name, value in fields.items() if value not in ("", None)}


@dataclass(frozen=True, slots=True)
class Faults:
    """All faults of a cluster; the first that covers a pod counts."""

    faults: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, view: View) -> Faults:
        """The faults that the ConfigMap lists; one that cannot be read is left out."""
        found = view.get(*FAULTS_REF)
        try:
            entries = json.loads(((found or {}).get("data") or {}).get(FAULTS_KEY) or "[]")
        except ValueError:
            entries = []
        if not isinstance(entries, list):
            return cls()
        return cls(tuple(_read(entry) for entry in entries if isinstance(entry, dict)))

    @property
    def withholding(self) -> tuple[Fault, ...]:
        """Those that keep pods from being bound."""
        return tuple(fault for fault in self.faults if fault.unschedulable > 0)

    def of_pod(self, pod: Mapping[str, Any]) -> Fault | None:
        """The first fault that covers a pod and is about how it runs, or None."""
        return next((fault for fault in self.faults if not fault.unschedulable and fault.covers(pod)), None)


def _read(entry: Json) -> Fault:
    exit_code, run_seconds = entry.get("exitCode"), entry.get("runSeconds")
    return Fault(
        workload=str(entry.get("workload") or ""),
        namespace=str(entry.get("namespace") or ""),
        pod_prefix=str(entry.get("podPrefix") or ""),
        exit_code=None if exit_code is None else integer(exit_code, 1),
        run_seconds=None if run_seconds is None else number(run_seconds, 0),
        image_pull_error=str(entry.get("imagePullError") or ""),
        unschedulable=integer(entry.get("unschedulable"), 0),
    )


def set_faults(view: View, faults: Faults) -> list[Write]:
    """The writes that put exactly these faults in force."""
    data = {FAULTS_KEY: json.dumps([fault.document() for fault in faults.faults], sort_keys=True)}
    if view.get(*FAULTS_REF) is None:
        metadata = {"name": FAULTS, "namespace": SYSTEM_NAMESPACE}
        return [Create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})]
    return [Patch(FAULTS_REF, {"data": data})]


def add_fault(view: View, fault: Fault) -> list[Write]:
    """The writes that put one more fault in force, before the others, in place of one for the same pods."""
    same = (fault.workload, fault.namespace, fault.pod_prefix, bool(fault.unschedulable))
    kept = tuple(
        known
        for known in Faults.of(view).faults
        if (known.workload, known.namespace, known.pod_prefix, bool(known.unschedulable)) != same
    )
    return set_faults(view, Faults((fault, *kept)))


def fail_workload(view: View, workload: str, exit_code: int = 1) -> list[Write]:
    """Every pod of the workload ends with this exit code as soon as it runs, now and later."""
    return add_fault(view, Fault(workload=workload, exit_code=exit_code, run_seconds=0.0))


def fail_node(name: str, *, down: bool = True) -> list[Write]:
    """The node goes down, or comes back."""
    return [Patch(Ref(*NODE, "", name), {"metadata": {"annotations": {NODE_DOWN: "true" if down else None}}})]
