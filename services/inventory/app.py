"""Inventory as a service on the bus: registrations in, snapshots out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

import structlog

from gpufleet.bus.publisher import Failure
from gpufleet.bus.records import Record
from gpufleet.bus.service import Bus, Service
from gpufleet.bus.shards import shard_of
from gpufleet.kube.access import preload
from gpufleet.model.cluster import Health
from gpufleet.model.log import ClusterRegistration
from gpufleet.model.names import KIND_PREFIX
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import (
    class_key,
    dump_inventory,
    inventory_key,
    parse_cluster,
    parse_inventory,
    pods_key,
    split_inventory_key,
    take_kind,
)
from services.inventory.core.cache import ClusterCache
from services.inventory.core.gpus import GpuCount, count
from services.inventory.core.snapshot import ClusterInventory, Publication
from services.inventory.settings import InventorySettings
from services.inventory.watcher import ClusterWatcher

log = structlog.get_logger("gpufleet.inventory")

_TOPIC = "inventory"


class InventoryService(Service):
    """Owns a share of the clusters: those whose shard of the inventory topic is this instance's."""

    name: ClassVar[str] = "inventory"
    reads: ClassVar[Sequence[str]] = ("clusters", "policies")
    owns: ClassVar[Sequence[str]] = (_TOPIC,)

    def __init__(self, settings: InventorySettings) -> None:
        self.settings = settings
        self._registrations: dict[str, ClusterRegistration] = {}
        self._epochs: dict[int, int] = {}  # owned shard: epoch
        self._topic_keys: dict[int, set[str]] = {}  # shard: keys that the topic holds
        self._closing: dict[str, Record] = {}  # by cluster: its own record, as the topic holds it
        self._watchers: dict[str, tuple[ClusterWatcher, asyncio.Task[None]]] = {}

    def bind(self, bus: Bus) -> None:
        """Adds metrics of the owned clusters."""
        super().bind(bus)
        metrics = bus.metrics
        self._published = metrics.counter("snapshots", "Snapshots that were published")
        metrics.gauge_of("clusters", "Owned clusters by health", self._by_health, ("health",))
        metrics.gauge_of(
            "silence_seconds",
            "Seconds since an owned cluster's API last answered",
            lambda: [((c,), self._silence(w.inventory)) for c, (w, _) in sorted(self._watchers.items())],
            ("cluster",),
        )
        metrics.counter_of(
            "relists",
            "Lists that were needed after the first one",
            lambda: [
                ((c,), sum(max(0, r.stats.lists - 1) for r in w.reflectors))
                for c, (w, _) in sorted(self._watchers.items())
            ],
            ("cluster",),
        )
        metrics.gauge_of(
            "gpus",
            "GPUs of owned clusters: total, free on usable nodes, elastic on nodes that could be created",
            lambda: [
                ((cluster, resource, state), amount)
                for cluster, resource, found in self._gpus()
                for state, amount in (("total", found.total), ("free", found.free), ("elastic", found.elastic))
            ],
            ("cluster", "resource", "state"),
        )
        metrics.gauge_of(
            "largest_free_block_gpus",
            "Most GPUs that are free on one node of an owned cluster",
            lambda: [((cluster, resource), found.largest_block) for cluster, resource, found in self._gpus()],
            ("cluster", "resource"),
        )

    # -- registrations -------------------------------------------------------------------------------------------

    def on_records(self, records: list[Record]) -> None:
        """Takes registrations, a changed one starts its cluster's watcher anew; and kinds that are declared."""
        policies = self.bus.registry.name("policies")
        for record in records:
            if record.topic == policies:
                if (record.key or "").startswith(KIND_PREFIX) and take_kind(record):
                    for watcher, _ in self._watchers.values():
                        watcher.kinds_changed()
                continue
            if record.key is None or record.value is None:
                self._unregister(record)
                continue
            try:
                registration = parse_cluster(record)
            except RecordError as error:
                self.bus.dead_letters.reject(record, error)
                continue
            before = self._registrations.get(registration.name)
            self._registrations[registration.name] = registration
            if before is None or before.access != registration.access:
                self._restart(registration.name)

    def _unregister(self, record: Record) -> None:
        if record.key is None:
            if record.value is None:
                return
            try:
                parse_cluster(record)
            except RecordError as error:
                self.bus.dead_letters.reject(record, error)
            return
        if self._registrations.pop(record.key, None) is None:
            return
        shard = self._shard(record.key)
        self._stop(record.key)
        if shard in self._epochs:
            self._erase(record.key, shard)

    def _erase(self, cluster: str, shard: int) -> None:
        """Tombstones what the topic holds of a cluster that left; the cluster's own record first."""
        for key in sorted(k for k in self._topic_keys.get(shard, ()) if split_inventory_key(k)[0] == cluster):
            self._send(shard, key, None, self._epochs[shard], None)

    # -- shards --------------------------------------------------------------------------------------------------

    def on_shard_records(self, records: list[Record]) -> None:
        """Keeps in mind what the topic holds, so that a new owner can tombstone what is gone.

        What a replaced owner wrote over our records is written again (rule 5).
        """
        for record in records:
            if record.key is None:
                continue
            if record.epoch is not None and record.epoch < self._epochs.get(record.partition, 0):
                self._write_again(record.key)
            keys = self._topic_keys.setdefault(record.partition, set())
            (keys.discard if record.value is None else keys.add)(record.key)
            if "/" not in record.key:
                self._closing[record.key] = record

    def acquired(self, shard: int, epoch: int) -> None:
        """Watches the clusters of the shard."""
        self._epochs[shard] = epoch
        held = {self._cluster_of(key) for key in self._topic_keys.get(shard, ())}
        for cluster in sorted(held - self._registrations.keys() - {""}):
            self._erase(cluster, shard)
        for cluster in sorted(self._registrations):
            if self._shard(cluster) == shard:
                self._restart(cluster)

    def lost(self, shard: int, reason: str) -> None:
        """Stops watching the clusters of the shard."""
        self._epochs.pop(shard, None)
        self._topic_keys.pop(shard, None)
        self._closing = {c: record for c, record in self._closing.items() if self._shard(c) != shard}
        for cluster in [c for c in self._watchers if self._shard(c) == shard]:
            self._stop(cluster)
        log.info("shard.lost", shard=shard, reason=reason)

    async def caught_up(self) -> None:
        """Loads the Kubernetes library while the group still forms."""
        self.bus.spawn(preload(), "kubernetes library")

    async def stopping(self) -> None:
        """Ends all watchers."""
        tasks = [task for _, task in self._watchers.values()]
        for cluster in list(self._watchers):
            self._stop(cluster)
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- watchers ------------------------------------------------------------------------------------------------

    def _restart(self, cluster: str) -> None:
        shard = self._shard(cluster)
        epoch = self._epochs.get(shard)
        if epoch is None:
            return
        before = self._watchers.get(cluster)
        self._stop(cluster)
        timing = self.settings.timing()
        cache = ClusterCache(provision_timeout=timing.provision_timeout)
        inventory = ClusterInventory(cluster, epoch, timing, cache=cache)
        if before is not None and before[0].inventory.epoch == epoch:
            inventory.n = before[0].inventory.n  # the count goes on within an epoch
        parts = [split_inventory_key(k) for k in self._topic_keys.get(shard, ()) if self._cluster_of(k) == cluster]
        classes, pods = ([name for _, part, name in parts if part == wanted] for wanted in ("class", "pods"))
        inventory.adopt(classes, pods, self._incarnation(cluster))
        watcher = ClusterWatcher(self._registrations[cluster], inventory, self.settings, self._publish)
        task = asyncio.create_task(watcher.run(), name=f"watch {cluster}")
        self._watchers[cluster] = (watcher, task)

    def _incarnation(self, cluster: str) -> str:
        """Returns which cluster the topic's records are about; empty where it does not say."""
        record = self._closing.get(cluster)
        if record is None or record.value is None:
            return ""
        try:
            return parse_inventory(record).snapshot.incarnation
        except RecordError:
            return ""

    def _stop(self, cluster: str) -> None:
        watcher = self._watchers.pop(cluster, None)
        if watcher is not None:
            watcher[1].cancel()

    def _publish(self, inventory: ClusterInventory, publication: Publication) -> None:
        """Sends snapshot n: its parts, then the record that closes it."""
        cluster, shard, closing = inventory.cluster, self._shard(inventory.cluster), publication.closing
        epoch, n = closing.snapshot.epoch, closing.snapshot.n
        for name in publication.removed_classes:
            self._send(shard, class_key(cluster, name), None, epoch, n)
        for workload in publication.removed_pods:
            self._send(shard, pods_key(cluster, workload), None, epoch, n)
        for part in publication.parts:
            self._send(shard, inventory_key(part), dump_inventory(part), epoch, n)
        self._published.inc()

    def _send(self, shard: int, key: str, value: bytes | None, epoch: int, n: int | None) -> None:
        self.bus.publisher.send(_TOPIC, key, value, epoch=epoch, version=n, partition=shard)

    def publish_failed(self, failure: Failure) -> None:
        """A part may be missing: the next snapshot of that cluster is a whole one."""
        self._write_again(failure.key)

    def _write_again(self, key: str) -> None:
        watcher = self._watchers.get(self._cluster_of(key))
        if watcher is not None:
            watcher[0].inventory.publish_all()

    # -- small things --------------------------------------------------------------------------------------------

    def _shard(self, cluster: str) -> int:
        return shard_of(cluster, self.bus.registry[_TOPIC].partitions)

    @staticmethod
    def _cluster_of(key: str) -> str:
        try:
            return split_inventory_key(key)[0]
        except ValueError:
            return ""

    def _by_health(self) -> list[tuple[Sequence[str], float]]:
        found = [w.inventory.health for w, _ in self._watchers.values()]
        return [((health.value,), float(found.count(health))) for health in Health]

    def _gpus(self) -> Iterator[tuple[str, str, GpuCount]]:
        """Cluster, resource and count. The summing costs as much as there are node classes and free blocks."""
        for cluster, (watcher, _) in sorted(self._watchers.items()):
            cache = watcher.inventory.cache
            classes = [c for name in cache.class_names() if (c := cache.node_class(name)) is not None]
            for resource, found in count(classes).items():
                yield cluster, resource, found

    def _silence(self, inventory: ClusterInventory) -> float:
        return max(0.0, time.time() - inventory.silent_since) if inventory.silent_since else 0.0
