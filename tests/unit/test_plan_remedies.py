"""What would place a workload: changes that were tried, the smallest of their kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpufleet.cli.output import Format
from gpufleet.cli.show import explain_documents
from gpufleet.wire.documents import parse_text
from gpufleet.wire.yaml import dump
from sim.remedy import remedies
from tests.support.plans import DYNAMIC, GPU, LLM, Json, cluster, deployment, job, policy

JOB = "test/PyTorchJob/train"
PREEMPTIBLE = "quota.scheduling.alibabacloud.com/preemptible"
VIRTUAL = {"key": "virtual-kubelet.io/provider", "value": "alibabacloud", "effect": "NoSchedule"}


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
    # The first keeps what it is given, and takes more before others do.
    assert found(LLM, *fleet, first, deployment(6)) == ["2 more nodes of class gpu in c1"]
    other = {**job(3), "metadata": {"name": "other", "namespace": "test"}}
    assert found(JOB, *fleet, other, job(2)) == ["2 more nodes of class gpu in c1 (5 with those that go before it)"]
    assert found(JOB, *fleet, job(2), other) == ["2 more nodes of class gpu in c1"]
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
        "taints": [VIRTUAL],
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
        "quota train: 16 more nvidia.com/gpu in max; quota root: 8 more nvidia.com/gpu in min and max"
    ]
    # Here quota alone does not help: there are not so many nodes.
    assert found(JOB, *fleet, quotas(mine, others, gpus=40), job(5)) == [
        "quota train: 32 more nvidia.com/gpu in max, and 1 more node of class gpu in c1"
    ]
    none = leaf("train", 4, 8, "test", jobs=0)
    assert found(JOB, *fleet, quotas(none, others), job(1)) == ["quota train: 1 more kube-queue/max-jobs in max"]


def test_what_is_guaranteed_is_raised_above_too() -> None:
    firm: Json = {**job(2), "metadata": {"name": "train", "namespace": "test", "labels": {PREEMPTIBLE: "false"}}}
    tree = quotas(leaf("train", 8, 16, "test"), leaf("infer", 8, 16, "other"))
    assert found(JOB, cluster("c1", 8, 8), policy(), tree, firm) == [
        "quota train: 8 more nvidia.com/gpu in min; quota root: 8 more nvidia.com/gpu in min and max"
    ]


def test_quota_for_every_copy() -> None:
    copies = policy(division={"replicaSchedulingType": "Duplicated"})
    tree = quotas(leaf("train", 8, 8, "test"), leaf("infer", 8, 16, "other"))
    assert found(LLM, cluster("c1", 8), cluster("c2", 8), copies, tree, deployment(6)) == [
        "quota train: 4 more nvidia.com/gpu in max"
    ]


def test_the_quota_that_another_workload_of_the_plan_uses() -> None:
    tree = quotas(leaf("train", 8, 8, "test"), leaf("infer", 8, 16, "other"))
    assert found(JOB, cluster("c1", 8, 8), policy(), tree, deployment(8), job(1)) == [
        "quota train: 8 more nvidia.com/gpu in max"
    ]


def test_who_blocks_the_queue() -> None:
    blocking = quotas({**leaf("train", 8, 16, "test"), "attributes": {"gpufleet.io/queue-policy": "Block"}})
    other = {**job(2), "metadata": {"name": "other", "namespace": "test"}}
    fleet = (cluster("c1", 8, 8), policy(), blocking, deployment(4))
    assert found(JOB, *fleet, other, job(1)) == ["no change: only those that go before it are in the way"]
    assert found(JOB, *fleet, other, job(2)) == [
        "quota train: 4 more nvidia.com/gpu in max; quota root: 4 more nvidia.com/gpu in min and max, "
        "and 1 more node of class gpu in c1 (once those that go before it are placed)"
    ]


def test_what_keeps_pods_from_nodes() -> None:
    tainted: Json = cluster("c1", 8)
    tainted["status"]["nodeClasses"][0] |= {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}
    assert found(LLM, tainted, policy(), deployment(1)) == ["a toleration of gpu=yes:NoSchedule in its pods"]
    selecting = deployment(1, nodeSelector={"gpu": "a100"})
    assert found(LLM, cluster("c1", 8), policy(), selecting) == ["without the nodeSelector gpu=a100 of its pods"]


def resource_policy(*units: Json, **spec: Json | str | list[str]) -> Json:
    return {
        "apiVersion": "scheduling.alibabacloud.com/v1alpha1",
        "kind": "ResourcePolicy",
        "metadata": {"name": "units", "namespace": "test"},
        "spec": {"selector": {"app": "llm"}, "units": list(units), **spec},
    }


def test_bounds_and_waits_of_units() -> None:
    fleet = (cluster("c1", 8), policy())
    ecs: Json = {"resource": "ecs", "max": 2}
    assert found(LLM, *fleet, resource_policy(ecs), deployment(5)) == [
        "3 more pods in max of units[0] of ResourcePolicy test/units"
    ]
    bounded: Json = {"resource": "ecs", "maxResources": {GPU: "4"}}
    assert found(LLM, *fleet, resource_policy(bounded), deployment(5)) == [
        "1 more pod in maxResources of units[0] of ResourcePolicy test/units"
    ]
    assert found(LLM, *fleet, resource_policy(ecs, matchLabelKeys=["revision"]), deployment(2)) == [
        "without revision in matchLabelKeys of ResourcePolicy test/units"
    ]
    virtual = {"name": "vk", "labels": {"type": "virtual-kubelet"}, "taints": [VIRTUAL]}
    waiting = resource_policy({**ecs, "max": 9}, {"resource": "eci"}, whenTryNextUnits={"policy": "ExceedMax"})
    assert found(LLM, cluster("c1", 1, virtualNodes=[virtual]), policy(), waiting, deployment(3)) == [
        "whenTryNextUnits.policy: LackResourceOrExceedMax in ResourcePolicy test/units",
        "1 more node of class gpu in c1",
    ]


def test_what_a_resource_quota_of_the_namespace_leaves() -> None:
    quota = {"namespace": "test", "hard": {f"requests.{GPU}": "3"}, "used": {f"requests.{GPU}": "1"}}
    bounded = cluster("c1", 8, resourceQuotas=[quota])
    assert found(LLM, bounded, policy(), deployment(5)) == [f"{GPU} 6 in the ResourceQuota of namespace test in c1"]
    assert found(JOB, bounded, policy(), job(1)) == [f"{GPU} 9 in the ResourceQuota of namespace test in c1"]


def test_explain_names_who_is_ahead_and_what_that_waits_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = {**job(3), "metadata": {"name": "first", "namespace": "test"}}
    path = tmp_path / "fleet.yaml"
    path.write_text(dump((cluster("c1", 8, 8, 2), policy(), first, job(3))), encoding="utf-8")
    explain_documents([str(path)], JOB, Format.TABLE, "default")
    assert capsys.readouterr().out.splitlines() == [
        "test/PyTorchJob/train is Unschedulable: 0 of 3 placed by PropagationPolicy test/all, position 2 in the queue.",
        "Ahead of it in the queue: test/PyTorchJob/first.",
        "test/PyTorchJob/first waits because of InsufficientResources: c1: has room for 2 of 3 Worker pods.",
        "",
        "CLUSTER   REASON                  MESSAGE",
        "c1        InsufficientResources   has room for 2 of 3 Worker pods",
        "",
        "What would place it (each was tried by itself)",
        "  1 more node of class gpu in c1 (4 with those that go before it)",
    ]
