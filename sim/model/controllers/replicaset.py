"""ReplicaSets: as many active pods as asked for."""

from __future__ import annotations

from sim.model.api import DONE, Ref, Result, View
from sim.model.base import OwnerController
from sim.model.controllers.podsets import availability, resize
from sim.model.objects import POD, active, controlled_by, deleting, integer, labels_of, number, status_write

REPLICA_SET = ("apps/v1", "ReplicaSet")


class ReplicaSetController(OwnerController):
    """Makes and deletes the pods of a ReplicaSet and counts them in its status."""

    name = "replicaset-controller"
    primary = REPLICA_SET
    dependents = (POD,)

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Resizes to `spec.replicas`; the status counts the pods as they are before that."""
        owner = view.get(*key)
        if owner is None or deleting(owner):
            return DONE
        spec = owner["spec"]
        pods = [pod for pod in controlled_by(view, owner, POD) if active(pod)]
        writes = resize(view, owner, pods, integer(spec.get("replicas"), 1), spec.get("template") or {})
        counted = availability(pods, number(spec.get("minReadySeconds"), 0), now)
        wanted_labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
        labeled = sum(wanted_labels.items() <= labels_of(pod).items() for pod in pods)
        writes += status_write(
            owner,
            {
                "replicas": len(pods),
                "fullyLabeledReplicas": labeled or None,
                "readyReplicas": counted.ready or None,
                "availableReplicas": counted.available or None,
                "observedGeneration": owner["metadata"].get("generation"),
            },
        )
        return Result(writes, counted.next_at)
