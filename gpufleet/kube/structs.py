"""The parts of Node, Pod and Event that the services read, as msgspec structs.

Decoding only these costs a few microseconds per pod, where the generated models take more than a
millisecond. Field names are those of the Kubernetes API in snake case; quantities stay strings as the server
writes them, times become timezone-aware datetimes. What is not listed here is skipped.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

import msgspec

Labels: TypeAlias = dict[str, str]
Quantities: TypeAlias = dict[str, str]

# Written by tools, as large as the object itself, and of no use to a reader of the object.
BULKY_ANNOTATIONS = ("kubectl.kubernetes.io/last-applied-configuration",)


class Part(msgspec.Struct, rename="camel", gc=False, kw_only=True):
    """Base: camel case names, every field optional, kept out of the garbage collector's cycles."""


class OwnerReference(Part):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Metadata(Part):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: Labels = {}
    annotations: Labels = {}
    owner_references: list[OwnerReference] = []
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Condition(Part):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class Taint(Part):
    key: str
    value: str = ""
    effect: str = ""


class NodeSpec(Part):
    unschedulable: bool = False
    taints: list[Taint] = []
    provider_id: str = msgspec.field(name="providerID", default="")


class NodeStatus(Part):
    capacity: Quantities = {}
    allocatable: Quantities = {}
    conditions: list[Condition] = []


class Node(Part):
    metadata: Metadata
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class Resources(Part):
    requests: Quantities = {}
    limits: Quantities = {}


class Container(Part):
    name: str = ""
    resources: Resources = msgspec.field(default_factory=Resources)
    restart_policy: str = ""  # of an init container: "Always" makes it a sidecar


class Toleration(Part):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class SchedulingGate(Part):
    name: str = ""


class PodSpec(Part):
    node_name: str = ""
    containers: list[Container] = []
    init_containers: list[Container] = []
    overhead: Quantities = {}
    resources: Resources | None = None  # of the pod as a whole (pod-level resources)
    priority: int = 0
    priority_class_name: str = ""
    scheduler_name: str = ""
    node_selector: Labels = {}
    tolerations: list[Toleration] = []
    scheduling_gates: list[SchedulingGate] = []


class Waiting(Part):
    reason: str = ""
    message: str = ""


class Terminated(Part):
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class ContainerState(Part):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(Part):
    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = msgspec.field(default_factory=ContainerState)
    last_state: ContainerState = msgspec.field(default_factory=ContainerState)


class PodStatus(Part):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    init_container_statuses: list[ContainerStatus] = []
    container_statuses: list[ContainerStatus] = []
    nominated_node_name: str = ""
    start_time: datetime | None = None


class Pod(Part):
    metadata: Metadata
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class ObjectReference(Part):
    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class EventSeries(Part):
    count: int = 0
    last_observed_time: datetime | None = None


class EventSource(Part):
    component: str = ""


class Event(Part):
    """An Event of the core group. Which times are set depends on the writer: use :attr:`last_seen`."""

    metadata: Metadata
    reason: str = ""
    message: str = ""
    type: str = ""
    involved_object: ObjectReference = msgspec.field(default_factory=ObjectReference)
    count: int = 0
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: EventSeries | None = None
    source: EventSource = msgspec.field(default_factory=EventSource)
    reporting_component: str = ""

    @property
    def last_seen(self) -> datetime | None:
        """When it happened last, as far as the event says."""
        series = self.series.last_observed_time if self.series else None
        return series or self.last_timestamp or self.event_time or self.metadata.creation_timestamp

    @property
    def component(self) -> str:
        """Who wrote it."""
        return self.reporting_component or self.source.component


_node_decoder = msgspec.json.Decoder(Node)
_pod_decoder = msgspec.json.Decoder(Pod)
_event_decoder = msgspec.json.Decoder(Event)


def _slim(metadata: Metadata) -> None:
    for key in BULKY_ANNOTATIONS:
        metadata.annotations.pop(key, None)


def decode_node(raw: bytes | msgspec.Raw) -> Node:
    """Raises msgspec.DecodeError (ValidationError where the JSON is well-formed but wrong)."""
    node = _node_decoder.decode(raw)
    _slim(node.metadata)
    return node


def decode_pod(raw: bytes | msgspec.Raw) -> Pod:
    """Raises msgspec.DecodeError (ValidationError where the JSON is well-formed but wrong)."""
    pod = _pod_decoder.decode(raw)
    _slim(pod.metadata)
    return pod


def decode_event(raw: bytes | msgspec.Raw) -> Event:
    """Raises msgspec.DecodeError (ValidationError where the JSON is well-formed but wrong)."""
    return _event_decoder.decode(raw)
