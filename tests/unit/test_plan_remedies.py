"""What would place a workload: changes that were tried, the smallest of their kind."""

from __future__ import annotations

import pytest

from gpufleet.wire.documents import parse_text
from gpufleet.wire.yaml import dump
from sim.remedy import remedies
from tests.support.plans import DYNAMIC, GPU, LLM, Json, cluster, deployment, job, policy

JOB = "test/PyTorchJob/train"


def found(workload: str, *documents: Json) -> list[str]:
    return list(remedies(parse_text(dump(documents)), workload))


def test_what_is_placed_needs_nothing() -> None:
    assert found(LLM, cluster("c1", 8), policy(), deployment(3)) == []


@pytest.mark.parametrize(("replicas", "nodes"), [(9, "1 more node"), (16, "1 more node"), (17, "2 more nodes")])
def test_the_fewest_nodes_that_do(replicas: int, nodes: str) -> None:
    assert found(LLM, cluster("c1", 8), policy(), deployment(replicas)) == [f"{nodes} of class gpu in c1"]


def test_a_job_needs_them_in_one_cluster_and_the_nearest_is_named() -> None:
    fleet = (cluster("c1", 8, full=3), cluster("c2", 8, 8, full=1), cluster("c3", full=4))
    assert found(JOB, *fleet, policy(), job(4)) == ["2 more nodes of class gpu in c2"]


def test_a_node_that_would_not_do_is_not_named() -> None:
    assert found(LLM, cluster("c1", 8), policy(), deployment(1, gpu=16)) == []


def test_stock_that_the_policy_does_not_use() -> None:
    assert found(LLM, cluster("c1", 8, elastic=2), policy(), deployment(20)) == [
        "ecsProvision: true in PropagationPolicy test/all, so that nodes are created",
        "2 more nodes of class gpu in c1",
    ]
    # One node from stock is not enough for these.
    assert found(LLM, cluster("c1", 8, elastic=1), policy(), deployment(20)) == ["2 more nodes of class gpu in c1"]


def test_a_taint_a_namespace_and_a_suspension() -> None:
    taint = {"key": "team", "value": "a", "effect": "NoSchedule"}
    assert found(LLM, cluster("c1", 8, spec={"taints": [taint]}), policy(), deployment(3)) == [
        "a toleration of team=a:NoSchedule in PropagationPolicy test/all"
    ]
    assert found(LLM, cluster("c1", 8, namespaces=["default"]), policy(), deployment(3)) == [
        "createNamespaces: true in PropagationPolicy test/all"
    ]
    assert found(LLM, cluster("c1", 8), policy(suspension={"scheduling": True}), deployment(3)) == [
        "suspension.scheduling: false in PropagationPolicy test/all"
    ]


def test_a_spread_that_cannot_be_kept() -> None:
    spread = [{"spreadByField": "cluster", "minGroups": 3, "maxGroups": 3}]
    placement = {"replicaScheduling": DYNAMIC, "spreadConstraints": spread}
    assert found(LLM, cluster("c1", 8), cluster("c2", 8), policy(placement=placement), deployment(4)) == [
        "without the spread over 3 or more by cluster in PropagationPolicy test/all"
    ]


def test_a_cluster_that_does_not_answer() -> None:
    lost = cluster("c1", 8, health="Unreachable")
    assert found(LLM, lost, policy(), deployment(3)) == ["c1 reachable again"]


def test_others_that_wait_do_not_count_but_what_is_placed_does() -> None:
    fleet = (cluster("c1", 4), policy())
    first = deployment(9, "first")
    assert found(LLM, *fleet, first, deployment(6)) == ["1 more node of class gpu in c1"]
    placed = {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Placement",
        "workload": "test/Deployment/first",
        "verdict": "Scheduled",
        "replicas": 4,
        "assignments": [{"cluster": "c1", "replicas": 4, "bound": 0}],
    }
    assert found(LLM, *fleet, deployment(4, "first"), placed, deployment(9)) == ["2 more nodes of class gpu in c1"]


def test_without_a_policy_no_change_of_capacity_is_promised() -> None:
    assert found(LLM, cluster("c1", 8), deployment(3)) == []


def test_gpus_of_a_serverless_region() -> None:
    virtual = {
        "name": "vk",
        "labels": {"type": "virtual-kubelet", "topology.kubernetes.io/region": "r1"},
        "taints": [{"key": "virtual-kubelet.io/provider", "value": "alibabacloud", "effect": "NoSchedule"}],
        "stock": [{"gpuModelSeries": "T4", "gpus": 1}],
    }
    units = {
        "apiVersion": "scheduling.alibabacloud.com/v1alpha1",
        "kind": "ResourcePolicy",
        "metadata": {"name": "units", "namespace": "test"},
        "spec": {
            "selector": {"app": "llm"},
            "units": [{"resource": "acs", "podLabels": {"alibabacloud.com/gpu-model-series": "T4"}}],
        },
    }
    fleet = (cluster("c1", virtualNodes=[virtual]), policy(), units)
    assert found(LLM, *fleet, deployment(4)) == ["3 more T4 GPUs in stock for vk in c1"]


def quotas(*leaves: Json, gpus: int = 16) -> Json:
    root = {"name": "root", "min": {GPU: gpus}, "max": {GPU: gpus}, "children": list(leaves)}
    return {
        "apiVersion": "scheduling.sigs.k8s.io/v1beta1",
        "kind": "ElasticQuotaTree",
        "metadata": {"name": "eq", "namespace": "kube-system"},
        "spec": {"root": root},
    }


def leaf(name: str, least: int, most: int, namespace: str, jobs: int | None = None) -> Json:
    limits = {GPU: most} | ({"kube-queue/max-jobs": jobs} if jobs is not None else {})
    return {"name": name, "min": {GPU: least}, "max": limits, "namespaces": [namespace]}


def test_the_limits_of_a_quota_that_are_in_the_way() -> None:
    fleet = (cluster("c1", 8, 8, 8, 8), policy())
    mine, others = leaf("train", 4, 8, "test"), leaf("infer", 8, 16, "other")
    assert found(JOB, *fleet, quotas(mine, others), job(2)) == ["quota train: 8 more nvidia.com/gpu in max"]
    assert found(JOB, *fleet, quotas(mine, others), job(3)) == [
        "quota train: 16 more nvidia.com/gpu in max; quota root: 8 more nvidia.com/gpu in max"
    ]
    # Here quota alone does not help: there are not so many nodes.
    assert found(JOB, *fleet, quotas(mine, others), job(5)) == []
    none = leaf("train", 4, 8, "test", jobs=0)
    assert found(JOB, *fleet, quotas(none, others), job(1)) == ["quota train: 1 more kube-queue/max-jobs in max"]
