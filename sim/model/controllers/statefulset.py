"""StatefulSets: pods with ordinals, made in order and removed in reverse order; no volumes."""

from __future__ import annotations

from sim.model.api import DONE, Create, Delete, Json, Ref, Result, View, Write, ref_of
from sim.model.base import OwnerController
from sim.model.controllers.podsets import availability
from sim.model.objects import (
    POD,
    controlled_by,
    deleting,
    digest,
    finished,
    integer,
    labels_of,
    number,
    pod_from,
    ready,
    status_write,
)

STATEFUL_SET = ("apps/v1", "StatefulSet")
REVISION_LABEL = "controller-revision-hash"


class StatefulSetController(OwnerController):
    """Drives StatefulSets with the update strategies RollingUpdate (with a partition) and OnDelete."""

    name = "statefulset-controller"
    primary = STATEFUL_SET
    dependents = (POD,)

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """The next pod to make, replace or remove; OrderedReady waits for each to be Ready, Parallel does not."""
        owner = view.get(*key)
        if owner is None or deleting(owner):
            return DONE
        spec, status = owner["spec"], owner.get("status") or {}
        name = owner["metadata"]["name"]
        replicas = integer(spec.get("replicas"), 1)
        start = integer((spec.get("ordinals") or {}).get("start"), 0)
        update_revision = f"{name}-{digest(spec.get('template') or {})}"
        current_revision = status.get("currentRevision") or update_revision
        pods = {_ordinal(pod, name): pod for pod in controlled_by(view, owner, POD)}
        pods.pop(-1, None)

        writes = _next_writes(owner, pods, start, replicas, update_revision)
        live = [pod for ordinal, pod in sorted(pods.items()) if not finished(pod)]
        counted = availability([p for p in live if not deleting(p)], number(spec.get("minReadySeconds"), 0), now)
        updated = sum(labels_of(pod).get(REVISION_LABEL) == update_revision for pod in live)
        if updated == len(live) == replicas == counted.ready:
            current_revision = update_revision
        writes += status_write(
            owner,
            {
                "observedGeneration": owner["metadata"].get("generation"),
                "replicas": len(live),
                "readyReplicas": counted.ready or None,
                "availableReplicas": counted.available,
                "currentReplicas": sum(labels_of(p).get(REVISION_LABEL) == current_revision for p in live) or None,
                "updatedReplicas": updated or None,
                "currentRevision": current_revision,
                "updateRevision": update_revision,
                "collisionCount": 0,
            },
        )
        return Result(writes, counted.next_at)


def _ordinal(pod: Json, name: str) -> int:
    base, _, tail = pod["metadata"]["name"].rpartition("-")
    return int(tail) if base == name and tail.isdigit() else -1


def _pod(owner: Json, ordinal: int, revision: str) -> Json:
    name = f"{owner['metadata']['name']}-{ordinal}"
    labels = {
        REVISION_LABEL: revision,
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": str(ordinal),
    }
    pod = pod_from(owner["spec"].get("template") or {}, owner, name, labels=labels)
    pod["spec"] = {**pod["spec"], "hostname": name, "subdomain": owner["spec"].get("serviceName", "")}
    return pod


def _delete(pod: Json) -> Write:
    return Delete(ref_of(pod), pod["metadata"].get("uid", ""))


def _next_writes(owner: Json, pods: dict[int, Json], start: int, replicas: int, revision: str) -> list[Write]:
    parallel = owner["spec"].get("podManagementPolicy") == "Parallel"
    writes: list[Write] = []
    for ordinal in range(start, start + replicas):
        pod = pods.get(ordinal)
        if pod is None:
            writes.append(Create(_pod(owner, ordinal, revision)))
        elif finished(pod) and not deleting(pod):
            writes.append(_delete(pod))
        elif ready(pod) and not deleting(pod):
            continue
        if not parallel:
            return writes  # the ones behind it wait for this one
    surplus = sorted((o for o in pods if not start <= o < start + replicas), reverse=True)
    for ordinal in surplus:
        if not deleting(pods[ordinal]):
            writes.append(_delete(pods[ordinal]))
        if not parallel:
            return writes
    if writes or surplus:
        return writes
    return _replace_next(owner, pods, start, replicas, revision)


def _replace_next(owner: Json, pods: dict[int, Json], start: int, replicas: int, revision: str) -> list[Write]:
    """Deletes the highest pod of an old revision, once every pod above it is Ready."""
    strategy = owner["spec"].get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return []
    partition = integer((strategy.get("rollingUpdate") or {}).get("partition"), 0)
    for ordinal in reversed(range(max(start, partition), start + replicas)):
        pod = pods.get(ordinal)
        if pod is None or deleting(pod):
            return []
        if labels_of(pod).get(REVISION_LABEL) != revision:
            return [_delete(pod)]
        if not ready(pod):
            return []
    return []
