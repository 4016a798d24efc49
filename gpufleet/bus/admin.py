"""Bring a broker in line with the registry of topics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, TopicAlreadyExistsError, for_code

from gpufleet.bus.broker import BusUnavailable, client_options, reach
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import Registry, Topic

_DYNAMIC_TOPIC_CONFIG: Final = 1
_APPEAR_SECONDS: Final = 10.0
_APPEAR_LOOK: Final = 0.05

Action = Literal["create", "alter", "refuse"]


class TopicsMissing(RuntimeError):
    """The broker lacks topics; the text names them and says how to create them."""

    def __init__(self, bootstrap: str, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"Kafka at {bootstrap} lacks {', '.join(names)}: run `gpufleet topics apply`")


class TopicsRefused(RuntimeError):
    """The broker does not do what the registry wants. The text names each topic, the cause and what to do."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How a topic on the broker differs from the registry.

    `create`: it is not there. `alter`: `configs` maps each config to (as it is, as it should be). `refuse`: it cannot
    be brought in line; `detail` says why and what to do.
    """

    topic: Topic
    action: Action
    detail: str
    configs: Mapping[str, tuple[str | None, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line: `create gpufleet.workloads: …`."""
        changes = [f"{name} {before or 'unset'} → {after}" for name, (before, after) in sorted(self.configs.items())]
        return f"{self.action} {self.topic.name}: {'; '.join(filter(None, [self.detail, *changes]))}"


class Admin(Protocol):
    """What is used of `aiokafka.admin.AIOKafkaAdminClient`."""

    async def list_topics(self) -> list[str]: ...

    async def describe_topics(self, topics: list[str]) -> list[Any]: ...

    async def describe_configs(self, config_resources: list[Any]) -> list[Any]: ...

    async def create_topics(self, new_topics: list[Any]) -> Any: ...

    async def alter_configs(self, config_resources: list[Any]) -> list[Any]: ...


@contextlib.asynccontextmanager
async def connect_admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client that is connected. Raises BusUnavailable."""
    await reach(settings, settings.client_id)
    admin = AIOKafkaAdminClient(**client_options(settings, settings.client_id))
    try:
        await admin.start()
    except (KafkaError, OSError) as error:
        await admin.close()
        raise BusUnavailable(f"Kafka at {settings.bootstrap} went away: {error}") from error
    try:
        yield admin
    finally:
        await admin.close()


async def missing(admin: Admin, registry: Registry, names: Sequence[str]) -> list[str]:
    """Which of `names` the broker does not have.

    Asked by the list of all topics: some brokers create a topic when they are asked about it by name.
    """
    there = set(await admin.list_topics())
    return [name for name in registry.names(names) if name not in there]


async def adopt_shards(admin: Admin, registry: Registry, settings: KafkaSettings) -> None:
    """Give the registry the number of shards that the fleet was made with: that of its topics, once all agree on it.

    One of them alone says nothing: a broker may have made it, because somebody produced to it. A number that the
    settings give stays.
    """
    if settings.shards is not None:
        return
    divided = [topic for topic in registry if topic.partitioned_by_cluster]
    if {topic.name for topic in divided} <= set(await admin.list_topics()):
        found = set((await _partitions(admin, divided)).values())
        if len(found) == 1 and 0 not in found:
            registry.set_shards(found.pop())


async def check_partitions(admin: Admin, registry: Registry, names: Sequence[str]) -> None:
    """Raises TopicsRefused where a topic of `names` has not as many partitions as it should."""
    topics = [registry[name] for name in names]
    found = await _partitions(admin, topics)
    # None or 0: a topic that was just created is not known yet to the broker that answers.
    counts = [(topic, found.get(topic.name) or topic.partitions) for topic in topics]
    refused = [_refusal(topic, count) for topic, count in counts if count != topic.partitions]
    if refused:
        raise TopicsRefused("; ".join(refused))


async def diff(admin: Admin, registry: Registry) -> list[Difference]:
    """What `apply` would do, in the registry's order. Empty: the broker is in line."""
    there = set(await admin.list_topics())
    known = [topic for topic in registry if topic.name in there]
    partitions = await _partitions(admin, known)
    configs = {topic.name: _values(entries) for topic, entries in zip(known, await _configs(admin, known), strict=True)}
    differences: list[Difference] = []
    for topic in registry:
        if topic.name not in there:
            differences.append(Difference(topic, "create", f"{topic.partitions} partitions"))
            continue
        found = partitions[topic.name]
        if found != topic.partitions:
            differences.append(Difference(topic, "refuse", _refusal(topic, found)))
        wrong = {
            name: (configs[topic.name].get(name), value)
            for name, value in sorted(topic.configs.items())
            if configs[topic.name].get(name) != value
        }
        if wrong:
            text = ", ".join(f"{name} {was or 'unset'} → {value}" for name, (was, value) in wrong.items())
            differences.append(Difference(topic, "alter", text, wrong))
    return differences


async def apply(admin: Admin, registry: Registry, *, replication_factor: int = 1) -> list[Difference]:
    """Create what is missing, alter configs that differ. Returns what was done, in the registry's order.

    Raises TopicsRefused, after doing what can be done, for partition counts that differ, for configs that the broker
    does not let change, and for topics that it does not create.
    """
    created = [difference for difference in await diff(admin, registry) if difference.action == "create"]
    errors: dict[str, str] = {}
    if created:
        errors = await _create(admin, [difference.topic for difference in created], replication_factor)
        await _appear(admin, [difference.topic for difference in created if difference.topic.name not in errors])
    done = [difference for difference in created if difference.topic.name not in errors]
    refused = [f"{name} is not created: {error}" for name, error in sorted(errors.items())]
    for difference in await diff(admin, registry):
        if difference.action == "refuse":
            refused.append(difference.detail)
        elif difference.action == "alter":
            error = await _alter(admin, difference.topic)
            if error is None:
                done.append(difference)
            else:
                refused.append(f"{difference.topic.name}: {difference.detail} is not changed: {error}")
    if refused:
        raise TopicsRefused("; ".join(refused))
    order = {topic.name: number for number, topic in enumerate(registry)}
    return sorted(done, key=lambda difference: order[difference.topic.name])


async def _appear(admin: Admin, topics: list[Topic]) -> None:
    """A topic that is created is not at once known to the broker that is asked next."""
    wanted = {topic.name for topic in topics}
    for _ in range(round(_APPEAR_SECONDS / _APPEAR_LOOK)):
        if wanted <= set(await admin.list_topics()):
            return
        await asyncio.sleep(_APPEAR_LOOK)


def _refusal(topic: Topic, found: int) -> str:
    why = (
        "clusters are divided by this number, which must never change and is the same for all topics"
        if topic.partitioned_by_cluster
        else "with several partitions the order of versions would depend on the producer's partitioner"
    )
    return (
        f"{topic.name} has {found} partitions, the registry wants {topic.partitions}: {why}. "
        "Save what it holds (read it from the beginning), delete the topic, and run `gpufleet topics apply` again"
    )


async def _partitions(admin: Admin, topics: list[Topic]) -> dict[str, int]:
    if not topics:
        return {}
    described = await admin.describe_topics([topic.name for topic in topics])
    return {entry["topic"]: len(entry["partitions"]) for entry in described}


async def _configs(admin: Admin, topics: list[Topic]) -> list[list[tuple[Any, ...]]]:
    """The config entries of each topic: (name, value, read only, source, …)."""
    entries: dict[str, list[tuple[Any, ...]]] = {}
    if topics:
        for response in await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
        ):
            for code, message, _type, name, found in response.resources:
                if code:
                    raise TopicsRefused(f"the configs of {name} cannot be read: {message or for_code(code).__name__}")
                entries[name] = list(found)
    return [entries.get(topic.name, []) for topic in topics]


def _values(entries: list[tuple[Any, ...]]) -> dict[str, str]:
    return {entry[0]: entry[1] for entry in entries if entry[1] is not None}


async def _create(admin: Admin, topics: list[Topic], replication_factor: int) -> dict[str, str]:
    response = await admin.create_topics(
        [
            NewTopic(topic.name, topic.partitions, replication_factor, topic_configs=dict(topic.configs))
            for topic in topics
        ]
    )
    errors: dict[str, str] = {}
    for name, code, *rest in response.topic_errors:
        # Two that apply at once are no conflict: the topic is there, and is looked at next.
        if code and code != TopicAlreadyExistsError.errno:
            errors[name] = (rest[0] if rest else None) or for_code(code).__name__
    return errors


async def _alter(admin: Admin, topic: Topic) -> str | None:
    """Set the topic's configs; why not, if not. This request replaces all configs of the topic: others are kept."""
    (entries,) = await _configs(admin, [topic])
    kept = {entry[0]: entry[1] for entry in entries if entry[1] is not None and _is_of_the_topic(entry[3])}
    wanted = {**kept, **topic.configs}
    try:
        responses = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=wanted)])
    except IncompatibleBrokerVersion:
        return "this broker does not let configs be changed; delete and create the topic"
    for response in responses:
        for code, message, *_ in response.resources:
            if code:
                return str(message or for_code(code).__name__)
    return None


def _is_of_the_topic(source: bool | int) -> bool:
    """Whether a config is set on the topic: old brokers say `is_default`, newer ones where the value comes from."""
    return not source if isinstance(source, bool) else source == _DYNAMIC_TOPIC_CONFIG
