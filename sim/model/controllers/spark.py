"""SparkApplications, after the Spark operator: the driver first, and the executors once it runs."""

from __future__ import annotations

from collections.abc import Iterable

from gpufleet.model import quantity
from gpufleet.model.kinds import spark
from sim.model.api import DONE, Create, Delete, Event, Json, Ref, Result, View, Write, ref_of
from sim.model.base import OwnerController
from sim.model.objects import (
    POD,
    deleting,
    finished,
    integer,
    labels_of,
    number,
    owner_reference,
    phase_of,
    seconds_of,
    status_write,
    timestamp,
)

SPARK = ("sparkoperator.k8s.io/v1beta2", "SparkApplication")
APP_LABEL = "sparkoperator.k8s.io/app-name"
MINIMUM_OVERHEAD_MIB = 384
ENDED = ("COMPLETED", "FAILED")


def memory_mib(text: object) -> int:
    """Spark's memory size (`512m`, `4g`) in MiB; 0 if it is none."""
    try:
        return spark.memory(str(text)[:80]) // 2**20
    except quantity.QuantityError:
        return 0


def requests_of(spec: Json, part: Json) -> Json:
    """Requests and limits of the driver's or an executor's container, as Spark on Kubernetes computes them."""
    cpu = str(part.get("coreRequest") or part.get("cores") or part.get("coreLimit") or 1)
    memory = memory_mib(part.get("memory") or "1g")
    if part.get("memoryOverhead"):
        overhead = memory_mib(part["memoryOverhead"])
    else:
        default = 0.1 if spec.get("type", "Java") in ("Java", "Scala") else 0.4
        overhead = max(MINIMUM_OVERHEAD_MIB, int(memory * number(spec.get("memoryOverheadFactor"), default)))
    amounts = {"cpu": cpu, "memory": f"{memory + overhead}Mi"}
    limits = {"memory": amounts["memory"]}
    if part.get("coreLimit"):
        limits["cpu"] = str(part["coreLimit"])
    gpu = part.get("gpu") or {}
    if gpu.get("name") and integer(gpu.get("quantity"), 0):
        amounts[gpu["name"]] = limits[gpu["name"]] = str(integer(gpu["quantity"], 0))
    return {"requests": amounts, "limits": limits}


class SparkController(OwnerController):
    """Drives SparkApplications: SUBMITTED, RUNNING, then COMPLETED or FAILED; PENDING_RERUN in between."""

    name = "spark-operator"
    primary = SPARK
    dependents = (POD,)

    def observe(self, view: View, event: Event) -> Iterable[Ref]:
        """The application itself, or that of a driver or executor pod."""
        if event.kind == POD:
            name = labels_of(event.current).get(APP_LABEL)
            return () if not name else (Ref(*SPARK, event.current["metadata"].get("namespace", ""), name),)
        return super().observe(view, event)

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Follows the driver pod; executors are owned by it and go with it."""
        app = view.get(*key)
        if app is None or deleting(app):
            return DONE
        status = app.get("status") or {}
        state = (status.get("applicationState") or {}).get("state") or ""
        if state in ENDED:
            return _after_end(app, now)
        spec, metadata = app["spec"], app["metadata"]
        driver = view.get(*POD, metadata.get("namespace", ""), f"{metadata['name']}-driver")
        if spec.get("suspend"):
            writes = status_write(app, {"applicationState": {"state": "SUSPENDED"}, "terminationTime": None})
            return Result([*writes, *([] if driver is None or deleting(driver) else [_delete(driver)])])
        if driver is None:
            if state == "RUNNING":
                return Result(_end(app, "driver pod not found", now))
            return Result(_submit(app, now))
        if deleting(driver):
            return DONE
        phase = phase_of(driver)
        if phase == "Running":
            return Result(_run(view, app, driver))
        if phase == "Failed":
            return _failed(app, driver, now)
        if phase == "Succeeded":
            changed = {
                "applicationState": {"state": "COMPLETED"},
                "terminationTime": timestamp(now),
                "executorState": _executor_states(view, app, driver, "COMPLETED"),
            }
            executors = view.owned_by(driver["metadata"].get("uid", ""), *POD)
            return Result([*status_write(app, changed), *(_delete(p) for p in executors if not finished(p))])
        return Result(status_write(app, {"applicationState": {"state": "SUBMITTED"}}))


def _delete(pod: Json) -> Write:
    return Delete(ref_of(pod), pod["metadata"].get("uid", ""))


def _pod(app: Json, part: Json, role: str, name: str, owner: Json) -> Json:
    spec, metadata = app["spec"], app["metadata"]
    template = part.get("template") or {}
    given = template.get("metadata") or {}
    pod_spec: Json = {k: v for k, v in (template.get("spec") or {}).items() if k != "containers"}
    for field in ("tolerations", "affinity", "schedulerName", "priorityClassName", "serviceAccount"):
        if part.get(field):
            pod_spec[field] = part[field]
    selector = {**(spec.get("nodeSelector") or {}), **(part.get("nodeSelector") or {})}
    if selector:
        pod_spec["nodeSelector"] = selector
    if spec.get("batchScheduler") and not pod_spec.get("schedulerName"):
        pod_spec["schedulerName"] = spec["batchScheduler"]
    pod_spec["restartPolicy"] = "Never"
    pod_spec["containers"] = [
        {
            "name": f"spark-kubernetes-{role}",
            "image": part.get("image") or spec.get("image") or "spark",
            "resources": requests_of(spec, part),
        }
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata.get("namespace", ""),
            "labels": {
                **(given.get("labels") or {}),
                **(part.get("labels") or {}),
                "spark-role": role,
                APP_LABEL: metadata["name"],
                "sparkoperator.k8s.io/launched-by-spark-operator": "true",
            },
            "annotations": {**(given.get("annotations") or {}), **(part.get("annotations") or {})},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": pod_spec,
    }


def _submit(app: Json, now: float) -> list[Write]:
    status = app.get("status") or {}
    name = f"{app['metadata']['name']}-driver"
    changed = {
        "applicationState": {"state": "SUBMITTED"},
        "driverInfo": {"podName": name},
        "submissionAttempts": 1,
        "executionAttempts": integer(status.get("executionAttempts"), 0) + 1,
        "lastSubmissionAttemptTime": timestamp(now),
        "terminationTime": None,
        "executorState": None,
    }
    pod = _pod(app, app["spec"].get("driver") or {}, "driver", name, app)
    return [Create(pod), *status_write(app, changed)]


def _executors(spec: Json) -> int:
    count = integer((spec.get("executor") or {}).get("instances"), 1)
    dynamic = spec.get("dynamicAllocation") or {}
    if dynamic.get("enabled"):
        return max(count, integer(dynamic.get("initialExecutors"), 0), integer(dynamic.get("minExecutors"), 0))
    return count


def _run(view: View, app: Json, driver: Json) -> list[Write]:
    metadata, spec = app["metadata"], app["spec"]
    writes: list[Write] = []
    for number_ in range(1, _executors(spec) + 1):
        name = f"{metadata['name']}-exec-{number_}"
        pod = view.get(*POD, metadata.get("namespace", ""), name)
        if pod is None:
            part = spec.get("executor") or {}
            made = _pod(app, part, "executor", name, driver)
            made["metadata"]["labels"]["spark-exec-id"] = str(number_)
            writes.append(Create(made))
    changed = {"applicationState": {"state": "RUNNING"}, "executorState": _executor_states(view, app, driver, "")}
    return [*writes, *status_write(app, changed)]


def _executor_states(view: View, app: Json, driver: Json, ended: str) -> Json:
    states = {"Pending": "PENDING", "Running": "RUNNING", "Succeeded": "COMPLETED", "Failed": "FAILED"}
    found = {
        pod["metadata"]["name"]: states.get(phase_of(pod), "UNKNOWN")
        for pod in view.owned_by(driver["metadata"].get("uid", ""), *POD)
        if labels_of(pod).get(APP_LABEL) == app["metadata"]["name"]
    }
    if ended:
        found = {name: state if state == "FAILED" else ended for name, state in found.items()}
    return found


def _failed(app: Json, driver: Json, now: float) -> Result:
    """Another try where the restart policy allows it, else the end."""
    policy = app["spec"].get("restartPolicy") or {}
    attempts = integer((app.get("status") or {}).get("executionAttempts"), 1)
    retries = integer(policy.get("onFailureRetries"), 0)
    again = policy.get("type") == "Always" or (policy.get("type") == "OnFailure" and attempts <= retries)
    if not again:
        return Result(_end(app, "driver container failed", now))
    since = (app.get("status") or {}).get("terminationTime")
    ended = since or timestamp(now)
    changed: Json = {"applicationState": {"state": "PENDING_RERUN"}, "terminationTime": ended}
    retry_at = seconds_of(ended) + number(policy.get("onFailureRetryInterval"), 5)
    if now < retry_at:
        return Result(status_write(app, changed), retry_at)
    return Result([_delete(driver)])


def _end(app: Json, message: str, now: float) -> list[Write]:
    state = {"state": "FAILED", "errorMessage": message}
    return status_write(app, {"applicationState": state, "terminationTime": timestamp(now)})


def _after_end(app: Json, now: float) -> Result:
    ttl, ended = app["spec"].get("timeToLiveSeconds"), (app.get("status") or {}).get("terminationTime")
    if ttl is None or not ended:
        return DONE
    until = seconds_of(ended) + number(ttl, 0)
    return Result((), until) if now < until else Result([Delete(ref_of(app), app["metadata"].get("uid", ""))])
