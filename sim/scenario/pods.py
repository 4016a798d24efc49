"""The `pods` step: what the pods of a workload do in a cluster, as their kubelets or the cluster's scheduler say."""

from __future__ import annotations

from gpufleet.model.names import COMPONENT_LABEL
from gpufleet.wire.documents_scenario import Pods
from sim.model.api import Delete, Json, Patch, Ref, View, Write, ref_of
from sim.model.faults import Fault, Faults, add_fault, set_faults
from sim.model.objects import POD, labels_of, node_of, phase_of, timestamp, with_condition
from sim.scenario.change import own_pods
from sim.scenario.member import Member


def play(member: Member, step: Pods, now: float) -> list[str]:
    """Makes pods fail, finish, be evicted, or be unschedulable from now on; returns warnings.

    Unschedulable pods are pods that are made again and not bound; with all counts 0 they may be bound.
    """
    view, drive = member.shaped.view, member.drive
    pods = [pod for pod in own_pods(view, step.workload) if step.component in ("", labels_of(pod).get(COMPONENT_LABEL))]
    pods.sort(key=lambda pod: (not node_of(pod), pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
    running = [pod for pod in pods if phase_of(pod) == "Running"]
    wanted = step.failed + step.finished + step.evicted
    warnings = []
    if wanted > len(running) or step.unschedulable > len(pods):
        warnings.append(
            f"{step.workload} has {len(pods)} pods in {step.cluster}, {len(running)} of them running: "
            "the step concerns more than there are"
        )
    writes: list[Write] = []
    for index, pod in enumerate(running[:wanted]):
        if index < step.failed:
            writes.append(_end(pod, "Failed", 1, now))
        elif index < step.failed + step.finished:
            writes.append(_end(pod, "Succeeded", 0, now))
        else:
            writes.append(_evict(pod, now))
    drive.apply(writes, now)
    if step.unschedulable:
        victims = list(reversed(pods))[: step.unschedulable]
        drive.apply(_withhold(view, step.workload, len(victims)), now)
        drive.apply([Delete(ref_of(p), p["metadata"]["uid"], grace_seconds=0) for p in victims], now)
        member.withheld[step.workload] = len(victims)
    elif not wanted:
        drive.apply(_withhold(view, step.workload, 0), now)
        member.withheld.pop(step.workload, None)
    return warnings


def release(member: Member, now: float) -> bool:
    """Withholds no more pods than are waiting: those that were moved elsewhere count no more; whether that changed."""
    changed = False
    for workload, count in sorted(member.withheld.items()):
        waiting = sum(1 for pod in own_pods(member.shaped.view, workload) if not node_of(pod))
        if waiting < count:
            member.drive.apply(_withhold(member.shaped.view, workload, waiting), now)
            member.withheld[workload] = waiting
            if not waiting:
                del member.withheld[workload]
            changed = True
    return changed


def _withhold(view: View, workload: str, count: int) -> list[Write]:
    if count:
        return add_fault(view, Fault(workload=workload, unschedulable=count))
    kept = tuple(f for f in Faults.of(view).faults if not (f.workload == workload and f.unschedulable))
    return set_faults(view, Faults(kept))


def _end(pod: Json, phase: str, exit_code: int, now: float) -> Write:
    """The pod ends, whatever its restart policy is."""
    ended = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "finishedAt": timestamp(now)}
    statuses = [
        {**status, "ready": False, "started": False, "state": {"terminated": ended}}
        for status in pod["status"].get("containerStatuses") or ()
    ]
    why = "PodFailed" if exit_code else "PodCompleted"
    conditions = with_condition(pod["status"].get("conditions") or (), "Ready", "False", why, "", now)
    return _status(pod, {"phase": phase, "containerStatuses": statuses, "conditions": conditions})


def _evict(pod: Json, now: float) -> Write:
    """The node takes the pod away, which is not the pod's fault."""
    message = "The node was low on resource: memory."
    conditions = with_condition(
        pod["status"].get("conditions") or (), "DisruptionTarget", "True", "TerminationByKubelet", message, now
    )
    conditions = with_condition(conditions, "Ready", "False", "PodFailed", "", now)
    return _status(pod, {"phase": "Failed", "reason": "Evicted", "message": message, "conditions": conditions})


def _status(pod: Json, status: Json) -> Write:
    metadata = pod["metadata"]
    return Patch(Ref(*POD, metadata["namespace"], metadata["name"]), {"status": status}, "status", uid=metadata["uid"])
