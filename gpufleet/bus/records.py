"""A record as the services see it, and the headers that every record of gpufleet carries.

Foreign producers may put anything into keys and headers. Bytes that are not UTF-8 are kept with surrogate escapes:
nothing is lost, the identity check of the parser refuses the key, and the dead letter holds the original bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

EPOCH_HEADER: Final = "gpufleet-epoch"
VERSION_HEADER: Final = "gpufleet-version"
TRACE_HEADERS: Final = ("traceparent", "tracestate")

_ESCAPE: Final = "surrogateescape"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a topic.

    `key` None: the producer gave none. `value` None: a tombstone. `timestamp`: epoch seconds.
    """

    topic: str
    partition: int
    offset: int
    key: str | None
    value: bytes | None
    headers: Mapping[str, str]
    timestamp: float

    @property
    def origin(self) -> str:
        """`topic/partition/offset`: what identifies a record for ever."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def epoch(self) -> int | None:
        """The writer's epoch; None where the header is absent or no integer."""
        return _integer(self.headers.get(EPOCH_HEADER))

    @property
    def version(self) -> int | None:
        """The version of the truth in the writer's epoch; None where the header is absent or no integer."""
        return _integer(self.headers.get(VERSION_HEADER))


class ConsumerRecordLike(Protocol):
    """What is used of `aiokafka.ConsumerRecord`; timestamp in milliseconds."""

    topic: str
    partition: int
    offset: int
    key: Any
    value: Any
    timestamp: int
    headers: Sequence[tuple[str, bytes | None]]


def from_consumer(raw: ConsumerRecordLike) -> Record:
    """The record of an aiokafka consumer record. Never raises; of headers with the same name the last one counts."""
    return Record(
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        key=None if raw.key is None else text(raw.key),
        value=raw.value,
        headers={name: text(value) for name, value in raw.headers or ()},
        timestamp=raw.timestamp / 1000,
    )


def text(data: bytes | None) -> str:
    """Bytes as a string, losslessly (see `raw`)."""
    return "" if data is None else bytes(data).decode("utf-8", _ESCAPE)


def raw(value: str) -> bytes:
    """The bytes that `text` was given."""
    return value.encode("utf-8", _ESCAPE)


def printable(value: str) -> str:
    """The string for people: bytes that are not UTF-8 as backslash escapes."""
    return raw(value).decode("utf-8", "backslashreplace")


def event_headers(
    *,
    topic: str,
    key: str,
    source: str,
    type_: str,
    time: float,
    epoch: int | None = None,
    version: int | None = None,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """CloudEvents 1.0 headers in Kafka's binary mode, plus epoch and version, plus `extra` (a traceparent, for one).

    `ce_id` is a function of topic, key, epoch and version: the same truth sent twice has the same id.
    `time` in epoch seconds. Without a version the id holds the time, since nothing else tells two records apart.
    """
    mark = f"{epoch if epoch is not None else '-'}/{version}" if version is not None else f"t{round(time * 1000)}"
    headers = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": f"{topic}/{key}/{mark}",
        "ce_source": source,
        "ce_type": type_,
        "ce_time": datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "ce_subject": key,
    }
    if epoch is not None:
        headers[EPOCH_HEADER] = str(epoch)
    if version is not None:
        headers[VERSION_HEADER] = str(version)
    if extra:
        headers.update(extra)
    return headers


def trace_of(records: Iterable[Record]) -> dict[str, str]:
    """The W3C trace headers of the last of `records` that carries a traceparent, to be sent on."""
    found: dict[str, str] = {}
    for record in records:
        if "traceparent" in record.headers:
            found = {name: record.headers[name] for name in TRACE_HEADERS if name in record.headers}
    return found


def _integer(value: str | None) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        return None
