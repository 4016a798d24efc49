"""Shards and leadership: who owns what, since which epoch, and that nobody else believes it at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from gpufleet.bus.epochs import EpochTable, claim_key, encode_claim
from gpufleet.bus.runner import ServiceRunner
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry
from tests.support.brokers import Broker
from tests.support.buskit import Leader, Owner, connected, create_topics, read_all, running, settings_for
from tests.support.waiting import eventually

ALL = set(range(16))


@pytest.fixture
async def settings(broker: Broker) -> KafkaSettings:
    return settings_for(broker)


@pytest.fixture
async def registry(settings: KafkaSettings) -> Registry:
    return await create_topics(settings)


async def test_shards_move_between_two_owners(broker: Broker) -> None:
    settings = settings_for(broker, session_timeout=4.0)  # a stalled machine must not lose its shards in between
    registry = await create_topics(settings)
    async with connected(settings, registry) as publisher:
        for shard in ALL:
            publisher.send("inventory", f"c{shard}", b"{}", partition=shard)
        await publisher.flush()
    first, second = Owner(), Owner()
    async with running(first, settings):
        await eventually(lambda: first.may_send() == ALL, "the first to own all")
        # What was there before the claim is read before `acquired`.
        assert first.seen == {shard: [f"c{shard}"] for shard in ALL}
        before = dict(first.held)
        async with running(second, settings):
            watch = asyncio.create_task(_never_both(first, second))
            await eventually(lambda: _halved(first, second), "each to own half")
            assert set(first.held) == first.may_send()
            # Half stays where it was, under a higher epoch and without `lost` in between.
            assert not [event for event in first.events if event[0] == "lost" and event[1] in first.held]
            assert all(epoch > before[shard] for shard, epoch in {**first.held, **second.held}.items())
            assert set(second.seen) == set(second.held)
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        await eventually(lambda: first.may_send() == ALL, "the first to own all again")
    assert first.held == {}
    table = EpochTable()
    table.apply(await read_all(settings, registry.name("epochs")))
    last = {shard: epoch for kind, shard, epoch in first.events if kind == "acquired"}
    assert {shard: table.epoch(claim_key("inventory", shard)) for shard in ALL} == last


def _halved(first: Owner, second: Owner) -> bool:
    """Looked at in one moment: on a busy machine a lease may run out for a while."""
    mine, other = first.may_send(), second.may_send()
    return len(mine) == len(other) == 8 and mine | other == ALL


async def _never_both(first: Owner, second: Owner) -> None:
    while True:
        assert not first.may_send() & second.may_send()
        await asyncio.sleep(0.005)


async def test_one_leads_and_the_other_follows(settings: KafkaSettings, registry: Registry) -> None:
    async with connected(settings, registry) as publisher:
        await publisher.confirm("workloads", "ns/Job/early", b"{}")
    first, second = Leader(), Leader()
    async with running(second, settings, instance="two") as two:
        async with running(first, settings, instance="one") as one:
            await eventually(lambda: first.active or second.active, "a leader")
            await eventually(lambda: all(_joined(runner) for runner in (one, two)), "both to be members")
            await eventually(lambda: _may_send(one) or _may_send(two), "a leader that may send")
            assert _may_send(one) != _may_send(two)
            leader, standby = (first, second) if _may_send(one) else (second, first)
            # Its table was complete before it was told to decide.
            assert leader.events[0] == ("records", ["ns/Job/early"])
            assert leader.events[1][0] == "activated"
            assert standby.epochs == [] or not standby.active
            # The standby's table is warm.
            await eventually(lambda: ("records", ["ns/Job/early"]) in standby.events, "the standby to have read it")
            logs = (first.bus.epochs, second.bus.epochs)
            await eventually(lambda: all(log.log_id for log in logs), "both to read the log's id")
            assert first.bus.epochs.log_id == second.bus.epochs.log_id
        await eventually(lambda: _may_send(two) and second.active, "the second to lead when the first has left")
        assert second.epochs[-1] > max(first.epochs, default=-1)
    assert not first.active
    assert not second.active


async def test_deposed_leader_stops_and_takes_over_again_later(settings: KafkaSettings, registry: Registry) -> None:
    leader = Leader()
    async with running(leader, settings) as runner, connected(settings, registry) as publisher:
        await eventually(lambda: _may_send(runner), "a leader")
        epoch = leader.epochs[-1]
        claimed = time.monotonic()
        place = await publisher.confirm("epochs", "scheduler", encode_claim("scheduler", None, "stranger", 0.0))
        assert place.offset > epoch
        await eventually(lambda: not leader.active, "the leader to be deposed")
        assert not _may_send(runner)
        assert "stranger has claimed it" in leader.events[-1][1]
        # Nobody else is in the group, so it claims again, but not at once: two of them would never end.
        await eventually(lambda: _may_send(runner), "the leader to come back")
        assert time.monotonic() - claimed >= settings.session_timeout / 3
        assert leader.epochs[-1] > place.offset


async def test_leader_without_heartbeats_stops_sending_and_then_leading(
    settings: KafkaSettings, registry: Registry
) -> None:
    leader = Leader()
    async with running(leader, settings) as runner:
        await eventually(lambda: _may_send(runner), "a leader")
        assert leader.bus.leadership is not None
        coordinator = leader.bus.leadership.consumer._coordinator
        accepted = coordinator._do_heartbeat
        lease = leader.bus.leadership.lease
        heard = time.monotonic() - lease.age

        async def lost() -> bool:
            return False

        coordinator._do_heartbeat = lost
        # On a busy machine this loop may look late, so what it has seen counts, not when it ended.
        asked = allowed = time.monotonic()
        while _may_send(runner):
            allowed = asked
            heard = max(heard, time.monotonic() - lease.age)
            await asyncio.sleep(0.005)
            asked = time.monotonic()
        limit = settings.session_timeout * 2 / 3
        assert allowed - heard <= limit + 0.05
        assert time.monotonic() - heard >= limit - 0.05
        # It may not send, but nobody has taken over yet.
        assert leader.active or time.monotonic() - heard > settings.session_timeout
        await eventually(lambda: not leader.active, "the leader to give up")
        assert "no heartbeat" in leader.events[-1][1]
        coordinator._do_heartbeat = accepted
        await eventually(lambda: _may_send(runner), "the leader to come back")
        assert leader.epochs == sorted(set(leader.epochs))


async def test_epochs_are_ordered_with_concurrent_claimants(settings: KafkaSettings, registry: Registry) -> None:
    async with connected(settings, registry) as one, connected(settings, registry) as two:
        places = await asyncio.gather(
            *(
                publisher.confirm("epochs", "scheduler", encode_claim("scheduler", None, f"{name}-{number}", 0.0))
                for number in range(50)
                for name, publisher in (("one", one), ("two", two))
            )
        )
    records = await read_all(settings, registry.name("epochs"))
    assert sorted(place.offset for place in places) == [record.offset for record in records] == list(range(100))
    by_offset = {record.offset: record.value for record in records}
    names = [f"{name}-{number}" for number in range(50) for name in ("one", "two")]
    for name, place in zip(names, places, strict=True):
        assert f'"{name}"'.encode() in (by_offset[place.offset] or b"")
    table = EpochTable()
    table.apply(records)
    highest = table.highest("scheduler")
    assert highest is not None
    assert highest.epoch == 99


def _joined(runner: ServiceRunner) -> bool:
    assert runner.bus is not None
    assert runner.bus.leadership is not None
    return runner.bus.leadership.joined


def _may_send(runner: ServiceRunner) -> bool:
    assert runner.bus is not None
    return runner.bus.may_send()
