"""What one cluster holds, kept incrementally: free blocks by node class and the pods of each workload.

A change of a pod touches one node, one free block and one workload; nothing is counted again from scratch.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from gpufleet.model.cluster import ComponentPods, NodeClass, VirtualNode
from services.inventory.core.classes import Class, ClassKey, Held
from services.inventory.core.objects import CLASS_LABEL, Node, Pod, Pool, Provisioning
from services.inventory.core.podcounts import summary
from services.inventory.core.sharing import devices_of, uses_gpus

_NAME_LABELS = ("nvidia.com/gpu.product", "node.kubernetes.io/instance-type")


class ClusterCache:
    """The nodes, pods and pools of one cluster. Changes go in, `take_changes` says what to publish."""

    def __init__(self, *, provision_timeout: float = 900.0) -> None:
        """Creates an empty cache; a provisioning claim is believed for ``provision_timeout`` seconds."""
        self._provision_timeout = provision_timeout
        self._nodes: dict[str, Held] = {}
        self._classes: dict[ClassKey, Class] = {}
        self._names: dict[str, ClassKey] = {}
        self._pods: dict[str, Pod] = {}
        self._waiting_used: dict[str, dict[str, int]] = {}  # pods that were seen before their node
        self._on_gpus: dict[str, dict[str, Pod]] = {}  # pods that use GPUs, by node and uid
        self._workloads: dict[str, dict[str, Pod]] = {}
        self._ours: dict[str, Counter[str]] = {}  # pods of workloads that take room, by node and workload
        self._last_number = 0
        self._claims: dict[str, Provisioning] = {}
        self._pools: dict[ClassKey, Pool] = {}
        self._dirty_classes: set[str] = set()
        self._dirty_workloads: set[str] = set()
        self._dirty_virtual = False

    # -- nodes ---------------------------------------------------------------------------------------------

    def replace_nodes(self, nodes: Iterable[Node]) -> None:
        """Takes a whole list: nodes that it lacks are gone."""
        listed = {node.name: node for node in nodes}
        for name in [n for n in self._nodes if n not in listed]:
            self.remove_node(name)
        for node in listed.values():
            self.put_node(node)

    def put_node(self, node: Node) -> None:
        """Adds or changes a node."""
        held = self._nodes.get(node.name)
        if held is not None and held.node == node:
            return
        used = held.used if held is not None else self._waiting_used.pop(node.name, {})
        if held is not None:
            self._leave(held)
        key = (node.labels, node.taints, node.allocatable)
        if held is None:
            self._last_number += 1
        if held is None or held.key != key:
            self._moved(node.name)
        held = Held(node, key, self._last_number if held is None else held.number, used, devices=devices_of(node))
        self._nodes[node.name] = held
        if node.virtual:
            self._dirty_virtual = True
        else:
            self._class(key).nodes.add(node.name)
            self._count(held)

    def remove_node(self, name: str) -> None:
        """Removes a node; what its pods take is kept in case it comes back."""
        held = self._nodes.pop(name, None)
        if held is None:
            return
        self._leave(held)
        self._moved(name)
        if held.used:
            self._waiting_used[name] = held.used

    # -- pods ----------------------------------------------------------------------------------------------

    def replace_pods(self, pods: Iterable[Pod]) -> None:
        """Takes a whole list: pods that it lacks are gone."""
        listed = {pod.uid: pod for pod in pods}
        for uid in [u for u in self._pods if u not in listed]:
            self.remove_pod(uid)
        for pod in listed.values():
            self.put_pod(pod)

    def put_pod(self, pod: Pod) -> None:
        """Adds or changes a pod."""
        old = self._pods.get(pod.uid)
        if old == pod:
            return
        self._pods[pod.uid] = pod
        before = old if old is not None and old.holds_room else None
        after = pod if pod.holds_room else None
        if before is None or after is None or _room(before) != _room(after):
            if before is not None:
                self._take(before, sign=-1)
            if after is not None:
                self._take(after, sign=1)
        if old is not None and old.workload and old.workload != pod.workload:
            self._forget(old)
        if pod.workload:
            self._workloads.setdefault(pod.workload, {})[pod.uid] = pod
            self._dirty_workloads.add(pod.workload)

    def remove_pod(self, uid: str) -> None:
        """Removes a pod."""
        pod = self._pods.pop(uid, None)
        self._claims.pop(uid, None)
        if pod is None:
            return
        if pod.holds_room:
            self._take(pod, sign=-1)
        if pod.workload:
            self._forget(pod)

    def put_provisioning(self, claim: Provisioning) -> None:
        """Takes what an autoscaler said about a pod; an older word never replaces a newer one."""
        known = self._claims.get(claim.pod_uid)
        if known is not None and (known.at > claim.at or replace(known, over=False) == claim):
            return
        self._claims[claim.pod_uid] = claim
        pod = self._pods.get(claim.pod_uid)
        if pod is not None and pod.workload:
            self._dirty_workloads.add(pod.workload)

    # -- elastic stock -------------------------------------------------------------------------------------

    def replace_pools(self, pools: Iterable[Pool]) -> None:
        """Takes the node pools that can grow; a pool without nodes is a class of zero nodes."""
        fresh = {(pool.labels, pool.taints, pool.allocatable): pool for pool in pools}
        for key in [k for k in self._pools if k not in fresh]:
            del self._pools[key]
            known = self._classes[key]
            known.pool = None
            self._dirty_classes.add(known.name)
            self._drop_if_empty(key)
        for key, pool in fresh.items():
            if self._pools.get(key) != pool:
                self._pools[key] = pool
                self._class(key).pool = pool
                self._dirty_classes.add(self._classes[key].name)

    # -- what to publish -----------------------------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether anything changed since `take_changes`."""
        return bool(self._dirty_classes or self._dirty_workloads or self._dirty_virtual)

    def take_changes(self) -> tuple[set[str], set[str]]:
        """Returns the names of classes and the keys of workloads that changed since the last call."""
        changed = self._dirty_classes, self._dirty_workloads
        self._dirty_classes, self._dirty_workloads, self._dirty_virtual = set(), set(), False
        return changed

    def class_names(self) -> list[str]:
        """Returns the names of all classes in order."""
        return sorted(self._names)

    def workload_keys(self) -> list[str]:
        """Returns the keys of the workloads that have pods here, in order."""
        return sorted(self._workloads)

    def node_class(self, name: str) -> NodeClass | None:
        """Returns a class as it is now, or None where it is gone."""
        key = self._names.get(name)
        if key is None:
            return None
        return self._classes[key].told(key)

    def virtual_nodes(self) -> tuple[VirtualNode, ...]:
        """Returns the usable virtual nodes in name order."""
        found = [h.node for h in self._nodes.values() if h.node.virtual and h.node.usable]
        return tuple(VirtualNode(n.name, n.labels, n.taints, n.stock) for n in sorted(found, key=lambda n: n.name))

    def pods_of(self, workload: str, now: float) -> tuple[tuple[str, ComponentPods], ...]:
        """Returns what the workload's pods do, by component in name order."""
        by_component: dict[str, list[Pod]] = {}
        for pod in self._workloads.get(workload, {}).values():
            by_component.setdefault(pod.component, []).append(pod)
        return tuple(
            (name, summary(pods, self._claims, now - self._provision_timeout, self._where))
            for name, pods in sorted(by_component.items())
        )

    def next_expiry(self, now: float) -> float | None:
        """Returns when the next provisioning claim stops being believed, or None."""
        ends = [c.at + self._provision_timeout for c in self._claims.values() if not c.no_stock and not c.over]
        return min((end for end in ends if end > now), default=None)

    def expire_claims(self, now: float) -> None:
        """Stops believing claims that are too old: their pods count as unschedulable again, and as timed out."""
        for uid, claim in list(self._claims.items()):
            if not claim.no_stock and not claim.over and claim.at + self._provision_timeout <= now:
                pod = self._pods.get(uid)
                if pod is None or pod.node:
                    del self._claims[uid]
                    continue
                self._claims[uid] = replace(claim, over=True)
                if pod.workload:
                    self._dirty_workloads.add(pod.workload)

    # -- inside --------------------------------------------------------------------------------------------

    def _class(self, key: ClassKey) -> Class:
        known = self._classes.get(key)
        if known is None:
            known = Class(self._new_name(key), pool=self._pools.get(key))
            self._classes[key] = known
            self._names[known.name] = key
        return known

    def _new_name(self, key: ClassKey) -> str:
        """Returns the operator's name for the class, else one made of its product; a hash where it is taken."""
        marks, taints, allocatable = key
        known = dict(marks)
        digest = hashlib.sha256(repr((marks, taints, allocatable)).encode()).hexdigest()[:8]
        given = known.get(CLASS_LABEL)
        if given and given not in self._names:
            return given
        product = given or next((known[label] for label in _NAME_LABELS if known.get(label)), "nodes")
        return f"{product.lower()}-{digest}"

    def _where(self, name: str) -> tuple[str, int] | None:
        """Returns the class of a node, and its number; a virtual node is its own class."""
        held = self._nodes.get(name)
        if held is None:
            return None
        return (name, 0) if held.node.virtual else (self._classes[held.key].name, held.number)

    def _moved(self, name: str) -> None:
        """Notes that pods are on a node of another class now."""
        self._dirty_workloads.update(self._ours.get(name, ()))

    def _leave(self, held: Held) -> None:
        if held.node.virtual:
            self._dirty_virtual = True
            return
        known = self._classes[held.key]
        known.nodes.discard(held.node.name)
        known.uncount(held)
        self._dirty_classes.add(known.name)
        self._drop_if_empty(held.key)

    def _drop_if_empty(self, key: ClassKey) -> None:
        known = self._classes[key]
        if not known.nodes and known.pool is None:
            del self._classes[key]
            del self._names[known.name]

    def _count(self, held: Held) -> None:
        known = self._classes[held.key]
        self._dirty_classes.add(known.name)
        name = held.node.name
        known.count(held, self._on_gpus.get(name, {}).values(), ours=name in self._ours)

    def _take(self, pod: Pod, *, sign: int) -> None:
        node = pod.node
        held = self._nodes.get(node)
        if pod.workload:
            self._count_ours(pod, sign)
        if uses_gpus(pod):
            here = self._on_gpus.setdefault(node, {})
            if sign > 0:
                here[pod.uid] = pod
            else:
                here.pop(pod.uid, None)
                if not here:
                    del self._on_gpus[node]
        used = held.used if held is not None else self._waiting_used.setdefault(node, {})
        for name, amount in pod.requests:
            used[name] = used.get(name, 0) + sign * amount
            if not used[name]:
                del used[name]
        if held is None:
            if not used:
                del self._waiting_used[node]
        elif not held.node.virtual:
            self._count(held)

    def _count_ours(self, pod: Pod, sign: int) -> None:
        ours = self._ours.setdefault(pod.node, Counter())
        ours[pod.workload] += sign
        if ours[pod.workload] <= 0:
            del ours[pod.workload]
            if not ours:
                del self._ours[pod.node]

    def _forget(self, pod: Pod) -> None:
        group = self._workloads.get(pod.workload, {})
        group.pop(pod.uid, None)
        if not group:
            self._workloads.pop(pod.workload, None)
        self._dirty_workloads.add(pod.workload)


def _room(pod: Pod) -> tuple[object, ...]:
    return pod.node, pod.requests, pod.allocation, pod.workload
