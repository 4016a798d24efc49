"""Positions in queues are counted from what placements say, whatever their records said when they were written."""

from __future__ import annotations

import pytest

from gpufleet.model.placement import Placement, Version
from gpufleet.model.queueing import counted, in_order
from gpufleet.model.reasons import Verdict
from gpufleet.wire.records import dump_placement
from gpufleet.wire.records_queue import parse_queued


def waits(workload: str, arrival: int, *, priority: int = 0, queue: str = "", position: int | None = 7) -> Placement:
    return Placement(
        workload,
        Version(1, 1),
        Verdict.QUEUED,
        1,
        arrival=arrival,
        priority=priority,
        queue=queue,
        queue_position=position,
    )


WAITING = [
    waits("a", 5),
    waits("b", 3),
    waits("c", 9, priority=10),
    waits("d", 3, queue="train"),
    waits("e", 3),
    waits("runs", 1, position=None),
    waits("f", 1, priority=-1),
]


def test_higher_priority_goes_first_then_who_came_first_each_queue_by_itself() -> None:
    assert in_order(WAITING) == {"": ["c", "b", "e", "a", "f"], "train": ["d"]}


def test_positions_are_counted_and_who_does_not_wait_has_none() -> None:
    found = {p.workload: p.queue_position for p in counted(WAITING)}
    assert found == {"a": 4, "b": 2, "c": 1, "d": 1, "e": 3, "f": 5, "runs": None}


def test_the_place_is_read_from_a_record_without_the_rest_of_it() -> None:
    places = [parse_queued(dump_placement(p)) for p in WAITING]
    assert in_order(p for p in places if p is not None) == in_order(WAITING)


@pytest.mark.parametrize("value", [None, b"", b"{", b'{"workload":3}', b'{"workload":"a","arrival":1}'])
def test_what_cannot_be_read_or_does_not_wait_has_no_place(value: bytes | None) -> None:
    assert parse_queued(value) is None
