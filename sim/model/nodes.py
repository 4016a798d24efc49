"""Node controllers: conditions, taints of nodes that have failed, eviction, and the pods of nodes that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gpufleet.model.selectors import Taint, Toleration
from sim.model.api import DONE, Delete, Event, Json, Kind, Patch, Ref, Result, View, Write, ref_of
from sim.model.kubelet import is_down
from sim.model.objects import (
    NODE,
    POD,
    condition,
    deleting,
    finished,
    node_of,
    number,
    seconds_of,
    status_write,
    timestamp,
    with_condition,
)

UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
_HEALTHY = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


class NodeController:
    """Plays the kubelets' node status and kube-controller-manager's node lifecycle, taint eviction and pod collection.

    A node that goes down is NotReady after `grace_seconds` and tainted; its pods are deleted when their toleration
    has run out, at most `eviction_seconds` after that (None: as long as they tolerate). `heartbeat_seconds` renews the
    node status, for clusters whose own controllers watch it. `manages` says which nodes are played here.
    """

    name = "node-lifecycle-controller"
    watches: tuple[Kind, ...] = (NODE, POD)

    def __init__(
        self,
        *,
        grace_seconds: float = 40.0,
        eviction_seconds: float | None = None,
        heartbeat_seconds: float | None = None,
        manages: Callable[[Mapping[str, Any]], bool] = lambda _: True,
        status_only: bool = False,
    ) -> None:
        self._grace = grace_seconds
        self._eviction = eviction_seconds
        self._heartbeat = heartbeat_seconds
        self._manages = manages
        self._status_only = status_only
        self._down_since: dict[str, float] = {}
        self._tainted: set[str] = set()

    def observe(self, view: View, event: Event) -> Iterable[Ref]:
        """The node; for a pod its node where that has failed or is not there."""
        if event.kind == NODE:
            name = event.current["metadata"]["name"]
            if event.obj is not None and _evicting(event.obj):
                self._tainted.add(name)
            else:
                self._tainted.discard(name)
            return (ref_of(event.current),)
        node = "" if event.obj is None or self._status_only else node_of(event.obj)
        if node and (node in self._tainted or view.get(*NODE, "", node) is None):
            return (Ref(*NODE, "", node),)
        return ()

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Sets conditions and taints, and evicts."""
        node = view.get(*key)
        if node is None:
            self._down_since.pop(key.name, None)
            return DONE if self._status_only else Result(_collect(view.pods_on(key.name), now))
        if not self._manages(node) or deleting(node):
            return DONE
        if not is_down(node):
            self._down_since.pop(key.name, None)
            result = self._up(node, now)
        else:
            since = self._down_since.setdefault(key.name, now)
            if now < since + self._grace:
                return Result((), since + self._grace)
            result = Result([] if self._status_only else self._down(view, node, now))
        if self._status_only:
            return result
        evictions, wake_at = self._evict(view, node, now)
        wakes = [at for at in (result.wake_at, wake_at) if at is not None]
        return Result([*result.writes, *evictions], min(wakes, default=None))

    def _up(self, node: Json, now: float) -> Result:
        conditions: list[Json] = list((node.get("status") or {}).get("conditions") or ())
        ready = condition(node, "Ready")
        wake_at = None if self._heartbeat is None else now + self._heartbeat
        beat = {} if self._heartbeat is None else {"lastHeartbeatTime": timestamp(now)}
        if ready is None or ready.get("status") != "True" or beat:
            for kind, status, reason, message in _HEALTHY:
                conditions = with_condition(conditions, kind, status, reason, message, now, **beat)
        writes = status_write(node, {"conditions": conditions})
        if not self._status_only:
            writes += _taints(node, [t for t in _taints_of(node) if t["key"] not in (UNREACHABLE, NOT_READY)])
        return Result(writes, wake_at)

    def _down(self, view: View, node: Json, now: float) -> list[Write]:
        conditions: list[Json] = list((node.get("status") or {}).get("conditions") or ())
        message = "Kubelet stopped posting node status."
        for kind, *_ in _HEALTHY:
            conditions = with_condition(conditions, kind, "Unknown", "NodeStatusUnknown", message, now)
        writes = status_write(node, {"conditions": conditions})
        taints = _taints_of(node)
        for effect in ("NoSchedule", "NoExecute"):
            if not any(t["key"] == UNREACHABLE and t["effect"] == effect for t in taints):
                taints.append({"key": UNREACHABLE, "effect": effect, "timeAdded": timestamp(now)})
        writes += _taints(node, taints)
        for pod in sorted(view.pods_on(node["metadata"]["name"]), key=ref_of):
            known = condition(pod, "Ready")
            if known is not None and known.get("status") == "True":
                mended = with_condition(pod["status"]["conditions"], "Ready", "False", "NodeNotReady", "", now)
                writes += status_write(pod, {"conditions": mended})
        return writes

    def _evict(self, view: View, node: Json, now: float) -> tuple[list[Write], float | None]:
        taints = [t for t in _taints_of(node) if t.get("effect") == "NoExecute"]
        writes: list[Write] = []
        wake_at: float | None = None
        if not taints:
            return writes, wake_at
        for pod in sorted(view.pods_on(node["metadata"]["name"]), key=ref_of):
            if finished(pod) or deleting(pod):
                continue
            due = self._due(pod, taints, now)
            if due is None:
                continue
            if due > now:
                wake_at = min(wake_at or due, due)
                continue
            writes += _disrupted(pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", now)
            writes.append(Delete(ref_of(pod), pod["metadata"]["uid"]))
        return writes, wake_at

    def _due(self, pod: Json, taints: Sequence[Json], now: float) -> float | None:
        """When a pod has to go: the earliest end of a toleration; None: never."""
        ends: list[float] = []
        for taint in taints:
            seen = Taint(taint["key"], "NoExecute", taint.get("value") or "")
            since = seconds_of(taint["timeAdded"]) if taint.get("timeAdded") else now
            tolerating = [t for t in _tolerations(pod) if t.tolerates(seen)]
            if not tolerating:
                ends.append(now)
                continue
            bounds = [t.seconds for t in tolerating if t.seconds is not None]
            if bounds:
                ends.append(since + max(0, min(bounds)))
            if bounds and self._eviction is not None:
                ends.append(since + self._eviction)
        return min(ends, default=None)


def _taints_of(node: Mapping[str, Any]) -> list[Json]:
    return list((node.get("spec") or {}).get("taints") or ())


def _evicting(node: Mapping[str, Any]) -> bool:
    return any(taint.get("effect") == "NoExecute" for taint in _taints_of(node))


def _taints(node: Json, taints: list[Json]) -> list[Write]:
    if taints == _taints_of(node):
        return []
    return [Patch(ref_of(node), {"spec": {"taints": taints or None}}, uid=node["metadata"].get("uid", ""))]


def _tolerations(pod: Json) -> list[Toleration]:
    return [
        Toleration(
            t.get("key") or "",
            t.get("operator") or "Equal",
            t.get("value") or "",
            t.get("effect") or "",
            None if t.get("tolerationSeconds") is None else int(number(t["tolerationSeconds"], 0)),
        )
        for t in pod["spec"].get("tolerations") or ()
    ]


def _disrupted(pod: Json, reason: str, message: str, now: float, **more: Any) -> list[Write]:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    marked = with_condition(conditions, "DisruptionTarget", "True", reason, message, now)
    return status_write(pod, {"conditions": marked, **more})


def _collect(pods: Iterable[Json], now: float) -> list[Write]:
    """Pods of a node that is gone: failed if they had not finished, and deleted at once."""
    writes: list[Write] = []
    for pod in sorted(pods, key=ref_of):
        if not finished(pod):
            writes += _disrupted(pod, "DeletionByPodGC", "PodGC: node no longer exists", now, phase="Failed")
        writes.append(Delete(ref_of(pod), pod["metadata"]["uid"], grace_seconds=0))
    return writes
