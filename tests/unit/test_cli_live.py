"""What the command line makes of the topics: the fleet that `get fleet` prints is one that `plan` takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpufleet.bus.records import Record
from gpufleet.bus.topics import load_registry
from gpufleet.cli.live import Tables
from gpufleet.model.log import Scale
from gpufleet.wire.records import dump_manifest, dump_scale

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
    assert view.unreadable_workloads() == ["test/Deployment/broken", "test/Deployment/other"]


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
