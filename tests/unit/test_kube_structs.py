"""The subsets of Node, Pod and Event, on objects as a server writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from gpufleet.kube.structs import decode_event, decode_node, decode_pod

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "llm-0",
        "namespace": "test",
        "uid": "u",
        "resourceVersion": "77",
        "labels": {"app": "llm"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{...}", "keep": "me"},
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
        "priority": 100,
        "nodeSelector": {"gpu": "a100"},
        "overhead": {"cpu": "250m"},
        "containers": [
            {"name": "main", "image": "x", "resources": {"requests": {"cpu": "2"}, "limits": {"nvidia.com/gpu": "8"}}}
        ],
        "initContainers": [
            {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "fetch", "resources": {}},
        ],
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300}],
        "affinity": {"nodeAffinity": {}},
    },
    "status": {
        "phase": "Pending",
        "reason": "Evicted",
        "message": "low on memory",
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
        "containerStatuses": [
            {
                "name": "main",
                "ready": False,
                "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            }
        ],
    },
}


def encoded(obj: dict[str, Any]) -> bytes:
    return json.dumps(obj).encode()


def test_pod() -> None:
    pod = decode_pod(encoded(POD))
    assert (pod.metadata.namespace, pod.metadata.name, pod.metadata.uid) == ("test", "llm-0", "u")
    assert pod.metadata.annotations == {"keep": "me"}
    assert pod.metadata.owner_references[0].kind == "ReplicaSet"
    assert pod.metadata.owner_references[0].controller
    assert pod.metadata.deletion_timestamp == datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
    assert pod.spec.node_name == "gpu-1"
    assert pod.spec.containers[0].resources.limits == {"nvidia.com/gpu": "8"}
    assert [c.restart_policy for c in pod.spec.init_containers] == ["Always", ""]
    assert (pod.spec.overhead, pod.spec.priority, pod.spec.node_selector) == ({"cpu": "250m"}, 100, {"gpu": "a100"})
    assert pod.spec.tolerations[0].toleration_seconds == 300
    assert (pod.status.phase, pod.status.reason, pod.status.message) == ("Pending", "Evicted", "low on memory")
    condition = pod.status.conditions[0]
    assert (condition.reason, condition.last_transition_time) == (
        "Unschedulable",
        datetime(2026, 11, 22, 2, 10, tzinfo=UTC),
    )
    container = pod.status.container_statuses[0]
    assert container.state.waiting
    assert container.last_state.terminated
    assert (container.restart_count, container.state.waiting.reason) == (3, "CrashLoopBackOff")
    assert container.last_state.terminated.exit_code == 137


def test_the_least_of_each() -> None:
    least = encoded({"metadata": {"name": "a"}})
    pod, node, event = decode_pod(least), decode_node(least), decode_event(least)
    assert (pod.spec.node_name, pod.spec.containers, pod.status.phase) == ("", [], "")
    assert (node.spec.unschedulable, node.status.allocatable) == (False, {})
    assert (event.last_seen, event.component) == (None, "")


def test_defaults_are_not_shared() -> None:
    first, second = (decode_pod(encoded({"metadata": {"name": name}})) for name in "ab")
    first.metadata.labels["x"] = "y"
    first.status.phase = "Running"
    assert (second.metadata.labels, second.status.phase) == ({}, "")


def test_node() -> None:
    node = decode_node(
        encoded(
            {
                "metadata": {"name": "gpu-1", "labels": {"gpu": "a100"}},
                "spec": {
                    "unschedulable": True,
                    "providerID": "ecs://1",
                    "taints": [{"key": "k", "effect": "NoSchedule", "timeAdded": "2026-11-22T02:00:00Z"}],
                },
                "status": {
                    "allocatable": {"cpu": "96"},
                    "capacity": {"cpu": "96"},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }
        )
    )
    assert (node.spec.unschedulable, node.spec.provider_id) == (True, "ecs://1")
    assert (node.spec.taints[0].key, node.spec.taints[0].value) == ("k", "")
    assert (node.status.allocatable, node.status.conditions[0].type) == ({"cpu": "96"}, "Ready")


@pytest.mark.parametrize(
    "times, last_seen, component",
    [
        (
            {
                "lastTimestamp": "2026-11-22T02:05:00Z",
                "firstTimestamp": "2026-11-22T02:00:00Z",
                "source": {"component": "kubelet"},
            },
            5,
            "kubelet",
        ),
        (
            {
                "eventTime": "2026-11-22T02:07:00.123456Z",
                "lastTimestamp": None,
                "firstTimestamp": None,
                "source": {},
                "reportingComponent": "autoscaler",
            },
            7,
            "autoscaler",
        ),
        (
            {
                "eventTime": "2026-11-22T02:07:00.123456Z",
                "series": {"count": 3, "lastObservedTime": "2026-11-22T02:09:00.000000Z"},
            },
            9,
            "",
        ),
    ],
)
def test_event(times: dict[str, Any], last_seen: int, component: str) -> None:
    event = decode_event(
        encoded(
            {
                "metadata": {"name": "e", "creationTimestamp": "2026-11-22T02:01:00Z"},
                "reason": "ProvisionNode",
                "message": "started",
                "type": "Normal",
                "involvedObject": {"kind": "Pod", "namespace": "test", "name": "llm-0", "uid": "u"},
                **times,
            }
        )
    )
    assert event.last_seen is not None
    assert (event.last_seen.minute, event.component) == (last_seen, component)
    assert (event.involved_object.name, event.reason) == ("llm-0", "ProvisionNode")


@pytest.mark.parametrize("bad", [b"", b"{}", b'{"metadata": {}}', b'{"metadata": {"name": 1}}', b"[]", b"\xff"])
def test_what_is_no_object(bad: bytes) -> None:
    for decode in (decode_pod, decode_node, decode_event):
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            decode(bad)
