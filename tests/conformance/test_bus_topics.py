"""The registry applied to a broker."""

from __future__ import annotations

import pytest

from gpufleet.bus import admin as bus_admin
from gpufleet.bus.admin import TopicsRefused, adopt_shards, apply, check_partitions, connect_admin, diff, missing
from gpufleet.bus.broker import BusUnavailable
from gpufleet.bus.topics import load_registry
from tests.support.brokers import Broker
from tests.support.buskit import create_topic, nobody, settings_for
from tests.support.waiting import eventually


async def test_missing_topics_are_created_once(broker: Broker) -> None:
    settings = settings_for(broker)
    registry = load_registry(prefix=settings.topic_prefix)
    async with connect_admin(settings) as admin:
        before = await diff(admin, registry)
        assert {difference.action for difference in before} == {"create"}
        assert [difference.topic for difference in before] == list(registry)
        assert await missing(admin, registry, ["workloads"]) == [registry.name("workloads")]
        assert await apply(admin, registry) == before
        assert await diff(admin, registry) == []
        assert await apply(admin, registry) == []
        assert await missing(admin, registry, ["workloads"]) == []


async def test_other_partition_count_is_refused_and_the_rest_is_done(broker: Broker) -> None:
    settings = settings_for(broker)
    registry = load_registry(prefix=settings.topic_prefix)
    async with connect_admin(settings) as admin:
        wrong = registry["inventory"]
        await create_topic(settings, wrong.name, wrong.configs, partitions=4)
        await adopt_shards(admin, registry, settings)  # which one topic alone does not decide
        with pytest.raises(TopicsRefused, match=r"inventory has 4 partitions, the registry wants 16.*never change"):
            await apply(admin, registry)
        assert [difference.topic for difference in await diff(admin, registry)] == [wrong]
        with pytest.raises(TopicsRefused, match=r"inventory has 4 partitions"):
            await check_partitions(admin, registry, ["workloads", "inventory", "assignments"])


async def test_a_fleet_made_with_another_number_of_shards(broker: Broker) -> None:
    settings = settings_for(broker)
    registry = load_registry(prefix=settings.topic_prefix, shards=4)
    names = [topic.name for topic in registry]
    async with connect_admin(settings) as admin:
        await apply(admin, registry)
        await check_partitions(admin, registry, names)
        other = load_registry(prefix=settings.topic_prefix)
        with pytest.raises(TopicsRefused, match=r"inventory has 4 partitions, the registry wants 16"):
            await check_partitions(admin, other, names)
        await adopt_shards(admin, other, settings)
        await check_partitions(admin, other, names)
        assert await diff(admin, other) == []


async def test_changed_config_is_altered_or_refused(broker: Broker) -> None:
    settings = settings_for(broker)
    registry = load_registry(prefix=settings.topic_prefix)
    topic = registry["workloads"]
    async with connect_admin(settings) as admin:
        configs = {"cleanup.policy": "delete", "max.message.bytes": "2000000"}
        await create_topic(settings, topic.name, configs)
        found = {difference.topic.name: difference for difference in await diff(admin, registry)}[topic.name]
        assert found.action == "alter"
        assert found.configs["cleanup.policy"] == ("delete", "compact")
        if broker.kind == "embedded":
            with pytest.raises(TopicsRefused, match="does not let configs be changed"):
                await apply(admin, registry)
            return
        done = await apply(admin, registry)
        assert [difference.action for difference in done if difference.topic == topic] == ["alter"]

        async def in_line() -> bool:
            return await diff(admin, registry) == []

        await eventually(in_line, "the broker to tell the new configs")
        (entries,) = await bus_admin._configs(admin, [topic])
        assert bus_admin._values(entries)["max.message.bytes"] == "2000000"  # what the registry does not name is kept


async def test_nobody_at_the_address_is_said_with_its_cause() -> None:
    with nobody() as bootstrap:
        settings = settings_for(Broker("none", bootstrap, ""), connect_timeout=0.2)
        with pytest.raises(BusUnavailable, match=rf"{bootstrap} cannot be used.*nothing listens there"):
            async with connect_admin(settings):
                pass


async def test_plain_client_at_something_that_is_no_broker(broker: Broker) -> None:
    settings = settings_for(broker, security_protocol="SSL", connect_timeout=0.1, request_timeout=2.0)
    with pytest.raises(BusUnavailable, match=r"does this port speak|closed|reset"):
        async with connect_admin(settings):
            pass
