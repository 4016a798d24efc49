"""A node autoscaler in the way of GOATScaler (specification 3.3): it creates the nodes that pending pods need.

What it may create is in one ConfigMap, what is left in another (`sim.model.names`); nodes on their way are in the
latter, so that a restarted autoscaler goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sim.model.api import DONE, Create, Delete, Event, Json, Kind, Patch, Ref, Result, View, Write, ref_of
from sim.model.kubelet import is_down
from sim.model.names import NODE_CLOSED, NODE_POOL, POOLS, STOCK, SYSTEM_NAMESPACE
from sim.model.objects import (
    CONFIG_MAP,
    NODE,
    POD,
    annotations_of,
    condition,
    deleting,
    digest,
    event_writes,
    finished,
    integer,
    micro_timestamp,
    node_of,
    number,
    seconds_of,
    timestamp,
)
from sim.model.scheduler.needs import Needs, needs_of
from sim.model.scheduler.nodes import NodeState, natural
from sim.model.scheduler.usage import Usage

UNLIMITED = 1_000_000
_POOLS_REF = Ref(*CONFIG_MAP, SYSTEM_NAMESPACE, POOLS)
_STOCK_REF = Ref(*CONFIG_MAP, SYSTEM_NAMESPACE, STOCK)


@dataclass(frozen=True, slots=True)
class Pool:
    """A node pool: what its nodes look like, and how many there may be in all."""

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Json]
    allocatable: Mapping[str, Any]
    max_nodes: int
    stock: int
    provision_seconds: float
    instance_type: str
    zone: str

    def node(self, name: str) -> Json:
        """A Node object of the pool."""
        labels = {**self.labels, "kubernetes.io/hostname": name}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {NODE_POOL: self.name}},
            "spec": {"taints": list(self.taints)} if self.taints else {},
            "status": {"capacity": dict(self.allocatable), "allocatable": dict(self.allocatable)},
        }


@dataclass(slots=True)
class _Coming:
    """A node on its way, and the pods that it is for."""

    pool: Pool
    node: str
    ready_at: float
    pods: list[str]
    state: NodeState


@dataclass(slots=True)
class _Round:
    """One look at the cluster."""

    now: float
    pools: list[Pool]
    existing: dict[str, int]  # nodes by pool
    coming: list[_Coming]
    writes: list[Write] = field(default_factory=list)
    needed: set[str] = field(default_factory=set)  # nodes that a pending pod fits on
    full: set[Needs] = field(default_factory=set)  # needs that no existing node takes any more
    hopeless: dict[Needs, str] = field(default_factory=dict)
    served: set[str] = field(default_factory=set)  # pods whose node is created in this round

    def taken(self, pool: Pool) -> int:
        return self.existing.get(pool.name, 0) + sum(c.pool.name == pool.name for c in self.coming)


def read_pools(view: View) -> list[Pool]:
    """The node pools of the ConfigMap in order of their names; one that cannot be read is left out."""
    found = view.get(*_POOLS_REF)
    pools = []
    for name, text in sorted(((found or {}).get("data") or {}).items()):
        try:
            pool = json.loads(text)
            pools.append(
                Pool(
                    name=name,
                    labels=dict(pool.get("labels") or {}),
                    taints=list(pool.get("taints") or ()),
                    allocatable=dict(pool["allocatable"]),
                    max_nodes=integer(pool.get("maxNodes"), UNLIMITED),
                    stock=integer(pool.get("stock"), UNLIMITED),
                    provision_seconds=number(pool.get("provisionSeconds"), 180),
                    instance_type=str(pool.get("instanceType") or name),
                    zone=str(pool.get("zone") or "zone-a"),
                )
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return pools


class Autoscaler:
    """Creates nodes for pods that are unschedulable, while stock lasts, and deletes them when they have been empty.

    `idle_seconds` is how long a node that it created stays empty before it goes and its instance is given back.
    Where binding and deleting can cross on their way, a node is closed to new pods `drain_seconds` before it goes, and
    opened again if one has come nevertheless. `node_annotations` are put on created nodes, for a cluster where somebody
    else plays their kubelets.
    """

    name = "GOATScaler"
    watches: tuple[Kind, ...] = (POD, NODE, CONFIG_MAP)

    def __init__(
        self,
        *,
        idle_seconds: float = 600.0,
        drain_seconds: float = 0.0,
        node_annotations: Mapping[str, str] | None = None,
    ) -> None:
        self._idle_seconds = idle_seconds
        self._drain_seconds = drain_seconds
        self._annotations = dict(node_annotations or {})
        self._key = Ref("", "", "", self.name)
        self._usage: Usage | None = None  # None while there are no pools
        self._pending: dict[str, Ref] = {}  # unschedulable pods by uid
        self._elastic: dict[str, str] = {}  # pool by node
        self._idle_since: dict[str, float] = {}
        self._closed_since: dict[str, float] = {}
        self._said: dict[str, str] = {}  # the last event on a pod, by uid

    # What changes

    def observe(self, view: View, event: Event) -> Iterable[Ref]:
        """Asks for a round where a pod cannot be scheduled, a node of a pool is concerned, or a pool has changed."""
        if event.kind == CONFIG_MAP:
            metadata = event.current["metadata"]
            if metadata.get("namespace") != SYSTEM_NAMESPACE or metadata["name"] not in (POOLS, STOCK):
                return ()
            if self._usage is None and metadata["name"] == POOLS:
                self._begin(view)
            return (self._key,)
        wanted = self._observe_pod(event) if event.kind == POD else self._observe_node(event)
        return (self._key,) if wanted and self._usage is not None else ()

    def _begin(self, view: View) -> None:
        self._usage = Usage()
        for node in view.list(*NODE):
            self._usage.put_node(node["metadata"]["name"], node)
        for pod in view.list(*POD):
            if not finished(pod):
                self._usage.put(pod["metadata"]["uid"], node_of(pod), pod)

    def _observe_pod(self, event: Event) -> bool:
        pod = event.current
        uid = pod["metadata"]["uid"]
        node = node_of(pod)
        if self._usage is not None:
            self._usage.put(uid, "" if event.obj is None or finished(pod) else node, pod)
        if event.obj is not None and not node and not deleting(pod) and not finished(pod) and _unschedulable(pod):
            fresh = uid not in self._pending
            self._pending[uid] = Ref(*POD, pod["metadata"].get("namespace", ""), pod["metadata"]["name"])
            return fresh
        self._said.pop(uid, None)
        return self._pending.pop(uid, None) is not None or node in self._elastic

    def _observe_node(self, event: Event) -> bool:
        name = event.current["metadata"]["name"]
        if self._usage is not None:
            self._usage.put_node(name, event.obj)
        pool = annotations_of(event.current).get(NODE_POOL)
        if event.obj is None:
            self._idle_since.pop(name, None)
            self._closed_since.pop(name, None)
            return self._elastic.pop(name, None) is not None
        if pool is None:
            return bool(self._pending) and event.old is None
        known = self._elastic.get(name)
        self._elastic[name] = pool
        return known != pool or bool(self._pending)

    # One round

    def reconcile(self, view: View, key: Ref, now: float) -> Result:  # noqa: ARG002
        """Brings nodes that are due into the cluster, orders what is needed, lets go what is idle, shows the rest."""
        pools = read_pools(view)
        if self._usage is None or (not pools and view.get(*_STOCK_REF) is None):
            return DONE
        existing: dict[str, int] = {}
        for pool_name in self._elastic.values():
            existing[pool_name] = existing.get(pool_name, 0) + 1
        current = _Round(now, pools, existing, _coming(view, pools))
        pods = self._pods(view)
        self._deliver(view, current)
        self._cancel(view, current, pods)
        self._order(view, current, pods)
        wakes = [coming.ready_at for coming in current.coming]
        wakes += self._scale_in(view, current)
        current.writes += _show(view, current)
        return Result(current.writes, min(wakes, default=None))

    def _pods(self, view: View) -> dict[str, Json]:
        """The unschedulable pods, the most important and oldest first."""
        found = [pod for ref in self._pending.values() if (pod := view.get(*ref)) is not None]
        found.sort(
            key=lambda pod: (
                -integer(pod["spec"].get("priority"), 0),
                pod["metadata"].get("creationTimestamp") or "",
            )  # then in the order in which the scheduler gave up on them
        )
        return {pod["metadata"]["uid"]: pod for pod in found if pod["metadata"]["uid"] in self._pending}

    def _deliver(self, view: View, current: _Round) -> None:
        """Creates the nodes whose time has come."""
        for coming in [c for c in current.coming if c.ready_at <= current.now]:
            if view.get(*NODE, "", coming.node) is None:
                node = coming.pool.node(coming.node)
                node["metadata"]["annotations"] |= self._annotations
                current.writes.append(Create(node))
                current.existing[coming.pool.name] = current.existing.get(coming.pool.name, 0) + 1
            current.served |= set(coming.pods)
            current.coming.remove(coming)

    def _cancel(self, view: View, current: _Round, pods: Mapping[str, Json]) -> None:
        """Gives up nodes on their way that the provider has no instance for any more, the latest first."""
        for pool in current.pools:
            mine = [c for c in current.coming if c.pool.name == pool.name]
            while mine and current.taken(pool) > pool.stock:
                lost = mine.pop()
                current.coming.remove(lost)
                for uid in lost.pods:
                    self._said.pop(uid, None)
                    if uid in pods:
                        self._say(view, current, pods[uid], "NotTriggerScaleUp", "NodePool NoStock")

    def _order(self, view: View, current: _Round, pods: Mapping[str, Json]) -> None:
        claimed = {uid: coming for coming in current.coming for uid in coming.pods}
        borrowed: list[tuple[NodeState, Needs]] = []
        for coming in current.coming:
            coming.pods = [uid for uid in coming.pods if uid in pods]
            for uid in coming.pods:
                coming.state.take(needs_of(pods[uid]))
        for uid, pod in pods.items():
            if uid in claimed or uid in current.served:
                continue
            needs = needs_of(pod)
            state = self._existing(view, current, needs)
            if state is not None:
                state.take(needs)
                borrowed.append((state, needs))
                current.needed.add(state.name)
                continue
            self._provide(view, current, pod, needs)
        for state, needs in borrowed:
            state.take(needs, -1)

    def _existing(self, view: View, current: _Round, needs: Needs) -> NodeState | None:
        """A node that takes the pod although the scheduler has not seen that yet, such as one that just came."""
        if self._usage is None or needs in current.full:
            return None
        for name, state in self._usage.nodes.items():
            if state.fits(needs) and not state.refuses(needs, starting=name in self._elastic):
                node = view.get(*NODE, "", name)
                if node is not None and not is_down(node):
                    return state
        current.full.add(needs)
        return None

    def _provide(self, view: View, current: _Round, pod: Json, needs: Needs) -> None:
        uid = pod["metadata"]["uid"]
        for coming in current.coming:
            if not coming.state.refuses(needs) and coming.state.fits(needs):
                self._claim(view, current, pod, needs, coming)
                return
        if needs not in current.hopeless:
            pool, why = _choose(current, needs)
            if pool is not None:
                coming = _new(pool, current, uid)
                current.coming.append(coming)
                self._claim(view, current, pod, needs, coming)
                return
            current.hopeless[needs] = why
        if current.hopeless[needs]:
            self._say(view, current, pod, "NotTriggerScaleUp", current.hopeless[needs])

    def _claim(self, view: View, current: _Round, pod: Json, needs: Needs, coming: _Coming) -> None:
        coming.state.take(needs)
        coming.pods.append(pod["metadata"]["uid"])
        pool = coming.pool
        message = (
            f"Provision node {coming.node} in Zone: {pool.zone} with InstanceType: {pool.instance_type}, "
            f"Triggered time {timestamp(current.now)}"
        )
        self._say(view, current, pod, "ProvisionNode", message)

    def _say(self, view: View, current: _Round, pod: Json, reason: str, message: str) -> None:
        uid = pod["metadata"]["uid"]
        if self._said.get(uid) == message:
            return
        self._said[uid] = message
        kind = "Normal" if reason == "ProvisionNode" else "Warning"
        current.writes += event_writes(view, pod, reason, message, self.name, current.now, kind=kind, again=True)

    def _scale_in(self, view: View, current: _Round) -> list[float]:
        """Deletes created nodes that have been empty long enough; when the next ones will have been."""
        wakes: list[float] = []
        for name in sorted(self._elastic, key=natural):
            if self._usage is None or self._usage.pods(name) or name in current.needed:
                self._idle_since.pop(name, None)
                current.writes += self._open(view, name)
                continue
            until = self._idle_since.setdefault(name, current.now) + self._idle_seconds
            node = view.get(*NODE, "", name)
            if node is not None and current.now >= until and self._drain_seconds:
                current.writes += _closing(node, close=True)
                until = self._closed_since.setdefault(name, current.now) + self._drain_seconds
            if current.now < until:
                wakes.append(until)
                continue
            if node is not None:
                current.writes.append(Delete(Ref(*NODE, "", name), node["metadata"]["uid"]))
                pool = self._elastic[name]
                current.existing[pool] = current.existing.get(pool, 0) - 1
        return wakes

    def _open(self, view: View, name: str) -> list[Write]:
        self._closed_since.pop(name, None)
        node = view.get(*NODE, "", name)
        return _closing(node, close=False) if node is not None else []


def _closing(node: Json, *, close: bool) -> list[Write]:
    """Closes a node to new pods, or opens one that was closed here."""
    if (NODE_CLOSED in annotations_of(node)) == close:
        return []
    patch = {
        "metadata": {"annotations": {NODE_CLOSED: "true" if close else None}},
        "spec": {"unschedulable": close or None},
    }
    return [Patch(ref_of(node), patch, uid=node["metadata"]["uid"])]


def _unschedulable(pod: Json) -> bool:
    found = condition(pod, "PodScheduled")
    return found is not None and found.get("status") == "False" and found.get("reason") == "Unschedulable"


def _state(pool: Pool, node: str) -> NodeState:
    state = NodeState(node)
    state.read(pool.node(node))
    return state


def _coming(view: View, pools: list[Pool]) -> list[_Coming]:
    """Nodes on their way, as the stock ConfigMap has them."""
    data = (view.get(*_STOCK_REF) or {}).get("data") or {}
    found = []
    for pool in pools:
        try:
            entries = json.loads(data.get(pool.name) or "{}").get("provisioning") or ()
            for entry in entries:
                node, pods = str(entry["node"]), [str(uid) for uid in entry.get("pods") or ()]
                found.append(_Coming(pool, node, seconds_of(entry["readyAt"]), pods, _state(pool, node)))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def _new(pool: Pool, current: _Round, uid: str) -> _Coming:
    name = f"{pool.name}-{digest([pool.name, uid, current.now], 6)}"
    return _Coming(pool, name, current.now + pool.provision_seconds, [], _state(pool, name))


def _choose(current: _Round, needs: Needs) -> tuple[Pool | None, str]:
    """The pool whose node would be used best (least waste), or why there is none."""
    best: tuple[float, str, Pool] | None = None
    why = ""
    for pool in current.pools:
        empty = _state(pool, "")
        if empty.refuses(needs) or not empty.fits(needs):
            continue
        if current.taken(pool) >= pool.stock:
            why = "NodePool NoStock"
        elif current.taken(pool) >= pool.max_nodes:
            why = why or "NodePool MaxSizeReached"
        else:
            entry = (_waste(empty, needs), pool.name, pool)
            best = entry if best is None or entry[:2] < best[:2] else best
    return (best[2], "") if best is not None else (None, why)


def _waste(empty: NodeState, needs: Needs) -> float:
    """The share of a node's resources that one pod would leave unused, at most 1."""
    requests = dict(needs.shape.requests)
    counted = [name for name, amount in empty.allocatable.items() if amount and name != "pods"]
    shares = [1 - requests.get(name, 0) / empty.allocatable[name] for name in sorted(counted)]
    return sum(shares) / max(1, len(shares))


def _show(view: View, current: _Round) -> list[Write]:
    """Brings the stock ConfigMap up to date."""
    data: dict[str, str] = {}
    for pool in current.pools:
        taken = current.taken(pool)
        shown = {
            "labels": dict(pool.labels),
            "taints": list(pool.taints),
            "allocatable": dict(pool.allocatable),
            "maxNodes": max(0, pool.max_nodes - taken),
            "stock": max(0, pool.stock - taken),
            "provisionSeconds": pool.provision_seconds,
            "provisioning": [
                {"node": coming.node, "readyAt": micro_timestamp(coming.ready_at), "pods": coming.pods}
                for coming in current.coming
                if coming.pool.name == pool.name
            ],
        }
        data[pool.name] = json.dumps(shown, sort_keys=True)
    known = view.get(*_STOCK_REF)
    if known is None:
        metadata = {"name": STOCK, "namespace": SYSTEM_NAMESPACE}
        return [Create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})]
    before: Json = known.get("data") or {}
    changed: Json = {name: text for name, text in data.items() if before.get(name) != text}
    changed |= {name: None for name in before if name not in data}
    return [Patch(_STOCK_REF, {"data": changed})] if changed else []


def pools_writes(view: View, pools: Iterable[Pool]) -> list[Write]:
    """The writes that make these the node pools of a cluster."""
    data = {pool.name: json.dumps(_document(pool), sort_keys=True) for pool in pools}
    known = view.get(*_POOLS_REF)
    if known is None:
        metadata = {"name": POOLS, "namespace": SYSTEM_NAMESPACE}
        return [Create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})]
    gone = {name: None for name in known.get("data") or {} if name not in data}
    return [Patch(_POOLS_REF, {"data": {**data, **gone}})]


def set_stock(view: View, pool: str, stock: int | None = None, max_nodes: int | None = None) -> list[Write]:
    """The writes after which so many instances can be had now, and so many nodes may still be added."""
    found = {known.name: known for known in read_pools(view)}.get(pool)
    if found is None:
        return []
    coming = sum(c.pool.name == pool for c in _coming(view, [found]))
    taken = coming + sum(annotations_of(node).get(NODE_POOL) == pool for node in view.list(*NODE))
    changed = replace(
        found,
        stock=found.stock if stock is None else stock + taken,
        max_nodes=found.max_nodes if max_nodes is None else max_nodes + taken,
    )
    return [Patch(_POOLS_REF, {"data": {pool: json.dumps(_document(changed), sort_keys=True)}})]


def _document(pool: Pool) -> Json:
    return {
        "labels": dict(pool.labels),
        "taints": list(pool.taints),
        "allocatable": dict(pool.allocatable),
        "maxNodes": pool.max_nodes,
        "stock": pool.stock,
        "provisionSeconds": pool.provision_seconds,
        "instanceType": pool.instance_type,
        "zone": pool.zone,
    }
