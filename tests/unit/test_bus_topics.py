"""The registry of topics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gpufleet.bus.topics import MAX_DERIVED_BYTES, MAX_OUTSIDE_BYTES, RegistryError, Topic, load_registry

WEEK = str(7 * 86400 * 1000)


def test_topics_of_the_design() -> None:
    registry = load_registry()
    rows = {
        topic.short: (topic.partitions, topic.configs["cleanup.policy"], topic.partitioned_by_cluster, topic.dlq)
        for topic in registry
        if not topic.short.endswith(".dlq")
    }
    assert rows == {
        "clusters": (1, "compact", False, "scheduler"),
        "policies": (1, "compact", False, "scheduler"),
        "workloads": (1, "compact", False, "scheduler"),
        "scales": (1, "compact", False, "scheduler"),
        "inventory": (16, "compact", True, "scheduler"),
        "placements": (1, "compact", False, "scheduler"),
        "assignments": (16, "compact", True, "dispatcher"),
        "observations": (16, "compact", True, "scheduler"),
        "evictions": (1, "compact", False, "scheduler"),
        "epochs": (1, "compact", False, None),
        "history": (1, "delete", False, None),
    }
    for topic in registry:
        if topic.compacted:
            assert topic.configs["delete.retention.ms"] == WEEK
    assert registry["history"].configs["retention.ms"] == WEEK


def test_who_answers_for_dead_letters_reads_the_topic() -> None:
    registry = load_registry()
    for topic in registry:
        if topic.dlq:
            assert topic.dlq in topic.read_by
            letters = registry.dead_letters_of(topic.short)
            assert letters is not None
            assert letters.name == topic.name + ".dlq"
            assert letters.configs["cleanup.policy"] == "delete"
            assert letters.partitions == 1
        elif not topic.short.endswith(".dlq"):
            assert registry.dead_letters_of(topic.short) is None


def test_messages_are_those_of_the_contract() -> None:
    folder = Path(__file__).resolve().parents[2] / "proto" / "gpufleet" / "v1"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.proto"))
    for topic in load_registry():
        package, _, message = topic.message.rpartition(".")
        assert package == "gpufleet.v1"
        assert f"\nmessage {message} {{" in text, topic.name


def test_names_in_every_form() -> None:
    registry = load_registry(prefix="test-1.")
    for name in ("workloads", "gpufleet.workloads", "test-1.gpufleet.workloads"):
        assert registry[name].name == "test-1.gpufleet.workloads"
        assert registry[name].short == "workloads"
    assert registry.name("workloads.dlq") == "test-1.gpufleet.workloads.dlq"
    with pytest.raises(RegistryError, match="no topic 'jobs'"):
        registry["jobs"]


def test_shards_of_a_fleet() -> None:
    for topic, shipped in zip(load_registry(shards=4), load_registry(), strict=True):
        assert topic.partitions == (4 if topic.partitioned_by_cluster else 1), topic.name
        assert topic.configs == shipped.configs


def test_largest_values() -> None:
    registry = load_registry()
    assert registry["workloads"].max_bytes == registry["policies"].max_bytes == MAX_OUTSIDE_BYTES == 512 * 1024
    assert registry["placements"].max_bytes == registry["workloads.dlq"].max_bytes == MAX_DERIVED_BYTES


GOOD: dict[str, Any] = {
    "name": "gpufleet.x",
    "key": "x",
    "partitions": 1,
    "cleanup": "compact",
    "message": "M",
    "description": "d",
}


@pytest.mark.parametrize(
    ("topics", "text"),
    [
        ([{"partitions": 1}], "a topic without a name"),
        ([{**GOOD, "partitions": 0}], "partitions is 0"),
        ([{**GOOD, "partitions": "4"}], "partitions is '4'"),
        ([{**GOOD, "partitions": 4}], "more than one partition only"),
        ([{**GOOD, "cleanup": "none"}], "cleanup is 'none'"),
        ([{**GOOD, "cleanup": "delete"}], "needs a retention"),
        ([{**GOOD, "cleanup": "delete", "retention": "7 days"}], "'7 days' is no duration"),
        ([{k: v for k, v in GOOD.items() if k not in ("key", "message")}], "key, message missing"),
        ([GOOD, GOOD], "there twice"),
        (None, "no list `topics`"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, topics: object, text: str) -> None:
    path = tmp_path / "topics.yaml"
    path.write_text(yaml.safe_dump({"topics": topics}))
    with pytest.raises(RegistryError, match=text):
        load_registry(path=path)


def test_topic_of_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "topics.yaml"
    path.write_text(yaml.safe_dump({"topics": [{**GOOD, "cleanup": "delete", "retention": "90m"}]}))
    (topic,) = load_registry(path=path)
    assert isinstance(topic, Topic)
    assert topic.configs == {"cleanup.policy": "delete", "retention.ms": "5400000"}
