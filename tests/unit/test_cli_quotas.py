"""`gpufleet get quotas`: what the tree guarantees, what placements use of it, and who waits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpufleet.bus.records import Record
from gpufleet.bus.topics import load_registry
from gpufleet.cli.errors import CliError
from gpufleet.cli.live import Tables
from gpufleet.cli.output import Format
from gpufleet.cli.quotas import show_quotas
from gpufleet.model.placement import Placement
from gpufleet.wire.documents import parse_text
from gpufleet.wire.records import dump_manifest
from gpufleet.wire.records import dump_placement as record_of
from gpufleet.wire.yaml import dump
from sim.plan import plan

GPU = "nvidia.com/gpu"
TREE = {
    "apiVersion": "scheduling.sigs.k8s.io/v1beta1",
    "kind": "ElasticQuotaTree",
    "metadata": {"name": "eq", "namespace": "kube-system"},
    "spec": {
        "root": {
            "name": "root",
            "min": {GPU: 32},
            "max": {GPU: 32},
            "children": [
                {"name": "train", "min": {GPU: 8}, "max": {GPU: 12, "kube-queue/max-jobs": 2}, "namespaces": ["a"]},
                {"name": "infer", "min": {GPU: 8}, "max": {GPU: 16}, "namespaces": ["b"]},
            ],
        }
    },
}
CLUSTER = {
    "apiVersion": "gpufleet.io/v1alpha1",
    "kind": "Cluster",
    "metadata": {"name": "c1"},
    "status": {"nodeClasses": [{"name": "gpu", "allocatable": {"cpu": "64", GPU: "8"}, "nodes": 2}]},
}
POLICY = {
    "apiVersion": "policy.one.alibabacloud.com/v1alpha1",
    "kind": "ClusterPropagationPolicy",
    "metadata": {"name": "jobs"},
    "spec": {"resourceSelectors": [{"apiVersion": "batch/v1", "kind": "Job"}], "placement": {}},
}


def job(namespace: str, name: str, pods: int) -> dict[str, Any]:
    container = {"name": "main", "image": "x", "resources": {"limits": {GPU: "1"}}}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"parallelism": pods, "completions": pods, "template": template},
    }


@pytest.fixture
def view() -> Tables:
    """The topics of a fleet on which two jobs run, one waits for its quota and one for room."""
    jobs = [job("a", "one", 8), job("a", "two", 6), job("b", "three", 4), job("b", "four", 12)]
    found = Tables(load_registry())

    def give(topic: str, key: str, value: bytes) -> None:
        found.take([Record(found.registry[topic].name, 0, 7, key, value, {}, 0.0)])

    give("policies", "ElasticQuotaTree/kube-system/eq", dump_manifest(TREE))
    for manifest in jobs:
        metadata = manifest["metadata"]
        give("workloads", f"{metadata['namespace']}/Job/{metadata['name']}", dump_manifest(manifest))
    placements: list[Placement] = plan(parse_text(dump([CLUSTER, POLICY, TREE, *jobs])))
    for placement in placements:
        give("placements", placement.workload, record_of(placement))
    assert [p.verdict.value for p in placements] == ["Scheduled", "Queued", "Unschedulable", "Scheduled"]
    return found


def test_a_table_with_parents_first(view: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    show_quotas(view, [], Format.TABLE)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if GPU in row] == [
        ["root", GPU, "12", "32", "32", "2", "2"],
        ["train", GPU, "8", "8", "12", "1/2", "1"],
        ["infer", GPU, "4", "8", "16", "1", "1"],
    ]


def test_documents_for_programs(view: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    show_quotas(view, ["train"], Format.JSON)
    (train,) = json.loads(capsys.readouterr().out)
    assert train["parent"] == "root"
    assert (train["namespaces"], train["used"][GPU], train["min"], train["waiting"]) == (["a"], "8", {GPU: "8"}, 1)
    assert train["max"] == {GPU: "12", "kube-queue/max-jobs": "2"}


def test_names_that_are_not_there(view: Tables) -> None:
    with pytest.raises(CliError, match="no quota other, tests"):
        show_quotas(view, ["train", "tests", "other"], Format.TABLE)


def test_without_a_tree_the_list_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = Tables(load_registry())
    show_quotas(nothing, [], Format.JSON)
    said = capsys.readouterr()
    assert json.loads(said.out) == [] and "no ElasticQuotaTree" in said.err
    with pytest.raises(CliError, match="no quota train"):
        show_quotas(nothing, ["train"], Format.TABLE)
