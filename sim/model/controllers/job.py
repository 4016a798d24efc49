"""Batch Jobs, after kube-controller-manager's job controller.

Pods are counted by finalizer; there is back-off, suspension, a deadline and a time to live. Left out: pod failure
policies, success policies and per-index back-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.model.api import Create, Delete, Event, Json, Patch, Ref, Result, View, Write, ref_of
from sim.model.base import OwnerController
from sim.model.objects import (
    POD,
    annotations_of,
    condition_true,
    controlled_by,
    deleting,
    finished,
    free_names,
    integer,
    labels_of,
    number,
    owner_ref,
    phase_of,
    pod_from,
    ready,
    seconds_of,
    status_write,
    timestamp,
    with_condition,
)

JOB = ("batch/v1", "Job")
TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FIRST_BACKOFF, LAST_BACKOFF = 10.0, 360.0


class JobController(OwnerController):
    """Drives batch/v1 Jobs.

    Each pod carries a finalizer until it is counted in `status.succeeded` or `status.failed`, so that no deleted pod
    is forgotten.
    """

    name = "job-controller"
    primary = JOB
    dependents = (POD,)

    def __init__(self) -> None:
        self._last_failure: dict[Ref, float] = {}

    def observe(self, view: View, event: Event) -> Sequence[Ref]:  # noqa: ARG002
        """As usual; a deleted Job is looked at too, to let its pods go."""
        if event.kind == JOB:
            return (ref_of(event.current),)
        owner = owner_ref(event.current, JOB)
        return () if owner is None else (owner,)

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Counts finished pods, then makes or deletes pods, or ends the Job."""
        job = view.get(*key)
        if job is None or deleting(job):
            if job is None:
                self._last_failure.pop(key, None)
            return Result(_release(view, key))
        if condition_true(job, "Complete") or condition_true(job, "Failed"):
            return _after_end(view, job, now)
        return self._work(view, job, key, now)

    def _work(self, view: View, job: Json, key: Ref, now: float) -> Result:
        spec, status = job["spec"], job.get("status") or {}
        pods = controlled_by(view, job, POD)
        uncounted = [pod for pod in pods if TRACKING in (pod["metadata"].get("finalizers") or ())]
        won = [pod for pod in uncounted if phase_of(pod) == "Succeeded"]
        lost = [pod for pod in uncounted if phase_of(pod) == "Failed" or (deleting(pod) and not finished(pod))]
        running = [pod for pod in pods if not finished(pod) and not deleting(pod)]
        succeeded = integer(status.get("succeeded"), 0) + len(won)
        # What is deleted because the Job is suspended is no failure.
        suspended = bool(spec.get("suspend"))
        failures = [] if suspended else lost
        failed = integer(status.get("failed"), 0) + len(failures)
        if failures:
            self._last_failure[key] = now
        elif won:
            self._last_failure.pop(key, None)

        conditions: list[Json] = list(status.get("conditions") or ())
        changed: Json = {"succeeded": succeeded or None, "failed": failed or None}
        writes: list[Write] = []
        wake_at: float | None = None
        indexes = _completed_indexes(spec, status, won)
        ending = _ending(spec, status, succeeded, failed, indexes, pods, running, suspended, now)
        if ending is not None:
            kind, reason, message = ending
            first = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
            conditions = with_condition(conditions, first, "True", reason, message, now, lastProbeTime=timestamp(now))
            conditions = with_condition(conditions, kind, "True", reason, message, now, lastProbeTime=timestamp(now))
            if kind == "Complete":
                changed["completionTime"] = timestamp(now)
            writes += [Delete(ref_of(pod), pod["metadata"]["uid"]) for pod in running]
            running = []
        elif suspended:
            conditions = with_condition(conditions, "Suspended", "True", "JobSuspended", "Job suspended", now)
            changed["startTime"] = None
            writes += [Delete(ref_of(pod), pod["metadata"]["uid"]) for pod in running]
            running = []
        else:
            if condition_true(job, "Suspended"):
                conditions = with_condition(conditions, "Suspended", "False", "JobResumed", "Job resumed", now)
            changed["startTime"] = status.get("startTime") or timestamp(now)
            more, wake_at = self._resize(view, job, key, running, succeeded, failed, indexes, now)
            writes += more
            deadline = spec.get("activeDeadlineSeconds")
            if deadline is not None:
                until = seconds_of(changed["startTime"]) + number(deadline, 0)
                wake_at = until if wake_at is None else min(wake_at, until)
        changed |= {
            "active": len(running) + sum(isinstance(w, Create) for w in writes) or None,
            "ready": sum(map(ready, running)),
            "terminating": sum(deleting(pod) for pod in pods if pod not in lost),
            "conditions": conditions or None,
            "uncountedTerminatedPods": {},
        }
        if spec.get("completionMode") == "Indexed":
            changed["completedIndexes"] = _ranges(indexes)
        counted = won + lost
        # First the count, then the finalizers: a pod is never counted twice and never forgotten.
        return Result([*status_write(job, changed), *map(_uncounted, counted), *writes], wake_at)

    def _resize(
        self,
        view: View,
        job: Json,
        key: Ref,
        running: list[Json],
        succeeded: int,
        failed: int,
        indexes: set[int],
        now: float,
    ) -> tuple[list[Write], float | None]:
        spec = job["spec"]
        wanted = _wanted(spec, succeeded)
        if len(running) > wanted:
            return [Delete(ref_of(pod), pod["metadata"]["uid"]) for pod in running[wanted:]], None
        missing = wanted - len(running)
        if missing == 0:
            return [], None
        if key in self._last_failure and failed:
            pause = min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** min(failed - 1, 10))
            if now < self._last_failure[key] + pause:
                return [], self._last_failure[key] + pause
        return _new_pods(view, job, running, missing, indexes, failed), None


def _wanted(spec: Json, succeeded: int) -> int:
    parallelism = integer(spec.get("parallelism"), 1)
    if spec.get("completions") is None:
        return 0 if succeeded else parallelism
    return max(0, min(parallelism, integer(spec["completions"], 1) - succeeded))


def _new_pods(view: View, job: Json, running: list[Json], missing: int, indexes: set[int], failed: int) -> list[Write]:
    metadata, spec = job["metadata"], job["spec"]
    labels = {
        "batch.kubernetes.io/job-name": metadata["name"],
        "batch.kubernetes.io/controller-uid": metadata["uid"],
        "job-name": metadata["name"],
        "controller-uid": metadata["uid"],
    }
    namespace = metadata.get("namespace", "")
    chosen: list[int | None] = [None] * missing
    if spec.get("completionMode") == "Indexed":
        busy = {integer(annotations_of(pod).get(INDEX), -1) for pod in running} | indexes
        free = (index for index in range(integer(spec.get("completions"), 1)) if index not in busy)
        chosen = [index for index, _ in zip(free, range(missing), strict=False)]
    seed = f"{metadata['uid']}/{failed}"
    names = free_names(metadata["name"], seed, lambda name: view.get(*POD, namespace, name) is not None, len(chosen))
    writes: list[Write] = []
    for name, index in zip(names, chosen, strict=True):
        marks = {} if index is None else {INDEX: str(index)}
        pod = pod_from(spec.get("template") or {}, job, name, labels={**labels, **marks}, annotations=marks)
        pod["metadata"]["finalizers"] = [TRACKING]
        writes.append(Create(pod))
    return writes


def _completed_indexes(spec: Json, status: Json, won: list[Json]) -> set[int]:
    found: set[int] = set()
    if spec.get("completionMode") != "Indexed":
        return found
    for part in (status.get("completedIndexes") or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found |= set(range(int(first), int(last or first) + 1))
    return found | {integer(annotations_of(pod).get(INDEX), -1) for pod in won}


def _ranges(indexes: set[int]) -> str | None:
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and parts[-1][-1] == index - 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    return ",".join("-".join(map(str, part)) for part in parts) or None


def _ending(
    spec: Json,
    status: Json,
    succeeded: int,
    failed: int,
    indexes: set[int],
    pods: list[Json],
    running: list[Json],
    suspended: bool,
    now: float,
) -> tuple[str, str, str] | None:
    """The condition that ends the Job, its reason and message; None while it goes on."""
    restarts = 0
    template_spec = (spec.get("template") or {}).get("spec") or {}
    if template_spec.get("restartPolicy") == "OnFailure":
        restarts = sum(
            integer(container.get("restartCount"), 0)
            for pod in running
            for container in (pod.get("status") or {}).get("containerStatuses") or ()
        )
    limit = integer(spec.get("backoffLimit"), 6)
    if failed > limit or (restarts and restarts >= max(1, limit)):
        return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    deadline, started = spec.get("activeDeadlineSeconds"), status.get("startTime")
    if deadline is not None and started and not suspended and now >= seconds_of(started) + number(deadline, 0):
        return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
    completions = spec.get("completions")
    if spec.get("completionMode") == "Indexed":
        done = len(indexes) >= integer(completions, 1)
    elif completions is None:
        done = succeeded > 0 and not any(not finished(pod) for pod in pods)
    else:
        done = succeeded >= integer(completions, 1)
    return ("Complete", "CompletionsReached", "Reached expected number of succeeded pods") if done else None


def _after_end(view: View, job: Json, now: float) -> Result:
    """Lets the pods of an ended Job go, and deletes it after its time to live."""
    pods = controlled_by(view, job, POD)
    writes: list[Write] = [_uncounted(pod) for pod in pods if TRACKING in (pod["metadata"].get("finalizers") or ())]
    writes += [Delete(ref_of(p), p["metadata"]["uid"]) for p in pods if not finished(p) and not deleting(p)]
    status: Json = job["status"]
    gone = {"active": None, "ready": 0, "terminating": sum(deleting(p) and not finished(p) for p in pods)}
    writes += status_write(job, gone)
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None:
        return Result(writes)
    ends = [seconds_of(c["lastTransitionTime"]) for c in status["conditions"] if c["type"] in ("Complete", "Failed")]
    until = max(ends) + number(ttl, 0)
    if now < until:
        return Result(writes, until)
    return Result([*writes, Delete(ref_of(job), job["metadata"]["uid"])])


def _release(view: View, key: Ref) -> list[Write]:
    """Takes the finalizers off the pods of a Job that is gone or going."""
    labels = {"batch.kubernetes.io/job-name": key.name}
    pods: list[Any] = [
        pod
        for pod in view.list(*POD, key.namespace, labels)
        if TRACKING in (pod["metadata"].get("finalizers") or ()) and labels_of(pod).get("job-name") == key.name
    ]
    return [_uncounted(pod) for pod in pods]


def _uncounted(pod: Json) -> Write:
    left = [f for f in pod["metadata"]["finalizers"] if f != TRACKING]
    return Patch(ref_of(pod), {"metadata": {"finalizers": left or None}}, uid=pod["metadata"]["uid"])
