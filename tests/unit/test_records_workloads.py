"""What producers and operators may send: an envelope, a bare manifest, JSON or YAML, whole documents."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from gpufleet.model import kinds
from gpufleet.model.policy import PropagationPolicy
from gpufleet.wire import records
from gpufleet.wire.documents_resources import Freeze
from gpufleet.wire.errors import RecordError, RecordReason
from tests.support.contract import PROTO, Record

MANIFEST: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "llm", "namespace": "test"},
    "spec": {
        "replicas": 9,
        "selector": {"matchLabels": {"app": "llm"}},
        "template": {
            "metadata": {"labels": {"app": "llm"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": 1}}}]},
        },
    },
}
KEY = "test/Deployment/llm"


def workload(value: bytes | str, key: str = KEY) -> Record:
    return Record("gpufleet.workloads", key, value.encode() if isinstance(value, str) else value, offset=7)


def refusal(record: Record) -> RecordError:
    with pytest.raises(RecordError) as caught:
        records.codec_of(record.topic).parse(record)
    return caught.value


# --- Workloads --------------------------------------------------------------------------------------------------

FORMS = {
    "envelope": json.dumps({"manifest": MANIFEST}),
    "bare JSON": json.dumps(MANIFEST),
    "JSON over several lines": json.dumps(MANIFEST, indent=2),
    "YAML": yaml.safe_dump(MANIFEST),
    "YAML with a marker and a comment": f"# the model server\n---\n{yaml.safe_dump(MANIFEST)}",
    "an envelope in YAML": yaml.safe_dump({"manifest": MANIFEST}),
    "numbers as doubles": json.dumps(MANIFEST).replace("9,", "9.0,").replace("1}", "1.0}"),
    "with a byte order mark": "\ufeff" + yaml.safe_dump(MANIFEST),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_workload(form: str) -> None:
    parsed = records.parse_workload(workload(FORMS[form]))
    assert parsed == kinds.interpret(MANIFEST, version=7, arrival=7)
    assert parsed.manifest == MANIFEST
    assert isinstance(parsed.manifest["spec"]["replicas"], int)


def test_the_envelope_s_uid_comes_first() -> None:
    named = json.loads(json.dumps(MANIFEST))
    named["metadata"]["uid"] = "of-the-manifest"
    assert records.parse_workload(workload(json.dumps(MANIFEST))).uid == ""
    assert records.parse_workload(workload(json.dumps(named))).uid == "of-the-manifest"
    enveloped = json.dumps({"manifest": named, "uid": "of-the-envelope"})
    assert records.parse_workload(workload(enveloped)).uid == "of-the-envelope"


def test_an_anchor_is_written_out() -> None:
    text = yaml.safe_dump(MANIFEST).replace("app: llm", "app: &name llm", 1).replace("app: llm", "app: *name", 1)
    assert records.parse_workload(workload(text)).key == KEY


def test_aliases_of_aliases_are_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert refusal(workload(bomb)).reason in (RecordReason.NOT_JSON, RecordReason.TOO_LARGE)


def test_a_manifest_that_grows_beyond_the_limit_is_refused() -> None:
    text = f"big: &big {'x' * 100_000}\nmanifest: {{a: *big, b: *big, c: *big, d: *big, e: *big}}\n"
    assert refusal(workload(text)).reason is RecordReason.TOO_LARGE


@pytest.mark.parametrize(
    "text, says",
    [
        ("kind: Deployment\n  bad: indent\n", "line 2"),
        ("a: 1\na: 2\n", "already on line 1"),
        ("a: 1\n---\nb: 2\n", "2 YAML documents"),
        ("# nothing\n", "empty"),
        ("kind: Deployment\nspec: .inf\n", "infinite"),
        ("just a sentence", "is not a map"),
    ],
)
def test_yaml_that_is_wrong(text: str, says: str) -> None:
    error = refusal(workload(text))
    assert says in str(error)


def test_a_date_stays_a_text() -> None:
    text = yaml.safe_dump(MANIFEST).replace("app: llm", "app: 2026-01-31")
    parsed = records.parse_workload(workload(text))
    assert parsed.manifest["spec"]["template"]["metadata"]["labels"] == {"app": "2026-01-31"}


def test_what_is_written_is_read_again() -> None:
    parsed = records.parse_workload(workload(FORMS["YAML"]))
    data = records.dump_workload(replace(parsed, uid="u-1"), submitted_at=1767225600.0, submitted_by="ci")
    again = records.parse_workload(workload(data))
    assert (again.key, again.uid, again.manifest) == (KEY, "u-1", MANIFEST)
    assert json.loads(data)["submittedAt"] == "2026-01-01T00:00:00Z"
    assert records.dump_manifest(MANIFEST) == records.dump_manifest(json.loads(json.dumps(MANIFEST, sort_keys=True)))


# --- What the README for producers shows ------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    readme = (PROTO / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)


def test_the_console_producer_s_line() -> None:
    (lines,) = [re.search(r"<<'EOT'\n(.*)\nEOT", block, re.DOTALL) for block in blocks("sh") if "console" in block]
    assert lines is not None
    key, _, value = lines.group(1).partition("|")
    assert "\n" not in value
    parsed = records.parse_workload(workload(value, key))
    assert (parsed.kind, parsed.replicas, parsed.job) == ("PyTorchJob", 4, True)


def test_the_program_s_record(monkeypatch: pytest.MonkeyPatch) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    sent: list[Record] = []

    class Recorder:
        def __init__(self, settings: dict[str, Any]) -> None:
            assert settings["bootstrap.servers"]

        def produce(self, topic: str, *, key: str, value: str, headers: dict[str, str]) -> None:
            sent.append(Record(topic, key, value.encode(), headers))

        def flush(self) -> None:
            pass

    monkeypatch.setattr(confluent_kafka, "Producer", Recorder)
    (program,) = blocks("python")
    exec(compile(program, "README.md", "exec"), {})
    (record,) = sent
    parsed = records.parse_workload(record)
    assert parsed.replicas == 4
    assert parsed.uid
    assert record.headers["ce_type"] == records.codec_of(record.topic).event_type


# --- Policies and clusters --------------------------------------------------------------------------------------

POLICY = """
apiVersion: policy.one.alibabacloud.com/v1alpha1
kind: PropagationPolicy
metadata: {name: everywhere, namespace: test}
spec:
  placement: {clusterAffinity: {clusterNames: [c-idc]}}
  replicaScheduling: {replicaSchedulingType: Duplicated}
  resourceSelectors: [{apiVersion: apps/v1, kind: Deployment}]
"""


def policy(value: str, key: str) -> Record:
    return Record("gpufleet.policies", key, value.encode(), offset=3)


def test_a_bare_policy_in_yaml() -> None:
    parsed = records.parse_policy(policy(POLICY, "PropagationPolicy/test/everywhere"))
    assert isinstance(parsed, PropagationPolicy)
    assert (parsed.version, parsed.key) == (3, "PropagationPolicy/test/everywhere")


def test_what_apply_sends() -> None:
    document = yaml.safe_load(POLICY)
    data = records.dump_policy(document).decode()
    assert records.policy_identity(document) == "PropagationPolicy/test/everywhere"
    parsed = records.parse_policy(policy(data, records.policy_identity(document)))
    assert parsed == records.parse_policy(policy(POLICY, "PropagationPolicy/test/everywhere"))


def test_freeze() -> None:
    document = json.dumps({"apiVersion": "gpufleet.io/v1alpha1", "kind": "Freeze", "metadata": {"name": "fleet"}})
    assert isinstance(records.parse_policy(policy(document, "Freeze//fleet")), Freeze)
    assert refusal(policy(document, "Freeze/test/fleet")).reason is RecordReason.KEY_MISMATCH


def test_a_kind_that_is_not_supported_yet_is_no_error() -> None:
    document = {
        "apiVersion": "autoscaling.karmada.io/v1alpha1",
        "kind": "FederatedHPA",
        "metadata": {"name": "hpa", "namespace": "test"},
        "spec": {},
    }
    assert records.parse_policy(policy(json.dumps(document), "FederatedHPA/test/hpa")) is None


def test_a_workload_is_no_policy() -> None:
    error = refusal(policy(json.dumps(MANIFEST), "Deployment/test/llm"))
    assert error.reason is RecordReason.UNKNOWN_KIND
    assert "gpufleet.workloads" in str(error)


CLUSTER = """
apiVersion: gpufleet.io/v1alpha1
kind: Cluster
metadata: {name: c-idc, labels: {tier: idc}}
spec:
  provider: idc
  zones: [cn-hangzhou-a]
  taints: [{key: maintenance, value: "true", effect: NoSchedule}]
  access: {kubeconfig: idc.yaml, context: admin}
status: {health: Unreachable}
"""


def cluster(value: str, key: str = "c-idc") -> Record:
    return Record("gpufleet.clusters", key, value.encode(), offset=2)


def test_a_cluster_document_is_the_same_as_its_message() -> None:
    parsed = records.parse_cluster(cluster(CLUSTER))
    assert parsed.version == 2
    assert parsed.access.kubeconfig == "idc.yaml"
    assert dict(parsed.spec.labels) == {"tier": "idc"}
    assert records.parse_cluster(cluster(records.dump_cluster(parsed).decode())) == parsed


@pytest.mark.parametrize(
    "before, after, reason, path",
    [
        ("kind: Cluster", "kind: Clutter", RecordReason.UNKNOWN_KIND, "kind"),
        ("gpufleet.io/v1alpha1", "gpufleet.io/v2", RecordReason.UNSUPPORTED_VERSION, "apiVersion"),
        ("effect: NoSchedule", "effect: Never", RecordReason.INVALID_VALUE, "spec.taints[0].effect"),
        ("zones: [cn-hangzhou-a]", "zones: cn-hangzhou-a", RecordReason.INVALID_VALUE, "spec.zones"),
        ("name: c-idc", "name: c-other", RecordReason.KEY_MISMATCH, "key"),
    ],
)
def test_a_wrong_cluster_document(before: str, after: str, reason: RecordReason, path: str) -> None:
    error = refusal(cluster(CLUSTER.replace(before, after)))
    assert (error.reason, error.path) == (reason, path)


# --- Keys -------------------------------------------------------------------------------------------------------


def test_keys() -> None:
    assert records.assignment_key("c", KEY) == f"c/{KEY}"
    assert records.split_assignment_key(f"c/{KEY}") == ("c", KEY)
    assert records.class_key("c", "a100") == "c/class/a100"
    assert records.pods_key("c", KEY) == f"c/pods/{KEY}"
    assert records.split_inventory_key("c") == ("c", "", "")
    assert records.split_inventory_key("c/class/a100") == ("c", "class", "a100")
    assert records.split_inventory_key(f"c/pods/{KEY}") == ("c", "pods", KEY)
    assert records.policy_key("Freeze", "", "fleet") == "Freeze//fleet"
    assert records.claim_key("scheduler") == "scheduler"
    assert records.claim_key("inventory", 0) == "inventory/0"


@pytest.mark.parametrize("key", ["", "/class/x", "c/", "c/class", "c/class/", "c/nodes/x"])
def test_no_inventory_key(key: str) -> None:
    with pytest.raises(ValueError, match="is not cluster"):
        records.split_inventory_key(key)


@pytest.mark.parametrize("key", ["", "c", "c/a/b", "/a/b/c", "c/a/b/c/d"])
def test_no_assignment_key(key: str) -> None:
    with pytest.raises(ValueError, match="is not cluster"):
        records.split_assignment_key(key)
