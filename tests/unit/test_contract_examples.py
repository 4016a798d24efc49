"""The examples of `proto/examples` and the registry of topics fit the messages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

from gpufleet.wire import records
from tests.support import contract

TOPICS = {
    topic["name"]: topic for topic in yaml.safe_load((contract.PROTO / "topics.yaml").read_text("utf-8"))["topics"]
}
POLICIES = "gpufleet.policies"
BARE = "gpufleet.workloads-bare"
IN_ENVELOPE = [path for path in contract.EXAMPLES if path.stem != BARE]


def name_of(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("topic", sorted(TOPICS))
def test_every_topic_has_a_message_and_an_example(topic: str) -> None:
    message = TOPICS[topic]["message"]
    assert message == records.CODECS[topic].event_type
    assert contract.pool().FindMessageTypeByName(message).full_name == message
    assert (contract.PROTO / "examples" / f"{topic}.json").exists()


def test_every_codec_has_a_topic() -> None:
    assert set(records.CODECS) == set(TOPICS)


@pytest.mark.parametrize("path", contract.EXAMPLES, ids=name_of)
def test_example_is_read(path: Path) -> None:
    record = contract.example(path)
    codec = records.CODECS[record.topic]
    parsed = codec.parse(record)
    assert parsed is not None
    assert record.topic == POLICIES or codec.key(parsed) == record.key


@pytest.mark.parametrize("path", IN_ENVELOPE, ids=name_of)
def test_example_is_the_message(path: Path) -> None:
    """Both ways, through protobuf's own JSON."""
    record = contract.example(path)
    assert record.value is not None
    codec = records.CODECS[record.topic]
    assert record.headers["ce_type"] == codec.event_type
    message = contract.parse(codec.message, record.value)
    again = json_format.MessageToJson(message, indent=None).encode()
    assert json.loads(again) == json.loads(record.value)
    assert codec.parse(replace(record, value=again)) == codec.parse(record)


@pytest.mark.parametrize("path", IN_ENVELOPE, ids=name_of)
def test_example_is_what_gpufleet_writes(path: Path) -> None:
    record = contract.example(path)
    assert record.value is not None
    codec = records.CODECS[record.topic]
    value = records.policy_manifest(record)[0] if record.topic == POLICIES else codec.parse(record)
    written = json.loads(codec.dump(value))
    assert {**stated_by_the_producer(record), **written} == json.loads(record.value)


def stated_by_the_producer(record: contract.Record) -> dict[str, Any]:
    """Fields for people, which the domain does not keep."""
    assert record.value is not None
    value = json.loads(record.value)
    return {name: value[name] for name in ("submittedAt", "submittedBy") if name in value}


@pytest.mark.parametrize("path", IN_ENVELOPE, ids=name_of)
def test_headers_are_cloudevents(path: Path) -> None:
    record = contract.example(path)
    needed = {"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "content-type"}
    assert needed <= set(record.headers)
    assert record.headers["ce_subject"] == record.key
    by_services = set(TOPICS[record.topic]["writtenBy"]) & {"scheduler", "dispatcher", "inventory", "rescheduler"}
    if by_services and record.topic != "gpufleet.epochs":
        assert record.headers["gpufleet-epoch"].isdigit()
        assert record.headers["gpufleet-version"].isdigit()
