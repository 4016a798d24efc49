"""The manifests of the two articles, verbatim but for their placeholders, and what they mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpufleet.model.policy import ClusterAffinity, DivisionType, ResourceSelector, UnitResource
from gpufleet.wire import documents
from gpufleet.wire.documents import DocumentErrors, Parsed

ARTICLES = Path(__file__).parent.parent / "data" / "articles"


def parse(name: str, **replace: str) -> Parsed:
    text = (ARTICLES / name).read_text()
    for old, new in replace.items():
        text = text.replace(old.replace("_", "-"), new)
    return documents.parse_text(text, name)


def test_the_first_articles_policy() -> None:
    parsed = parse("vllm-deploy-pp.yaml")
    policy = parsed.policies["PropagationPolicy/test/vllm-deploy-pp"]
    assert policy.selectors == (ResourceSelector("apps/v1", "Deployment", "test"),)
    assert policy.ecs_provision
    assert not policy.preserve_on_deletion
    assert policy.placement.prioritized
    assert policy.placement.groups == (
        ClusterAffinity("ack-region1", ("c-region1-a", "c-region1-b")),
        ClusterAffinity("ack-region2", ("c-region2",)),
    )
    assert policy.placement.division is DivisionType.DYNAMIC
    assert policy.scheduler_name == "default-scheduler"


def test_its_misplaced_field_is_warned_about() -> None:
    assert [str(warning) for warning in parse("vllm-deploy-pp.yaml").warnings] == [
        "vllm-deploy-pp.yaml, document 1, line 20: spec.replicaScheduling: belongs under spec.placement; "
        "it is read as spec.placement.replicaScheduling"
    ]


def test_the_placeholders_of_the_policy_are_refused() -> None:
    with pytest.raises(DocumentErrors) as caught:
        parse("vllm-deploy-pp.yaml", c_region1_a="${Cluster 1 ID}", c_region2="${Cluster 3 ID}")
    assert [(error.path, error.line) for error in caught.value.errors] == [
        ("spec.placement.clusterAffinities[0].clusterNames[0]", 15),
        ("spec.placement.clusterAffinities[1].clusterNames[0]", 19),
    ]
    assert "${Cluster 1 ID} is a placeholder; put your own value in its place" in str(caught.value)


def test_the_second_articles_resource_policy() -> None:
    parsed = parse("multi-vk-gpu-resourcepolicy.yaml")
    policy = parsed.resource_policies["ResourcePolicy/default/multi-vk-gpu-resourcepolicy"]
    assert policy.selector.match_labels == (("app", "nginx-gpu-resourcepolicy"),)
    assert [unit.resource for unit in policy.units] == [UnitResource.ACS, UnitResource.ACS]
    assert [dict(unit.node_selector)["topology.kubernetes.io/region"] for unit in policy.units] == [
        "cn-zhangjiakou",
        "cn-wulanchabu",
    ]
    assert dict(policy.units[1].pod_labels) == {
        "alibabacloud.com/serverless-region-id": "cn-wulanchabu",
        "alibabacloud.com/compute-class": "gpu",
        "alibabacloud.com/compute-qos": "default",
        "alibabacloud.com/gpu-model-series": "T4",
    }
    assert (policy.when_try_next, policy.timeout, policy.preempt_policy) == (
        "LackResourceOrExceedMax",
        None,
        "AfterAllUnits",
    )
    assert not policy.ignore_previous_pod
    assert policy.ignore_terminating_pod
    assert not parsed.warnings


def test_the_second_articles_deployment() -> None:
    parsed = parse("nginx-gpu-resourcepolicy.yaml")
    workload = parsed.workloads["default/Deployment/nginx-gpu-deployment-resourcepolicy"]
    (main,) = workload.components
    assert (main.replicas, main.scheduler_name) == (1, "ack-co-scheduler")
    assert dict(main.shape.requests) == {"cpu": 1000, "memory": 2**30, "nvidia.com/gpu": 1, "pods": 1}
    assert main.labels == (("app", "nginx-gpu-resourcepolicy"),)
    assert not parsed.warnings


def test_the_deployment_for_one_region() -> None:
    workload = parse("nginx-gpu-specified-region.yaml").workloads[
        "default/Deployment/nginx-gpu-deployment-specified-region"
    ]
    assert dict(workload.components[0].labels)["alibabacloud.com/serverless-region-id"] == "cn-zhangjiakou"
    with pytest.raises(DocumentErrors) as caught:
        parse("nginx-gpu-specified-region.yaml", cn_zhangjiakou="<RegionID>")
    (error,) = caught.value.errors
    assert error.path == "spec.template.metadata.labels[alibabacloud.com/serverless-region-id]"
    assert re.match(r"<RegionID> is a placeholder", error.message)


def test_all_of_them_together() -> None:
    loaded = [
        document for path in sorted(ARTICLES.glob("*.yaml")) for document in documents.load(path.read_text(), path.name)
    ]
    parsed = documents.parse_documents(loaded)
    assert len(parsed.objects) == 4
    assert [workload.arrival for workload in parsed.workloads.values()] == [1, 2]
