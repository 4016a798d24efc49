"""Deployments: a ReplicaSet for each pod template, and the rolling update from one to the next.

After kube-controller-manager's deployment controller (`pkg/controller/deployment`), without proportional scaling:
a Deployment that is resized in the middle of an update grows in its new ReplicaSet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sim.model.api import DONE, Create, Delete, Event, Json, Patch, Ref, Result, View, Write, ref_of
from sim.model.base import OwnerController
from sim.model.controllers.replicaset import REPLICA_SET
from sim.model.objects import (
    POD,
    annotations_of,
    condition,
    controlled_by,
    deleting,
    digest,
    finished,
    integer,
    labels_of,
    owner_ref,
    owner_reference,
    seconds_of,
    status_write,
    timestamp,
    with_condition,
)

DEPLOYMENT = ("apps/v1", "Deployment")
HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"


def resolve_bounds(strategy: Json, replicas: int) -> tuple[int, int]:
    """maxSurge and maxUnavailable as numbers of pods: percentages round up and down, never both 0."""
    rolling = strategy.get("rollingUpdate") or {}
    surge = _portion(rolling.get("maxSurge", "25%"), replicas, math.ceil)
    unavailable = _portion(rolling.get("maxUnavailable", "25%"), replicas, math.floor)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def _portion(value: Any, total: int, rounding: Any) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return max(0, int(rounding(integer(value[:-1], 0) * total / 100)))
    return max(0, integer(value, 0))


def _size(replica_set: Json) -> int:
    return integer(replica_set["spec"].get("replicas"), 1)


def _counted(replica_set: Json, name: str) -> int:
    return integer((replica_set.get("status") or {}).get(name), 0)


def _revision(replica_set: Json) -> int:
    return integer(annotations_of(replica_set).get(REVISION), 0)


def _settled(replica_set: Json) -> bool:
    """Whether its status speaks of its present size."""
    seen = integer((replica_set.get("status") or {}).get("observedGeneration"), 0)
    return seen >= integer(replica_set["metadata"].get("generation"), 0)


@dataclass(frozen=True, slots=True)
class _Rollout:
    """A Deployment with its ReplicaSets: the one of the present template, and the others, oldest first.

    `code` names the template.
    """

    deployment: Json
    code: str
    replicas: int
    surge: int
    unavailable: int
    recreate: bool
    new: Json | None
    old: Sequence[Json]

    @property
    def all(self) -> list[Json]:
        return [*self.old, *([self.new] if self.new is not None else [])]


class DeploymentController(OwnerController):
    """Drives Deployments."""

    name = "deployment-controller"
    primary = DEPLOYMENT
    dependents = (REPLICA_SET, POD)

    def observe(self, view: View, event: Event) -> Iterable[Ref]:
        """As usual; a pod that is gone may be what a Deployment with the strategy Recreate waits for."""
        if event.kind != POD:
            return super().observe(view, event)
        owner = owner_ref(event.current, REPLICA_SET) if event.obj is None else None
        replica_set = None if owner is None else view.get(*owner)
        found = None if replica_set is None else owner_ref(replica_set, DEPLOYMENT)
        return () if found is None else (found,)

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """One step: the next sizes of the ReplicaSets, and the status."""
        deployment = view.get(*key)
        if deployment is None or deleting(deployment):
            return DONE
        rollout = _rollout(view, deployment)
        writes: list[Write] = []
        if rollout.new is None:
            writes += _create(view, rollout)
        elif rollout.recreate:
            writes += _resize_all(rollout, dict.fromkeys(range(len(rollout.old)), 0), rollout.replicas)
        else:
            writes += _roll(rollout)
        writes += _revise(rollout)
        writes += _forget(rollout)
        status, wake_at = _status(rollout, now)
        writes += status_write(deployment, status)
        return Result(writes, wake_at)


def _rollout(view: View, deployment: Json) -> _Rollout:
    spec = deployment["spec"]
    replicas = integer(spec.get("replicas"), 1)
    strategy = spec.get("strategy") or {}
    surge, unavailable = resolve_bounds(strategy, replicas)
    wanted = digest(spec.get("template") or {})
    sets = sorted(controlled_by(view, deployment, REPLICA_SET), key=lambda rs: (_revision(rs), rs["metadata"]["name"]))
    sets = [rs for rs in sets if not deleting(rs)]
    new = next((rs for rs in sets if labels_of(rs).get(HASH_LABEL) == wanted), None)
    old = [rs for rs in sets if rs is not new]
    return _Rollout(deployment, wanted, replicas, surge, unavailable, strategy.get("type") == "Recreate", new, old)


def _create(view: View, rollout: _Rollout) -> list[Write]:
    deployment, spec = rollout.deployment, rollout.deployment["spec"]
    if rollout.recreate:
        downs = _resize_all(rollout, dict.fromkeys(range(len(rollout.old)), 0), 0)
        remaining = any(not finished(pod) for rs in rollout.old for pod in controlled_by(view, rs, POD))
        if downs or remaining:
            return downs
        size = rollout.replicas
    elif spec.get("paused") and rollout.old:
        return []
    else:
        size = min(rollout.replicas, max(0, rollout.replicas + rollout.surge - sum(map(_size, rollout.old))))
    template = spec.get("template") or {}
    code = rollout.code
    metadata = deployment["metadata"]
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: code}
    selector = spec.get("selector") or {}
    revision = max((_revision(rs) for rs in rollout.old), default=0) + 1
    made: Json = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{metadata['name']}-{code}",
            "namespace": metadata.get("namespace", ""),
            "labels": labels,
            "annotations": {**_marks(rollout), REVISION: str(revision)},
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "replicas": size,
            "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: code}},
            "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
        },
    }
    if spec.get("minReadySeconds"):
        made["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return [Create(made)]


def _marks(rollout: _Rollout) -> Json:
    return {DESIRED: str(rollout.replicas), MAXIMUM: str(rollout.replicas + rollout.surge)}


def _resize_all(rollout: _Rollout, old_sizes: dict[int, int], new_size: int) -> list[Write]:
    """Patches of the ReplicaSets whose size changes; `old_sizes` by index in `rollout.old`."""
    wanted = [(rs, old_sizes.get(index, _size(rs))) for index, rs in enumerate(rollout.old)]
    if rollout.new is not None:
        wanted.append((rollout.new, new_size))
    return [
        Patch(
            ref_of(rs),
            {"spec": {"replicas": size}, "metadata": {"annotations": _marks(rollout)}},
            uid=rs["metadata"].get("uid", ""),
        )
        for rs, size in wanted
        if size != _size(rs)
    ]


def _roll(rollout: _Rollout) -> list[Write]:
    """The next step of a rolling update: grow the new ReplicaSet, then shrink the old ones."""
    new = rollout.new
    if new is None:
        return []
    old_total = sum(map(_size, rollout.old))
    if rollout.deployment["spec"].get("paused"):
        return _resize_all(rollout, {}, rollout.replicas) if old_total == 0 else []
    size = _size(new)
    if size > rollout.replicas:
        new_size = rollout.replicas
    else:
        room = rollout.replicas + rollout.surge - old_total - size
        new_size = size + max(0, min(room, rollout.replicas - size))
    if new_size != size:
        return _resize_all(rollout, {}, new_size)
    if old_total == 0 or not all(map(_settled, rollout.all)):
        return []
    return _resize_all(rollout, _shrunk(rollout, new), new_size)


def _shrunk(rollout: _Rollout, new: Json) -> dict[int, int]:
    """Sizes of the old ReplicaSets: pods that are not available go first, then as many as availability allows."""
    sizes = {index: _size(rs) for index, rs in enumerate(rollout.old)}
    minimum = rollout.replicas - rollout.unavailable
    new_missing = _size(new) - _counted(new, "availableReplicas")
    budget = sum(sizes.values()) + _size(new) - minimum - new_missing
    for index, rs in enumerate(rollout.old):
        step = max(0, min(budget, sizes[index] - _counted(rs, "availableReplicas")))
        sizes[index] -= step
        budget -= step
    spare = sum(_counted(rs, "availableReplicas") for rs in rollout.all) - minimum
    for index, rs in enumerate(rollout.old):
        step = max(0, min(spare, budget, sizes[index], _counted(rs, "availableReplicas")))
        sizes[index] -= step
        budget -= step
        spare -= step
    return sizes


def _revise(rollout: _Rollout) -> list[Write]:
    """Revision annotations: the ReplicaSet in use has the highest, and the Deployment shows it."""
    if rollout.new is None:
        return []
    writes: list[Write] = []
    revision = _revision(rollout.new)
    highest = max((_revision(rs) for rs in rollout.old), default=0)
    if revision <= highest:
        revision = highest + 1
        writes.append(Patch(ref_of(rollout.new), {"metadata": {"annotations": {REVISION: str(revision)}}}))
    if annotations_of(rollout.deployment).get(REVISION) != str(revision):
        writes.append(Patch(ref_of(rollout.deployment), {"metadata": {"annotations": {REVISION: str(revision)}}}))
    return writes


def _forget(rollout: _Rollout) -> list[Write]:
    """Deletes empty ReplicaSets beyond the history limit, oldest first."""
    limit = integer(rollout.deployment["spec"].get("revisionHistoryLimit"), 10)
    empty = [rs for rs in rollout.old if _size(rs) == 0 and _counted(rs, "replicas") == 0 and _settled(rs)]
    surplus = max(0, len(rollout.old) - limit)
    return [Delete(ref_of(rs), rs["metadata"].get("uid", "")) for rs in empty[:surplus]]


def _status(rollout: _Rollout, now: float) -> tuple[Json, float | None]:
    """The status fields, and when the progress deadline is to be looked at."""
    deployment, known = rollout.deployment, rollout.deployment.get("status") or {}
    total = sum(_counted(rs, "replicas") for rs in rollout.all)
    updated = _counted(rollout.new, "replicas") if rollout.new is not None else 0
    ready = sum(_counted(rs, "readyReplicas") for rs in rollout.all)
    available = sum(_counted(rs, "availableReplicas") for rs in rollout.all)
    missing = max(0, sum(map(_size, rollout.all)) - available)
    conditions: list[Json] = list(known.get("conditions") or ())
    if available >= rollout.replicas - rollout.unavailable:
        message = "Deployment has minimum availability."
        conditions = _set(conditions, "Available", "True", "MinimumReplicasAvailable", message, now)
    else:
        message = "Deployment does not have minimum availability."
        conditions = _set(conditions, "Available", "False", "MinimumReplicasUnavailable", message, now)
    complete = (
        rollout.new is not None
        and updated == rollout.replicas == total == available
        and _settled(rollout.new)
        and _size(rollout.new) == rollout.replicas
    )
    moved = updated > integer(known.get("updatedReplicas"), 0) or available > integer(known.get("availableReplicas"), 0)
    conditions, wake_at = _progress(rollout, conditions, complete, moved, now)
    return {
        "observedGeneration": deployment["metadata"].get("generation"),
        "replicas": total or None,
        "updatedReplicas": updated or None,
        "readyReplicas": ready or None,
        "availableReplicas": available or None,
        "unavailableReplicas": missing or None,
        "conditions": conditions,
    }, wake_at


def _progress(
    rollout: _Rollout, conditions: list[Json], complete: bool, moved: bool, now: float
) -> tuple[list[Json], float | None]:
    name = rollout.deployment["metadata"]["name"]
    new_name = f"{name}-{rollout.code}"
    deadline = integer(rollout.deployment["spec"].get("progressDeadlineSeconds"), 600)
    known = condition({"status": {"conditions": conditions}}, "Progressing")
    if complete:
        message = f'ReplicaSet "{new_name}" has successfully progressed.'
        return _set(conditions, "Progressing", "True", "NewReplicaSetAvailable", message, now), None
    fresh = known is None or known.get("reason") == "NewReplicaSetAvailable"
    if fresh or moved:
        reason, message = "ReplicaSetUpdated", f'ReplicaSet "{new_name}" is progressing.'
        if known is None:
            reason, message = "NewReplicaSetCreated", f'Created new replica set "{new_name}"'
        done = _set(conditions, "Progressing", "True", reason, message, now, refresh=True)
        return done, seconds_of(timestamp(now)) + deadline
    since = seconds_of((known or {}).get("lastUpdateTime") or timestamp(now))
    if (known or {}).get("reason") == "ProgressDeadlineExceeded" or rollout.deployment["spec"].get("paused"):
        return conditions, None
    if now >= since + deadline:
        message = f'ReplicaSet "{new_name}" has timed out progressing.'
        return _set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", message, now, refresh=True), None
    return conditions, since + deadline


def _set(
    conditions: list[Json], kind: str, status: str, reason: str, message: str, now: float, *, refresh: bool = False
) -> list[Json]:
    """Sets a condition with its lastUpdateTime, which moves when the condition changes or on `refresh`."""
    known = condition({"status": {"conditions": conditions}}, kind)
    same = known is not None and (known["status"], known["reason"], known["message"]) == (status, reason, message)
    if same and not refresh:
        return conditions
    return with_condition(conditions, kind, status, reason, message, now, lastUpdateTime=timestamp(now))
