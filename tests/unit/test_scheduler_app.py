"""The scheduler's shell without a broker: what it measures, what it reads of its own records, when history is kept."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from gpufleet.bus.publisher import Acknowledgement
from gpufleet.bus.records import EPOCH_HEADER, VERSION_HEADER, Record
from gpufleet.bus.topics import load_registry
from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.log import ClusterRegistration
from gpufleet.model.placement import ClusterCap, Eviction, Placement, Version
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.reasons import Verdict
from gpufleet.telemetry.metrics import Metrics
from gpufleet.wire.documents import read_policy
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import dump_cluster, dump_eviction, dump_manifest, dump_placement
from services.scheduler.app import SchedulerService
from services.scheduler.core.activation import policy_stamp
from services.scheduler.core.events import ClusterRegistered, PlacementRead
from services.scheduler.intake import Intake
from services.scheduler.settings import SchedulerSettings
from tests.support.system import deployment, key_of
from tests.support.waiting import eventually

REGISTRY = load_registry()
EPOCH = 5
WEB = deployment("web")
KEY = key_of(WEB)


@dataclass
class Sent:
    topic: str
    key: str
    value: bytes | None
    epoch: int
    done: asyncio.Future[Acknowledgement]

    def acknowledge(self) -> None:
        self.done.set_result(Acknowledgement(self.topic, 0, 0))


@dataclass
class Shell:
    """An active scheduler whose records are kept here, in place of a publisher."""

    now: float = 1000.0
    sent: list[Sent] = field(default_factory=list)
    rejected: list[Record] = field(default_factory=list)
    offset: int = 0

    async def start(self) -> Shell:
        self.metrics = Metrics("scheduler")
        self.service = SchedulerService(SchedulerSettings(coalesce=0.0), clock=lambda: self.now)
        bus: Any = SimpleNamespace(
            registry=REGISTRY,
            metrics=self.metrics,
            publisher=SimpleNamespace(send=self._send),
            dead_letters=SimpleNamespace(reject=self._reject),
            epochs=SimpleNamespace(log_id="log"),
            spawn=lambda work, name: asyncio.create_task(work, name=name),
        )
        self.service.bind(bus)
        await self.service.caught_up()
        self.service.activated(EPOCH)
        return self

    def _send(self, topic: str, key: str, value: bytes | None, **options: Any) -> asyncio.Future[Acknowledgement]:
        done: asyncio.Future[Acknowledgement] = asyncio.get_running_loop().create_future()
        self.sent.append(Sent(topic, key, value, options["epoch"], done))
        return done

    def _reject(self, record: Record, _: RecordError) -> None:
        self.rejected.append(record)

    def read(self, topic: str, key: str, value: bytes | None, epoch: int | None = None) -> None:
        self.offset += 1
        headers = {} if epoch is None else {EPOCH_HEADER: str(epoch), VERSION_HEADER: "1"}
        name = REGISTRY.name(topic)
        self.service.on_records([Record(name, 0, self.offset, key, value, headers, timestamp=self.now)])

    async def next(self, topic: str, count: int = 1) -> Sent:
        """The record that is sent as the `count`th to a topic."""
        await eventually(lambda: len(self.of(topic)) >= count, f"record {count} of {topic}")
        return self.of(topic)[count - 1]

    def of(self, topic: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.topic == topic]

    def measured(self, part: str) -> float:
        value = self.metrics.registry.get_sample_value(f"gpufleet_scheduler_placement_seconds_{part}")
        assert value is not None
        return value


async def test_a_placement_is_measured_to_its_acknowledgement() -> None:
    shell = await Shell().start()
    shell.read("workloads", KEY, dump_manifest(WEB))
    placement = await shell.next("placements")
    assert placement.key == KEY
    shell.now += 0.03
    assert shell.measured("count") == 0  # decided, but the broker has not said that it has it
    placement.acknowledge()
    await eventually(lambda: shell.measured("count") == 1, "the acknowledgement to be measured")
    assert shell.measured("sum") == pytest.approx(0.03)


async def test_what_is_not_acknowledged_is_not_measured() -> None:
    shell = await Shell().start()
    shell.read("workloads", KEY, dump_manifest(WEB))
    (await shell.next("placements")).done.set_exception(ConnectionError("gone"))
    other = deployment("other")
    shell.read("workloads", key_of(other), dump_manifest(other))
    (await shell.next("placements", 2)).acknowledge()
    await eventually(lambda: shell.measured("count") == 1, "the second one to be measured")


async def test_a_manifest_that_changes_nothing_starts_no_clock() -> None:
    shell = await Shell().start()
    shell.read("workloads", KEY, dump_manifest(WEB))
    (await shell.next("placements")).acknowledge()
    shell.read("workloads", KEY, dump_manifest(WEB))
    other = deployment("other")
    shell.read("workloads", key_of(other), dump_manifest(other))
    await shell.next("placements", 2)
    shell.now += 100.0
    shell.read("scales", KEY, json.dumps({"workload": KEY, "replicas": 9}).encode())
    scaled, second = await shell.next("placements", 3), shell.of("placements")[1]
    scaled.acknowledge()
    second.acknowledge()
    await eventually(lambda: shell.measured("count") == 2, "the first placement of each to be measured")
    assert shell.measured("sum") == pytest.approx(100.0)  # of the second, whose acknowledgement took so long


async def test_its_own_records_of_this_term_are_not_read_again() -> None:
    shell = await Shell().start()
    shell.read("placements", KEY, b"{", epoch=EPOCH)
    assert not shell.rejected
    shell.read("placements", KEY, b"{", epoch=EPOCH - 1)
    shell.read("assignments", f"c/{KEY}", b"{")
    assert [record.topic for record in shell.rejected] == ["gpufleet.placements", "gpufleet.assignments"]


async def test_history_follows_its_placement_and_is_complete_at_the_end() -> None:
    shell = await Shell().start()
    shell.read("workloads", KEY, dump_manifest(WEB))
    await shell.next("history")
    assert [sent.topic for sent in shell.sent] == ["placements", "history"]
    other = deployment("other")
    shell.read("workloads", key_of(other), dump_manifest(other))
    await shell.next("placements", 2)
    await shell.service.stopping()
    assert [sent.key for sent in shell.of("history")] == [KEY, key_of(other)]


# --- Intake -------------------------------------------------------------------------------------------------------


def test_a_registration_counts_from_when_it_was_written() -> None:
    intake = Intake(REGISTRY, lambda _, error: pytest.fail(str(error)))
    value = dump_cluster(ClusterRegistration(ClusterSpec("c")))
    written = Record("gpufleet.clusters", 0, 1, "c", value, {}, 123.0)
    for timestamp, at in ((123.0, 123.0), (-0.001, None)):
        (event,) = intake.events(replace(written, timestamp=timestamp))
        assert isinstance(event, ClusterRegistered)
        assert event.at == at


def test_a_placement_brings_the_edition_that_it_carries() -> None:
    intake = Intake(REGISTRY, lambda _, error: pytest.fail(str(error)))
    document = {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "PropagationPolicy",
        "metadata": {"name": "p", "namespace": "test"},
        "spec": {
            "resourceSelectors": [{"apiVersion": "apps/v1", "kind": "Deployment"}],
            "activationPreference": "Lazy",
        },
    }
    policy, _ = read_policy(document)
    assert isinstance(policy, PropagationPolicy)

    def read(edition: dict[str, Any], stamp: str) -> PlacementRead:
        placement = Placement(KEY, Version(4, 2), Verdict.SCHEDULED, 1, inputs=(("policy", stamp),), edition=edition)
        record = Record("gpufleet.placements", 0, 1, KEY, dump_placement(placement), {EPOCH_HEADER: "4"}, 0.0)
        (event,) = intake.events(record)
        assert isinstance(event, PlacementRead)
        return event

    first, second = (read(document, policy_stamp(policy)) for _ in range(2))
    assert first.edition == policy
    assert second.edition is first.edition
    assert first.placement is not None
    assert second.placement is not None
    assert second.placement.edition is first.placement.edition, "what many carry is there once"
    assert read({"kind": "Nothing"}, "other").edition is None
    for number in range(1000):
        read({"kind": "Nothing"}, f"edition {number}")
    assert len(intake._editions) < 1000, "those of which nobody speaks any more are forgotten"
    assert read(document, policy_stamp(policy)).edition == policy


async def test_node_classes_in_doubt_are_counted() -> None:
    shell = await Shell().start()

    def counted(cluster: str) -> float | None:
        return shell.metrics.registry.get_sample_value("gpufleet_scheduler_node_classes_in_doubt", {"cluster": cluster})

    assert counted("a") is None
    cap = ClusterCap("a", 0, 2000.0, "ProvisioningFailed", "no stock", ("gpu", "large"))
    shell.read("evictions", KEY, dump_eviction(Eviction(KEY, Version(4, 2), (cap,), at=1000.0)))
    await eventually(lambda: counted("a") == 2, "the doubts")
