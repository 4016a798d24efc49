"""What a story is told on: a running system, its tables, its clusters; and how its steps are checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from gpufleet.bus.settings import KafkaSettings
from gpufleet.cli.live import Tables, tables
from gpufleet.cli.submit import confirm, publisher_for, record_of
from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from gpufleet.model.log import Scale
from gpufleet.model.placement import Placement
from gpufleet.wire.documents import Parsed, parse_documents
from gpufleet.wire.records import dump_scale
from gpufleet.wire.yaml import load

_LOOK_EVERY = 0.05


class StepFailed(Exception):
    """A step of the story is not so."""


@dataclass
class Stage:
    """The fleet that the story is about. ``access`` says how each cluster is reached; ``say`` prints a line.

    ``patience``: seconds that a step may take; real clusters need more.
    """

    kafka: KafkaSettings
    access: Mapping[str, Mapping[str, Any]]
    say: Callable[[str], None]
    patience: float = 30.0
    begun: float = field(default_factory=time.monotonic)
    clients: dict[str, KubeClient] = field(default_factory=dict)
    _view: Tables | None = None
    _publisher: Any = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Stage:
        await self._stack.__aenter__()
        topics = ("placements", "observations", "inventory", "evictions")
        self._view = await self._stack.enter_async_context(tables(self.kafka, topics))
        self._publisher = await self._stack.enter_async_context(publisher_for(self.kafka))
        for name, access in self.access.items():
            client = await connect(name, access)
            self.clients[name] = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.__aexit__(None, None, None)

    @property
    def view(self) -> Tables:
        """The topics as they are now."""
        assert self._view is not None
        return self._view

    # -- acting --------------------------------------------------------------------------------------------------

    async def apply(self, *names: str) -> None:
        """Produces manifests of the story to their topics, as any producer would."""
        for item in manifests(*names).objects:
            await confirm(self._publisher, *record_of(item))

    async def delete(self, workload: str) -> None:
        """Deletes a workload: a tombstone on its topic."""
        await confirm(self._publisher, "workloads", workload, None)

    async def scale(self, workload: str, replicas: int) -> None:
        """Overrides the total of a workload."""
        await confirm(self._publisher, "scales", workload, dump_scale(Scale(workload, replicas)))

    # -- looking -------------------------------------------------------------------------------------------------

    def placement(self, workload: str) -> Placement | None:
        """The last decision about a workload."""
        return self.view.placement(workload)

    def shares(self, workload: str) -> dict[str, int]:
        """Replicas by cluster, as decided last."""
        placement = self.placement(workload)
        return {s.cluster: s.replicas for s in placement.shares} if placement else {}

    async def pods(self, cluster: str, namespace: str, prefix: str) -> list[dict[str, Any]]:
        """Pods of a name in a cluster that are not on their way out."""
        client = self.clients[cluster]
        resource = await client.resource_for("v1", "Pod")
        listing = await client.list(resource, namespace)
        return [
            pod
            for pod in listing.items
            if pod["metadata"]["name"].startswith(prefix) and not pod["metadata"].get("deletionTimestamp")
        ]

    async def ready(self, namespace: str, prefix: str) -> dict[str, int]:
        """Ready pods by cluster, as the clusters themselves say."""
        found: dict[str, int] = {}
        for cluster in self.clients:
            count = sum(map(is_ready, await self.pods(cluster, namespace, prefix)))
            if count:
                found[cluster] = count
        return found

    async def nodes(self, cluster: str) -> list[str]:
        """Names of a cluster's nodes."""
        client = self.clients[cluster]
        listing = await client.list(await client.resource_for("v1", "Node"))
        return sorted(node["metadata"]["name"] for node in listing.items)

    def free_gpus(self, cluster: str) -> int:
        """Free GPUs of a cluster's nodes, as inventory published them last."""
        inventory = self.view.inventories.get(cluster)
        blocks = [b for c in inventory.node_classes for b in c.free] if inventory else []
        return sum(dict(block.free).get("nvidia.com/gpu", 0) * block.nodes for block in blocks)

    async def until(self, what: str, look: Callable[[], Awaitable[str | None]], patience: float | None = None) -> None:
        """Waits until ``look`` finds nothing wrong. Raises StepFailed with what it said last."""
        deadline = time.monotonic() + (patience or self.patience)
        while True:
            wrong = await look()
            if wrong is None:
                self.say(f"   ok  {what}")
                return
            if time.monotonic() > deadline:
                raise StepFailed(f"{what}: {wrong}")
            await asyncio.sleep(_LOOK_EVERY)

    async def expect_placed(self, what: str, workload: str, check: Callable[[Placement], str | None]) -> Placement:
        """Waits until the decision about a workload passes a check."""

        async def look() -> str | None:
            placement = self.placement(workload)
            return "no decision yet" if placement is None else check(placement)

        await self.until(what, look)
        placement = self.placement(workload)
        assert placement is not None
        return placement

    async def expect_ready(self, what: str, namespace: str, prefix: str, wanted: Mapping[str, int]) -> None:
        """Waits until the clusters have exactly so many ready pods of a name."""

        async def look() -> str | None:
            found = await self.ready(namespace, prefix)
            return None if found == dict(wanted) else f"ready are {found or 'none'}, expected {dict(wanted)}"

        await self.until(what, look)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod's condition Ready is true."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def manifests(*names: str) -> Parsed:
    """Returns manifests of the story by file name."""
    folder = files("gpufleet.cli.demo") / "manifests"
    return parse_documents([d for name in names for d in load((folder / name).read_bytes(), name)])
