"""What one cluster holds of ours: a watched view of each kind in use, and reads that go past it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import ApiStatusError
from gpufleet.kube.reflector import Changed, Reflector, Removed, Replaced, decode_json
from gpufleet.kube.resources import PODS
from gpufleet.kube.retry import Backoff
from gpufleet.model import names
from services.dispatcher.core.cache import Json, ObjectCache, Place, place_of

Wanted = Callable[[str, Place], bool]
Noticed = Callable[[str, Place], None]


class View:
    """The objects of one kind that carry our label, kept current by a reflector. The sink of that reflector."""

    def __init__(self, client: KubeClient, api_version: str, kind: str, wanted: Wanted, noticed: Noticed) -> None:
        self.api_version, self.kind = api_version, kind
        self.cache = ObjectCache()
        self._wanted = wanted
        self._noticed = noticed
        self.reflector: Reflector[Json] = Reflector(
            client, api_version, kind, self, decode_json, label_selector=names.WORKLOAD_LABEL, backoff=Backoff(0.2, 10)
        )
        self.task = asyncio.create_task(self.reflector.run(), name=f"reflector {client.cluster} {kind}")

    @property
    def synced(self) -> bool:
        """Whether everything that exists has been listed once."""
        return self.reflector.synced.is_set()

    def apply(self, change: Replaced[Json] | Changed[Json] | Removed[Json], /) -> None:
        """Takes what the reflector tells, and passes on which objects have changed."""
        match change:
            case Replaced(items, version):
                objects = [self._typed(item) for item in items if self._wanted(self.kind, place_of(item))]
                for place in sorted(self.cache.replace(objects, version)):
                    self._noticed(self.kind, place)
            case Changed(item):
                place = place_of(item)
                if self._wanted(self.kind, place) and self.cache.put(self._typed(item)):
                    self._noticed(self.kind, place)
            case Removed(item):
                if self.cache.removed(item):
                    self._noticed(self.kind, place_of(item))

    def _typed(self, item: Json) -> Json:
        """The items of a list do not say what they are."""
        item.setdefault("apiVersion", self.api_version)
        item.setdefault("kind", self.kind)
        return item


class Views:
    """The views of one connection to a cluster; `close` ends them."""

    def __init__(self, client: KubeClient, wanted: Wanted, noticed: Noticed) -> None:
        """``wanted`` says which objects (kind, place) to keep; ``noticed`` hears which have changed."""
        self._client = client
        self._wanted = wanted
        self._noticed = noticed
        self._views: dict[tuple[str, str], View] = {}

    def __len__(self) -> int:
        return len(self._views)

    @property
    def relists(self) -> int:
        """Lists that were needed after the first ones."""
        return sum(max(0, view.reflector.stats.lists - 1) for view in self._views.values())

    def of(self, api_version: str, kind: str) -> View:
        """Returns the view of a kind; watching starts with the first call."""
        view = self._views.get((api_version, kind))
        if view is None:
            view = self._views[api_version, kind] = View(self._client, api_version, kind, self._wanted, self._noticed)
        return view

    async def synced(self, api_version: str, kind: str, timeout: float) -> bool:
        """Waits until a kind was listed once; returns whether it was within ``timeout`` seconds."""
        view = self.of(api_version, kind)
        try:
            async with asyncio.timeout(timeout):
                await view.reflector.synced.wait()
        except TimeoutError:
            return False
        return True

    async def read(self, api_version: str, kind: str, place: Place) -> Json | None:
        """Returns an object as the cluster has it now, or None. Raises KubeError, NotServed too."""
        resource = await self._client.resource_for(api_version, kind)
        cache = self.of(api_version, kind).cache
        try:
            obj = await self._client.get(resource, place[1], place[0])
        except ApiStatusError as error:
            if not error.not_found:
                raise
            cache.absent(place)
            return None
        obj.setdefault("apiVersion", api_version)
        obj.setdefault("kind", kind)
        cache.put(obj)
        return obj

    def keep(self, obj: Json) -> None:
        """Takes the answer to a write of ours."""
        if obj.get("kind") != "Status" and obj.get("apiVersion") and obj.get("kind"):
            self.of(str(obj["apiVersion"]), str(obj["kind"])).cache.put(obj)

    async def pods(self, workload: str) -> list[dict[str, Any]]:
        """Returns the pods of a workload as the cluster has them now. Raises KubeError."""
        namespace = workload.partition("/")[0]
        selector = f"{names.WORKLOAD_LABEL}={names.workload_label(workload)}"
        return (await self._client.list(PODS, namespace, label_selector=selector)).items

    async def close(self) -> None:
        """Ends all watches."""
        tasks = [view.task for view in self._views.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._views.clear()
