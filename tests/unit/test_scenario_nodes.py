"""Which nodes the pods of a decision land on: as the cluster's scheduler chooses, and as the decision prefers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sim.model.api import Json
from sim.scenario.world import World
from tests.support.plans import deployment, node_class, policy
from tests.support.scenarios import ended, pods


def registered(**spec: Any) -> Json:
    return {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "c1"},
        "spec": spec,
        "status": {
            "nodeClasses": [
                {**node_class(8, 8), "name": "large", "labels": {"size": "l"}},
                {**node_class(2, 2, gpus=2), "name": "small", "labels": {"size": "s"}},
            ]
        },
    }


def where(world: World) -> dict[str, int]:
    return dict(Counter(pod["spec"]["nodeName"] for pod in pods(world, "c1")))


@pytest.mark.parametrize(
    ("prefers", "replicas", "expected"),
    [
        (False, 1, {"large-0": 1}),
        (True, 1, {"small-0": 1}),
        (True, 6, {"small-0": 2, "small-1": 2, "large-0": 2}),
    ],
)
def test_pods_go_to_the_class_that_was_counted_on(prefers: bool, replicas: int, expected: dict[str, int]) -> None:
    documents = [registered(), policy(preferNodeClass=prefers), deployment(replicas)]
    assert where(ended(documents)) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("LeastAllocated", {"large-0": 1, "large-1": 1}), ("MostAllocated", {"large-0": 2})],
)
def test_a_simulated_cluster_chooses_nodes_as_its_document_says(kind: str, expected: dict[str, int]) -> None:
    strategy = {"type": kind, "resources": [{"name": "nvidia.com/gpu", "weight": 1}]}
    documents = [registered(scoringStrategy=strategy), policy(), deployment(2, gpu=3)]
    assert where(ended(documents)) == expected
