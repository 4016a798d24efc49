"""The pydantic models are the messages of `proto/`: the same fields, types, values and marks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gpufleet.model import cluster, log, placement, reasons, selectors
from tests.support import contract

ALLOWED_TYPES = {"string", "int32", "double", "bool"}


def test_every_message_has_a_model() -> None:
    assert {message.name for message in contract.messages()} == set(contract.models())


@pytest.mark.parametrize("name", sorted(contract.models()))
def test_model_equals_message(name: str) -> None:
    model, message = contract.model_shape(contract.models()[name]), contract.message_shape(contract.descriptor_of(name))
    assert [field.name for field in model] == [field.name for field in message]
    for ours, theirs in zip(model, message, strict=True):
        missing, gone = sorted(ours.values - theirs.values), sorted(theirs.values - ours.values)
        assert not missing, f"add to (values) of {name}.{ours.name} in proto/gpufleet/v1: {missing}"
        assert not gone, f"{name}.{ours.name}: the messages promise {gone}"
        assert ours == theirs


def test_a_difference_is_seen() -> None:
    shape = contract.message_shape(contract.descriptor_of("Slot"))
    assert shape != contract.model_shape(contract.models()["Reason"])
    by_name = {field.name: field for field in shape}
    assert by_name["unit"].presence
    assert not by_name["count"].presence
    assert by_name["source"].values == {"running", "elastic", "virtual"}


def test_members_of_a_oneof_are_optional() -> None:
    seen = 0
    for message in contract.messages():
        for field in contract.message_shape(message):
            if field.oneof:
                seen += 1
                info = contract.models()[message.name].model_fields[field.name]
                assert not info.is_required()
                assert info.default is None
    assert seen == 3


@pytest.mark.parametrize("message", list(contract.messages()), ids=lambda message: str(message.name))
def test_json_is_plain(message: Descriptor) -> None:
    """No type whose JSON differs from what one expects: no 64-bit integers, bytes, enums, Any or Duration."""
    for field in contract.message_shape(contract.descriptor_of(message.name)):
        kind = field.type.removeprefix("repeated ").removeprefix("map<string, ").removesuffix(">")
        assert (
            kind in ALLOWED_TYPES
            or kind in contract.models()
            or kind
            in (
                "google.protobuf.Struct",
                "google.protobuf.Timestamp",
            )
        ), f"{message.name}.{field.name}"


def test_every_message_and_field_is_documented() -> None:
    """Messages need a comment; a field only where its name does not say everything."""
    for path in (contract.PROTO / "gpufleet").rglob("*.proto"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("//"), f"{path.name} has no introduction"
        for number, line in enumerate(lines):
            if line.startswith("message "):
                assert lines[number - 1].startswith("//"), f"{path.name}: {line}"


# What the messages call otherwise than the domain does, or spread over several fields.
VERSION: dict[str, tuple[str, ...]] = {"version": ("epoch", "version")}
DOMAIN: list[tuple[str, type[Any], dict[str, tuple[str, ...]]]] = [
    ("Taint", selectors.Taint, {"since": ("time_added",)}),
    ("ClusterAccess", log.ClusterAccess, {}),
    ("ClusterSpec", cluster.ClusterSpec, {}),
    ("Snapshot", cluster.SnapshotId, {}),
    ("FreeBlock", cluster.FreeBlock, {}),
    ("ElasticStock", cluster.ElasticStock, {}),
    ("NodeClass", cluster.NodeClass, {}),
    ("ModelStock", cluster.ModelStock, {"model": ("gpu_model_series",)}),
    ("VirtualNode", cluster.VirtualNode, {}),
    ("ComponentPods", cluster.ComponentPods, {}),
    ("NodePods", cluster.NodePods, {}),
    ("WorkloadPods", cluster.WorkloadPods, {"cluster": (), "snapshot": ()}),
    ("ClusterSummary", log.InventorySummary, {"cluster": (), "snapshot": ()}),
    ("Scale", log.Scale, {"version": ()}),
    ("Placement", placement.Placement, VERSION),
    ("ClusterShare", placement.ClusterShare, {}),
    ("Slot", placement.Slot, {}),
    ("Reason", reasons.Reason, {}),
    ("Assignment", placement.Assignment, VERSION),
    ("Awaited", placement.Awaited, VERSION),
    ("Observation", placement.Observation, VERSION),
    ("Eviction", placement.Eviction, {"judged": ("judged_epoch", "judged_version")}),
    ("ClusterCap", placement.ClusterCap, {}),
    ("DispatchRecord", placement.DispatchRecord, {}),
    ("Claim", log.Claim, {}),
    ("Decision", log.HistoryEntry, VERSION),
]
NOT_IN_THE_DOMAIN = {"ClusterSpec": {"schema_version", "access"}, "Scale": {"schema_version"}, "Claim": {"log_id"}}


@pytest.mark.parametrize("name, kind, renamed", DOMAIN, ids=[entry[0] for entry in DOMAIN])
def test_the_domain_s_fields_are_in_the_message(
    name: str, kind: type[Any], renamed: dict[str, tuple[str, ...]]
) -> None:
    """A field that is added to a dataclass and not to its message would be lost on the way."""
    expected = {there for field in fields(kind) for there in renamed.get(field.name, (field.name,))}
    found = {field.name for field in contract.message_shape(contract.descriptor_of(name))}
    assert found - NOT_IN_THE_DOMAIN.get(name, set()) == expected


# --- Evolution ------------------------------------------------------------------------------------------------


def buf() -> str:
    """Returns the path of buf, which is next to the interpreter."""
    found = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    assert found, "buf is not installed; it comes with the development requirements (buf-bin)"
    return found


def run_buf(*arguments: str, cwd: Path = contract.PROTO) -> subprocess.CompletedProcess[str]:
    return subprocess.run([buf(), *arguments], cwd=cwd, capture_output=True, text=True, timeout=50, check=False)


def test_buf_lint() -> None:
    result = run_buf("lint")
    assert result.returncode == 0, result.stdout + result.stderr


def test_buf_format() -> None:
    result = run_buf("format", "--diff", "--exit-code")
    assert result.returncode == 0, result.stdout


def test_buf_breaking() -> None:
    result = run_buf("breaking", "--against", "baseline.binpb")
    assert result.returncode == 0, result.stdout + result.stderr


def test_buf_breaking_sees_a_break(tmp_path: Path) -> None:
    shutil.copytree(contract.PROTO / "gpufleet", tmp_path / "gpufleet")
    shutil.copy(contract.PROTO / "buf.yaml", tmp_path)
    changed = tmp_path / "gpufleet/v1/placement.proto"
    changed.write_text(changed.read_text().replace("int32 replicas = 5", "string replicas = 5"))
    result = run_buf("breaking", "--against", str(contract.PROTO / "baseline.binpb"), cwd=tmp_path)
    assert result.returncode == 100
    assert "replicas" in result.stdout


def test_no_documented_value_was_taken_away() -> None:
    """buf does not look at options, so the values of text fields are compared here."""
    baseline = descriptor_pb2.FileDescriptorSet.FromString((contract.PROTO / "baseline.binpb").read_bytes())
    contract.pool()
    values = 0
    for file in baseline.file:
        if file.package != "gpufleet.v1":
            continue
        for message in file.message_type:
            now = {field.name: field for field in contract.message_shape(contract.descriptor_of(message.name))}
            for field in message.field:
                if field.type != FieldDescriptor.TYPE_STRING:
                    continue
                options = descriptor_pb2.FieldOptions.FromString(field.options.SerializeToString())
                before = set(contract.value_of_option(options, "values"))
                values += len(before)
                assert before <= now[field.name].values, f"{message.name}.{field.name} lost a value"
    assert values > 20
