"""Records from foreign producers, and the headers of our own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from gpufleet.bus.records import Record, event_headers, from_consumer, printable, raw, text, trace_of


@dataclass
class Raw:
    topic: str = "t"
    partition: int = 1
    offset: int = 2
    key: Any = b"k"
    value: Any = b"{}"
    timestamp: int = 1500
    headers: Any = field(default_factory=tuple)


def test_record_of_a_consumer_record() -> None:
    headers = (("gpufleet-epoch", b"7"), ("gpufleet-version", b"9"), ("a", b"1"), ("a", b"2"), ("none", None))
    record = from_consumer(Raw(headers=headers))
    assert record == Record(
        "t", 1, 2, "k", b"{}", {"gpufleet-epoch": "7", "gpufleet-version": "9", "a": "2", "none": ""}, 1.5
    )
    assert (record.epoch, record.version, record.origin) == (7, 9, "t/1/2")


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"", b""), (b"\xff\xc3", b"\xff")])
def test_anything_becomes_a_record(key: bytes | None, value: bytes | None) -> None:
    record = from_consumer(Raw(key=key, value=value, headers=(("h", b"\xfe"),)))
    assert (None if record.key is None else raw(record.key)) == key
    assert record.value == value
    assert raw(record.headers["h"]) == b"\xfe"
    assert record.epoch is None


@pytest.mark.parametrize("number", ["", "x", "1.5", "0x1"])
def test_header_that_is_no_number_is_none(number: str) -> None:
    assert Record("t", 0, 0, "k", b"", {"gpufleet-epoch": number}, 0.0).epoch is None


def test_text_keeps_every_byte() -> None:
    every = bytes(range(256))
    assert raw(text(every)) == every
    assert printable(text(b"ok\xff")) == "ok\\xff"
    assert printable("ä") == "ä"


def test_cloud_event_headers() -> None:
    headers = event_headers(
        topic="gpufleet.placements",
        key="ns/Job/a",
        source="gpufleet/scheduler",
        type_="gpufleet.v1.Placement",
        time=1_700_000_000.25,
        epoch=4,
        version=2,
        extra={"traceparent": "00-1-2-01"},
    )
    assert headers == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": "gpufleet.placements/ns/Job/a/4/2",
        "ce_source": "gpufleet/scheduler",
        "ce_type": "gpufleet.v1.Placement",
        "ce_time": "2023-11-14T22:13:20.250Z",
        "ce_subject": "ns/Job/a",
        "gpufleet-epoch": "4",
        "gpufleet-version": "2",
        "traceparent": "00-1-2-01",
    }


def test_same_truth_has_the_same_id_and_another_one_has_not() -> None:
    def id_of(**values: Any) -> str:
        common: dict[str, Any] = {"topic": "t", "key": "k", "source": "s", "type_": "y", "time": 1.0}
        return event_headers(**{**common, **values})["ce_id"]

    assert id_of(epoch=1, version=2, time=1.0) == id_of(epoch=1, version=2, time=9.0)
    ids = [
        id_of(epoch=1, version=2),
        id_of(epoch=1, version=3),
        id_of(epoch=2, version=2),
        id_of(version=2),
        id_of(),
        id_of(time=1.001),
        id_of(key="l", epoch=1, version=2),
    ]
    assert len(set(ids)) == len(ids)


def test_trace_of_the_last_record_that_has_one() -> None:
    def record(**headers: str) -> Record:
        return Record("t", 0, 0, "k", b"", headers, 0.0)

    first, second = record(traceparent="a", tracestate="s"), record(traceparent="b")
    assert trace_of([first, second, record()]) == {"traceparent": "b"}
    assert trace_of([second, first]) == {"traceparent": "a", "tracestate": "s"}
    assert trace_of([record()]) == {}
