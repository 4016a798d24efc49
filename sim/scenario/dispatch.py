"""The dispatcher's work at one simulated cluster: look, ask the core for the next step, perform it, look again.

As `services.dispatcher.attempt` does it over HTTP; here a look is always fresh and nobody else is in between. What both
make of the answers is in `services.dispatcher.core.answers`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gpufleet.kube.errors import ApiStatusError, NotServed, status_error
from gpufleet.kube.fencing import for_create, for_update, ids_of
from gpufleet.model import names
from gpufleet.model.placement import Assignment, AssignmentState, ObservedPhase
from services.dispatcher.core import answers, render
from services.dispatcher.core import pods as pods_of
from services.dispatcher.core.parts import Part, parts, together
from services.dispatcher.core.steps import (
    Baseline,
    Create,
    CreateNamespace,
    Delete,
    Done,
    Facts,
    Live,
    Release,
    Superseded,
    Update,
    Write,
    next_step,
    release_patch,
)
from sim.api.errors import ApiError
from sim.api.resources import NAMESPACES, Resource
from sim.api.selectors import LabelSelector
from sim.api.store import Store

Json = dict[str, Any]
_CONFIG_MAP = ("v1", "ConfigMap")
_POD = ("v1", "Pod")
_MOST_STEPS = 20


class Bench:
    """One cluster's store, and what was applied last of each workload."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._baselines: dict[str, dict[str, Baseline]] = {}

    def forget(self, workload: str) -> None:
        """Forgets a workload that has no assignment any more."""
        self._baselines.pop(workload, None)

    def attend(self, assignment: Assignment, facts: Facts, now: float) -> Done | None:
        """Does what there is to do about an assignment now, and returns what became of it.

        None: the cluster holds a later decision, and nothing is to be said.
        """
        for _ in range(_MOST_STEPS):
            found: list[tuple[Part, Done]] = []
            for part in parts(assignment):
                step = self._advance(part, facts, now)
                if isinstance(step, Superseded):
                    return None
                if step is None:
                    break
                found.append((part, step))
            else:
                done = together(found)
                asked = answers.asks_pods(assignment, done, facts.last)
                return answers.blamed(assignment, done, facts.last, self._pods(assignment.workload) if asked else None)
        return Done(ObservedPhase.PENDING, message=f"{assignment.workload} keeps being changed by others")

    def _advance(self, part: Part, facts: Facts, now: float) -> Done | Superseded | None:
        """Makes the next step for one object; None where it is to be looked at again."""
        order = part.order
        resource = self._resource(order)
        if resource is None and order.state is AssignmentState.ACTIVE:
            api_version, kind = (str(order.manifest.get(field)) for field in ("apiVersion", "kind"))
            return answers.not_served(NotServed(order.cluster, api_version, kind))
        step = next_step(order, facts, self._live(part, resource))
        if isinstance(step, Done | Superseded):
            return step
        try:
            self._perform(part, step, now)
        except ApiError as error:
            refusal = _as_sent(error)
            if refusal.conflict or refusal.stale:
                return None  # lost to a controller; the next look shows it
            return answers.refused(order, refusal)
        return None

    # -- looking -------------------------------------------------------------------------------------------------

    def _resource(self, assignment: Assignment) -> Resource | None:
        manifest = assignment.manifest
        return self.store.registry.by_kind(str(manifest.get("apiVersion")), str(manifest.get("kind")))

    def _live(self, part: Part, resource: Resource | None) -> Live:
        assignment = part.order
        if assignment.state is AssignmentState.WAITING:
            return Live()
        workload = assignment.workload
        namespace = render.namespace_of(workload)
        obj = None if resource is None else self.store.find(resource, namespace, part.name)
        fence = None
        if assignment.job:
            fence = self.store.find(self._of(*_CONFIG_MAP), namespace, render.fence_name(workload))
        count = pods_of.live(self._pods(workload)) if answers.counts_pods(assignment, obj, fence) else 0
        owner = self.store.find(NAMESPACES, "", namespace)
        exists = owner is not None and not owner["metadata"].get("deletionTimestamp")
        return Live(obj, fence, exists, count, self._baselines.get(workload, {}).get(part.name))

    def _pods(self, workload: str) -> list[Json]:
        wanted = LabelSelector({names.WORKLOAD_LABEL: names.workload_label(workload)})
        return self.store.list(self._of(*_POD), render.namespace_of(workload), labels=wanted)

    def _of(self, api_version: str, kind: str) -> Resource:
        found = self.store.registry.by_kind(api_version, kind)
        assert found is not None
        return found

    # -- writing -------------------------------------------------------------------------------------------------

    def _perform(self, part: Part, step: Write, now: float) -> None:
        """Raises ApiError; 409 where the object is not what was read."""
        match step:
            case Create(obj):
                self._keep(part, obj, self._apply(for_create(obj), now))
            case Update(obj, live):
                self._keep(part, obj, self._apply(for_update(obj, live), now))
            case CreateNamespace(name):
                self._apply(for_create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}), now)
            case Delete(live, foreground):
                uid, version = ids_of(live)
                resource, namespace, name = self._place(live)
                self._baselines.get(part.order.workload, {}).pop(part.name, None)
                self.store.delete(
                    resource,
                    namespace,
                    name,
                    now=now,
                    uid=uid,
                    resource_version=version,
                    propagation="Foreground" if foreground else "Background",
                )
            case Release(live):
                resource, namespace, name = self._place(live)
                self._baselines.get(part.order.workload, {}).pop(part.name, None)
                self.store.patch(resource, namespace, name, release_patch(live), now=now, manager=names.FIELD_MANAGER)

    def _keep(self, part: Part, sent: Json, answer: Json) -> None:
        if (answer["apiVersion"], answer["kind"]) != _CONFIG_MAP:
            self._baselines.setdefault(part.order.workload, {})[part.name] = Baseline(sent, answer)

    def _apply(self, obj: Mapping[str, Any], now: float) -> Json:
        resource, namespace, name = self._place(obj)
        applied = self.store.apply(
            resource, namespace, name, dict(obj), now=now, manager=names.FIELD_MANAGER, force=True
        )
        return applied.obj

    def _place(self, obj: Mapping[str, Any]) -> tuple[Resource, str, str]:
        resource = self._of(str(obj["apiVersion"]), str(obj["kind"]))
        metadata = obj["metadata"]
        namespace = str(metadata.get("namespace", "")) if resource.namespaced else ""
        return resource, namespace, str(metadata["name"])


def _as_sent(error: ApiError) -> ApiStatusError:
    """The refusal as a client reads it."""
    return status_error(error.code, json.dumps(error.status()).encode())
