"""The life of a pod on its node: start, become ready, end, start again, stop.

All of it is a function of the pod, of what its annotations and faults ask for, and of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from sim.model.api import DONE, Delete, Json, Result, Write, ref_of
from sim.model.faults import Fault
from sim.model.names import EXIT_CODE, IMAGE_PULL_ERROR, READY_AFTER, RUN_SECONDS, STOP_SECONDS
from sim.model.objects import (
    annotations_of,
    condition_true,
    finished,
    integer,
    number,
    phase_of,
    seconds_of,
    status_write,
    timestamp,
    with_condition,
)

FIRST_CRASH_BACKOFF, LAST_CRASH_BACKOFF = 10.0, 300.0
KILLED = 137


@dataclass(frozen=True, slots=True)
class Plan:
    """How a pod is to live: seconds, exit code, and the message of an image that cannot be pulled.

    `run_seconds` None: the containers never end by themselves.
    """

    ready_after: float = 0.0
    run_seconds: float | None = None
    exit_code: int = 0
    image_pull_error: str = ""
    stop_seconds: float = 0.0


def plan_of(pod: Mapping[str, Any], fault: Fault | None, ready_after: float, stop_seconds: float) -> Plan:
    """The plan of a pod: its annotations over the kubelet's defaults, a fault over both."""
    notes = annotations_of(pod)
    run_seconds = None if notes.get(RUN_SECONDS) is None else number(notes[RUN_SECONDS], 0)
    exit_code = integer(notes.get(EXIT_CODE), 0)
    pull_error = notes.get(IMAGE_PULL_ERROR, "")
    if fault is not None:
        run_seconds = run_seconds if fault.run_seconds is None else fault.run_seconds
        exit_code = exit_code if fault.exit_code is None else fault.exit_code
        pull_error = fault.image_pull_error or pull_error
    return Plan(
        ready_after=number(notes.get(READY_AFTER), ready_after),
        run_seconds=run_seconds,
        exit_code=exit_code,
        image_pull_error=pull_error,
        stop_seconds=number(notes.get(STOP_SECONDS), stop_seconds),
    )


def stop(pod: Json, plan: Plan, since: float, now: float) -> Result:
    """Stops a pod that is being deleted, `since` when its kubelet knows."""
    grace = number(pod["metadata"].get("deletionGracePeriodSeconds"), 30)
    until = since + min(plan.stop_seconds, grace)
    if now < until:
        return Result((), until)
    writes: list[Write] = []
    if pod["metadata"].get("finalizers") and not finished(pod):
        # Somebody counts on hearing how it ended.
        ended = _ended(pod, KILLED, "Error", now)
        writes += status_write(pod, {**ended, "phase": "Failed"})
    return Result([*writes, Delete(ref_of(pod), pod["metadata"]["uid"], grace_seconds=0)])


def live(pod: Json, plan: Plan, since: float, now: float, *, finish_only: bool = False) -> Result:
    """The next step of a pod that is bound to a node which is up; `since` is when the kubelet first saw it.

    With `finish_only` somebody else starts pods and makes them ready, and only their end is played.
    """
    if finished(pod):
        return DONE
    if plan.image_pull_error and not _started_at(pod):
        return DONE if finish_only else Result(_waiting(pod, "ImagePullBackOff", plan.image_pull_error, now))
    running = _state(pod, "running")
    if running is not None:
        result = _run_on(pod, plan, seconds_of(running["startedAt"]), now)
        if result.writes or finish_only or condition_true(pod, "Ready"):
            return result
        # Its node was away, and whoever noticed has marked the pod.
        return Result(status_write(pod, {"conditions": _conditions(pod, True, "", "", now)}), result.wake_at)
    if finish_only:
        return DONE
    if phase_of(pod) == "Running":
        return _start_again(pod, now)
    if now < since + plan.ready_after:
        return Result(_waiting(pod, "ContainerCreating", "", now), since + plan.ready_after)
    return Result(_running(pod, now, 0))


def hold(pod: Json, reason: str, message: str, now: float) -> list[Write]:
    """Keeps a pod Pending on its node, and says why."""
    return _waiting(pod, reason, message, now, started=False)


def _containers(pod: Json) -> list[Json]:
    return pod["spec"].get("containers") or [{"name": "main"}]


def _statuses(pod: Json) -> list[Json]:
    return (pod.get("status") or {}).get("containerStatuses") or []


def _state(pod: Json, name: str) -> Json | None:
    statuses = _statuses(pod)
    return (statuses[0].get("state") or {}).get(name) if statuses else None


def _started_at(pod: Json) -> str:
    return (_state(pod, "running") or {}).get("startedAt") or ""


def _restarts(pod: Json) -> int:
    statuses = _statuses(pod)
    return integer(statuses[0].get("restartCount"), 0) if statuses else 0


def _container_statuses(
    pod: Json, state: Json, *, is_ready: bool, restarts: int, last: Json | None = None
) -> list[Json]:
    return [
        {
            "name": container.get("name", "main"),
            "image": container.get("image", ""),
            "imageID": "",
            "state": state,
            "lastState": last or {},
            "ready": is_ready,
            "started": is_ready,
            "restartCount": restarts,
        }
        for container in _containers(pod)
    ]


def _conditions(pod: Json, is_ready: bool, reason: str, message: str, now: float) -> list[Json]:
    conditions: list[Json] = list((pod.get("status") or {}).get("conditions") or ())
    conditions = _set(conditions, "Initialized", "True", "", "", now)
    for kind in ("Ready", "ContainersReady"):
        status = "True" if is_ready else "False"
        conditions = _set(conditions, kind, status, "" if is_ready else reason, "" if is_ready else message, now)
    return conditions


def _set(conditions: list[Json], kind: str, status: str, reason: str, message: str, now: float) -> list[Json]:
    """As `with_condition`; empty reason and message are left out, as a kubelet does."""
    found = with_condition(conditions, kind, status, reason, message, now)
    return [
        {k: v for k, v in entry.items() if v or k not in ("reason", "message")} if entry["type"] == kind else entry
        for entry in found
    ]


def _addresses(pod: Json) -> Json:
    code = blake2b(pod["metadata"]["uid"].encode(), digest_size=3).digest()
    ip = f"10.{code[0]}.{code[1]}.{code[2]}"
    host = blake2b(pod["spec"].get("nodeName", "").encode(), digest_size=2).digest()
    return {"podIP": ip, "podIPs": [{"ip": ip}], "hostIP": f"172.16.{host[0]}.{host[1]}"}


def _waiting(pod: Json, reason: str, message: str, now: float, *, started: bool = True) -> list[Write]:
    waiting: Json = {"reason": reason, **({"message": message} if message else {})}
    names = ", ".join(str(container.get("name", "main")) for container in _containers(pod))
    text = message or f"containers with unready status: [{names}]"
    status: Json = {
        "phase": "Pending",
        "containerStatuses": _container_statuses(pod, {"waiting": waiting}, is_ready=False, restarts=0),
        "conditions": _conditions(pod, False, "ContainersNotReady", text, now),
    }
    if started:
        status["startTime"] = (pod.get("status") or {}).get("startTime") or timestamp(now)
    return status_write(pod, status)


def _running(pod: Json, now: float, restarts: int, last: Json | None = None) -> list[Write]:
    state = {"running": {"startedAt": timestamp(now)}}
    return status_write(
        pod,
        {
            "phase": "Running",
            "startTime": (pod.get("status") or {}).get("startTime") or timestamp(now),
            "containerStatuses": _container_statuses(pod, state, is_ready=True, restarts=restarts, last=last),
            "conditions": _conditions(pod, True, "", "", now),
            **_addresses(pod),
        },
    )


def _run_on(pod: Json, plan: Plan, started: float, now: float) -> Result:
    if plan.run_seconds is None:
        return DONE
    until = started + plan.run_seconds
    if now < until:
        return Result((), until)
    policy = pod["spec"].get("restartPolicy") or "Always"
    reason = "Completed" if plan.exit_code == 0 else "Error"
    if policy == "Never" or (policy == "OnFailure" and plan.exit_code == 0):
        phase = "Succeeded" if plan.exit_code == 0 else "Failed"
        return Result(status_write(pod, {**_ended(pod, plan.exit_code, reason, now), "phase": phase}))
    return _crashed(pod, plan.exit_code, reason, now)


def _terminated(pod: Json, exit_code: int, reason: str, now: float) -> Json:
    started = _started_at(pod) or timestamp(now)
    return {"exitCode": exit_code, "reason": reason, "startedAt": started, "finishedAt": timestamp(now)}


def _ended(pod: Json, exit_code: int, reason: str, now: float) -> Json:
    ended = {"terminated": _terminated(pod, exit_code, reason, now)}
    why = "PodCompleted" if exit_code == 0 else "PodFailed"
    return {
        "containerStatuses": _container_statuses(pod, ended, is_ready=False, restarts=_restarts(pod)),
        "conditions": _conditions(pod, False, why, "", now),
    }


def _crashed(pod: Json, exit_code: int, reason: str, now: float) -> Result:
    """The container starts again: at once the first time, then after a growing pause."""
    restarts = _restarts(pod)
    last = {"terminated": _terminated(pod, exit_code, reason, now)}
    if restarts == 0:
        return Result(_running(pod, now, 1, last))
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off {_pause(restarts):.0f}s restarting"}}
    names = ", ".join(str(container.get("name", "main")) for container in _containers(pod))
    text = f"containers with unready status: [{names}]"
    status = {
        "containerStatuses": _container_statuses(pod, waiting, is_ready=False, restarts=restarts, last=last),
        "conditions": _conditions(pod, False, "ContainersNotReady", text, now),
    }
    return Result(status_write(pod, status), now + _pause(restarts))


def _pause(restarts: int) -> float:
    return min(LAST_CRASH_BACKOFF, FIRST_CRASH_BACKOFF * float(2 ** min(restarts - 1, 8)))


def _start_again(pod: Json, now: float) -> Result:
    """Ends the pause of a container that has crashed."""
    statuses = _statuses(pod)
    last = (statuses[0].get("lastState") or {}) if statuses else {}
    ended = (last.get("terminated") or {}).get("finishedAt")
    restarts = _restarts(pod)
    until = seconds_of(ended) + _pause(max(1, restarts)) if ended else now
    return Result((), until) if now < until else Result(_running(pod, now, restarts + 1, last))
