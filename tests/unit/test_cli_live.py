"""What the command line makes of the topics: the fleet that `get fleet` prints is one that `plan` takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpufleet.bus.records import EPOCH_HEADER, VERSION_HEADER, Record
from gpufleet.bus.topics import load_registry
from gpufleet.cli.live import Tables
from gpufleet.cli.output import Format
from gpufleet.cli.show import _describe_workload, _explain, _show_workloads
from gpufleet.model.log import Scale
from gpufleet.model.placement import ClusterShare, Observation, ObservedPhase, Placement, Version
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.wire.records import dump_manifest, dump_observation, dump_placement, dump_scale

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "llm", "namespace": "test"},
    "spec": {"replicas": 4, "template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}},
}
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "train", "namespace": "test"},
    "spec": {"parallelism": 2, "template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}},
}
POLICY: dict[str, Any] = {
    "apiVersion": "policy.one.alibabacloud.com/v1alpha1",
    "kind": "PropagationPolicy",
    "metadata": {"name": "p", "namespace": "test"},
    "spec": {
        "resourceSelectors": [{"apiVersion": "apps/v1", "kind": "Deployment"}],
        "placement": {"clusterAffinity": {"clusterNames": ["a"]}},
    },
}


@pytest.fixture
def view() -> Tables:
    return Tables(load_registry())


def give(view: Tables, topic: str, key: str, value: bytes | None) -> None:
    view.take([Record(view.registry[topic].name, 0, 7, key, value, {}, 0.0)])


def test_a_submission_that_cannot_be_read_is_left_out_and_named(view: Tables) -> None:
    bare = json.dumps(DEPLOYMENT).encode()
    give(view, "workloads", "test/Deployment/llm", bare)
    give(view, "workloads", "test/Deployment/other", bare)  # the key is not the identity of the value
    give(view, "workloads", "test/Deployment/broken", b"{")
    assert list(view.workloads()) == [DEPLOYMENT]
    assert list(view.unreadable("workloads")) == ["test/Deployment/broken", "test/Deployment/other"]


def test_a_policy_that_cannot_be_read_is_left_out_and_named(view: Tables) -> None:
    key = "PropagationPolicy/test/p"
    give(view, "policies", key, json.dumps(POLICY).encode())
    assert list(view.policies()) == [POLICY] and view.unreadable("policies") == {}
    give(view, "policies", key, json.dumps(POLICY | {"spec": POLICY["spec"] | {"placement": 3}}).encode())
    assert list(view.policies()) == []
    assert "spec.placement" in view.unreadable("policies")[key]


def test_the_envelopes_uid_is_the_manifests(view: Tables) -> None:
    give(view, "workloads", "test/Deployment/llm", dump_manifest(DEPLOYMENT, uid="u-2"))
    (manifest,) = view.workloads()
    assert manifest["metadata"]["uid"] == "u-2"


def test_a_scale_is_the_manifests_replicas(view: Tables) -> None:
    give(view, "workloads", "test/Deployment/llm", dump_manifest(DEPLOYMENT))
    give(view, "workloads", "test/Job/train", dump_manifest(JOB))
    for key in ("test/Deployment/llm", "test/Job/train"):  # a job is placed whole, a scale does not touch it
        give(view, "scales", key, dump_scale(Scale(key, 9)))
    found = {manifest["metadata"]["name"]: manifest["spec"] for manifest in view.workloads()}
    assert (found["llm"]["replicas"], found["train"]["parallelism"]) == (9, 2)
    give(view, "scales", "test/Deployment/llm", None)
    assert [m["spec"]["replicas"] for m in view.workloads() if m["kind"] == "Deployment"] == [4]


LLM = "test/Deployment/llm"


def decided(view: Tables, epoch: int, version: int, *, replicas: int | None) -> None:
    """A record of the placements topic; no replicas: a tombstone."""
    value = None
    if replicas is not None:
        value = dump_placement(Placement(LLM, Version(epoch, version), Verdict.SCHEDULED, replicas))
    headers = {EPOCH_HEADER: str(epoch), VERSION_HEADER: str(version)}
    view.take([Record(view.registry["placements"].name, 0, 7, LLM, value, headers, 0.0)])


def shown(view: Tables) -> list[int]:
    return [placement.replicas for placement in view.placements()]


@pytest.mark.parametrize("late", [(3, 4), (2, 9)], ids=["the same epoch", "a replaced writer"])
def test_a_placement_of_a_lower_version_is_not_shown(view: Tables, late: tuple[int, int]) -> None:
    decided(view, 3, 5, replicas=8)
    decided(view, *late, replicas=2)
    assert shown(view) == [8]
    decided(view, *late, replicas=None)
    assert shown(view) == [8], "nor does a tombstone of one count"
    decided(view, 3, 6, replicas=9)
    assert shown(view) == [9]


def test_a_placement_does_not_come_back_after_a_later_tombstone(view: Tables) -> None:
    decided(view, 3, 5, replicas=8)
    decided(view, 3, 6, replicas=None)
    decided(view, 3, 5, replicas=8)
    assert shown(view) == []
    decided(view, 4, 1, replicas=3)
    assert shown(view) == [3]


def test_an_observation_of_a_lower_version_is_not_shown_and_one_of_the_same_is(view: Tables) -> None:
    def observed(version: int, ready: int) -> None:
        seen = Observation(LLM, "c", Version(3, version), ObservedPhase.APPLIED, ready=ready)
        headers = {EPOCH_HEADER: "3", VERSION_HEADER: str(version)}
        topic = view.registry["observations"].name
        view.take([Record(topic, 0, 7, f"c/{LLM}", dump_observation(seen), headers, 0.0)])

    for version, ready in ((5, 1), (5, 2), (4, 9)):
        observed(version, ready)
    assert [o.ready for o in view.observed(LLM)] == [2]


def test_a_tombstone_by_hand_counts(view: Tables) -> None:
    decided(view, 3, 5, replicas=8)
    give(view, "placements", LLM, None)
    assert shown(view) == []


def test_what_has_no_place_is_described_without_an_empty_table(
    view: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = Reason(Code.NO_CLUSTERS, "the fleet has no clusters")
    placement = Placement(LLM, Version(1, 1), Verdict.UNSCHEDULABLE, 4, reasons=(reason,))
    _describe_workload(view, placement)
    said = capsys.readouterr().out
    assert "PHASE" not in said
    assert "the fleet has no clusters" in said


def test_positions_are_those_of_now_whatever_the_records_said_when_they_were_written(view: Tables) -> None:
    for name, arrival, queue in (("a", 1, "train"), ("b", 2, "train"), ("c", 3, "train"), ("d", 2, "other")):
        placement = Placement(
            f"test/Job/{name}", Version(1, 1), Verdict.QUEUED, 1, arrival=arrival, queue=queue, queue_position=9
        )
        give(view, "placements", placement.workload, dump_placement(placement))
    assert [p.queue_position for p in view.placements()] == [1, 2, 3, 1]
    found = view.placement("test/Job/c")
    assert found is not None
    assert (found.queue_position, view.ahead(found)) == (3, ["test/Job/a", "test/Job/b"])
    give(view, "placements", "test/Job/a", None)
    assert view.ahead(found) == ["test/Job/b"]


@pytest.mark.parametrize("show", ["get", "describe", "explain"])
def test_who_yielded_is_told_who_took_its_place(view: Tables, capsys: pytest.CaptureFixture[str], show: str) -> None:
    told = "lost 3 of 8 pods to test/PyTorchJob/train (priority 100), of higher priority"
    reasons = (Reason(Code.PREEMPTED, told, "a"), Reason(Code.INSUFFICIENT_RESOURCES, "no room", "b"))
    shares = (ClusterShare("a", (("main", 5),)),)
    placement = Placement(LLM, Version(1, 1), Verdict.PARTIALLY_SCHEDULED, 8, shares, reasons, queue_position=1)
    give(view, "placements", LLM, dump_placement(placement))
    (read,) = view.placements()
    if show == "get":
        _show_workloads(view, [read], Format.WIDE)
    elif show == "describe":
        _describe_workload(view, read)
    else:
        _explain(read, [], None, {}, [], [], Format.TABLE)
    assert told in capsys.readouterr().out
