"""Simulated clusters behind a real HTTP server, in real time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpufleet.model.cluster import Inventory
from gpufleet.telemetry import memory
from gpufleet.wire.documents import Parsed
from sim.api.crds import crd_documents
from sim.api.server import SimServer
from sim.fleet import SimulatedFleet, build_cluster
from sim.model.cluster import Behaviour
from sim.model.runner import Runner


@dataclass(slots=True)
class Served:
    """A running server and the fleet behind it."""

    server: SimServer
    fleet: SimulatedFleet


@asynccontextmanager
async def serve(
    parsed: Parsed,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: bool = True,
    kubeconfig: Path | None = None,
    namespaces: Sequence[str] = (),
    behaviour: Behaviour | None = None,
    control_token: str = "",
) -> AsyncIterator[Served]:
    """Serves the clusters of Cluster documents until the block is left.

    ``kubeconfig`` is written, with one context per cluster, when everything answers. Raises OSError for a port that is
    taken.
    """
    server = SimServer(host=host, port=port, tls=tls, control_token=control_token)
    runner = Runner()
    fleet = SimulatedFleet()
    for name, registration in sorted(parsed.clusters.items()):
        cluster = build_cluster(
            registration.spec,
            parsed.inventories.get(name) or Inventory(name),
            now=time.time(),
            # Another process is another cluster: uids must not repeat, or the old one's objects would look alive.
            seed=int.from_bytes(os.urandom(6), "big"),
            namespaces=namespaces,
            crds=crd_documents(),
            behaviour=behaviour,
        )
        fleet.clusters[name] = cluster
        server.add(cluster.store)
        runner.add(cluster.drive)
    await server.start()
    try:
        if kubeconfig is not None:
            _write(kubeconfig, yaml.safe_dump(server.kubeconfig()))
        yield Served(server, fleet)
    finally:
        runner.close()
        await server.stop()


def _write(path: Path, text: str) -> None:
    """Writes a file that appears whole, readable for its owner only: it holds tokens."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


async def serve_until(stop: asyncio.Event, parsed: Parsed, **options: Any) -> None:
    """Serves until ``stop`` is set."""
    async with serve(parsed, **options):
        memory.settle()
        await stop.wait()
