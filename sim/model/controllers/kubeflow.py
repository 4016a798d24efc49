"""Kubeflow's training jobs (PyTorchJob, TFJob, MPIJob), after the training operator.

The pods have fixed names, so that a controller which does not see its own writes yet cannot make one twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sim.model.api import DONE, Create, Delete, Json, Kind, Ref, Result, View, Write, ref_of
from sim.model.base import OwnerController
from sim.model.objects import (
    POD,
    condition,
    condition_true,
    controlled_by,
    deleting,
    finished,
    integer,
    number,
    phase_of,
    pod_from,
    ready,
    seconds_of,
    status_write,
    timestamp,
    with_condition,
)

RETRYABLE_EXIT_CODE = 128


@dataclass(frozen=True, slots=True)
class JobKind:
    """What distinguishes the kinds: where the replica specs are, which role decides the end, and the defaults."""

    kind: Kind
    field: str
    roles: tuple[str, ...]
    deciders: tuple[str, ...]
    restart_policy: str

    def role(self, name: str) -> str:
        """The role in its own spelling; TFJob takes `worker` for `Worker`."""
        return next((role for role in self.roles if role.lower() == name.lower()), name)


PYTORCH = JobKind(
    ("kubeflow.org/v1", "PyTorchJob"), "pytorchReplicaSpecs", ("Master", "Worker"), ("Master",), "OnFailure"
)
TENSORFLOW = JobKind(
    ("kubeflow.org/v1", "TFJob"),
    "tfReplicaSpecs",
    ("Chief", "Master", "PS", "Worker", "Evaluator"),
    ("Chief", "Master"),
    "Never",
)
MPI = JobKind(("kubeflow.org/v2beta1", "MPIJob"), "mpiReplicaSpecs", ("Launcher", "Worker"), ("Launcher",), "Never")
MPI_V1 = JobKind(("kubeflow.org/v1", "MPIJob"), "mpiReplicaSpecs", ("Launcher", "Worker"), ("Launcher",), "Never")
JOB_KINDS = (PYTORCH, TENSORFLOW, MPI, MPI_V1)


class _Slot(NamedTuple):
    """One pod that the job should have."""

    role: str
    ordinal: int
    policy: str
    template: Json
    name: str


class TrainingJobController(OwnerController):
    """Drives the jobs of one kind."""

    dependents = (POD,)

    def __init__(self, kind: JobKind) -> None:
        self.kind = kind
        self.primary = kind.kind
        self.name = f"{kind.kind[1].lower()}-controller"

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Makes missing pods, or takes them back when suspended or at the end; counts them by role."""
        job = view.get(*key)
        if job is None or deleting(job):
            return DONE
        pods = {pod["metadata"]["name"]: pod for pod in controlled_by(view, job, POD)}
        if condition_true(job, "Succeeded") or condition_true(job, "Failed"):
            return self._after_end(job, pods, now)
        if self._run_policy(job).get("suspend"):
            return Result(self._suspend(job, pods, now))
        return self._work(job, pods, now)

    def _run_policy(self, job: Json) -> Json:
        return job["spec"].get("runPolicy") or {}

    def _slots(self, job: Json) -> Iterator[_Slot]:
        specs = {self.kind.role(name): spec for name, spec in (job["spec"].get(self.kind.field) or {}).items()}
        for role in [r for r in self.kind.roles if r in specs] + sorted(set(specs) - set(self.kind.roles)):
            spec = specs[role] or {}
            policy = spec.get("restartPolicy") or self.kind.restart_policy
            for index in range(integer(spec.get("replicas"), 1)):
                name = f"{job['metadata']['name']}-{role.lower()}-{index}"
                if self.kind.kind[1] == "MPIJob" and role == "Launcher":
                    name = f"{job['metadata']['name']}-launcher"
                yield _Slot(role, index, policy, spec.get("template") or {}, name)

    def _pod(self, job: Json, slot: _Slot) -> Json:
        name = job["metadata"]["name"]
        labels = {
            "training.kubeflow.org/job-name": name,
            "training.kubeflow.org/operator-name": self.name,
            "training.kubeflow.org/replica-type": slot.role.lower(),
            "training.kubeflow.org/replica-index": str(slot.ordinal),
        }
        if slot.role in self.kind.deciders:
            labels["training.kubeflow.org/job-role"] = "master"
        pod = pod_from(slot.template, job, slot.name, labels=labels)
        policy = "Never" if slot.policy == "ExitCode" else slot.policy
        pod["spec"] = {**pod["spec"], "restartPolicy": policy}
        return pod

    def _condition(
        self, job: Json, conditions: list[Json], kind: str, status: str, text: str, now: float
    ) -> list[Json]:
        name = self.kind.kind[1]
        message = f"{name} {job['metadata'].get('namespace', '')}/{job['metadata']['name']} {text}"
        known = condition({"status": {"conditions": conditions}}, kind)
        if known is not None and (known["status"], known["message"]) == (status, message):
            return conditions
        reason = f"{name}{'Resumed' if kind == 'Suspended' and status == 'False' else kind}"
        stamp = timestamp(now)
        return with_condition(conditions, kind, status, reason, message, now, lastUpdateTime=stamp)

    def _suspend(self, job: Json, pods: dict[str, Json], now: float) -> list[Write]:
        status = job.get("status") or {}
        conditions = list(status.get("conditions") or ())
        if not conditions:
            conditions = self._condition(job, conditions, "Created", "True", "is created.", now)
        if condition_true(job, "Running"):
            conditions = self._condition(job, conditions, "Running", "False", "is suspended.", now)
        conditions = self._condition(job, conditions, "Suspended", "True", "is suspended.", now)
        counts: Json | None = {slot.role: {} for slot in self._slots(job)} if status.get("replicaStatuses") else None
        changed = {"conditions": conditions, "startTime": None, "replicaStatuses": counts}
        return [*status_write(job, changed), *(_delete(pod) for pod in pods.values() if not deleting(pod))]

    def _work(self, job: Json, pods: dict[str, Json], now: float) -> Result:
        status = job.get("status") or {}
        slots = list(self._slots(job))
        conditions: list[Json] = list(status.get("conditions") or ())
        conditions = self._condition(job, conditions, "Created", "True", "is created.", now)
        if condition_true(job, "Suspended"):
            conditions = self._condition(job, conditions, "Suspended", "False", "is resumed.", now)
        writes: list[Write] = []
        restarting = False
        launched = self._launchable(slots, pods)
        for slot in slots:
            pod = pods.get(slot.name)
            if pod is None and slot.role in launched:
                writes.append(Create(self._pod(job, slot)))
            elif pod is not None and not deleting(pod) and _retryable(slot, pod):
                writes.append(_delete(pod))
                restarting = True
        wanted = {slot.name for slot in slots}
        writes += [_delete(pod) for name, pod in sorted(pods.items()) if name not in wanted and not deleting(pod)]

        started = status.get("startTime") or timestamp(now)
        changed: Json = {
            "startTime": started,
            "replicaStatuses": _counts(slots, pods),
            "lastReconcileTime": status.get("lastReconcileTime") or timestamp(now),
        }
        deadline = self._run_policy(job).get("activeDeadlineSeconds")
        wake_at = None if deadline is None else seconds_of(started) + number(deadline, 0)
        ending = self._ending(job, slots, pods, wake_at, now)
        if ending is not None:
            kind, text = ending
            conditions = self._condition(job, conditions, "Running", "False", text, now)
            conditions = self._condition(job, conditions, kind, "True", text, now)
            changed["completionTime"] = timestamp(now)
            writes, wake_at = [], None
        elif restarting:
            conditions = self._condition(job, conditions, "Restarting", "True", "is restarting.", now)
        elif self._running(slots, pods):
            conditions = [c for c in conditions if c["type"] != "Restarting"]
            conditions = self._condition(job, conditions, "Running", "True", "is running.", now)
        return Result([*status_write(job, {**changed, "conditions": conditions}), *writes], wake_at)

    def _launchable(self, slots: list[_Slot], pods: dict[str, Json]) -> set[str]:
        """Roles whose pods may be made now: MPI's launcher waits for its workers."""
        roles = {slot.role for slot in slots}
        if self.kind.kind[1] == "MPIJob":
            waiting = any(s.role == "Worker" and not (s.name in pods and ready(pods[s.name])) for s in slots)
            return roles - {"Launcher"} if waiting else roles
        return roles

    def _deciding(self, slots: list[_Slot]) -> list[_Slot]:
        """The pods whose success is the job's: the master's, or worker 0 where there is no master."""
        deciders = [slot for slot in slots if slot.role in self.kind.deciders]
        return deciders or [slot for slot in slots if slot.role == "Worker" and slot.ordinal == 0]

    def _running(self, slots: list[_Slot], pods: dict[str, Json]) -> bool:
        return any(phase_of(pods[s.name]) == "Running" for s in self._deciding(slots) if s.name in pods)

    def _ending(
        self, job: Json, slots: list[_Slot], pods: dict[str, Json], deadline: float | None, now: float
    ) -> tuple[str, str] | None:
        deciding = self._deciding(slots)
        if deciding and all(s.name in pods and phase_of(pods[s.name]) == "Succeeded" for s in deciding):
            return "Succeeded", "successfully completed."
        for slot in slots:
            pod = pods.get(slot.name)
            if pod is not None and phase_of(pod) == "Failed" and not _retryable(slot, pod) and not deleting(pod):
                return "Failed", f"has failed because pod {slot.name} ({slot.role}) has failed."
        limit = self._run_policy(job).get("backoffLimit")
        restarts = sum(
            integer(container.get("restartCount"), 0)
            for slot in slots
            if slot.policy in ("OnFailure", "Always") and slot.name in pods
            for container in (pods[slot.name].get("status") or {}).get("containerStatuses") or ()
        )
        if limit is not None and restarts and restarts >= integer(limit, 0):
            return "Failed", "has failed because it has reached the specified backoff limit"
        if deadline is not None and now >= deadline:
            return "Failed", "has failed because it was active longer than specified deadline"
        return None

    def _after_end(self, job: Json, pods: dict[str, Json], now: float) -> Result:
        policy = self._run_policy(job)
        clean = policy.get("cleanPodPolicy") or "None"
        leaving = [
            pod
            for _, pod in sorted(pods.items())
            if not deleting(pod) and (clean == "All" or (clean == "Running" and not finished(pod)))
        ]
        writes: list[Write] = [_delete(pod) for pod in leaving]
        writes += status_write(job, {"replicaStatuses": _final_counts(job, list(self._slots(job)), pods)})
        ttl, ended = policy.get("ttlSecondsAfterFinished"), (job.get("status") or {}).get("completionTime")
        if ttl is None or not ended:
            return Result(writes)
        until = seconds_of(ended) + number(ttl, 0)
        if now < until:
            return Result(writes, until)
        return Result([*writes, Delete(ref_of(job), job["metadata"].get("uid", ""))])


def _delete(pod: Json) -> Write:
    return Delete(ref_of(pod), pod["metadata"].get("uid", ""))


def _exit_code(pod: Json) -> int:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended:
            return integer(ended.get("exitCode"), 0)
    return 0


def _retryable(slot: _Slot, pod: Json) -> bool:
    """Whether a failed pod is made again: its policy is ExitCode and a signal or the system ended it."""
    return slot.policy == "ExitCode" and phase_of(pod) == "Failed" and _exit_code(pod) >= RETRYABLE_EXIT_CODE


def _counts(slots: list[_Slot], pods: dict[str, Json]) -> Json:
    counts: Json = {}
    for slot in slots:
        role = counts.setdefault(slot.role, {})
        pod = pods.get(slot.name)
        if pod is None:
            continue
        phase = phase_of(pod)
        name = {"Running": "active", "Succeeded": "succeeded", "Failed": "failed"}.get(phase)
        if name is not None:
            role[name] = role.get(name, 0) + 1
    return counts


def _final_counts(job: Json, slots: list[_Slot], pods: dict[str, Json]) -> Json:
    """The last counts without the active ones that are gone; pods that were cleaned up stay counted."""
    known: Json = (job.get("status") or {}).get("replicaStatuses") or {}
    seen = _counts(slots, pods)
    final: Json = {}
    for role, counts in known.items():
        now_active = seen.get(role, {}).get("active", 0)
        final[role] = {name: value for name, value in counts.items() if name != "active"}
        if now_active:
            final[role]["active"] = now_active
        for name in ("succeeded", "failed"):
            value = max(counts.get(name, 0), seen.get(role, {}).get(name, 0))
            if value:
                final[role][name] = value
    return final
