"""One cluster that this instance owns: reflectors feed its inventory, a loop publishes what is due."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import AccessError, ApiStatusError, KubeError
from gpufleet.kube.reflector import Change, Changed, Decode, Reflector, Removed, Replaced, decode_json
from gpufleet.model import kinds
from gpufleet.model.log import ClusterRegistration
from services.inventory.core.objects import (
    STOCK_CONFIGMAP,
    Node,
    Pod,
    Provisioning,
    Quota,
    node_from,
    pod_from,
    pools_from,
    provisioning_from,
    quota_from,
)
from services.inventory.core.snapshot import ClusterInventory, Publication
from services.inventory.settings import InventorySettings

log = structlog.get_logger("gpufleet.inventory")

T = TypeVar("T")
Json = dict[str, Any]
Publish = Callable[[ClusterInventory, Publication], None]


class _Sink(Generic[T]):
    """Hands changes of one kind to a function and wakes the publisher."""

    def __init__(self, take: Callable[[Change[T]], None], woken: asyncio.Event) -> None:
        self._take, self._woken = take, woken

    def apply(self, change: Change[T]) -> None:
        self._take(change)
        self._woken.set()


class ClusterWatcher:
    """Watches one cluster and publishes its snapshots until cancelled."""

    def __init__(
        self,
        registration: ClusterRegistration,
        inventory: ClusterInventory,
        settings: InventorySettings,
        publish: Publish,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.inventory = inventory
        self.reflectors: list[Reflector[Any]] = []
        self._registration = registration
        self._settings = settings
        self._publish = publish
        self._clock = clock
        self._woken = asyncio.Event()
        self._namespaces: set[str] = set()
        self._quotas: dict[tuple[str, str], Quota] = {}
        self._asked_for_kinds = 0.0

    async def run(self) -> None:
        """Works until cancelled; a cluster that cannot be reached delays nothing but itself."""
        self.inventory.began(self._clock())
        publishing = asyncio.create_task(self._publish_when_due(), name=f"publish {self.inventory.cluster}")
        try:
            while True:
                try:
                    await self._watch()
                except AccessError as error:
                    self.inventory.refuse(str(error))
                    self._woken.set()
                    log.warning("cluster.access.refused", cluster=self.inventory.cluster, error=str(error))
                except KubeError as error:
                    log.warning("cluster.unreachable", cluster=self.inventory.cluster, error=str(error))
                await asyncio.sleep(self._settings.heartbeat)
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)

    async def _watch(self) -> None:
        """Connects and watches until the cluster turns out to be another one than before."""
        cluster = self.inventory.cluster
        client = await connect(
            cluster,
            self._registration.access,
            base_dir=self._settings.kubeconfig_dir,
            secrets_dir=self._settings.secrets_dir,
            timeout=self._settings.request_timeout,
        )
        async with client:
            self.inventory.meet(await client.incarnation())
            self._heard()
            self.reflectors = self._make_reflectors(client)
            tasks = [asyncio.create_task(r.run(), name=f"reflector {cluster}") for r in self.reflectors]
            tasks.append(asyncio.create_task(self._announce_whole(), name=f"sync {cluster}"))
            try:
                await self._probe(client)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _make_reflectors(self, client: KubeClient) -> list[Reflector[Any]]:
        """Nodes, pods and events become what the cache takes as they are read, so that a large list costs little."""
        namespace, name = STOCK_CONFIGMAP

        def reflect(kind: str, take: Callable[[Change[T]], None], decode: Decode[T], **selection: Any) -> Reflector[T]:
            return Reflector(client, "v1", kind, _Sink(take, self._woken), decode, **selection)

        return [
            reflect("Node", self._nodes, node_from),
            reflect("Pod", self._pods, pod_from),
            reflect("Namespace", self._take_namespaces, decode_json),
            reflect("ConfigMap", self._stock, decode_json, namespace=namespace, field_selector=f"metadata.name={name}"),
            reflect("Event", self._events, _claim, field_selector=f"source={self._settings.autoscaler}"),
            reflect("ResourceQuota", self._take_quotas, _quota),
        ]

    async def _announce_whole(self) -> None:
        *needed, quotas = self.reflectors
        for reflector in needed:
            await reflector.synced.wait()
        try:
            # An account that may not read them, as older roles have it, does without.
            async with asyncio.timeout(self._settings.request_timeout):
                await quotas.synced.wait()
        except TimeoutError:
            log.warning("quotas.unknown", cluster=self.inventory.cluster, error=str(quotas.last_error))
        self.inventory.whole = True
        self.inventory.changed = True
        self._woken.set()

    async def _probe(self, client: KubeClient) -> None:
        """Asks for the incarnation and the served kinds, so that silence of the watches is not taken for absence."""
        self.kinds_changed()
        while True:
            try:
                incarnation = await client.incarnation()
            except KubeError as error:
                log.info("cluster.silent", cluster=self.inventory.cluster, error=str(error))
                if isinstance(error, ApiStatusError) and error.unauthorized:
                    raise  # connect anew: the kubeconfig may hold other credentials by now
            else:
                if incarnation != self.inventory.incarnation:
                    log.warning("cluster.replaced", cluster=self.inventory.cluster, incarnation=incarnation)
                    return
                self._heard()
                if self._clock() - self._asked_for_kinds >= self._settings.discovery_interval:
                    await self._discover(client)
                    self._asked_for_kinds = self._clock()
            await asyncio.sleep(self._settings.heartbeat / 2)

    def kinds_changed(self) -> None:
        """Has the served kinds asked for with the next look: other ones may matter now."""
        self._asked_for_kinds = 0.0

    async def _discover(self, client: KubeClient) -> None:
        wanted: dict[str, set[str]] = {}
        for spec in kinds.known():
            for version in spec.api_versions:
                wanted.setdefault(version, set()).add(spec.kind)
        served: set[str] = set()
        for version, names in sorted(wanted.items()):
            try:
                there = await client.served(version)
            except KubeError:
                return  # keep what is known; the next round asks again
            served |= {f"{version}/{kind}" for kind in names & there.keys()}
        apis = frozenset(served)
        if self.inventory.apis != apis:
            self.inventory.apis = apis
            self.inventory.changed = True
            self._woken.set()

    def _heard(self) -> None:
        self.inventory.contact(self._clock())
        self._woken.set()

    async def _publish_when_due(self) -> None:
        while True:
            now = self._clock()
            if self.inventory.due(now):
                if self._settings.coalesce:
                    await asyncio.sleep(self._settings.coalesce)
                self._woken.clear()
                try:
                    self._publish(self.inventory, self.inventory.publish(self._clock()))
                except Exception as error:
                    # Readers find the cluster stale until it works again; the others go on.
                    log.exception("snapshot.failed", cluster=self.inventory.cluster, error=str(error))
                    self.inventory.publish_all()
                    await asyncio.sleep(self._settings.heartbeat)
                continue
            self._woken.clear()
            due = self.inventory.next_due(now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.01, due - now)):
                    await self._woken.wait()

    # -- what the reflectors tell ----------------------------------------------------------------------------

    def _nodes(self, change: Change[Node]) -> None:
        cache = self.inventory.cache
        match change:
            case Replaced(items):
                cache.replace_nodes(items)
            case Changed(item):
                cache.put_node(item)
            case Removed(item):
                cache.remove_node(item.name)

    def _pods(self, change: Change[Pod]) -> None:
        cache = self.inventory.cache
        match change:
            case Replaced(items):
                cache.replace_pods(items)
            case Changed(item):
                cache.put_pod(item)
            case Removed(item):
                cache.remove_pod(item.uid)

    def _events(self, change: Change[tuple[Provisioning, ...]]) -> None:
        if isinstance(change, Removed):
            return
        for claims in change.items if isinstance(change, Replaced) else (change.item,):
            for claim in claims:
                self.inventory.cache.put_provisioning(claim)

    def _stock(self, change: Change[Json]) -> None:
        match change:
            case Replaced(items):
                self.inventory.cache.replace_pools(pools_from(items[0] if items else None))
            case Changed(item):
                self.inventory.cache.replace_pools(pools_from(item))
            case Removed():
                self.inventory.cache.replace_pools(())

    def _take_namespaces(self, change: Change[Json]) -> None:
        match change:
            case Replaced(items):
                self._namespaces = {i["metadata"]["name"] for i in items if not i["metadata"].get("deletionTimestamp")}
            case Changed(item) if not item["metadata"].get("deletionTimestamp"):
                self._namespaces.add(item["metadata"]["name"])
            case Changed(item) | Removed(item):
                self._namespaces.discard(item["metadata"]["name"])
        namespaces = frozenset(self._namespaces)
        if self.inventory.namespaces != namespaces:
            self.inventory.namespaces = namespaces
            self.inventory.changed = True

    def _take_quotas(self, change: Change[Quota]) -> None:
        match change:
            case Replaced(items):
                self._quotas = {(item.namespace, item.name): item for item in items}
            case Changed(item):
                self._quotas[item.namespace, item.name] = item
            case Removed(item):
                self._quotas.pop((item.namespace, item.name), None)
        quotas = tuple(quota.bounds for _, quota in sorted(self._quotas.items()) if quota.bounds is not None)
        if self.inventory.quotas != quotas:
            self.inventory.quotas = quotas
            self.inventory.changed = True


def _quota(raw: msgspec.Raw) -> Quota:
    return quota_from(decode_json(raw))


def _claim(raw: msgspec.Raw) -> tuple[Provisioning, ...]:
    """Returns what an event says about provisioning: one claim, or nothing."""
    claim = provisioning_from(raw)
    return () if claim is None else (claim,)
