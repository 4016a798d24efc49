"""A simulated cluster in virtual time, and short ways to write what goes into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.api.crds import install_crds
from sim.api.store import Store
from sim.model.api import Controller, Create, Delete, Json, Patch, Ref, Write
from sim.model.cluster import Behaviour, simulated
from sim.model.drive import Drive
from sim.model.objects import finished, labels_of, node_of, phase_of, ready

START = 1_800_000_000.0
POD = ("v1", "Pod")


def crd(group: str, version: str, kind: str, *, status: bool = True) -> Json:
    """A CustomResourceDefinition that keeps every field; `group` must not be one of kubernetes.io."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    entry: Json = {"name": version, "served": True, "storage": True, "schema": schema}
    if status:
        entry["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [entry],
        },
    }


def node(name: str, *, labels: Mapping[str, str] | None = None, taints: Sequence[Json] = (), **amounts: str) -> Json:
    """A Node; `gpu="8"` is nvidia.com/gpu."""
    allocatable = {"cpu": "64", "memory": "256Gi", "pods": "110", **amounts}
    if "gpu" in allocatable:
        allocatable["nvidia.com/gpu"] = allocatable.pop("gpu")
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {"taints": list(taints)} if taints else {},
        "status": {"capacity": allocatable, "allocatable": allocatable},
    }


def pod_template(
    *,
    gpu: int = 0,
    cpu: str = "1",
    notes: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> Json:
    """A pod template; `notes` are annotations below sim.gpufleet.io, given without that prefix."""
    amounts = {"cpu": cpu} | ({"nvidia.com/gpu": str(gpu)} if gpu else {})
    annotations = {f"sim.gpufleet.io/{name}": value for name, value in (notes or {}).items()}
    return {
        "metadata": {"labels": dict(labels or {}), "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "app:1", "resources": {"limits": amounts}}], **spec},
    }


def workload(api_version: str, kind: str, name: str, spec: Json, **metadata: Any) -> Json:
    """An object in the namespace default."""
    named = {"name": name, "namespace": "default", **metadata}
    return {"apiVersion": api_version, "kind": kind, "metadata": named, "spec": spec}


def deployment(name: str, replicas: int, template: Json | None = None, **spec: Any) -> Json:
    """A Deployment whose pods have the label app."""
    labels = {"app": name}
    made = template or pod_template()
    made = {**made, "metadata": {**made["metadata"], "labels": {**made["metadata"]["labels"], **labels}}}
    body = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": made, **spec}
    return workload("apps/v1", "Deployment", name, body)


def pod(name: str, template: Json | None = None) -> Json:
    """A Pod in the namespace default."""
    made = template or pod_template()
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**made["metadata"], "name": name, "namespace": "default"},
        "spec": made["spec"],
    }


class Simulation:
    """One cluster with the usual controllers, and its clock."""

    def __init__(
        self,
        *nodes: Json,
        behaviour: Behaviour | None = None,
        controllers: Sequence[Controller] | None = None,
        crds: bool = True,
    ) -> None:
        self.now = START
        self.refused: list[str] = []
        self.store = Store("c", now=self.now)
        if crds:
            install_crds(self.store, now=self.now)
        chosen = simulated(behaviour) if controllers is None else controllers
        self.drive = Drive(
            self.store, chosen, on_error=lambda name, write, error: self.refused.append(f"{name}: {write}: {error}")
        )
        self.do(*(Create(entry) for entry in nodes))

    def do(self, *writes: Write) -> None:
        """Writes and everything that follows at once."""
        self.drive.apply(writes, self.now)
        self.drive.settle(self.now)

    def create(self, *objects: Json) -> None:
        self.do(*(Create(obj) for obj in objects))

    def delete(self, api_version: str, kind: str, name: str, namespace: str = "default") -> None:
        self.do(Delete(Ref(api_version, kind, namespace, name)))

    def patch(self, api_version: str, kind: str, name: str, patch: Json, namespace: str = "default") -> None:
        self.do(Patch(Ref(api_version, kind, namespace, name), patch))

    def wait(self, seconds: float) -> None:
        """Lets time pass, wake-up by wake-up."""
        until = self.now + seconds
        while (wake_at := self.drive.next_wake()) is not None and wake_at <= until:
            self.now = max(self.now, wake_at)
            self.drive.settle(self.now)
        self.now = until
        self.drive.settle(self.now)

    def get(self, api_version: str, kind: str, name: str, namespace: str = "default") -> Json:
        found = self.drive.view.get(api_version, kind, namespace, name)
        assert found is not None, f"{kind} {name} is not there"
        return found

    def status(self, api_version: str, kind: str, name: str) -> Json:
        status: Json = self.get(api_version, kind, name).get("status") or {}
        return status

    def pods(self, namespace: str = "default", **labels: str) -> list[Json]:
        found = self.drive.view.list(*POD, namespace)
        return [entry for entry in found if labels.items() <= labels_of(entry).items()]

    def phases(self, namespace: str = "default") -> dict[str, int]:
        """How many pods there are by phase; those that are Running and Ready count as Ready."""
        counts: dict[str, int] = {}
        for entry in self.pods(namespace):
            phase = "Ready" if ready(entry) else phase_of(entry)
            counts[phase] = counts.get(phase, 0) + 1
        return counts

    def where(self) -> dict[str, int]:
        """How many unfinished pods each node has."""
        counts: dict[str, int] = {}
        for entry in self.drive.view.list(*POD):
            if node_of(entry) and not finished(entry):
                counts[node_of(entry)] = counts.get(node_of(entry), 0) + 1
        return counts

    def conditions(self, api_version: str, kind: str, name: str) -> dict[str, str]:
        """Condition types and whether they hold."""
        entries = self.status(api_version, kind, name).get("conditions") or ()
        return {entry["type"]: entry["status"] for entry in entries}

    def events(self, reason: str) -> list[str]:
        """The messages of events with a reason."""
        return [entry["message"] for entry in self.drive.view.list("v1", "Event") if entry["reason"] == reason]
