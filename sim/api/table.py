"""Server-side tables, which is what `kubectl get` prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sim.api.resources import Registry, Resource
from sim.api.values import parse_rfc3339

Json = dict[str, Any]
Cell = Callable[[Json, float], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column; priority 1 is shown with `-o wide` only."""

    name: str
    cell: Cell
    type: str = "string"
    priority: int = 0

    def definition(self) -> Json:
        """The entry of columnDefinitions."""
        form = "name" if self.name == "Name" else ""
        return {
            "name": self.name,
            "type": self.type,
            "format": form,
            "description": self.name,
            "priority": self.priority,
        }


def table(
    registry: Registry, resource: Resource, objects: Iterable[Json], now: float, include: str, metadata: Json
) -> Json:
    """A `meta.k8s.io/v1 Table`; `include` says what each row carries: Metadata, Object or None."""
    columns = _columns(registry, resource)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [column.definition() for column in columns],
        "rows": [_row(columns, obj, now, include) for obj in objects],
    }


def _row(columns: list[Column], obj: Json, now: float, include: str) -> Json:
    row: Json = {"cells": [column.cell(obj, now) for column in columns]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        row["object"] = partial_metadata(obj)
    return row


def partial_metadata(obj: Json) -> Json:
    """The object as `PartialObjectMetadata`."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _columns(registry: Registry, resource: Resource) -> list[Column]:
    known = COLUMNS.get(resource.storage)
    if known is not None:
        return known
    printed = (registry.crd_version(resource) or {}).get("additionalPrinterColumns")
    if not printed:
        return [_NAME, _AGE]
    columns = [_NAME]
    for entry in printed:
        cell = _json_path_cell(entry["jsonPath"], is_date=entry.get("type") == "date")
        columns.append(Column(entry["name"], cell, entry.get("type", "string"), entry.get("priority", 0)))
    return columns


_STEP = re.compile(r"""\.?([A-Za-z0-9_-]+)|\[(-?\d+):?\]|\[\?\(@\.(\w+)==["']([^"']*)["']\)\]""")


def _json_path_cell(path: str, *, is_date: bool) -> Cell:
    steps = list(_STEP.finditer(path))

    def cell(obj: Json, now: float) -> Any:
        value: Any = obj
        for step in steps:
            name, index, key, wanted = step.groups()
            if name is not None:
                value = value.get(name) if isinstance(value, dict) else None
            elif not isinstance(value, list):
                value = None
            elif index is not None:
                at = int(index)
                value = value[at] if -len(value) <= at < len(value) else None
            else:
                value = next((v for v in value if isinstance(v, dict) and v.get(key) == wanted), None)
        if is_date:
            return age(value, now) if isinstance(value, str) else None
        return value if isinstance(value, (str, int, float, bool)) else None

    return cell


def human_duration(seconds: float) -> str:
    """`45s`, `3m20s`, `5h`, `2d3h`: as kubectl prints ages."""
    seconds = int(seconds)
    if seconds < 0:
        return "<invalid>"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def age(timestamp: str | None, now: float) -> str:
    """How long ago an RFC 3339 time is."""
    if not timestamp:
        return "<unknown>"
    try:
        return human_duration(now - parse_rfc3339(timestamp))
    except ValueError:
        return "<unknown>"


def _get(obj: Json, path: str, default: Any = None) -> Any:
    value: Any = obj
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return default if value is None else value


def _field(path: str, default: Any = "") -> Cell:
    return lambda obj, _now: _get(obj, path, default)


def _number(path: str) -> Cell:
    return _field(path, 0)


_NAME = Column("Name", _field("metadata.name"))
_AGE = Column("Age", lambda obj, now: age(_get(obj, "metadata.creationTimestamp"), now))


def _selector(path: str) -> Cell:
    def cell(obj: Json, _now: float) -> str:
        selector = _get(obj, path, {})
        pairs = selector.get("matchLabels", selector) if isinstance(selector, dict) else {}
        return ",".join(f"{k}={v}" for k, v in sorted(pairs.items())) or "<none>"

    return cell


def _containers(field: str) -> Cell:
    def cell(obj: Json, _now: float) -> str:
        return ",".join(c.get(field, "") for c in _get(obj, "spec.template.spec.containers", []))

    return cell


def _template_columns(*, selector: bool = True) -> list[Column]:
    columns = [
        Column("Containers", _containers("name"), priority=1),
        Column("Images", _containers("image"), priority=1),
    ]
    if selector:
        columns.append(Column("Selector", _selector("spec.selector"), priority=1))
    return columns


def _pod_ready(obj: Json, _now: float) -> str:
    statuses = _get(obj, "status.containerStatuses", [])
    ready = sum(bool(status.get("ready")) for status in statuses)
    return f"{ready}/{len(_get(obj, 'spec.containers', []))}"


def _pod_status(obj: Json, _now: float) -> str:
    status = obj.get("status", {})
    reason: str = status.get("reason") or status.get("phase", "Unknown")
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    for container in reversed(status.get("containerStatuses", ())):
        state = container.get("state", {})
        part = state.get("waiting") or state.get("terminated") or {}
        if part.get("reason"):
            reason = part["reason"]
    if obj["metadata"].get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def _pod_restarts(obj: Json, _now: float) -> str:
    return str(sum(s.get("restartCount", 0) for s in _get(obj, "status.containerStatuses", [])))


def _node_status(obj: Json, _now: float) -> str:
    conditions = {c["type"]: c["status"] for c in _get(obj, "status.conditions", [])}
    ready = conditions.get("Ready")
    state = "Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"
    return state + (",SchedulingDisabled" if _get(obj, "spec.unschedulable") else "")


def _node_roles(obj: Json, _now: float) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = _get(obj, "metadata.labels", {})
    return ",".join(sorted(k.removeprefix(prefix) for k in labels if k.startswith(prefix))) or "<none>"


def _node_address(kind: str) -> Cell:
    def cell(obj: Json, _now: float) -> str:
        addresses = _get(obj, "status.addresses", [])
        return next((a["address"] for a in addresses if a.get("type") == kind), "<none>")

    return cell


def _ready_of(wanted: str) -> Cell:
    return lambda obj, _now: f"{_get(obj, 'status.readyReplicas', 0)}/{_get(obj, wanted, 0)}"


def _job_status(obj: Json, _now: float) -> str:
    conditions = {c["type"] for c in _get(obj, "status.conditions", []) if c.get("status") == "True"}
    for name in ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if name in conditions:
            return name
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else "Running"


def _job_completions(obj: Json, _now: float) -> str:
    succeeded, wanted = _get(obj, "status.succeeded", 0), _get(obj, "spec.completions")
    return f"{succeeded}/{wanted if wanted is not None else '1 of ' + str(_get(obj, 'spec.parallelism', 1))}"


def _job_duration(obj: Json, now: float) -> str:
    start, end = _get(obj, "status.startTime"), _get(obj, "status.completionTime")
    if not start:
        return ""
    return human_duration((parse_rfc3339(end) if end else now) - parse_rfc3339(start))


def _service_ports(obj: Json, _now: float) -> str:
    ports = _get(obj, "spec.ports", [])
    return ",".join(f"{p.get('port')}/{p.get('protocol', 'TCP')}" for p in ports) or "<none>"


def _event_seen(obj: Json, now: float) -> str:
    for path in ("series.lastObservedTime", "lastTimestamp", "eventTime", "metadata.creationTimestamp"):
        if value := _get(obj, path):
            return age(value, now)
    return "<unknown>"


def _event_object(obj: Json, _now: float) -> str:
    return f"{_get(obj, 'involvedObject.kind', '').lower()}/{_get(obj, 'involvedObject.name', '')}"


COLUMNS: dict[str, list[Column]] = {
    "pods": [
        _NAME,
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _pod_restarts),
        _AGE,
        Column("IP", _field("status.podIP", "<none>"), priority=1),
        Column("Node", _field("spec.nodeName", "<none>"), priority=1),
        Column("Nominated Node", _field("status.nominatedNodeName", "<none>"), priority=1),
        Column("Readiness Gates", lambda _obj, _now: "<none>", priority=1),
    ],
    "nodes": [
        _NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        _AGE,
        Column("Version", _field("status.nodeInfo.kubeletVersion")),
        Column("Internal-IP", _node_address("InternalIP"), priority=1),
        Column("External-IP", _node_address("ExternalIP"), priority=1),
        Column("OS-Image", _field("status.nodeInfo.osImage", "<unknown>"), priority=1),
        Column("Kernel-Version", _field("status.nodeInfo.kernelVersion", "<unknown>"), priority=1),
        Column("Container-Runtime", _field("status.nodeInfo.containerRuntimeVersion", "<unknown>"), priority=1),
    ],
    "namespaces": [_NAME, Column("Status", _field("status.phase")), _AGE],
    "configmaps": [
        _NAME,
        Column("Data", lambda obj, _: len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), "integer"),
        _AGE,
    ],
    "secrets": [
        _NAME,
        Column("Type", _field("type")),
        Column("Data", lambda obj, _: len(obj.get("data") or ()), "integer"),
        _AGE,
    ],
    "services": [
        _NAME,
        Column("Type", _field("spec.type")),
        Column("Cluster-IP", _field("spec.clusterIP", "<none>")),
        Column("External-IP", lambda _obj, _now: "<none>"),
        Column("Port(s)", _service_ports),
        _AGE,
        Column("Selector", _selector("spec.selector"), priority=1),
    ],
    "events": [
        Column("Last Seen", _event_seen),
        Column("Type", _field("type")),
        Column("Reason", _field("reason")),
        Column("Object", _event_object),
        Column("Source", _field("source.component"), priority=1),
        Column("Message", _field("message")),
        Column("Count", _number("count"), "integer", 1),
        Column("Name", _field("metadata.name"), priority=1),
    ],
    "deployments.apps": [
        _NAME,
        Column("Ready", _ready_of("spec.replicas")),
        Column("Up-to-date", _number("status.updatedReplicas"), "integer"),
        Column("Available", _number("status.availableReplicas"), "integer"),
        _AGE,
        *_template_columns(),
    ],
    "replicasets.apps": [
        _NAME,
        Column("Desired", _number("spec.replicas"), "integer"),
        Column("Current", _number("status.replicas"), "integer"),
        Column("Ready", _number("status.readyReplicas"), "integer"),
        _AGE,
        *_template_columns(),
    ],
    "statefulsets.apps": [
        _NAME,
        Column("Ready", _ready_of("spec.replicas")),
        _AGE,
        *_template_columns(selector=False),
    ],
    "daemonsets.apps": [
        _NAME,
        Column("Desired", _number("status.desiredNumberScheduled"), "integer"),
        Column("Current", _number("status.currentNumberScheduled"), "integer"),
        Column("Ready", _number("status.numberReady"), "integer"),
        Column("Up-to-date", _number("status.updatedNumberScheduled"), "integer"),
        Column("Available", _number("status.numberAvailable"), "integer"),
        Column("Node Selector", _selector("spec.template.spec.nodeSelector")),
        _AGE,
        *_template_columns(),
    ],
    "jobs.batch": [
        _NAME,
        Column("Status", _job_status),
        Column("Completions", _job_completions),
        Column("Duration", _job_duration),
        _AGE,
        *_template_columns(),
    ],
    "cronjobs.batch": [
        _NAME,
        Column("Schedule", _field("spec.schedule")),
        Column("Suspend", _field("spec.suspend", False), "boolean"),
        Column("Active", lambda obj, _now: len(_get(obj, "status.active", [])), "integer"),
        Column("Last Schedule", lambda obj, now: age(_get(obj, "status.lastScheduleTime"), now)),
        _AGE,
    ],
    "priorityclasses.scheduling.k8s.io": [
        _NAME,
        Column("Value", _number("value"), "integer"),
        Column("Global-Default", _field("globalDefault", False), "boolean"),
        _AGE,
        Column("PreemptionPolicy", _field("preemptionPolicy")),
    ],
    "leases.coordination.k8s.io": [_NAME, Column("Holder", _field("spec.holderIdentity")), _AGE],
    "persistentvolumeclaims": [
        _NAME,
        Column("Status", _field("status.phase")),
        Column("StorageClass", _field("spec.storageClassName")),
        _AGE,
    ],
    "poddisruptionbudgets.policy": [
        _NAME,
        Column("Min Available", lambda obj, _now: str(_get(obj, "spec.minAvailable", "N/A"))),
        Column("Max Unavailable", lambda obj, _now: str(_get(obj, "spec.maxUnavailable", "N/A"))),
        Column("Allowed Disruptions", _number("status.disruptionsAllowed"), "integer"),
        _AGE,
    ],
    "customresourcedefinitions.apiextensions.k8s.io": [
        _NAME,
        Column("Created At", _field("metadata.creationTimestamp")),
    ],
}
