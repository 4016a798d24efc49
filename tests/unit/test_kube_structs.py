"""The subsets of Node, Pod and Event, on objects as a server writes them and as dicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gpufleet.kube.structs import Source, read_event, read_node, read_pod

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "llm-0",
        "namespace": "test",
        "uid": "u",
        "resourceVersion": "77",
        "labels": {"app": "llm"},
        "annotations": {"keep": "me"},
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llm", "uid": "r", "controller": True}
        ],
        "creationTimestamp": "2026-11-22T02:00:00Z",
        "deletionTimestamp": "2026-11-22T02:30:00Z",
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
    },
    "spec": {
        "nodeName": "gpu-1",
        "schedulerName": "default-scheduler",
        "overhead": {"cpu": "250m"},
        "containers": [
            {"name": "main", "image": "x", "resources": {"requests": {"cpu": "2"}, "limits": {"nvidia.com/gpu": "8"}}}
        ],
        "initContainers": [
            {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "fetch", "resources": {}},
        ],
        "affinity": {"nodeAffinity": {}},
    },
    "status": {
        "phase": "Pending",
        "reason": "Evicted",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/4 nodes are available",
                "lastProbeTime": None,
                "lastTransitionTime": "2026-11-22T02:10:00Z",
            }
        ],
    },
}

sources = pytest.mark.parametrize(
    "source", [lambda obj: json.dumps(obj).encode(), lambda obj: msgspec.Raw(json.dumps(obj).encode()), dict]
)


@sources
def test_pod(source: Callable[[Any], Source]) -> None:
    pod = read_pod(source(POD))
    assert (pod.metadata.namespace, pod.metadata.name, pod.metadata.uid) == ("test", "llm-0", "u")
    assert (pod.metadata.labels, pod.metadata.annotations) == ({"app": "llm"}, {"keep": "me"})
    assert pod.metadata.creation_timestamp == "2026-11-22T02:00:00Z"
    assert pod.metadata.deletion_timestamp == "2026-11-22T02:30:00Z"
    assert pod.spec and pod.spec.containers and pod.spec.init_containers and pod.spec.containers[0].resources
    assert (pod.spec.node_name, pod.spec.overhead) == ("gpu-1", {"cpu": "250m"})
    assert pod.spec.containers[0].resources.limits == {"nvidia.com/gpu": "8"}
    assert [c.restart_policy for c in pod.spec.init_containers] == ["Always", None]
    assert pod.status and pod.status.conditions
    assert (pod.status.phase, pod.status.reason) == ("Pending", "Evicted")
    condition = pod.status.conditions[0]
    assert (condition.reason, condition.last_transition_time) == ("Unschedulable", "2026-11-22T02:10:00Z")


@sources
def test_absent_and_null_are_the_same(source: Callable[[Any], Source]) -> None:
    least = {"metadata": {"name": "a"}}
    nothing = {"metadata": {"name": "a", "labels": None, "uid": None}, "spec": None, "status": None}
    assert read_pod(source(least)) == read_pod(source(nothing))
    assert read_node(source(least)) == read_node(source(nothing))
    assert read_event(source({})) == read_event(source({"involvedObject": None, "series": None}))


@sources
def test_node(source: Callable[[Any], Source]) -> None:
    obj = {
        "metadata": {"name": "gpu-1", "labels": {"gpu": "a100"}},
        "spec": {
            "unschedulable": True,
            "providerID": "ecs://1",
            "taints": [{"key": "k", "effect": "NoSchedule", "timeAdded": "2026-11-22T02:00:00Z"}],
        },
        "status": {
            "allocatable": {"cpu": "96", "nvidia.com/gpu": 8},
            "capacity": {"cpu": "96"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    node = read_node(source(obj))
    assert node.spec and node.spec.taints and node.spec.unschedulable
    assert (node.spec.taints[0].key, node.spec.taints[0].value) == ("k", None)
    assert node.status and node.status.conditions
    assert node.status.allocatable == {"cpu": "96", "nvidia.com/gpu": 8}
    assert node.status.conditions[0].type == "Ready"


@pytest.mark.parametrize(
    "times, last_seen",
    [
        ({"lastTimestamp": "2026-11-22T02:05:00Z", "firstTimestamp": "2026-11-22T02:00:00Z"}, ":05:"),
        ({"eventTime": "2026-11-22T02:07:00.123456Z", "lastTimestamp": None, "firstTimestamp": None}, ":07:"),
        (
            {
                "eventTime": "2026-11-22T02:07:00.123456Z",
                "series": {"count": 3, "lastObservedTime": "2026-11-22T02:09:00.000000Z"},
            },
            ":09:",
        ),
        ({}, ":01:"),
    ],
)
def test_event(times: dict[str, Any], last_seen: str) -> None:
    event = read_event(
        {
            "metadata": {"name": "e", "creationTimestamp": "2026-11-22T02:01:00Z"},
            "reason": "ProvisionNode",
            "message": "started",
            "type": "Normal",
            "involvedObject": {"kind": "Pod", "namespace": "test", "name": "llm-0", "uid": "u"},
            **times,
        }
    )
    assert event.last_seen is not None and last_seen in event.last_seen
    assert event.involved_object
    assert (event.involved_object.kind, event.involved_object.uid, event.reason) == ("Pod", "u", "ProvisionNode")


@pytest.mark.parametrize("bad", [b"", b"{}", b'{"metadata": {}}', b'{"metadata": {"name": 1}}', b"[]", b"\xff"])
def test_what_is_no_object(bad: bytes) -> None:
    for read in (read_pod, read_node):
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            read(bad)
    with pytest.raises(msgspec.ValidationError):
        read_pod({"metadata": {"name": "a"}, "spec": {"containers": "none"}})
