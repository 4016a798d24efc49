"""Kinds that a WorkloadKind document declares: pods as their templates and counts say, and a status where it looks.

A stand-in for the kind's operator, which nobody has here: all pods at once, finished when all have succeeded, failed
when one has failed for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpufleet.model.kinds import Declaration, KindSpec, When
from gpufleet.model.kinds.base import Path
from gpufleet.model.kinds.declared import at, spec_of
from gpufleet.model.kinds.reading import View as Reading
from sim.model.api import DONE, Create, Delete, Json, Ref, Result, View, Write, ref_of
from sim.model.base import OwnerController
from sim.model.objects import (
    POD,
    controlled_by,
    deleting,
    phase_of,
    pod_from,
    ready,
    status_write,
    with_condition,
)


class DeclaredController(OwnerController):
    """Drives the objects of one declared kind, in one of its versions."""

    dependents = (POD,)

    def __init__(self, declaration: Declaration, api_version: str) -> None:
        self._declaration = declaration
        self._spec: KindSpec = spec_of(declaration)
        self.primary = (api_version, declaration.kind)
        self.name = f"{declaration.kind.lower()}-controller"

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Makes missing pods and deletes surplus ones, and counts the ready ones by set."""
        obj = view.get(*key)
        if obj is None or deleting(obj):
            return DONE
        how = self._declaration
        if any(when is not None and when.holds(obj) for when in (how.succeeded, how.failed)):
            return DONE
        pods = {pod["metadata"]["name"]: pod for pod in controlled_by(view, obj, POD) if not deleting(pod)}
        suspended = bool(how.suspend) and at(obj, how.suspend) is True
        wanted = {} if suspended else dict(self._wanted(obj))
        writes: list[Write] = [
            Create(pod_from(template, obj, name)) for name, (_, template) in sorted(wanted.items()) if name not in pods
        ]
        writes += [
            Delete(ref_of(p), p["metadata"].get("uid", "")) for name, p in sorted(pods.items()) if name not in wanted
        ]
        return Result([*self._status(obj, wanted, pods, now), *writes])

    def _wanted(self, obj: Json) -> Iterator[tuple[str, tuple[str, Json]]]:
        components = {c.name: c.replicas for c in self._spec.read(Reading(obj, "", [])).components}
        for template in self._spec.pod_templates(obj):
            for index in range(components.get(template.component, 0)):
                name = f"{obj['metadata']['name']}-{template.component.lower()}-{index}"
                yield name, (template.component, at(obj, template.path))

    def _status(self, obj: Json, wanted: dict[str, tuple[str, Json]], pods: Json, now: float) -> list[Write]:
        how = self._declaration
        changed: Json = {}
        for pod_set in how.pod_sets:
            if pod_set.ready:
                mine = [pods[n] for n, (component, _) in wanted.items() if component == pod_set.name and n in pods]
                _put(changed, pod_set.ready, sum(ready(pod) for pod in mine))
        phases = [phase_of(pods[name]) if name in pods else "Pending" for name in wanted]
        state: When | None = None
        if how.job and phases and all(phase == "Succeeded" for phase in phases):
            state = how.succeeded
        elif how.job and "Failed" in phases:
            state = how.failed
        elif phases and all(phase == "Running" for phase in phases):
            state = how.healthy
        if state is not None and state.condition:
            known = list((obj.get("status") or {}).get("conditions") or ())
            found = with_condition(known, state.condition, "True", state.condition, "", now)
            _put(changed, ("status", "conditions"), found)
        elif state is not None:
            _put(changed, state.path, state.values[0])
        status: dict[str, Any] = changed.get("status", {})
        return list(status_write(obj, status)) if status else []


def _put(obj: Json, path: Path, value: Any) -> None:
    for key in path[:-1]:
        obj = obj.setdefault(str(key), {})
    obj[str(path[-1])] = value


def definition(declaration: Declaration) -> Json:
    """Returns a CustomResourceDefinition that takes whatever the kind may hold."""
    plural = declaration.plural or f"{declaration.kind.lower()}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{declaration.group}"},
        "spec": {
            "group": declaration.group,
            "scope": "Namespaced",
            "names": {
                "kind": declaration.kind,
                "listKind": f"{declaration.kind}List",
                "plural": plural,
                "singular": declaration.kind.lower(),
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": index == 0,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
                for index, version in enumerate(declaration.versions)
            ],
        },
    }
