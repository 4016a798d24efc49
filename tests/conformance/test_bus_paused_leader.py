"""A leader that is stopped by the operating system, replaced, and wakes up: it must not write any more."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from datetime import UTC, datetime

from gpufleet.bus.settings import KafkaSettings
from tests.support.brokers import Broker
from tests.support.buskit import Leader, create_topics, read_all, running, settings_for
from tests.support.waiting import eventually


async def test_paused_leader_finds_a_higher_epoch_and_stops(broker: Broker) -> None:
    settings = settings_for(broker)
    registry = await create_topics(settings)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.lonely_leader",
        settings.bootstrap,
        settings.topic_prefix,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        old = int((await asyncio.wait_for(process.stdout.readline(), 60)).split()[1])
        await eventually(lambda: _written(settings, registry.name("placements"), old), "the leader to write")
        successor = Leader()
        os.kill(process.pid, signal.SIGSTOP)
        stopped = datetime.now(UTC)
        async with running(successor, settings, instance="successor") as runner:
            await eventually(lambda: runner.bus and runner.bus.may_send(), "the successor to lead")
            assert successor.epochs[0] > old
            woken = time.time()
            os.kill(process.pid, signal.SIGCONT)
            said = await asyncio.wait_for(process.stdout.readline(), 60)
            assert said.startswith(b"inactive")
        records = await read_all(settings, registry.name("placements"))
        late = [record for record in records if record.epoch == old and record.timestamp > woken]
        # One that it was handing to Kafka's client when it was stopped: it had looked before, and nobody reads it.
        assert len(late) <= 1
        assert all(datetime.fromisoformat(record.headers["ce_time"]) <= stopped for record in late)
        assert any(record.epoch == old for record in records)
    finally:
        process.kill()
        await process.wait()


async def _written(settings: KafkaSettings, topic: str, epoch: int) -> bool:
    return any(record.epoch == epoch for record in await read_all(settings, topic))
