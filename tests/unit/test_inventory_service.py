"""What the inventory service writes about clusters that it takes over, on a bus that only notes what is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gpufleet.bus.records import EPOCH_HEADER, Record
from gpufleet.bus.shards import shard_of
from gpufleet.bus.topics import load_registry
from gpufleet.model.cluster import Health, NodeClass, SnapshotId
from gpufleet.model.log import ClassInventory, InventorySummary
from gpufleet.model.staging import Closed, Staging
from gpufleet.wire.records import dump_inventory, inventory_key, parse_inventory
from services.inventory.app import InventoryService
from services.inventory.settings import InventorySettings
from tests.support.waiting import eventually

TOPIC = "gpufleet.inventory"
SHARD = shard_of("c", 16)
AT = SnapshotId("i1", 3, 9)
HELD = (
    ClassInventory("c", AT, NodeClass("a100", (("pods", 10),), 2)),
    InventorySummary("c", AT, observed_at=1.0, classes=("a100",)),
)


def record(key: str, value: bytes | None, *, topic: str = TOPIC, partition: int = SHARD, epoch: int = 3) -> Record:
    return Record(topic, partition, 0, key, value, {EPOCH_HEADER: str(epoch)}, 0.0)


@dataclass
class Notes:
    """A publisher that notes, and reads as the scheduler does."""

    sent: list[tuple[str, bytes | None]] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)
    staging: Staging = field(default_factory=Staging)
    broken: int = 0

    def send(self, topic: str, key: str, value: bytes | None, *, epoch: int, version: int, partition: int) -> None:
        if self.broken:
            self.broken -= 1
            raise ValueError("too large")
        self.sent.append((key, value))
        if value is not None:
            closed = self.staging.take(parse_inventory(record(key, value)))
            if closed is not None:
                self.closed.append(closed)


def service(notes: Notes, folder: Path) -> InventoryService:
    """Owns the shard of cluster c, whose kubeconfig does not exist, after an owner of epoch 3."""
    found = InventoryService(InventorySettings(kubeconfig_dir=folder, coalesce=0.0, heartbeat=0.02))
    found.bus = SimpleNamespace(registry=load_registry(), publisher=notes, metrics=None)  # type: ignore[assignment]
    found._published = SimpleNamespace(inc=lambda: None)  # type: ignore[assignment]
    spec: dict[str, Any] = {"name": "c", "access": {"kubeconfig": "missing.yaml"}}
    found.on_records([record("c", json.dumps(spec).encode(), topic="gpufleet.clusters", partition=0)])
    held = [record(inventory_key(part), dump_inventory(part)) for part in HELD]
    for part in HELD:
        notes.staging.take(part)
    found.on_shard_records(held)
    return found


async def test_a_cluster_that_cannot_be_reached_after_a_takeover_is_told_unreachable(tmp_path: Path) -> None:
    notes = Notes()
    found = service(notes, tmp_path)
    found.acquired(SHARD, 7)
    await eventually(lambda: notes.closed, "a snapshot that readers take")
    await found.stopping()
    [closed] = notes.closed
    assert closed.inventory.health is Health.UNREACHABLE
    assert "missing.yaml" in closed.inventory.message
    assert [c.name for c in closed.inventory.node_classes] == ["a100"], "what was seen last is kept"


async def test_a_snapshot_that_cannot_be_sent_is_tried_again(tmp_path: Path) -> None:
    notes = Notes(broken=1)
    found = service(notes, tmp_path)
    found.acquired(SHARD, 7)
    await eventually(lambda: notes.closed, "the next attempt")
    await found.stopping()


async def test_what_a_replaced_owner_writes_over_our_records_is_written_again(tmp_path: Path) -> None:
    notes = Notes()
    found = service(notes, tmp_path)
    found.acquired(SHARD, 7)
    await eventually(lambda: notes.closed, "the first snapshot")
    found.on_shard_records([record("c", dump_inventory(HELD[1]), epoch=7)])
    assert len(notes.closed) == 1, "our own record is no news"
    found.on_shard_records([record("c", dump_inventory(HELD[1]), epoch=3)])
    await eventually(lambda: len(notes.closed) == 2, "the snapshot once more")
    await found.stopping()
