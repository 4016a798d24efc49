"""What controllers of equal pods share: which pods go first on scale-down, and how many are available."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sim.model.api import Create, Delete, Json, View, Write, ref_of
from sim.model.objects import (
    POD,
    annotations_of,
    condition,
    free_names,
    integer,
    node_of,
    phase_of,
    pod_from,
    ready,
    seconds_of,
)

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}


class Availability(NamedTuple):
    """How many pods are ready, how many are available, and when the next of the ready ones becomes available."""

    ready: int
    available: int
    next_at: float | None


def availability(pods: Iterable[Json], min_ready_seconds: float, now: float) -> Availability:
    """Counts pods that are Ready, and those that have been for `min_ready_seconds`."""
    ready_count = available = 0
    next_at: float | None = None
    for pod in pods:
        found = condition(pod, "Ready")
        if found is None or found.get("status") != "True":
            continue
        ready_count += 1
        since = seconds_of(found.get("lastTransitionTime") or "1970-01-01T00:00:00Z")
        if min_ready_seconds <= 0 or since + min_ready_seconds <= now:
            available += 1
        else:
            next_at = min(next_at or since + min_ready_seconds, since + min_ready_seconds)
    return Availability(ready_count, available, next_at)


def scale_down_order(pods: Sequence[Json]) -> list[Json]:
    """Pods in the order in which a ReplicaSet deletes them (kube-controller-manager's ActivePodsWithRanks)."""
    on_node = Counter(node_of(pod) for pod in pods if node_of(pod))

    def rank(pod: Json) -> tuple[Any, ...]:
        is_ready = ready(pod)
        since = (condition(pod, "Ready") or {}).get("lastTransitionTime") or ""
        restarts = max(
            (integer(c.get("restartCount"), 0) for c in (pod.get("status") or {}).get("containerStatuses") or ()),
            default=0,
        )
        return (
            bool(node_of(pod)),
            _PHASE_ORDER.get(phase_of(pod), 2),
            is_ready,
            integer(annotations_of(pod).get(DELETION_COST), 0),
            -on_node[node_of(pod)] if node_of(pod) else 0,
            -seconds_of(since) if is_ready and since else 0.0,
            -restarts,
            -seconds_of(pod["metadata"].get("creationTimestamp") or "1970-01-01T00:00:00Z"),
            pod["metadata"]["name"],
        )

    return sorted(pods, key=rank)


def resize(
    view: View, owner: Json, pods: Sequence[Json], wanted: int, template: Mapping[str, Any], **metadata: Any
) -> list[Write]:
    """The writes that make `wanted` active pods of `pods` (the active ones)."""
    namespace = owner["metadata"].get("namespace", "")
    if len(pods) < wanted:
        names = free_names(
            owner["metadata"]["name"],
            owner["metadata"].get("uid", ""),
            lambda name: view.get(*POD, namespace, name) is not None,
            wanted - len(pods),
        )
        return [Create(pod_from(template, owner, name, **metadata)) for name in names]
    surplus = scale_down_order(pods)[: len(pods) - wanted]
    return [Delete(ref_of(pod), pod["metadata"].get("uid", "")) for pod in surplus]
