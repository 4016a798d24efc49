"""One cluster that this instance owns: reflectors feed its inventory, a loop publishes what is due."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import structlog

from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import AccessError, ApiStatusError, KubeError
from gpufleet.kube.reflector import Changed, Reflector, Removed, Replaced, decode_json
from gpufleet.model import kinds
from gpufleet.model.log import ClusterRegistration
from services.inventory.core.objects import STOCK_CONFIGMAP, node_from, pod_from, pools_from, provisioning_from
from services.inventory.core.snapshot import ClusterInventory, Publication
from services.inventory.settings import InventorySettings

log = structlog.get_logger("gpufleet.inventory")

Json = dict[str, Any]
Change = Replaced[Json] | Changed[Json] | Removed[Json]
Publish = Callable[[ClusterInventory, Publication], None]


class _Sink:
    """Hands changes of one kind to a function and wakes the publisher."""

    def __init__(self, take: Callable[[Change], None], woken: asyncio.Event) -> None:
        self._take, self._woken = take, woken

    def apply(self, change: Change) -> None:
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
        self.reflectors: list[Reflector[Json]] = []
        self._registration = registration
        self._settings = settings
        self._publish = publish
        self._clock = clock
        self._woken = asyncio.Event()
        self._namespaces: set[str] = set()

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

    def _make_reflectors(self, client: KubeClient) -> list[Reflector[Json]]:
        namespace, name = STOCK_CONFIGMAP

        def reflect(version: str, kind: str, take: Callable[[Change], None], **selection: Any) -> Reflector[Json]:
            return Reflector(client, version, kind, _Sink(take, self._woken), decode_json, **selection)

        return [
            reflect("v1", "Node", self._nodes),
            reflect("v1", "Pod", self._pods),
            reflect("v1", "Namespace", self._take_namespaces),
            reflect("v1", "ConfigMap", self._stock, namespace=namespace, field_selector=f"metadata.name={name}"),
            reflect("v1", "Event", self._events, field_selector=f"source={self._settings.autoscaler}"),
        ]

    async def _announce_whole(self) -> None:
        for reflector in self.reflectors:
            await reflector.synced.wait()
        self.inventory.whole = True
        self.inventory.changed = True
        self._woken.set()

    async def _probe(self, client: KubeClient) -> None:
        """Asks for the incarnation and the served kinds, so that silence of the watches is not taken for absence."""
        asked_for_kinds = 0.0
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
                if self._clock() - asked_for_kinds >= self._settings.discovery_interval:
                    await self._discover(client)
                    asked_for_kinds = self._clock()
            await asyncio.sleep(self._settings.heartbeat / 2)

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
                self._publish(self.inventory, self.inventory.publish(self._clock()))
                continue
            self._woken.clear()
            due = self.inventory.next_due(now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.01, due - now)):
                    await self._woken.wait()

    # -- what the reflectors tell ----------------------------------------------------------------------------

    def _nodes(self, change: Change) -> None:
        cache = self.inventory.cache
        match change:
            case Replaced(items):
                cache.replace_nodes(map(node_from, items))
            case Changed(item):
                cache.put_node(node_from(item))
            case Removed(item):
                cache.remove_node(item["metadata"]["name"])

    def _pods(self, change: Change) -> None:
        cache = self.inventory.cache
        match change:
            case Replaced(items):
                cache.replace_pods(map(pod_from, items))
            case Changed(item):
                cache.put_pod(pod_from(item))
            case Removed(item):
                cache.remove_pod(item["metadata"]["uid"])

    def _events(self, change: Change) -> None:
        if isinstance(change, Removed):
            return
        for item in change.items if isinstance(change, Replaced) else (change.item,):
            claim = provisioning_from(item)
            if claim is not None:
                self.inventory.cache.put_provisioning(claim)

    def _stock(self, change: Change) -> None:
        match change:
            case Replaced(items):
                self.inventory.cache.replace_pools(pools_from(items[0] if items else None))
            case Changed(item):
                self.inventory.cache.replace_pools(pools_from(item))
            case Removed():
                self.inventory.cache.replace_pools(())

    def _take_namespaces(self, change: Change) -> None:
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
