"""Runs controllers as clients of an API server, real or simulated: lists and watches in, requests out.

The same controllers as in `sim.model.drive`. What differs is that writes take time and can fail: the answer to a write
is taken into the cache at once, so that a controller sees its own writes, and a key whose write failed comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import ApiStatusError, KubeError, NotServed
from gpufleet.kube.reflector import Changed, Reflector, Removed, Replaced, decode_json
from gpufleet.kube.resources import EVENTS, Resource
from sim.model.api import Bind, Controller, Create, Delete, Event, Json, Kind, Patch, Ref, Result, Write
from sim.model.cache import Cache
from sim.model.objects import EVENT, POD
from sim.model.queue import Task, TaskQueue

logger = logging.getLogger(__name__)
# Own events that are remembered, so that they are counted instead of told twice.
KNOWN_EVENTS = 5000


class RemoteDrive:
    """The controllers of one cluster, at work by way of its API.

    Kinds that the cluster does not serve are left out, with the controllers whose primary business they are. `run`
    works until it is cancelled; `synced` is set when everything has been listed once.
    """

    def __init__(
        self,
        client: KubeClient,
        controllers: Sequence[Controller],
        *,
        clock: Callable[[], float] = time.time,
        writers: int = 8,
    ) -> None:
        self.client = client
        self.synced = asyncio.Event()
        self.reconciles = 0
        self._all = tuple(controllers)
        self._clock = clock
        self._writers = asyncio.Semaphore(writers)
        self._changed = asyncio.Event()
        self._resources: dict[Kind, Resource] = {}
        self._queue = TaskQueue(())
        self._cache = Cache(())

    async def run(self) -> None:
        """Watches and reconciles until cancelled."""
        await self._discover()
        async with _background(self._reflectors()) as reflectors:
            for reflector in reflectors:
                await reflector.synced.wait()
            self.synced.set()
            await self._work()

    async def _discover(self) -> None:
        wanted = sorted({kind for controller in self._all for kind in controller.watches})
        for kind in wanted:
            try:
                self._resources[kind] = await self.client.resource_for(*kind)
            except NotServed:
                logger.info("cluster %s does not serve %s in %s", self.client.cluster, kind[1], kind[0])
        self._resources[EVENT] = EVENTS
        served = [c for c in self._all if c.watches[0] in self._resources]
        self._queue = TaskQueue(served, self._report)
        self._cache = Cache(self._resources)

    def _report(self, controller: str, about: Ref, error: Exception) -> None:
        logger.warning("cluster %s: %s cannot take in %s: %r", self.client.cluster, controller, about, error)

    def _reflectors(self) -> list[Reflector[Json]]:
        return [
            Reflector(self.client, *kind, _Sink(self, kind), decode_json)
            for kind in self._queue.kinds
            if kind in self._resources
        ]

    def take(self, events: Iterable[Event]) -> None:
        """Tells the controllers of changes (for the reflectors' sinks)."""
        for event in events:
            self._queue.observe(self._cache, event)
        self._changed.set()

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock()
            self._queue.due(now)
            while (task := self._queue.pop()) is not None:
                await self._reconcile(task)
            wake_at = self._queue.next_wake()
            timeout = None if wake_at is None else max(0.0, wake_at - self._clock())
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._changed.wait()

    async def _reconcile(self, task: Task) -> None:
        self.reconciles += 1
        controller = self._queue.controllers[task.controller]
        now = self._clock()
        try:
            result: Result = controller.reconcile(self._cache, task.key, now)
            for batch in _batches(result.writes):
                outcomes = await asyncio.gather(*(self._write(controller.name, write) for write in batch))
                self.take(event for events in outcomes for event in events)
        except KubeError as error:
            logger.info("cluster %s: %s, %s: %s", self.client.cluster, controller.name, task.key, error)
            self._queue.failed(task, now)
        except Exception:
            logger.exception("cluster %s: %s failed at %s", self.client.cluster, controller.name, task.key)
            self._queue.failed(task, now)
        else:
            self._queue.succeeded(task, result.wake_at)

    async def _write(self, manager: str, write: Write) -> list[Event]:
        """Sends a write; what its answer tells of the object."""
        async with self._writers:
            if isinstance(write, Create):
                return self._learn(await self._create(manager, write))
            try:
                if isinstance(write, Bind):
                    await self._bind(write)
                    return []
                if isinstance(write, Delete):
                    return await self._delete(write)
                return self._learn(await self._patch(manager, write))
            except ApiStatusError as error:
                if error.not_found and not error.namespace_missing:
                    return self._forget(write)
                raise

    async def _resource(self, ref: Ref) -> Resource:
        kind = (ref.api_version, ref.kind)
        if kind not in self._resources:
            self._resources[kind] = await self.client.resource_for(*kind)
        return self._resources[kind]

    async def _create(self, manager: str, write: Create) -> Json:
        try:
            return await self.client.create(write.obj, field_manager=manager)
        except ApiStatusError as error:
            if not error.already_exists or (write.obj["apiVersion"], write.obj["kind"]) != EVENT:
                raise
            # Events are not watched: this one is from before a restart.
            metadata = write.obj["metadata"]
            return await self.client.get(EVENTS, metadata["name"], metadata["namespace"])

    def _forget(self, write: Write) -> list[Event]:
        """What was meant is gone; of what is watched, the watch will tell."""
        if isinstance(write, Patch) and (write.ref.api_version, write.ref.kind) == EVENT:
            known = self._cache.get(*write.ref)
            return [] if known is None else self._cache.remove(known)
        return []

    async def _patch(self, manager: str, write: Patch) -> Json:
        resource = await self._resource(write.ref)
        body = dict(write.patch)
        preconditions = {"uid": write.uid, "resourceVersion": write.resource_version}
        kept = {name: value for name, value in preconditions.items() if value}
        if kept:
            body["metadata"] = {**body.get("metadata", {}), **kept}
        # A CustomResourceDefinition without the status subresource has its status in the object itself.
        return await self.client.patch_merge(
            resource,
            write.ref.name,
            body,
            write.ref.namespace or None,
            field_manager=manager,
            subresource=write.subresource if write.subresource in resource.subresources else None,
        )

    async def _delete(self, write: Delete) -> list[Event]:
        resource = await self._resource(write.ref)
        answer = await self.client.delete(
            resource,
            write.ref.name,
            write.ref.namespace or None,
            uid=write.uid or None,
            propagation_policy=write.propagation,
            grace_period_seconds=write.grace_seconds,
        )
        marked = answer.get("kind") == write.ref.kind and answer.get("metadata", {}).get("deletionTimestamp")
        return self._learn(answer) if marked and write.grace_seconds != 0 else []

    async def _bind(self, write: Bind) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": write.name, "namespace": write.namespace, **({"uid": write.uid} if write.uid else {})},
            "target": {"apiVersion": "v1", "kind": "Node", "name": write.node},
        }
        resource = await self._resource(Ref(*POD, write.namespace, write.name))
        await self.client.create_subresource(resource, write.name, "binding", binding, write.namespace)

    def _learn(self, obj: Json) -> list[Event]:
        kind = (str(obj.get("apiVersion")), str(obj.get("kind")))
        if kind == EVENT and self._cache.count(EVENT) >= KNOWN_EVENTS:
            self._cache.clear(EVENT)
        return self._cache.put(obj) if kind in self._resources else []

    def replace(self, kind: Kind, items: list[Json], version: str) -> None:
        """Takes over a list of all objects of a kind (for the reflectors' sinks)."""
        for item in items:
            item.setdefault("apiVersion", kind[0])
            item.setdefault("kind", kind[1])
        self.take(self._cache.replace(kind, items, int(version) if version.isdigit() else 0))

    def put(self, item: Json) -> None:
        """Takes over an object (for the reflectors' sinks)."""
        self.take(self._cache.put(item))

    def remove(self, item: Json) -> None:
        """Forgets an object (for the reflectors' sinks)."""
        self.take(self._cache.remove(item))


class _Sink:
    """Hands the changes of one kind on."""

    def __init__(self, drive: RemoteDrive, kind: Kind) -> None:
        self._drive = drive
        self._kind = kind

    def apply(self, change: Replaced[Json] | Changed[Json] | Removed[Json], /) -> None:
        """Takes one change into the drive's cache."""
        if isinstance(change, Replaced):
            self._drive.replace(self._kind, change.items, change.resource_version)
        elif isinstance(change, Changed):
            self._drive.put(change.item)
        else:
            self._drive.remove(change.item)


def _batches(writes: Sequence[Write]) -> list[list[Write]]:
    """Neighbouring creates may be sent together; everything else keeps its order."""
    batches: list[list[Write]] = []
    for write in writes:
        if isinstance(write, Create) and batches and all(isinstance(known, Create) for known in batches[-1]):
            batches[-1].append(write)
        else:
            batches.append([write])
    return batches


@asynccontextmanager
async def _background(reflectors: list[Reflector[Json]]) -> AsyncIterator[list[Reflector[Json]]]:
    tasks = [asyncio.create_task(reflector.run()) for reflector in reflectors]
    try:
        yield reflectors
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
