"""What is wrong with a record is said with its path and with what would be right."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gpufleet.wire import records
from gpufleet.wire.errors import RecordError, RecordReason
from tests.support.contract import EXAMPLES, Record, example

GOOD = {path.stem: example(path) for path in EXAMPLES}
Change = Callable[[dict[str, Any]], None]


def parse(record: Record) -> Any:
    return records.CODECS[record.topic].parse(record)


def refusal(record: Record) -> RecordError:
    with pytest.raises(RecordError) as caught:
        parse(record)
    assert not str(caught.value).startswith(": ")
    return caught.value


def broken(name: str, change: Change) -> Record:
    good = GOOD[name]
    assert good.value is not None
    content = json.loads(good.value)
    change(content)
    return Record(good.topic, good.key, json.dumps(content).encode(), good.headers, good.offset)


def put(path: str, value: Any) -> Change:
    """Returns a change of one field; numbers in the path are list indexes, `DELETE` takes the field away."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        here: Any = content
        for part in parents:
            here = here[part]
        if value is DELETE:
            del here[last]
        else:
            here[last] = value

    return change


DELETE = object()
CONTAINER = "manifest/spec/template/spec/containers/0/resources/limits/memory"


# The list of bad input, and the types and ranges of every message family.
CASES = [
    ("gpufleet.workloads", put("manifest/kind", "Deploiment"), "UnknownKind", "manifest.kind", "Deploiment"),
    ("gpufleet.workloads", put("manifest/kind", DELETE), "MissingField", "manifest.kind", "missing"),
    ("gpufleet.workloads", put(CONTAINER, "8Gx"), "InvalidValue", "manifest.spec.template.spec", "8Gx"),
    ("gpufleet.workloads", put("manifest/spec/replicas", -1), "InvalidValue", "manifest.spec.replicas", "-1"),
    ("gpufleet.workloads", put("manifest/metadata/name", "x"), "KeyMismatch", "key", "'test/Deployment/vllm-qwq'"),
    ("gpufleet.workloads", put("manifest", "text"), "WrongType", "manifest", "object"),
    ("gpufleet.workloads", put("uid", 5), "WrongType", "uid", "text"),
    ("gpufleet.workloads", put("submittedAt", "yesterday"), "InvalidValue", "submittedAt", "2026-01-31T12:00:00Z"),
    ("gpufleet.workloads", put("submittedAt", 1767225600), "WrongType", "submittedAt", "2026-01-31T12:00:00Z"),
    ("gpufleet.workloads", put("schemaVersion", "v2"), "UnsupportedVersion", "schemaVersion", "v1"),
    ("gpufleet.workloads-bare", put("kind", "TorchJob"), "UnknownKind", "kind", "TorchJob"),
    ("gpufleet.workloads-bare", put("apiVersion", "kubeflow.org/v9"), "UnsupportedVersion", "apiVersion", "kubeflow"),
    ("gpufleet.policies", put("manifest/kind", "PropagationPolitics"), "UnknownKind", "manifest.kind", "Politics"),
    (
        "gpufleet.policies",
        put("manifest/metadata/name", "other"),
        "KeyMismatch",
        "key",
        "'PropagationPolicy/test/other'",
    ),
    (
        "gpufleet.policies",
        put("manifest/spec/placement/clusterAffinity", {"clusterNames": ["c-idc"]}),
        "InvalidValue",
        "manifest.spec.placement",
        "clusterAffinities",
    ),
    (
        "gpufleet.policies",
        put(
            "manifest/spec/placement/replicaScheduling/weightPreference",
            {"staticWeightList": [{"targetCluster": {"clusterNames": ["c-idc"]}, "weight": -2}]},
        ),
        "InvalidValue",
        "manifest.spec.placement.replicaScheduling.weightPreference.staticWeightList[0].weight",
        "-2",
    ),
    ("gpufleet.clusters", put("name", DELETE), "MissingField", "name", "missing"),
    ("gpufleet.clusters", put("name", ""), "MissingField", "name", "empty"),
    ("gpufleet.clusters", put("name", "c-other"), "KeyMismatch", "key", "'c-other'"),
    ("gpufleet.clusters", put("taints/0/effect", "NoRun"), "InvalidValue", "taints[0].effect", "NoSchedule"),
    (
        "gpufleet.clusters",
        put("scoringStrategy/resources/0/weight", 0),
        "OutOfRange",
        "scoringStrategy.resources[0].weight",
        "1",
    ),
    ("gpufleet.clusters", put("zones", "cn-hangzhou-h"), "WrongType", "zones", "a list"),
    ("gpufleet.clusters", put("labels/tier", 1), "WrongType", "labels.tier", "text"),
    ("gpufleet.scales", put("replicas", -1), "OutOfRange", "replicas", "greater than or equal to 0"),
    ("gpufleet.scales", put("replicas", 100_001), "OutOfRange", "replicas", "less than or equal to 100000"),
    ("gpufleet.scales", put("replicas", "9"), "WrongType", "replicas", "a whole number"),
    ("gpufleet.scales", put("replicas", 1.5), "WrongType", "replicas", "a whole number"),
    ("gpufleet.scales", put("workload", "a/b/c"), "KeyMismatch", "key", "'a/b/c'"),
    ("gpufleet.inventory", put("summary/health", "Sick"), "InvalidValue", "summary.health", "Unreachable"),
    ("gpufleet.inventory", put("summary", DELETE), "MissingField", "", "exactly one"),
    ("gpufleet.inventory", put("pods", {"workload": "a/b/c"}), "InvalidValue", "", "exactly one"),
    ("gpufleet.inventory", put("snapshot", DELETE), "MissingField", "snapshot", "missing"),
    ("gpufleet.inventory-class", put("nodeClass/nodes", 2), "OutOfRange", "nodeClass.free", "2 nodes"),
    (
        "gpufleet.inventory-class",
        put("nodeClass/free/1/free/memory", "8Gx"),
        "InvalidValue",
        "nodeClass.free[1].free",
        "memory: '8Gx' is not a quantity",
    ),
    (
        "gpufleet.inventory-pods",
        put("pods/components/main/bound", -1),
        "OutOfRange",
        "pods.components.main.bound",
        "-1",
    ),
    ("gpufleet.inventory-pods", put("cluster", "c-x"), "KeyMismatch", "key", "'c-x/pods/test/Deployment/vllm-qwq'"),
    ("gpufleet.placements", put("verdict", "Maybe"), "InvalidValue", "verdict", "PartiallyScheduled"),
    ("gpufleet.placements", put("reasons/1/code", "Bad luck"), "InvalidValue", "reasons[1].code", "NoStock"),
    ("gpufleet.placements", put("shares/0/slots/0/count", "2"), "WrongType", "shares[0].slots[0].count", "whole"),
    ("gpufleet.placements", put("arrival", 0.5), "OutOfRange", "arrival", "multiple of 1"),
    ("gpufleet.assignments", put("state", "Idle"), "InvalidValue", "state", "Removing"),
    ("gpufleet.assignments", put("cluster", "c-ack"), "KeyMismatch", "key", "'c-ack/test/Deployment/vllm-qwq'"),
    ("gpufleet.assignments", put("division/c-idc", -8), "OutOfRange", "division.c-idc", "-8"),
    ("gpufleet.observations", put("phase", DELETE), "MissingField", "phase", "missing"),
    ("gpufleet.observations", put("status", []), "WrongType", "status", "an object"),
    ("gpufleet.evictions", put("caps/0/until", DELETE), "MissingField", "caps[0].until", "missing"),
    ("gpufleet.evictions", put("caps/0/until", "2026-01-01T00:00:00"), "InvalidValue", "caps[0].until", "time zone"),
    ("gpufleet.epochs", put("instance", ""), "MissingField", "instance", "service and instance"),
    ("gpufleet.epochs", put("shard", 4), "KeyMismatch", "key", "'dispatcher/4'"),
    ("gpufleet.epochs", put("logId", "x"), "InvalidValue", "logId", "both"),
    ("gpufleet.history", put("placement/verdict", "Maybe"), "InvalidValue", "placement.verdict", "Queued"),
]


@pytest.mark.parametrize("name, change, reason, path, says", CASES, ids=[f"{c[0]}-{c[2]}-{c[3]}" for c in CASES])
def test_a_bad_field_is_named(name: str, change: Change, reason: str, path: str, says: str) -> None:
    error = refusal(broken(name, change))
    assert error.reason == reason
    assert error.path == path or (path.endswith(".spec") and error.path.startswith(path))
    assert says in str(error)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_no_key(name: str) -> None:
    good = GOOD[name]
    for key in (None, ""):
        error = refusal(Record(good.topic, key, good.value, good.headers))
        assert error.reason is RecordReason.MISSING_KEY
        assert "Kafka key" in error.hint


@pytest.mark.parametrize("name", sorted(GOOD))
def test_the_key_of_another_record(name: str) -> None:
    good = GOOD[name]
    error = refusal(Record(good.topic, "another/key/altogether", good.value, good.headers))
    assert (error.reason, error.path) == (RecordReason.KEY_MISMATCH, "key")
    assert repr(good.key) in error.hint


def test_a_key_that_is_no_text_is_shown_readably() -> None:
    good = GOOD["gpufleet.scales"]
    error = refusal(Record(good.topic, b"\xff\xfe".decode("utf-8", "surrogateescape"), good.value))
    assert error.reason is RecordReason.KEY_MISMATCH
    str(error).encode("utf-8")


NOT_JSON = [b"", b" ", b"{", b'{"workload": "a/b', b'{"a": 1} {"b": 2}', b"\x00\x01\xff", b"[" * 5000, b'{"a": NaN}']


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("value", NOT_JSON)
def test_not_json(name: str, value: bytes) -> None:
    error = refusal(Record(GOOD[name].topic, GOOD[name].key, value))
    assert error.reason in (RecordReason.NOT_JSON, RecordReason.WRONG_TYPE)
    assert error.path == ""
    assert error.hint


@pytest.mark.parametrize("name", sorted(GOOD))
def test_half_a_record(name: str) -> None:
    good = GOOD[name]
    assert good.value is not None
    error = refusal(Record(good.topic, good.key, good.value[: len(good.value) // 2], good.headers))
    assert error.reason is RecordReason.NOT_JSON
    assert "whole JSON object" in error.hint


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("value", [b"null", b"5", b'"text"', b"[]", b"[{}]"])
def test_json_but_no_object(name: str, value: bytes) -> None:
    assert refusal(Record(GOOD[name].topic, GOOD[name].key, value)).reason is RecordReason.WRONG_TYPE


@pytest.mark.parametrize("name", sorted(GOOD))
def test_another_major_version(name: str) -> None:
    good = GOOD[name]
    kind = records.CODECS[good.topic].message
    for header, text in (
        ("ce_type", f"gpufleet.v2.{kind}"),
        ("ce_dataschema", "https://example.com/gpufleet/v3/x.json"),
    ):
        error = refusal(Record(good.topic, good.key, good.value, {header: text}))
        assert error.reason is RecordReason.UNSUPPORTED_VERSION
        assert error.path == f"headers.{header}"


def test_a_message_of_another_topic() -> None:
    good = GOOD["gpufleet.placements"]
    error = refusal(Record(good.topic, good.key, good.value, {"ce_type": "gpufleet.v1.Assignment"}))
    assert error.path == "headers.ce_type"
    assert "expected gpufleet.v1.Placement" in error.hint


def test_types_of_other_systems_do_not_matter() -> None:
    good = GOOD["gpufleet.workloads"]
    assert parse(Record(good.topic, good.key, good.value, {"ce_type": "com.example.job.submitted.v7"}))


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_tombstone_is_not_parsed(name: str) -> None:
    assert refusal(Record(GOOD[name].topic, GOOD[name].key, None)).reason is RecordReason.TOMBSTONE


def test_too_large() -> None:
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "annotations": {"a": "x" * (512 * 1024)}}}
    error = refusal(Record("gpufleet.workloads", "default/Pod/x", json.dumps(manifest).encode()))
    assert error.reason is RecordReason.TOO_LARGE
    assert "524288" in error.message
    with pytest.raises(RecordError, match="more than 524288"):
        records.dump_manifest(manifest)
    with pytest.raises(RecordError, match="more than 524288"):
        records.dump_policy(manifest)


def test_what_services_derive_may_be_larger() -> None:
    record = broken("gpufleet.assignments", put("manifest/metadata/annotations", {"a": "x" * 600_000}))
    assert parse(record).cluster == "c-idc"
    larger = broken("gpufleet.assignments", put("manifest/metadata/annotations", {"a": "x" * 1_000_000}))
    assert refusal(larger).reason is RecordReason.TOO_LARGE


def test_unknown_topic() -> None:
    with pytest.raises(RecordError) as caught:
        records.codec_of("orders")
    assert caught.value.reason is RecordReason.UNKNOWN_TOPIC
    assert records.codec_of("test-7.gpufleet.placements") is records.CODECS["gpufleet.placements"]


def test_more_than_one_problem_is_counted() -> None:
    def change(content: dict[str, Any]) -> None:
        content["replicas"] = "9"
        content["requestedBy"] = 7

    assert "(and 1 more)" in refusal(broken("gpufleet.scales", change)).message


def test_unknown_fields_are_ignored() -> None:
    def change(content: dict[str, Any]) -> None:
        content["newInVersionTwo"] = {"a": [1]}
        content["shares"][0]["colour"] = "blue"

    assert parse(broken("gpufleet.placements", change)) == parse(GOOD["gpufleet.placements"])


def test_null_is_the_same_as_a_field_left_out() -> None:
    """As the proto3 JSON mapping has it; nulls inside a manifest are the manifest's own."""

    def change(content: dict[str, Any]) -> None:
        content.update(uid=None, waitsFor=None, components=None, orphan=None)
        content["manifest"]["spec"]["template"]["metadata"]["creationTimestamp"] = None

    assignment = parse(broken("gpufleet.assignments", change))
    assert assignment.uid == ""
    assert assignment.components == ()
    assert assignment.manifest["spec"]["template"]["metadata"]["creationTimestamp"] is None
    error = refusal(broken("gpufleet.assignments", put("cluster", None)))
    assert (error.reason, error.path) == (RecordReason.MISSING_FIELD, "cluster")


def test_snake_case_is_accepted() -> None:
    def change(content: dict[str, Any]) -> None:
        content["workload_version"] = content.pop("workloadVersion")
        content["decided_at"] = content.pop("decidedAt")

    assert parse(broken("gpufleet.placements", change)) == parse(GOOD["gpufleet.placements"])


def test_the_error_is_one_line() -> None:
    error = RecordError("WrongType", "spec.replicas", "'9' has the wrong type", "expected a whole number")
    assert str(error) == "spec.replicas: '9' has the wrong type; expected a whole number"
