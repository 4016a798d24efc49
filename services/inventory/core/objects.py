"""What inventory keeps of a node, a pod and an event: small values, made from Kubernetes objects.

`node_from`, `pod_from` and `provisioning_from` take an object as the server sent it, or as a dict; they raise
msgspec.DecodeError where it is not one of their kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gpufleet.kube import structs
from gpufleet.model import names, quantity, requests
from gpufleet.model.cluster import ElasticStock, ModelStock, NamespaceQuota
from gpufleet.model.kinds.failures import TAKEN_AWAY
from gpufleet.model.quantity import QuantityError
from gpufleet.model.resources import Labels, Resources, labels, parse_resources, resources
from gpufleet.model.selectors import Taint
from services.inventory.core.sharing import Allocation, allocation_from

VIRTUAL_LABEL = ("type", "virtual-kubelet")
STOCK_CONFIGMAP = ("kube-system", "gpufleet-elastic-stock")
STOCK_ANNOTATION = "gpufleet.io/serverless-stock"
CLASS_LABEL = "gpufleet.io/node-class"
# Labels that differ from node to node and would make every node a class of its own.
NODE_IDENTITY_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "node.kubernetes.io/instance-id",
        "alibabacloud.com/ecs-instance-id",
        "topology.ebs.csi.aws.com/zone",
        "csi.volume.kubernetes.io/nodeid",
    }
)
# Which the StatefulSet controller puts on its pods.
_POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
# Put on and off by Kubernetes itself as a node's condition changes; they say "full", not "another class".
_CONDITION_TAINTS = "node.kubernetes.io/"

_NODE_SPEC, _NODE_STATUS = structs.NodeSpec(), structs.NodeStatus()
_POD_SPEC, _POD_STATUS = structs.PodSpec(), structs.PodStatus()
_NO_CONDITION = structs.Condition()


@dataclass(frozen=True, slots=True)
class Node:
    """A node: ``usable`` is false while it is cordoned or not ready. ``stock`` only on virtual nodes."""

    name: str
    labels: Labels
    taints: tuple[Taint, ...]
    allocatable: Resources
    usable: bool
    virtual: bool = False
    stock: tuple[ModelStock, ...] | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. ``revision`` is its pod-template-hash, ``unit`` its ResourcePolicy unit; times are epoch seconds.

    ``allocation`` says on which shared GPUs it lies, ``ordinal`` which of a StatefulSet's pods it is.
    """

    uid: str
    namespace: str
    name: str
    node: str
    requests: Resources
    phase: str
    created: float
    terminating: bool = False
    ready: bool = False
    infrastructure_failure: bool = False
    unschedulable_since: float | None = None
    message: str = ""
    workload: str = ""
    component: str = ""
    revision: str = ""
    unit: str = ""
    allocation: Allocation = ()
    ordinal: int | None = None

    @property
    def holds_room(self) -> bool:
        """Whether it takes resources of its node."""
        return bool(self.node) and self.phase not in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Provisioning:
    """What a node autoscaler said about a pod: a node is coming since ``at``, or there is no stock.

    ``over``: the node did not come within the provisioning time.
    """

    pod_uid: str
    at: float
    no_stock: bool
    over: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """A node pool that can grow, as a stock provider describes it."""

    name: str
    labels: Labels
    taints: tuple[Taint, ...]
    allocatable: Resources
    elastic: ElasticStock


@dataclass(frozen=True, slots=True)
class Quota:
    """A ResourceQuota by name; ``bounds`` None where it bounds nothing that all pods of its namespace ask for."""

    namespace: str
    name: str
    bounds: NamespaceQuota | None


def epoch_seconds(text: str | None) -> float | None:
    """Returns an RFC 3339 time as epoch seconds, or None where it is missing or unreadable."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def taints(items: Iterable[Mapping[str, Any]] | None) -> tuple[Taint, ...]:
    """Returns a pool's taints in a fixed order."""
    return _in_order(Taint(t.get("key", ""), t.get("effect", ""), t.get("value") or "") for t in items or ())


def _in_order(found: Iterable[Taint]) -> tuple[Taint, ...]:
    return tuple(sorted(found, key=lambda t: (t.key, t.effect, t.value)))


def _amounts(quantities: Mapping[str, Any] | None, *, round_up: bool) -> Resources:
    """Returns amounts; a resource whose quantity cannot be read is left out, so that the rest still counts."""
    try:
        return parse_resources(quantities, round_up=round_up)
    except QuantityError:
        good: dict[str, int] = {}
        for name, text in (quantities or {}).items():
            try:
                good.update(parse_resources({name: text}, round_up=round_up))
            except QuantityError:
                continue
        return resources(good)


def pod_requests(spec: structs.PodSpec) -> Resources:
    """Returns what a pod asks of its node, ``pods: 1`` included; a quantity that cannot be read does not count."""
    return requests.of_pod(
        [_asked(container.resources) for container in spec.containers or ()],
        [(_asked(c.resources), c.restart_policy == "Always") for c in spec.init_containers or ()],
        pod=_asked(spec.resources),
        overhead=dict(_amounts(spec.overhead, round_up=True)),
    )


def _asked(asked: structs.Resources | None) -> dict[str, int]:
    if asked is None:
        return {}
    return dict(_amounts({**(asked.limits or {}), **(asked.requests or {})}, round_up=True))


def node_from(source: structs.Source) -> Node:
    """Returns a node from its Kubernetes object."""
    obj = structs.read_node(source)
    meta, spec, status = obj.metadata, obj.spec or _NODE_SPEC, obj.status or _NODE_STATUS
    marks = meta.labels or {}
    all_taints = _in_order(Taint(t.key or "", t.effect or "", t.value or "") for t in spec.taints or ())
    ready = next((c.status == "True" for c in status.conditions or () if c.type == "Ready"), True)
    condition = any(t.key.startswith(_CONDITION_TAINTS) and t.effect != "PreferNoSchedule" for t in all_taints)
    virtual = marks.get(VIRTUAL_LABEL[0]) == VIRTUAL_LABEL[1]
    return Node(
        name=meta.name,
        labels=labels((k, v) for k, v in marks.items() if k not in NODE_IDENTITY_LABELS),
        taints=tuple(t for t in all_taints if not t.key.startswith(_CONDITION_TAINTS)),
        allocatable=_amounts(status.allocatable, round_up=False),
        usable=ready and not condition and not spec.unschedulable and not meta.deletion_timestamp,
        virtual=virtual,
        stock=_virtual_stock((meta.annotations or {}).get(STOCK_ANNOTATION)) if virtual else None,
    )


def _virtual_stock(text: str | None) -> tuple[ModelStock, ...] | None:
    """Returns the stock by GPU model, None where it is unlimited. Unreadable stock is no stock."""
    if text is None:
        return None
    try:
        items = json.loads(text)
        found = [ModelStock(str(i["gpuModelSeries"]), int(i["gpus"])) for i in items]
    except (ValueError, TypeError, KeyError):
        return ()
    return tuple(sorted(found, key=lambda s: s.model))


def pod_from(source: structs.Source) -> Pod:
    """Returns a pod from its Kubernetes object."""
    obj = structs.read_pod(source)
    meta, spec, status = obj.metadata, obj.spec or _POD_SPEC, obj.status or _POD_STATUS
    conditions = {c.type: c for c in status.conditions or ()}
    scheduled = conditions.get("PodScheduled", _NO_CONDITION)
    unschedulable = scheduled.status == "False" and scheduled.reason == "Unschedulable"
    created = epoch_seconds(meta.creation_timestamp) or 0.0
    marks = meta.labels or {}
    phase = status.phase or "Pending"
    disrupted = conditions.get("DisruptionTarget", _NO_CONDITION).status == "True"
    return Pod(
        uid=meta.uid or "",
        namespace=meta.namespace or "",
        name=meta.name,
        node=spec.node_name or "",
        requests=pod_requests(spec),
        phase=phase,
        created=created,
        terminating=bool(meta.deletion_timestamp),
        ready=conditions.get("Ready", _NO_CONDITION).status == "True",
        infrastructure_failure=phase == "Failed" and (disrupted or status.reason in TAKEN_AWAY),
        unschedulable_since=(epoch_seconds(scheduled.last_transition_time) or created) if unschedulable else None,
        message=scheduled.message or "" if unschedulable else "",
        workload=(meta.annotations or {}).get(names.WORKLOAD_ANNOTATION, ""),
        component=marks.get(names.COMPONENT_LABEL, ""),
        revision=marks.get("pod-template-hash") or marks.get("controller-revision-hash") or "",
        unit=marks.get(names.UNIT_LABEL) or "",
        allocation=allocation_from(meta.annotations) if meta.annotations else (),
        ordinal=_ordinal(marks.get(_POD_NAME_LABEL)),
    )


def _ordinal(name: str | None) -> int | None:
    """Returns the number at the end of a StatefulSet's pod's name."""
    number = name.rpartition("-")[2] if name else ""
    return int(number) if number.isdecimal() else None


def provisioning_from(source: structs.Source) -> Provisioning | None:
    """Returns what an Event says about provisioning for a pod, or None for any other event."""
    event = structs.read_event(source)
    about = event.involved_object
    if about is None or about.kind != "Pod" or event.reason not in ("ProvisionNode", "NotTriggerScaleUp"):
        return None
    no_stock = event.reason == "NotTriggerScaleUp"
    if no_stock and "NoStock" not in (event.message or ""):
        return None
    return Provisioning(about.uid or "", epoch_seconds(event.last_seen) or 0.0, no_stock=no_stock)


def pools_from(configmap: Mapping[str, Any] | None) -> tuple[Pool, ...]:
    """Returns the node pools that the elastic-stock ConfigMap lists, in name order; broken ones are left out."""
    found: list[Pool] = []
    for name, text in sorted(((configmap or {}).get("data") or {}).items()):
        try:
            pool = json.loads(text)
            elastic = ElasticStock(int(pool["maxNodes"]), int(pool["stock"]), float(pool.get("provisionSeconds", 180)))
            found.append(
                Pool(
                    name=name,
                    labels=labels(
                        (k, v) for k, v in (pool.get("labels") or {}).items() if k not in NODE_IDENTITY_LABELS
                    ),
                    taints=taints(pool.get("taints")),
                    allocatable=parse_resources(pool["allocatable"], round_up=False),
                    elastic=elastic,
                )
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return tuple(found)


def quota_from(obj: Mapping[str, Any]) -> Quota:
    """Returns a ResourceQuota from its Kubernetes object.

    One that counts only some pods (scopes), or only limits and other objects, is left to the cluster. Until the
    cluster has counted what is used nothing is.
    """
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    namespace = str(meta["namespace"])
    listed = status.get("hard") or spec.get("hard") or {}
    used = status.get("used") or {}
    named = {key: name for key in sorted(listed) if (name := requests.bounded_by(key))}
    if not named or spec.get("scopes") or spec.get("scopeSelector"):
        return Quota(namespace, str(meta["name"]), None)
    hard: dict[str, int] = {}
    taken: dict[str, int] = {}
    for key, name in named.items():
        amount = _quantity(listed[key], name)
        if amount is not None:
            # Of two keys that mean the same, as pods and count/pods do, the tighter one counts.
            hard[name] = min(amount, hard.get(name, amount))
            taken[name] = max(_quantity(used.get(key, 0), name) or 0, taken.get(name, 0))
    bounds = NamespaceQuota(namespace, tuple(sorted(hard)), resources(hard), resources(taken))
    return Quota(namespace, str(meta["name"]), bounds if hard else None)


def _quantity(text: Any, resource: str) -> int | None:
    try:
        return quantity.parse(text, resource)
    except QuantityError:
        return None
