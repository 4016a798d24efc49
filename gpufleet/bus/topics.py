"""The registry of topics (`proto/topics.yaml`), and how a broker is brought in line with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml

DLQ_SUFFIX: Final = ".dlq"
MAX_OUTSIDE_BYTES: Final = 512 * 1024
"""What operators and producers may write."""
MAX_DERIVED_BYTES: Final = 1000 * 1000
"""What services make of it may be larger, up to what Kafka takes by default."""

_OUTSIDERS: Final = frozenset({"operators", "producers"})
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class RegistryError(ValueError):
    """The registry file is wrong, or names something that it does not have."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it should be. `name` as on the broker (with the prefix), `short` without `gpufleet.` and prefix.

    `dlq`: the service that puts unreadable records of this topic on its dead letter topic; None where there is none.
    """

    name: str
    short: str
    key: str
    partitions: int
    configs: Mapping[str, str]
    message: str
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]
    dlq: str | None
    partitioned_by_cluster: bool
    description: str

    @property
    def max_bytes(self) -> int:
        """The largest value."""
        return MAX_DERIVED_BYTES if _OUTSIDERS.isdisjoint(self.written_by) else MAX_OUTSIDE_BYTES

    @property
    def compacted(self) -> bool:
        return self.configs.get("cleanup.policy") == "compact"


class Registry:
    """All topics, by name or short name; dead letter topics included."""

    def __init__(self, topics: Sequence[Topic], prefix: str = "") -> None:
        self.prefix = prefix
        self._keep(topics)

    def _keep(self, topics: Iterable[Topic]) -> None:
        self._topics = {topic.short: topic for topic in topics}
        self._by_name = {topic.name: topic for topic in self._topics.values()}

    def set_shards(self, shards: int) -> None:
        """Gives the topics that are divided by cluster another number of partitions."""
        self._keep([replace(topic, partitions=shards) if topic.partitioned_by_cluster else topic for topic in self])

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._topics.values())

    def __getitem__(self, name: str) -> Topic:
        """The topic of a short name (`workloads`), a full one (`gpufleet.workloads`) or one with the prefix.

        Raises RegistryError for a name that is not there.
        """
        short = name.removeprefix(self.prefix).removeprefix("gpufleet.")
        topic = self._by_name.get(name) or self._topics.get(short)
        if topic is None:
            raise RegistryError(f"no topic {name!r} in the registry; there are {', '.join(sorted(self._topics))}")
        return topic

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._by_name or name in self._topics)

    def name(self, short: str) -> str:
        """The name on the broker."""
        return self[short].name

    def names(self, shorts: Sequence[str]) -> list[str]:
        return [self.name(short) for short in shorts]

    def dead_letters_of(self, name: str) -> Topic | None:
        """The dead letter topic of a topic; None where it has none."""
        topic = self[name]
        return self._topics[topic.short + DLQ_SUFFIX] if topic.dlq else None


def load_registry(*, prefix: str = "", shards: int | None = None, path: Path | None = None) -> Registry:
    """The registry from `path`, the wheel (`gpufleet/_proto`) or the source tree (`proto`), whichever is there first.

    `prefix` is put before every name; topics that are divided by cluster get `shards` partitions instead of their own
    number. Raises RegistryError with the topic and the field that is wrong.
    """
    registry = Registry(_parse(_document(path), prefix), prefix)
    if shards is not None:
        registry.set_shards(shards)
    return registry


def _document(path: Path | None) -> Any:
    if path is not None:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    return _shipped()


@cache
def _shipped() -> Any:
    packaged = files("gpufleet") / "_proto" / "topics.yaml"
    source = Path(__file__).resolve().parents[2] / "proto" / "topics.yaml"
    for candidate in (packaged, source):
        if candidate.is_file():
            return yaml.safe_load(candidate.read_text(encoding="utf-8"))
    raise RegistryError("topics.yaml is neither in the package nor in the source tree: the installation is incomplete")


def _parse(document: Any, prefix: str) -> list[Topic]:
    if not isinstance(document, dict) or not isinstance(document.get("topics"), list):
        raise RegistryError("topics.yaml has no list `topics`")
    defaults = document.get("defaults") or {}
    topics: list[Topic] = []
    seen: set[str] = set()
    for entry in document["topics"]:
        topic = _topic(entry, defaults, prefix)
        if topic.name in seen:
            raise RegistryError(f"topic {topic.name} is there twice")
        seen.add(topic.name)
        topics.append(topic)
        if topic.dlq:
            topics.append(_dead_letter_topic(topic, defaults.get("dlq") or {}))
    return topics


def _topic(entry: Any, defaults: Mapping[str, Any], prefix: str) -> Topic:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise RegistryError(f"a topic without a name: {entry!r}")
    name = entry["name"]
    missing = [field for field in ("key", "partitions", "cleanup", "message", "description") if field not in entry]
    if missing:
        raise RegistryError(f"topic {name}: {', '.join(missing)} missing")
    partitions = entry["partitions"]
    if not isinstance(partitions, int) or partitions < 1:
        raise RegistryError(f"topic {name}: partitions is {partitions!r}, it must be an integer from 1")
    by_cluster = bool(entry.get("partitionedByCluster", False))
    if partitions > 1 and not by_cluster:
        raise RegistryError(f"topic {name}: more than one partition only where it is partitionedByCluster")
    return Topic(
        name=prefix + name,
        short=name.removeprefix("gpufleet."),
        key=entry["key"],
        partitions=partitions,
        configs=_configs(name, entry, defaults.get(entry["cleanup"]) or {}),
        message=entry["message"],
        written_by=tuple(entry.get("writtenBy") or ()),
        read_by=tuple(entry.get("readBy") or ()),
        dlq=entry.get("dlq"),
        partitioned_by_cluster=by_cluster,
        description=" ".join(str(entry["description"]).split()),
    )


def _dead_letter_topic(origin: Topic, entry: Mapping[str, Any]) -> Topic:
    return Topic(
        name=origin.name + DLQ_SUFFIX,
        short=origin.short + DLQ_SUFFIX,
        key=origin.key,
        partitions=int(entry.get("partitions", 1)),
        configs=_configs(origin.name + DLQ_SUFFIX, {"cleanup": "delete", **entry}, {}),
        message=origin.message,
        written_by=(origin.dlq,) if origin.dlq else (),
        read_by=("cli",),
        dlq=None,
        partitioned_by_cluster=False,
        description=f"Records of {origin.name} that could not be read, with origin and error.",
    )


def _configs(name: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    merged = {**defaults, **entry}
    cleanup = merged.get("cleanup")
    if cleanup == "compact":
        return {"cleanup.policy": "compact", "delete.retention.ms": _millis(name, merged.get("deleteRetention", "7d"))}
    if cleanup == "delete":
        if "retention" not in merged:
            raise RegistryError(f"topic {name}: cleanup delete needs a retention, for example 7d")
        return {"cleanup.policy": "delete", "retention.ms": _millis(name, merged["retention"])}
    raise RegistryError(f"topic {name}: cleanup is {cleanup!r}, it must be compact or delete")


def _millis(name: str, duration: Any) -> str:
    match = re.fullmatch(r"(\d+)([smhd])", str(duration))
    if match is None:
        raise RegistryError(f"topic {name}: {duration!r} is no duration; write for example 7d, 12h or 30m")
    return str(int(match[1]) * _UNITS[match[2]] * 1000)
