"""Simulated clusters behind a real HTTP server, in real time."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gpufleet.model import kinds
from gpufleet.model.cluster import Inventory
from gpufleet.telemetry import memory
from gpufleet.wire.documents import DocumentErrors, Parsed, parse_documents
from gpufleet.wire.yaml import load
from sim.api.crds import crd_documents
from sim.api.server import SimServer
from sim.fleet import SimulatedFleet, build_cluster, is_served
from sim.model.api import Create, Patch, View, Write, ref_of
from sim.model.cluster import Behaviour, simulated
from sim.model.controllers.declared import definition
from sim.model.drive import Drive
from sim.model.runner import Runner


@dataclass(slots=True)
class Served:
    """A running server and the fleet behind it."""

    server: SimServer
    fleet: SimulatedFleet
    runner: Runner
    behaviour: Behaviour | None = None
    apis: dict[str, frozenset[str] | None] = field(default_factory=dict)  # what a cluster serves; None: everything
    kinds: dict[str, kinds.Declaration] = field(default_factory=dict)

    def declare(self, document: Mapping[str, Any]) -> None:
        """Takes a WorkloadKind: its kind is served, and its objects have pods. Raises ValueError."""
        try:
            found = parse_documents(load(json.dumps(document), "WorkloadKind")).kinds
        except DocumentErrors as error:
            raise ValueError(str(error)) from None
        if not found:
            raise ValueError("write a WorkloadKind document")
        fresh = [declaration for name, declaration in found.items() if self.kinds.get(name) != declaration]
        for declaration in fresh:
            self.kinds[declaration.name] = declaration
            kinds.declare(declaration)
        if fresh:
            for name, cluster in self.fleet.clusters.items():
                cluster.drive.apply(definition_writes(cluster.drive.view, fresh, self.apis.get(name)), time.time())
                # Controllers keep nothing but caches of objects, so fresh ones go on where the others were.
                self.runner.remove(cluster.drive)
                cluster.drive.close()
                cluster.drive = Drive(cluster.store, simulated(self.behaviour))
                self.runner.add(cluster.drive)


def definition_writes(
    view: View, declarations: Iterable[kinds.Declaration], apis: frozenset[str] | None
) -> Iterator[Write]:
    """Yields the writes after which declared kinds are defined, in the versions that are declared."""
    for declaration in declarations:
        crd = definition(declaration)
        if not declaration.group or not is_served(crd, apis):
            continue  # of the core group the API serves what there is
        there = view.get(*ref_of(crd))
        if there is None:
            yield Create(crd)
        elif {v["name"] for v in there["spec"]["versions"]} != set(declaration.versions):
            yield Patch(ref_of(crd), {"spec": {"versions": crd["spec"]["versions"]}})


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
    served = Served(server, fleet, runner, behaviour, kinds=dict(parsed.kinds))
    for declaration in parsed.kinds.values():
        kinds.declare(declaration)
    server.declare = served.declare
    for name, registration in sorted(parsed.clusters.items()):
        inventory = parsed.inventories.get(name) or Inventory(name)
        served.apis[name] = inventory.apis
        cluster = build_cluster(
            registration.spec,
            inventory,
            now=time.time(),
            # Another process is another cluster: uids must not repeat, or the old one's objects would look alive.
            seed=int.from_bytes(os.urandom(6), "big"),
            namespaces=namespaces,
            crds=(*crd_documents(), *(definition(d) for d in parsed.kinds.values() if d.group)),
            behaviour=behaviour,
        )
        fleet.clusters[name] = cluster
        server.add(cluster.store)
        runner.add(cluster.drive)
    await server.start()
    try:
        if kubeconfig is not None:
            _write(kubeconfig, yaml.safe_dump(server.kubeconfig()))
        yield served
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
