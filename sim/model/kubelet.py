"""Kubelets: they run the pods bound to their nodes; virtual ones only what the region has stock for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from sim.model.api import DONE, Event, Json, Kind, Patch, Ref, Result, View, Write, ref_of
from sim.model.faults import Faults
from sim.model.lifecycle import hold, live, plan_of, stop
from sim.model.names import FAULTS, NODE_DOWN, SERVERLESS_STOCK, SERVERLESS_TOTAL, SYSTEM_NAMESPACE
from sim.model.objects import (
    CONFIG_MAP,
    NODE,
    POD,
    annotations_of,
    deleting,
    event_writes,
    finished,
    node_of,
)
from sim.model.scheduler.needs import needs_of
from sim.model.scheduler.nodes import is_virtual, read_stock

NO_STOCK = "NoStock"
Nodes = Literal["all", "plain", "virtual"]


def is_down(node: Mapping[str, Any]) -> bool:
    """Whether a node has been told to fail."""
    return annotations_of(node).get(NODE_DOWN) == "true"


class Kubelet:
    """The kubelets of a cluster.

    A pod is Ready `ready_after` seconds after its kubelet has seen it and stops `stop_seconds` after it was told to,
    if its annotations do not say otherwise. Where `nodes` is "virtual", other nodes have kubelets of their own, and of
    their pods only the end is played, where annotations or faults ask for one; "plain" leaves virtual nodes alone.
    """

    name = "kubelet"
    watches: tuple[Kind, ...] = (POD, NODE, CONFIG_MAP)

    def __init__(self, *, ready_after: float = 0.0, stop_seconds: float = 0.0, nodes: Nodes = "all") -> None:
        self._ready_after = ready_after
        self._stop_seconds = stop_seconds
        self._nodes = nodes
        self._seen: dict[str, float] = {}  # by uid: since when its kubelet knows the pod
        self._stopping: dict[str, float] = {}
        self._started: dict[str, dict[str, tuple[str, int]]] = {}  # by virtual node and uid: GPU model, GPUs
        self._waiting: dict[str, dict[str, Ref]] = {}  # by virtual node and uid: pods without stock
        self._faults = Faults()

    def observe(self, view: View, event: Event) -> Iterable[Ref]:
        """The pod; all pods of a node that has changed; all pods that run where faults have changed."""
        if event.kind == POD:
            return self._observe_pod(view, event)
        if event.kind == NODE:
            return self._observe_node(view, event)
        metadata = event.current["metadata"]
        if (metadata.get("namespace"), metadata["name"]) != (SYSTEM_NAMESPACE, FAULTS):
            return ()
        self._faults = Faults.of(view)
        return [ref_of(pod) for pod in view.list(*POD) if node_of(pod)]

    def _observe_pod(self, view: View, event: Event) -> list[Ref]:
        pod = event.current
        node, uid = node_of(pod), pod["metadata"]["uid"]
        if not node:
            return []
        keys: list[Ref] = []
        if event.obj is None or finished(pod):
            keys += self._give_back(node, uid)
        if event.obj is None:
            self._seen.pop(uid, None)
            self._stopping.pop(uid, None)
            return keys
        if not finished(pod) and (pod.get("status") or {}).get("startTime"):
            self._take(view, node, pod)
        return [*keys, ref_of(pod)]

    def _observe_node(self, view: View, event: Event) -> list[Ref]:
        name = event.current["metadata"]["name"]
        if event.obj is None:
            self._started.pop(name, None)
            self._waiting.pop(name, None)
            return []
        if event.old is None:
            for pod in view.pods_on(name):
                if not finished(pod) and (pod.get("status") or {}).get("startTime"):
                    self._take(view, name, pod)
        elif is_down(event.obj) == is_down(event.old):
            if not is_virtual(event.obj) or annotations_of(event.obj) == annotations_of(event.old):
                return []
            return [ref_of(event.obj), *self._waiting.get(name, {}).values()]
        keys = sorted(ref_of(pod) for pod in view.pods_on(name))
        return [ref_of(event.obj), *keys] if is_virtual(event.obj) else keys

    # Stock of virtual nodes

    def _take(self, view: View, node: str, pod: Json) -> None:
        found = view.get(*NODE, "", node)
        if found is None or not is_virtual(found):
            return
        needs = needs_of(pod)
        if needs.gpus:
            self._started.setdefault(node, {})[pod["metadata"]["uid"]] = (needs.model, needs.gpus)

    def _give_back(self, node: str, uid: str) -> list[Ref]:
        waiting = self._waiting.get(node, {})
        waiting.pop(uid, None)
        if self._started.get(node, {}).pop(uid, None) is None:
            return []
        return [Ref(*NODE, "", node), *waiting.values()]

    def _left(self, node: Json) -> dict[str, int] | None:
        """GPUs by model that a virtual node can still start; None: unlimited."""
        notes = annotations_of(node)
        total = read_stock(notes.get(SERVERLESS_TOTAL, notes.get(SERVERLESS_STOCK)))
        if total is None:
            return None
        for model, gpus in self._started.get(node["metadata"]["name"], {}).values():
            total[model] = total.get(model, 0) - gpus
        return {model: max(0, gpus) for model, gpus in total.items()}

    # Reconciling

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """The next step of a pod, or the stock that a virtual node shows."""
        if (key.api_version, key.kind) == NODE:
            node = view.get(*key)
            return DONE if node is None or self._nodes == "plain" else Result(self._show_stock(node))
        pod = view.get(*key)
        if pod is None or not node_of(pod):
            return DONE
        node = view.get(*NODE, "", node_of(pod))
        if node is None or is_down(node):
            return DONE
        virtual = is_virtual(node)
        plan = plan_of(pod, self._faults.of_pod(pod), self._ready_after, self._stop_seconds)
        uid = pod["metadata"]["uid"]
        if virtual and self._nodes == "plain":
            return DONE
        finish_only = self._nodes == "virtual" and not virtual
        if deleting(pod):
            since = self._stopping.setdefault(uid, now)
            return DONE if finish_only else stop(pod, plan, since, now)
        writes: list[Write] = []
        if virtual and not self._may_start(node, pod):
            return Result(self._refuse(view, node, pod, now))
        if virtual and not (pod.get("status") or {}).get("startTime"):
            self._take(view, node["metadata"]["name"], pod)
            self._waiting.get(node["metadata"]["name"], {}).pop(uid, None)
            writes += self._show_stock(node)
        result = live(pod, plan, self._seen.setdefault(uid, now), now, finish_only=finish_only)
        return Result([*writes, *result.writes], result.wake_at)

    def _may_start(self, node: Json, pod: Json) -> bool:
        needs = needs_of(pod)
        if not needs.gpus or pod["metadata"]["uid"] in self._started.get(node["metadata"]["name"], {}):
            return True
        left = self._left(node)
        return finished(pod) or left is None or needs.gpus <= left.get(needs.model, 0)

    def _refuse(self, view: View, node: Json, pod: Json, now: float) -> list[Write]:
        needs = needs_of(pod)
        name = node["metadata"]["name"]
        self._waiting.setdefault(name, {})[pod["metadata"]["uid"]] = ref_of(pod)
        message = f"{name} has no stock of GPU model {needs.model or '(not given)'} for {needs.gpus} GPUs"
        return [
            *hold(pod, NO_STOCK, message, now),
            *event_writes(view, pod, "ProviderCreateFailed", message, "virtual-kubelet", now, kind="Warning"),
        ]

    def _show_stock(self, node: Json) -> list[Write]:
        notes = annotations_of(node)
        left = self._left(node)
        if left is None or not is_virtual(node):
            return []
        shown = json.dumps([{"gpuModelSeries": model, "gpus": gpus} for model, gpus in sorted(left.items())])
        wanted = {SERVERLESS_STOCK: shown, SERVERLESS_TOTAL: notes.get(SERVERLESS_TOTAL, notes.get(SERVERLESS_STOCK))}
        changed = {name: value for name, value in wanted.items() if notes.get(name) != value}
        return [Patch(ref_of(node), {"metadata": {"annotations": changed}})] if changed else []
