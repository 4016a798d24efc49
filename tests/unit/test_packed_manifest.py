"""A packed manifest is the manifest: what is read from it, what it equals, and its bytes on the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.manifest import PackedManifest, pack, packed
from gpufleet.model.placement import Assignment, AssignmentState, Version
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import dump_assignment
from gpufleet.wire.records_base import encode
from tests.support.scheduling import deployment

MANIFEST: dict[str, Any] = {
    "kind": "Deployment",
    "apiVersion": "apps/v1",
    "metadata": {"name": "ä", "namespace": "test", "labels": {}},
    "spec": {"replicas": 2, "ratio": 1.0, "paused": False, "x": [None, 1, "two"]},
}


def test_it_is_read_as_the_manifest() -> None:
    manifest = PackedManifest(MANIFEST)
    assert dict(manifest) == MANIFEST
    assert manifest["spec"]["x"] == [None, 1, "two"]
    assert manifest.get("status") is None
    assert "kind" in manifest
    assert len(manifest) == 4


def test_it_equals_what_says_the_same() -> None:
    manifest = PackedManifest(MANIFEST)
    assert manifest == MANIFEST
    assert MANIFEST == manifest  # noqa: SIM300, both ways
    assert manifest == PackedManifest(dict(reversed(MANIFEST.items())))
    assert manifest != PackedManifest({**MANIFEST, "kind": "StatefulSet"})
    assert manifest != {}


def test_its_bytes_are_those_of_the_manifest() -> None:
    plain = Assignment("test/Deployment/ä", "c1", Version(1, 2), AssignmentState.ACTIVE, manifest=MANIFEST)
    assert dump_assignment(replace(plain, manifest=pack(MANIFEST))) == dump_assignment(plain)
    assert encode({"documents": [pack(MANIFEST)]}) == encode({"documents": [MANIFEST]})


def test_what_json_cannot_say_stays_as_it_is() -> None:
    odd = {"spec": object()}
    assert pack(odd) is odd
    with pytest.raises(RecordError):
        encode(odd)


def test_a_workload_is_packed_once() -> None:
    workload = packed(replace(deployment(), manifest=MANIFEST))
    assert workload.manifest == MANIFEST
    assert packed(workload).manifest is workload.manifest
