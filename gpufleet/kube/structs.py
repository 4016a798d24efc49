"""The parts of Node, Pod and Event that are read of every one in a cluster, as msgspec structs.

Decoding only these is more than ten times faster than decoding to dicts, which in turn is far faster than the
generated models: 14 µs for a pod of 6 KB against 250 µs. Field names are those of the Kubernetes API in snake case;
quantities and times stay as the server writes them. What is not listed here is skipped, and null is the same as
absent. What is read of few objects (ConfigMaps, Namespaces, the objects of workloads) is read as dicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec

Labels: TypeAlias = dict[str, str]
Quantities: TypeAlias = dict[str, str | int | float]
# An object as the server sent it, or already read.
Source: TypeAlias = bytes | msgspec.Raw | Mapping[str, Any]


class Part(msgspec.Struct, rename="camel", gc=False, kw_only=True):
    """Base: camel case names, every field optional, kept out of the garbage collector's cycles."""


class Metadata(Part):
    name: str
    namespace: str | None = None
    uid: str | None = None
    labels: Labels | None = None
    annotations: Labels | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class Condition(Part):
    type: str | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None


class Taint(Part):
    key: str | None = None
    value: str | None = None
    effect: str | None = None


class NodeSpec(Part):
    unschedulable: bool | None = None
    taints: list[Taint] | None = None


class NodeStatus(Part):
    allocatable: Quantities | None = None
    conditions: list[Condition] | None = None


class Node(Part):
    metadata: Metadata
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class Resources(Part):
    requests: Quantities | None = None
    limits: Quantities | None = None


class Container(Part):
    resources: Resources | None = None
    restart_policy: str | None = None  # of an init container: "Always" makes it a sidecar


class PodSpec(Part):
    node_name: str | None = None
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    overhead: Quantities | None = None
    resources: Resources | None = None  # of the pod as a whole (pod-level resources)


class PodStatus(Part):
    phase: str | None = None
    reason: str | None = None
    conditions: list[Condition] | None = None


class Pod(Part):
    metadata: Metadata
    spec: PodSpec | None = None
    status: PodStatus | None = None


class ObjectReference(Part):
    kind: str | None = None
    uid: str | None = None


class EventMetadata(Part):
    creation_timestamp: str | None = None


class EventSeries(Part):
    last_observed_time: str | None = None


class Event(Part):
    """An Event of the core group. Which times are set depends on the writer: use :attr:`last_seen`."""

    metadata: EventMetadata | None = None
    reason: str | None = None
    message: str | None = None
    involved_object: ObjectReference | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    series: EventSeries | None = None

    @property
    def last_seen(self) -> str | None:
        """When it happened last, as far as the event says."""
        series = self.series.last_observed_time if self.series else None
        created = self.metadata.creation_timestamp if self.metadata else None
        return series or self.last_timestamp or self.event_time or created


_T = TypeVar("_T", bound=Part)
_node_decoder = msgspec.json.Decoder(Node)
_pod_decoder = msgspec.json.Decoder(Pod)
_event_decoder = msgspec.json.Decoder(Event)


def _read(source: Source, type_: type[_T], decoder: msgspec.json.Decoder[_T]) -> _T:
    return msgspec.convert(source, type_) if isinstance(source, Mapping) else decoder.decode(source)


def read_node(source: Source) -> Node:
    """Raises msgspec.DecodeError (ValidationError where the JSON is well-formed but wrong)."""
    return _read(source, Node, _node_decoder)


def read_pod(source: Source) -> Pod:
    """Raises msgspec.DecodeError (ValidationError where the JSON is well-formed but wrong)."""
    return _read(source, Pod, _pod_decoder)


def read_event(source: Source) -> Event:
    """Raises msgspec.DecodeError (ValidationError where the JSON is well-formed but wrong)."""
    return _read(source, Event, _event_decoder)
