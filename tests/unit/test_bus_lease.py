"""The lease of a group member, on a clock of the test's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpufleet.bus.lease import Lease


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Coordinator:
    """Answers heartbeats after `delay` seconds of the clock."""

    generation = 1

    def __init__(self, clock: Clock, delay: float = 0.0) -> None:
        self.clock, self.delay, self.answer = clock, delay, True

    async def _do_heartbeat(self) -> bool:
        self.clock.now += self.delay
        return self.answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_no_heartbeat_no_lease(clock: Clock) -> None:
    lease = Lease(9.0, clock)
    assert not lease.safe
    assert lease.expired


def test_two_thirds_of_a_session(clock: Clock) -> None:
    lease = Lease(9.0, clock)
    lease.renew()
    for passed, safe, expired in [(0, True, False), (6, True, False), (6.01, False, False), (9.01, False, True)]:
        clock.now = 100.0 + passed
        assert (lease.safe, lease.expired) == (safe, expired), passed


async def test_heartbeat_counts_from_when_it_was_sent(clock: Clock) -> None:
    lease, coordinator = Lease(9.0, clock), Coordinator(clock, delay=2.0)
    lease.attach(SimpleNamespace(_coordinator=coordinator))
    assert await coordinator._do_heartbeat()
    assert lease.age == 2.0
    coordinator.answer = False  # a failure: nothing changes while the group still knows us
    assert not await coordinator._do_heartbeat()
    assert lease.age == 4.0
    assert lease.safe


async def test_member_that_the_group_does_not_know_has_no_lease(clock: Clock) -> None:
    lease, coordinator = Lease(9.0, clock), Coordinator(clock)
    lease.renew()
    lease.attach(SimpleNamespace(_coordinator=coordinator))
    coordinator.answer, coordinator.generation = False, -1
    assert not await coordinator._do_heartbeat()
    assert lease.expired


async def test_attaching_again_watches_once_and_a_new_consumer_too(clock: Clock) -> None:
    lease = Lease(9.0, clock)
    first, second = Coordinator(clock), Coordinator(clock)
    lease.attach(SimpleNamespace(_coordinator=first))
    watched: Any = first._do_heartbeat
    lease.attach(SimpleNamespace(_coordinator=first))
    assert first._do_heartbeat is watched
    lease.attach(SimpleNamespace(_coordinator=second))
    assert await second._do_heartbeat()
    assert lease.safe


def test_older_heartbeat_takes_nothing_away(clock: Clock) -> None:
    lease = Lease(9.0, clock)
    lease.renew(100.0)
    lease.renew(95.0)
    assert lease.age == 0.0


@pytest.mark.parametrize("consumer", [SimpleNamespace(), SimpleNamespace(_coordinator=SimpleNamespace())])
def test_unknown_client_library_is_an_error(consumer: object) -> None:
    with pytest.raises(RuntimeError, match="aiokafka"):
        Lease(9.0).attach(consumer)
