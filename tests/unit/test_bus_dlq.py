"""Dead letters without a broker: what is written, when, and how a list of them is read."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.bus import dlq
from gpufleet.bus.publisher import Failure
from gpufleet.bus.records import Record
from gpufleet.bus.topics import load_registry
from gpufleet.wire.errors import RecordError, RecordReason

REGISTRY = load_registry()
ERROR = RecordError(RecordReason.WRONG_TYPE, "spec.replicas", "'x' is no number", "write 3")


class Outbox:
    """Takes the place of the publisher."""

    def __init__(self) -> None:
        self.sent: list[Record] = []

    def send(self, topic: str, key: str, value: bytes | None, **options: Any) -> None:
        assert options["plain"]
        offset, headers = len(self.sent), options["headers"]
        self.sent.append(Record(topic, options.get("partition") or 0, offset, key, value, headers, 50.0))


class Setup:
    def __init__(self, service: str = "scheduler") -> None:
        self.outbox = Outbox()
        self.charge = {0, 3}
        publisher: Any = self.outbox
        self.letters = dlq.DeadLetters(
            publisher, REGISTRY, service, in_charge=lambda shard: shard in self.charge, clock=lambda: 1000.5
        )

    def written(self) -> list[dlq.DeadLetter]:
        return dlq.fold(self.outbox.sent)


def bad(offset: int = 0, key: str | None = "ns/Job/a", **values: Any) -> Record:
    fields = {"topic": "gpufleet.workloads", "partition": 0, "value": b"{", "headers": {"h": "1"}, "timestamp": 1.0}
    return Record(offset=offset, key=key, **{**fields, **values})


def test_letter_holds_the_original_and_the_error() -> None:
    setup = Setup()
    setup.letters.open()
    setup.letters.reject(bad(7), ERROR)
    (letter,) = setup.written()
    assert letter == dlq.DeadLetter(
        topic="gpufleet.workloads",
        partition=0,
        offset=7,
        key="ns/Job/a",
        value=b"{",
        headers={"h": "1"},
        reason="WrongType",
        error="spec.replicas: 'x' is no number; write 3",
        path="spec.replicas",
        attempts=1,
        first_seen=1000.5,
        state="open",
        truncated=False,
    )
    assert setup.outbox.sent[0].topic == "gpufleet.workloads.dlq"


def test_nothing_is_written_before_the_letters_are_read() -> None:
    setup = Setup()
    setup.letters.reject(bad(1), ERROR)
    setup.letters.reject(bad(2), ERROR)
    setup.letters.apply([Record("gpufleet.workloads.dlq", 0, 0, "k", b"", {dlq.ORIGIN: bad(1).origin}, 0.0)])
    assert setup.outbox.sent == []
    setup.letters.open()
    setup.letters.reject(bad(1), ERROR)
    assert [letter.offset for letter in setup.written()] == [2]
    assert setup.letters.rejected == {("workloads", "WrongType"): 3}


def test_only_who_is_in_charge_writes() -> None:
    setup = Setup("dispatcher")
    setup.letters.open()
    record = bad(0, topic="gpufleet.assignments", partition=5)
    setup.letters.reject(record, ERROR)
    setup.letters.reject(bad(0, topic="gpufleet.assignments", partition=3), ERROR)
    assert [letter.partition for letter in setup.written()] == [3]
    setup.charge = {5}
    setup.letters.write_pending()
    assert [letter.partition for letter in setup.written()] == [3, 5]


def test_topics_of_other_services_are_only_counted() -> None:
    setup = Setup("rescheduler")
    assert setup.letters.topics == []
    setup.letters.open()
    setup.letters.reject(bad(), ERROR)
    assert setup.outbox.sent == []
    assert setup.letters.rejected == {("workloads", "WrongType"): 1}
    assert setup.letters.pending == 0


def test_unacknowledged_letter_is_written_again_until_it_is_seen() -> None:
    setup = Setup()
    setup.letters.open()
    setup.letters.reject(bad(), ERROR)
    setup.letters.write_pending()
    assert len(setup.outbox.sent) == 1
    setup.letters.on_failure(Failure("gpufleet.workloads", "k", OSError()))
    setup.letters.write_pending()
    assert len(setup.outbox.sent) == 1
    setup.letters.on_failure(Failure("gpufleet.workloads.dlq", "k", OSError()))
    setup.letters.write_pending()
    assert len(setup.outbox.sent) == 2
    assert len(setup.written()) == 1  # the same origin twice is one letter
    setup.letters.apply(setup.outbox.sent)
    assert setup.letters.pending == 0


@pytest.mark.parametrize("key", [None, ""])
def test_record_without_a_key(key: str | None) -> None:
    setup = Setup()
    setup.letters.open()
    setup.letters.reject(bad(key=key, value=None), ERROR)
    (letter,) = setup.written()
    assert (letter.key, letter.value) == (key, None)
    assert setup.outbox.sent[0].key == "gpufleet.workloads/0/0"
    publisher: Any = setup.outbox
    with pytest.raises(dlq.DeadLetterError, match="has no key"):
        dlq.replay(publisher, letter)
    dlq.replay(publisher, letter, key="ns/Job/a", value=b"{}")
    assert setup.outbox.sent[1].key == "ns/Job/a"


def test_huge_record_is_cut_off_and_needs_repair() -> None:
    setup = Setup()
    setup.letters.open()
    setup.letters.reject(bad(value=b"x" * 1_000_000), ERROR)
    (letter,) = setup.written()
    assert letter.truncated
    assert len(letter.value or b"") == 900_000
    publisher: Any = setup.outbox
    with pytest.raises(dlq.DeadLetterError, match="too large"):
        dlq.replay(publisher, letter)


def test_what_is_no_letter_is_passed_over() -> None:
    origins = ["", "x", "t/a/1", "t/0/1"]
    records = [
        Record("t.dlq", 0, number, "k", b"", {dlq.ORIGIN: origin, dlq.STATE: "?"}, 77.0)
        for number, origin in enumerate(origins)
    ]
    (letter,) = dlq.fold(records)
    assert (letter.origin, letter.attempts, letter.first_seen) == ("t/0/1", 1, 77.0)
