"""The runner: probes, start without topics or broker, failures, several services in one loop, graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

import aiohttp
import pytest

from gpufleet.bus.admin import TopicsMissing, TopicsRefused
from gpufleet.bus.broker import BusUnavailable
from gpufleet.bus.http import AddressTaken
from gpufleet.bus.publisher import PublishError
from gpufleet.bus.reader import FeedFailed
from gpufleet.bus.records import Record
from gpufleet.bus.runner import ServiceRunner, run_services
from gpufleet.bus.settings import KafkaSettings
from tests.support.brokers import Broker, open_broker
from tests.support.buskit import Leader, Owner, connected, create_topics, nobody, read_all, running, settings_for
from tests.support.waiting import eventually


@pytest.fixture
async def settings(broker: Broker) -> KafkaSettings:
    return settings_for(broker)


async def _get(runner: ServiceRunner, path: str) -> tuple[int, str]:
    assert runner.address is not None
    host, port = runner.address
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}{path}") as response:
        return response.status, await response.text()


async def test_two_services_in_one_loop(settings: KafkaSettings) -> None:
    registry = await create_topics(settings)
    leader, owner = Leader(), Owner()
    runners = [ServiceRunner(leader, kafka=settings), ServiceRunner(owner, kafka=settings)]
    stop = asyncio.Event()
    task = asyncio.create_task(run_services(runners, stop))
    await eventually(lambda: all(runner.address for runner in runners), "both to listen")
    for runner in runners:
        status, body = await _get(runner, "/livez")
        assert (status, json.loads(body)["status"]) == (200, "ok")

    async def ready(runner: ServiceRunner) -> bool:
        status, body = await _get(runner, "/readyz")
        every = dict.fromkeys(("group", "kafka", "reading", "tables"), "ok")
        assert status == 503 or json.loads(body)["checks"] == every
        return status == 200

    status, body = await _get(runners[0], "/readyz")
    if status == 503:  # else it was quick
        assert "group" in json.loads(body)["checks"]
    for runner in runners:
        await eventually(lambda runner=runner: ready(runner), f"{runner.service.name} to be ready")  # type: ignore[misc]
    await eventually(lambda: leader.active and len(owner.held) == 16, "both to work")
    shown = ["gpufleet_inventory_owned_shards 16.0", 'gpufleet_inventory_consumer_lag_records{feed="tables"} 0.0']

    async def metrics() -> str:
        text = (await _get(runners[1], "/metrics"))[1]
        return text if all(line in text for line in shown) else ""

    text = await eventually(metrics, f"the metrics to show {shown}")
    assert "gpufleet_scheduler" not in text
    assert (await _get(runners[0], "/nope"))[0] == 404
    leader.bus.publisher.send("placements", "a/Job/b", b"{}", epoch=leader.epochs[-1], version=1)
    stop.set()  # what was sent is flushed before the group is left
    await task
    assert [record.key for record in await read_all(settings, registry.name("placements"))] == ["a/Job/b"]
    assert not leader.active
    assert owner.held == {}
    # A task that was cancelled last may need one more turn of the loop.
    await eventually(lambda: len(asyncio.all_tasks()) == 1, "every task to have ended")


async def test_missing_topics_are_named(settings: KafkaSettings) -> None:
    short = settings.model_copy(update={"connect_timeout": 0.3})
    with pytest.raises(TopicsMissing, match=r"lacks .*gpufleet\.workloads.*gpufleet topics apply"):
        await ServiceRunner(Leader(), kafka=short).run(asyncio.Event())


async def test_another_number_of_shards_than_the_topics_have_is_refused(settings: KafkaSettings) -> None:
    await create_topics(settings)
    other = settings.model_copy(update={"shards": 3})
    with pytest.raises(TopicsRefused, match=r"has 16 partitions, the registry wants 3"):
        await ServiceRunner(Owner(), kafka=other).run(asyncio.Event())


async def test_a_service_goes_by_the_number_of_shards_that_the_topics_have(settings: KafkaSettings) -> None:
    await create_topics(settings.model_copy(update={"shards": 3}))
    owner = Owner()
    async with running(owner, settings) as runner:
        await eventually(lambda: set(owner.held) == {0, 1, 2}, "the service to own all shards")
        assert runner.bus is not None
        assert runner.bus.registry["assignments"].partitions == 3


async def test_topics_may_come_later(settings: KafkaSettings) -> None:
    leader = Leader()
    async with running(leader, settings.model_copy(update={"connect_timeout": 60.0})):
        await create_topics(settings)
        await eventually(lambda: leader.active, "the service to lead")


async def test_service_creates_topics_where_it_is_told_to(settings: KafkaSettings) -> None:
    leader = Leader()
    async with running(leader, settings, create_topics=True):
        await eventually(lambda: leader.active, "the service to lead")


async def test_no_broker_is_an_error_with_its_cause() -> None:
    with nobody() as bootstrap:
        settings = settings_for(Broker("none", bootstrap, ""), connect_timeout=0.5)
        with pytest.raises(BusUnavailable, match="nothing listens there"):
            await ServiceRunner(Leader(), kafka=settings).run(asyncio.Event())


async def test_probes_are_answered_while_no_broker_is_there() -> None:
    with nobody() as bootstrap:
        runner = ServiceRunner(Leader(), kafka=settings_for(Broker("none", bootstrap, ""), connect_timeout=600.0))
        task = asyncio.create_task(runner.run(asyncio.Event()))
        try:
            await eventually(lambda: runner.address is not None, "the probes to answer")
            assert (await _get(runner, "/livez"))[0] == 200
            assert (await _get(runner, "/readyz"))[0] == 503
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_address_in_use_is_an_error(settings: KafkaSettings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(AddressTaken, match=rf"scheduler cannot listen on 127\.0\.0\.1:{port}"):
            await ServiceRunner(Leader(), kafka=settings, port=port).run(asyncio.Event())


async def test_bug_in_a_sink_stops_the_service(settings: KafkaSettings) -> None:
    class Broken(Leader):
        def on_records(self, records: list[Record]) -> None:
            raise ZeroDivisionError("a bug")

    registry = await create_topics(settings)
    async with connected(settings, registry) as publisher:
        await publisher.confirm("workloads", "a/Job/b", b"{}")
    with pytest.raises(FeedFailed, match="a bug"):
        await ServiceRunner(Broken(), kafka=settings).run(asyncio.Event())


async def test_background_task_that_fails_stops_the_service(settings: KafkaSettings) -> None:
    class Busy(Leader):
        async def caught_up(self) -> None:
            self.bus.spawn(self._work(), "work")

        async def _work(self) -> None:
            raise LookupError("nothing to do")

    await create_topics(settings)
    with pytest.raises(LookupError, match="nothing to do"):
        await ServiceRunner(Busy(), kafka=settings).run(asyncio.Event())


async def test_broker_restart(broker: Broker) -> None:
    """A broker that crashes and comes back with its log: nothing is lost, the leader goes on."""
    if broker.kind != "apache":
        pytest.skip(f"the log of {broker.description} is gone with the process")
    with open_broker("apache") as own:
        settings = settings_for(own, session_timeout=20.0)
        await create_topics(settings)
        settings = settings.model_copy(update={"request_timeout": 2.0})  # less than the outage
        leader, owner = Leader(), Owner()
        process: Any = own.process
        async with running(leader, settings) as runner, running(owner, settings):
            await eventually(lambda: leader.active and len(owner.may_send()) == 16, "both to work")
            epoch = leader.epochs[-1]
            process.kill()

            async def published() -> bool:
                """Sends the truth again until it is acknowledged, as services do."""
                leader.bus.publisher.send("placements", "a/Job/b", b"{}", epoch=epoch, version=1)
                with contextlib.suppress(PublishError):
                    await leader.bus.publisher.flush()
                    return True
                return False

            sending = asyncio.create_task(eventually(published, "the placement to be acknowledged", timeout=60))
            await asyncio.to_thread(process.start)
            await sending
            await asyncio.wait_for(leader.bus.tables.barrier(), 60)
            assert any(kind == "records" and "a/Job/b" in keys for kind, keys in leader.events)
            await eventually(lambda: runner.bus and runner.bus.may_send(), "the leader to go on", timeout=60)
            await eventually(lambda: len(owner.may_send()) == 16, "the owner to go on", timeout=60)
            assert leader.epochs == sorted(set(leader.epochs))


async def test_embedded_broker_that_comes_back_empty_stops_the_service(broker: Broker) -> None:
    with open_broker("embedded") as own:
        settings = settings_for(own, request_timeout=2.0)
        await create_topics(settings)
        leader = Leader()
        task = asyncio.create_task(ServiceRunner(leader, kafka=settings).run(asyncio.Event()))
        await eventually(lambda: leader.active, "the service to lead")
        process: Any = own.process
        process.stop()
        process.start()
        with pytest.raises(FeedFailed, match=r"start this service again|no topic"):
            await asyncio.wait_for(task, 60)
