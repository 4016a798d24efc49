"""What the log says about a cluster, whatever order and repetition it comes in; and the queue of what to look at."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gpufleet.model.placement import Observation, ObservedPhase, Version
from services.dispatcher.core import table as module
from services.dispatcher.core.table import ClusterTable
from services.dispatcher.workqueue import WorkQueue
from tests.support import manifests
from tests.support.hands import assigned, removal

FIRST = assigned(manifests.deployment(1), version=(2, 5))
KEY = FIRST.workload
GONE = Observation(KEY, "c", Version(2, 9), ObservedPhase.GONE)


@pytest.mark.parametrize(
    ("version", "taken"), [((2, 5), False), ((2, 4), False), ((1, 99), False), ((2, 6), True), ((3, 0), True)]
)
def test_only_a_later_version_is_taken(version: tuple[int, int], taken: bool) -> None:
    table = ClusterTable("c")
    assert table.take(FIRST)
    other = replace(FIRST, version=Version(*version))
    assert table.take(other) is taken
    assert table.assignments[KEY] is (other if taken else FIRST)


def test_a_tombstone_forgets_and_what_came_before_it_stays_forgotten() -> None:
    table = ClusterTable("c")
    table.take(FIRST)
    assert not table.bury(KEY, Version(2, 4))  # of a stale writer
    assert table.bury(KEY, Version(2, 7))
    assert not table.take(FIRST)
    assert not table.take(replace(FIRST, version=Version(2, 7)))
    assert not table.bury(KEY, Version(2, 8))  # nothing to forget
    assert not table.take(replace(FIRST, version=Version(2, 8)))
    assert table.take(replace(FIRST, version=Version(2, 9)))


def test_a_tombstone_without_version_counts() -> None:
    table = ClusterTable("c")
    table.take(FIRST)
    assert table.bury(KEY, None)
    assert table.buried(KEY) == FIRST.version
    assert not table.take(FIRST)


def test_a_removal_that_ended_is_kept_in_mind() -> None:
    table = ClusterTable("c")
    leaving = removal(FIRST, (2, 9))
    table.take(leaving)
    table.said(GONE, 0.0)
    table.bury(KEY, Version(2, 10))
    farewell = table.lookup(KEY)
    assert farewell is not None
    assert farewell.version == Version(2, 10)
    assert farewell.manifest == {"apiVersion": "apps/v1", "kind": "Deployment"}
    assert table.assignments == {}
    again = replace(FIRST, version=Version(3, 1))
    table.take(again)
    assert table.lookup(KEY) is again


@pytest.mark.parametrize("phase", [ObservedPhase.APPLIED, ObservedPhase.PENDING, None])
def test_absence_alone_removes_nothing(phase: ObservedPhase | None) -> None:
    """A tombstone of something that was not reported gone: somebody swept by hand."""
    for assignment in (FIRST, removal(FIRST, (2, 9))):
        table = ClusterTable("c")
        table.take(assignment)
        if phase is not None:
            table.said(replace(GONE, phase=phase), 0.0)
        table.bury(KEY, None)
        assert table.lookup(KEY) is None


def test_farewells_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELLS", 2)
    table = ClusterTable("c")
    for name in ("a", "b", "c"):
        manifest = manifests.deployment(1)
        manifest["metadata"]["name"] = name
        leaving = removal(assigned(manifest), (2, 9))
        table.take(leaving)
        table.said(replace(GONE, workload=leaving.workload), 0.0)
        table.bury(leaving.workload, None)
    assert list(table.farewells) == ["test/Deployment/b", "test/Deployment/c"]


def test_when_it_was_looked_is_no_news() -> None:
    table = ClusterTable("c")
    assert table.news(GONE)
    table.said(GONE, 0.0)
    assert not table.news(replace(GONE, observed_at=99.0))
    assert table.news(replace(GONE, message="x"))


def test_what_the_log_does_not_hold_is_sent_again() -> None:
    table = ClusterTable("c")
    table.said(GONE, 10.0)
    assert table.unheard(10.0) == []
    assert table.unheard(10.1) == [GONE]  # not acknowledged
    table.note(KEY, GONE)
    assert table.unheard(99.0) == []
    table.note(KEY, replace(GONE, version=Version(2, 1), phase=ObservedPhase.APPLIED))
    assert table.unheard(99.0) == [GONE]  # overwritten by a dispatcher that woke up late
    table.note(KEY, None)
    assert table.unheard(99.0) == [GONE]
    assert table.forget(KEY) == GONE.version
    assert table.unheard(99.0) == []
    assert table.forget(KEY) is None


def test_a_tombstone_that_the_log_does_not_hold_is_sent_again() -> None:
    table = ClusterTable("c")
    table.take(FIRST)
    table.said(GONE, 1.0)
    table.note(KEY, GONE)
    table.bury(KEY, Version(2, 10))
    assert table.erase(KEY, 10.0) == Version(2, 10)
    table.note(KEY, GONE)  # our own record, read back late
    assert table.unerased(10.0) == []
    assert table.unerased(10.1) == [KEY]  # not acknowledged
    assert table.erase(KEY, 20.0) == Version(2, 10)
    assert table.unerased(10.1) == []
    table.note(KEY, None)
    assert table.unerased(99.0) == []
    table.note(KEY, GONE)  # of a dispatcher that woke up late
    assert table.unerased(0.0) == [KEY]
    assert table.erase(KEY, 30.0) == Version(2, 10)
    table.take(replace(FIRST, version=Version(3, 1)))
    assert table.unerased(99.0) == []  # it is wanted again


def test_nothing_is_erased_that_was_never_said() -> None:
    table = ClusterTable("c")
    table.take(FIRST)
    table.bury(KEY, Version(2, 10))
    assert table.erase(KEY, 10.0) is None
    assert table.unerased(99.0) == []


def test_the_last_word_is_ours_before_the_logs() -> None:
    table = ClusterTable("c")
    table.note(KEY, replace(GONE, message="of the owner before"))
    assert table.last(KEY) == replace(GONE, message="of the owner before")
    table.said(GONE, 0.0)
    assert table.last(KEY) == GONE


# --- The queue --------------------------------------------------------------------------------------------------


async def test_a_key_is_worked_on_once_at_a_time() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert len(queue) == 2
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "b"
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done("a")
    assert await waiting == "a"
    queue.done("a")
    queue.done("b")
    assert len(queue) == 0


async def test_background_waits_for_the_rest() -> None:
    queue = WorkQueue()
    queue.add("later", background=True)
    queue.add("now")
    assert [await queue.get(), await queue.get()] == ["now", "later"]


async def test_a_key_that_waits_in_the_background_can_become_urgent() -> None:
    queue = WorkQueue()
    for name in ("a", "b", "c"):
        queue.add(name, background=True)
    queue.add("c")
    assert [await queue.get() for _ in range(3)] == ["c", "a", "b"]
    assert len(queue) == 0


async def test_of_several_delays_the_shortest_counts() -> None:
    queue = WorkQueue()
    queue.add_after("a", 60)
    queue.add_after("a", 0.001)
    queue.add_after("a", 30)
    assert await queue.get() == "a"
    queue.add_after("b", 60)
    queue.add("b")
    assert await queue.get() == "b"
    queue.add_after("c", -1)
    assert await queue.get() == "c"


async def test_what_is_dropped_does_not_come() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.add_after("b", 0.001)
    queue.close()
    waiting = asyncio.create_task(queue.get())
    queue.add("c")
    assert await waiting == "c"
    assert len(queue) == 0
