"""What inventory keeps of a node, a pod and an event: small values, made from Kubernetes objects as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gpufleet.model import names, requests
from gpufleet.model.cluster import ElasticStock, ModelStock
from gpufleet.model.kinds.failures import TAKEN_AWAY
from gpufleet.model.quantity import QuantityError
from gpufleet.model.resources import Labels, Resources, labels, parse_resources, resources
from gpufleet.model.selectors import Taint

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
# Put on and off by Kubernetes itself as a node's condition changes; they say "full", not "another class".
_CONDITION_TAINTS = "node.kubernetes.io/"


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
    """A pod. ``revision`` is its pod-template-hash; times are epoch seconds."""

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

    @property
    def holds_room(self) -> bool:
        """Whether it takes resources of its node."""
        return bool(self.node) and self.phase not in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Provisioning:
    """What a node autoscaler said about a pod: a node is coming since ``at``, or there is no stock."""

    pod_uid: str
    at: float
    no_stock: bool


@dataclass(frozen=True, slots=True)
class Pool:
    """A node pool that can grow, as a stock provider describes it."""

    name: str
    labels: Labels
    taints: tuple[Taint, ...]
    allocatable: Resources
    elastic: ElasticStock


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
    """Returns a node's taints in a fixed order."""
    found = [Taint(t.get("key", ""), t.get("effect", ""), t.get("value") or "") for t in items or ()]
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


def pod_requests(spec: Mapping[str, Any]) -> Resources:
    """Returns what a pod asks of its node, ``pods: 1`` included; a quantity that cannot be read does not count."""
    return requests.of_pod(
        [_asked(container) for container in spec.get("containers") or ()],
        [(_asked(c), c.get("restartPolicy") == "Always") for c in spec.get("initContainers") or ()],
        pod=_asked(spec),
        overhead=dict(_amounts(spec.get("overhead"), round_up=True)),
    )


def _asked(container: Mapping[str, Any]) -> dict[str, int]:
    asked = container.get("resources") or {}
    return dict(_amounts({**(asked.get("limits") or {}), **(asked.get("requests") or {})}, round_up=True))


def node_from(manifest: Mapping[str, Any]) -> Node:
    """Returns a node from its Kubernetes object."""
    meta, spec, status = manifest.get("metadata") or {}, manifest.get("spec") or {}, manifest.get("status") or {}
    marks: Mapping[str, str] = meta.get("labels") or {}
    all_taints = taints(spec.get("taints"))
    ready = next((c.get("status") == "True" for c in status.get("conditions") or () if c.get("type") == "Ready"), True)
    condition = any(t.key.startswith(_CONDITION_TAINTS) and t.effect != "PreferNoSchedule" for t in all_taints)
    virtual = marks.get(VIRTUAL_LABEL[0]) == VIRTUAL_LABEL[1]
    return Node(
        name=meta.get("name", ""),
        labels=labels((k, v) for k, v in marks.items() if k not in NODE_IDENTITY_LABELS),
        taints=tuple(t for t in all_taints if not t.key.startswith(_CONDITION_TAINTS)),
        allocatable=_amounts(status.get("allocatable"), round_up=False),
        usable=ready and not condition and not spec.get("unschedulable") and not meta.get("deletionTimestamp"),
        virtual=virtual,
        stock=_virtual_stock((meta.get("annotations") or {}).get(STOCK_ANNOTATION)) if virtual else None,
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


def pod_from(manifest: Mapping[str, Any]) -> Pod:
    """Returns a pod from its Kubernetes object."""
    meta, spec, status = manifest.get("metadata") or {}, manifest.get("spec") or {}, manifest.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    scheduled: Mapping[str, Any] = conditions.get("PodScheduled") or {}
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    created = epoch_seconds(meta.get("creationTimestamp")) or 0.0
    marks: Mapping[str, str] = meta.get("labels") or {}
    phase = status.get("phase") or "Pending"
    disrupted = (conditions.get("DisruptionTarget") or {}).get("status") == "True"
    return Pod(
        uid=meta.get("uid", ""),
        namespace=meta.get("namespace", ""),
        name=meta.get("name", ""),
        node=spec.get("nodeName") or "",
        requests=pod_requests(spec),
        phase=phase,
        created=created,
        terminating=bool(meta.get("deletionTimestamp")),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        infrastructure_failure=phase == "Failed" and (disrupted or status.get("reason") in TAKEN_AWAY),
        unschedulable_since=(epoch_seconds(scheduled.get("lastTransitionTime")) or created) if unschedulable else None,
        message=scheduled.get("message") or "" if unschedulable else "",
        workload=(meta.get("annotations") or {}).get(names.WORKLOAD_ANNOTATION, ""),
        component=marks.get(names.COMPONENT_LABEL, ""),
        revision=marks.get("pod-template-hash") or marks.get("controller-revision-hash") or "",
    )


def provisioning_from(manifest: Mapping[str, Any]) -> Provisioning | None:
    """Returns what an Event says about provisioning for a pod, or None for any other event."""
    reason = manifest.get("reason")
    about: Mapping[str, Any] = manifest.get("involvedObject") or manifest.get("regarding") or {}
    if about.get("kind") != "Pod" or reason not in ("ProvisionNode", "NotTriggerScaleUp"):
        return None
    text = manifest.get("message") or manifest.get("note") or ""
    if reason == "NotTriggerScaleUp" and "NoStock" not in text:
        return None
    series: Mapping[str, Any] = manifest.get("series") or {}
    meta: Mapping[str, Any] = manifest.get("metadata") or {}
    times = (series.get("lastObservedTime"), manifest.get("lastTimestamp"), manifest.get("eventTime"))
    at = next((t for t in map(epoch_seconds, (*times, meta.get("creationTimestamp"))) if t is not None), 0.0)
    return Provisioning(about.get("uid", ""), at, no_stock=reason == "NotTriggerScaleUp")


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
