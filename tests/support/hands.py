"""Dispatchers that are driven one request at a time, on a simulated cluster in virtual time.

Between `look` and `act` a `Hand` holds a decision that may be out of date by the time it is sent: what a process that
was stopped by its machine does when it wakes up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gpufleet.kube.fencing import for_create, for_update, ids_of
from gpufleet.kube.resources import identity
from gpufleet.model import kinds, names
from gpufleet.model.placement import Assignment, AssignmentState, Observation, ObservedPhase, Version
from services.dispatcher.core import pods, render
from services.dispatcher.core.steps import (
    Baseline,
    Create,
    CreateNamespace,
    Delete,
    Done,
    Facts,
    Live,
    Release,
    Step,
    Superseded,
    Update,
    next_step,
    observation,
    release_patch,
)
from sim.api.errors import ApiError
from sim.api.resources import Resource
from tests.support import manifests
from tests.support.simulation import Simulation, node

LOG = "log-of-the-test"
Json = dict[str, Any]


def assigned(
    manifest: Mapping[str, Any],
    cluster: str = "c",
    version: tuple[int, int] = (1, 1),
    state: AssignmentState = AssignmentState.ACTIVE,
    **fields: Any,
) -> Assignment:
    """An assignment of a manifest, with the replicas that the manifest asks for unless `components` says otherwise."""
    workload = kinds.interpret(manifest)
    fields.setdefault("components", tuple(sorted((c.name, c.replicas) for c in workload.components)))
    fields.setdefault("job", workload.job)
    return Assignment(
        workload=workload.key, cluster=cluster, version=Version(*version), state=state, manifest=manifest, **fields
    )


def removal(assignment: Assignment, version: tuple[int, int] = (1, 9), **fields: Any) -> Assignment:
    """The order to remove what an assignment has brought."""
    return replace(assignment, state=AssignmentState.REMOVING, version=Version(*version), components=(), **fields)


def batch_job(parallelism: int = 2, **notes: str) -> Json:
    """A Job that an API server takes; ``notes`` are annotations of its pods below sim.gpufleet.io."""
    manifest = manifests.job(parallelism)
    template = manifest["spec"]["template"]
    template["spec"]["restartPolicy"] = "Never"
    template["metadata"]["annotations"] = {
        f"sim.gpufleet.io/{name.replace('_', '-')}": value for name, value in notes.items()
    }
    manifest["spec"]["backoffLimit"] = 0
    return manifest


def member(*, namespace: str = "test", gpus: str = "8") -> Simulation:
    """A cluster with one node and a namespace."""
    sim = Simulation(node("n1", gpu=gpus))
    if namespace:
        sim.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    return sim


@dataclass
class Hand:
    """One dispatcher that works on one assignment. ``last`` is what was said of the workload last."""

    sim: Simulation
    assignment: Assignment
    log: str = LOG
    frozen: bool = False
    last: Observation | None = None
    step: Step | None = None
    outcomes: list[str] = field(default_factory=list)
    namespace: bool = True
    baseline: Baseline | None = None

    def look(self) -> Step:
        """Reads the cluster and decides."""
        self.step = next_step(self.assignment, self.facts, self.live())
        return self.step

    @property
    def facts(self) -> Facts:
        return Facts(self.log, self.sim.store.incarnation, self.frozen, last=self.last)

    def live(self) -> Live:
        assignment = self.assignment
        obj = self._find(assignment.manifest["apiVersion"], assignment.manifest["kind"], self._name)
        fence = self._find("v1", "ConfigMap", render.fence_name(assignment.workload)) if assignment.job else None
        marked = self.sim.pods(self._namespace, **{names.WORKLOAD_LABEL: names.workload_label(assignment.workload)})
        return Live(obj, fence, self.namespace, pods.live(marked), self.baseline)

    def act(self) -> str:
        """Sends what was decided, however long ago; returns what became of it."""
        step, self.step = self.step, None
        assert step is not None
        try:
            outcome = self._send(step)
        except ApiError as error:
            if error.details.get("kind") == "namespaces":
                self.namespace, outcome = False, "no namespace"
            elif error.code in (404, 409) or (error.code == 422 and "metadata.uid" in str(error.details)):
                outcome = "lost"
            else:
                raise
        self.sim.wait(0.0)
        self.outcomes.append(f"{type(step).__name__}: {outcome}")
        return outcome

    def run(self, limit: int = 40) -> Done | None:
        """Works until nothing is left to do, time passing where that is waited for; None if it is superseded."""
        for _ in range(limit):
            step = self.look()
            if isinstance(step, Superseded):
                return None
            if isinstance(step, Done):
                if step.retry_after is None or step.phase is not ObservedPhase.PENDING or not self.namespace:
                    self.last = observation(self.assignment, step, self.facts, self.sim.now)
                    return step
                self.sim.wait(step.retry_after)
            else:
                self.act()
        raise AssertionError(f"no end after {limit} steps: {self.outcomes}, {self.step}")

    def _send(self, step: Step) -> str:
        store, now = self.sim.store, self.sim.now
        match step:
            case Create(obj) | Update(obj, _):
                wanted = for_update(obj, step.live) if isinstance(step, Update) else for_create(obj)
                resource, name, namespace = self._place(obj)
                answer = store.apply(
                    resource, namespace, name, wanted, now=now, manager=names.FIELD_MANAGER, force=True
                )
                if obj["kind"] == self.assignment.manifest["kind"]:
                    self.baseline = Baseline(obj, answer.obj)
            case Delete(live, foreground):
                resource, name, namespace = self._place(live)
                uid, version = ids_of(live)
                store.delete(
                    resource,
                    namespace,
                    name,
                    now=now,
                    uid=uid,
                    resource_version=version,
                    propagation="Foreground" if foreground else "Background",
                )
            case Release(live):
                resource, name, namespace = self._place(live)
                store.patch(resource, namespace, name, release_patch(live), now=now, manager=names.FIELD_MANAGER)
            case CreateNamespace(name):
                self.sim.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
                self.namespace = True
            case _:
                raise AssertionError(f"{step} is nothing to send")
        return "done"

    def _place(self, obj: Mapping[str, Any]) -> tuple[Resource, str, str]:
        api_version, kind, name, namespace = identity(obj)
        resource = self.sim.drive.view.resource(api_version, kind)
        assert resource is not None
        return resource, name, namespace or ""

    def _find(self, api_version: str, kind: str, name: str) -> Json | None:
        return self.sim.drive.view.get(api_version, kind, self._namespace, name)

    @property
    def _namespace(self) -> str:
        return render.namespace_of(self.assignment.workload)

    @property
    def _name(self) -> str:
        return self.assignment.workload.split("/")[2]
