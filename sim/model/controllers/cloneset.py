"""OpenKruise CloneSets: like a ReplicaSet, with updates that replace pods a few at a time."""

from __future__ import annotations

import math

from sim.model.api import DONE, Delete, Json, Ref, Result, View, ref_of
from sim.model.base import OwnerController
from sim.model.controllers.podsets import availability, resize, scale_down_order
from sim.model.objects import POD, active, controlled_by, deleting, digest, integer, labels_of, number, status_write

CLONE_SET = ("apps.kruise.io/v1alpha1", "CloneSet")
REVISION_LABEL = "controller-revision-hash"


class CloneSetController(OwnerController):
    """Drives CloneSets: `replicas`, `updateStrategy` with `partition`, `maxUnavailable` and `paused`."""

    name = "cloneset-controller"
    primary = CLONE_SET
    dependents = (POD,)

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Resizes, and where the size is right replaces pods of old revisions."""
        owner = view.get(*key)
        if owner is None or deleting(owner):
            return DONE
        spec = owner["spec"]
        template = spec.get("template") or {}
        replicas = integer(spec.get("replicas"), 1)
        revision = f"{owner['metadata']['name']}-{digest(template)}"
        pods = [pod for pod in controlled_by(view, owner, POD) if active(pod)]
        counted = availability(pods, number(spec.get("minReadySeconds"), 0), now)
        updated = [pod for pod in pods if labels_of(pod).get(REVISION_LABEL) == revision]
        writes = resize(view, owner, pods, replicas, template, labels={REVISION_LABEL: revision})
        if not writes:
            surplus = _replaceable(spec, pods, updated, replicas, counted.available)
            writes = [Delete(ref_of(pod), pod["metadata"].get("uid", "")) for pod in surplus]
        ready_updated = availability(updated, number(spec.get("minReadySeconds"), 0), now)
        writes += status_write(
            owner,
            {
                "observedGeneration": owner["metadata"].get("generation"),
                "replicas": len(pods),
                "readyReplicas": counted.ready,
                "availableReplicas": counted.available,
                "updatedReplicas": len(updated),
                "updatedReadyReplicas": ready_updated.ready,
                "expectedUpdatedReplicas": replicas - _partition(spec, replicas),
                "updateRevision": revision,
                "currentRevision": revision,
            },
        )
        return Result(writes, counted.next_at)


def _partition(spec: Json, replicas: int) -> int:
    value = (spec.get("updateStrategy") or {}).get("partition", 0)
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(integer(value[:-1], 0) * replicas / 100)
    return min(replicas, max(0, integer(value, 0)))


def _replaceable(spec: Json, pods: list[Json], updated: list[Json], replicas: int, available: int) -> list[Json]:
    strategy = spec.get("updateStrategy") or {}
    missing = replicas - _partition(spec, replicas) - len(updated)
    if strategy.get("paused") or missing <= 0:
        return []
    value = strategy.get("maxUnavailable", "20%")
    if isinstance(value, str) and value.endswith("%"):
        allowed = max(1, math.ceil(integer(value[:-1], 20) * replicas / 100))
    else:
        allowed = max(1, integer(value, 1))
    known = {pod["metadata"]["name"] for pod in updated}
    old = scale_down_order([pod for pod in pods if pod["metadata"]["name"] not in known])
    return old[: max(0, min(missing, allowed - (replicas - available)))]
