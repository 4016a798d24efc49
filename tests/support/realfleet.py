"""The fleet of Cluster documents on real control planes: one each, with what they lack lent by the simulation."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpufleet.embedded.process import SupervisedProcess
from tests.support.clusters import crd_files
from tests.support.kube import ClusterSpec, ControlPlanes
from tests.support.waiting import eventually

LEND_TIMEOUT = 60.0


@dataclass
class RealFleet:
    """Real clusters by name, ``lender`` the process that plays what they lack."""

    planes: ControlPlanes
    lender: SupervisedProcess
    log: Path

    @property
    def kubeconfigs(self) -> dict[str, Path]:
        return {name: plane.kubeconfig for name, plane in self.planes.clusters.items()}


@asynccontextmanager
async def real_fleet(
    documents: Sequence[Mapping[str, Any]], options: Sequence[tuple[str, str]], folder: Path
) -> AsyncIterator[RealFleet]:
    """The clusters of the documents, ready and with their nodes. ``options`` are those of ``python -m sim.lend``."""
    names = [str(document["metadata"]["name"]) for document in documents]
    planes = ControlPlanes([ClusterSpec(name) for name in names], crd_files())
    await asyncio.to_thread(planes.start)
    try:
        fleet = RealFleet(planes, _lender(planes, documents, options, folder), folder / "lend.log")
        try:
            await eventually(lambda: _furnished(fleet), "the clusters are furnished", timeout=LEND_TIMEOUT, every=0.1)
            for plane in planes.clusters.values():
                await asyncio.to_thread(plane.wait_for_nodes)
            yield fleet
        finally:
            await asyncio.to_thread(fleet.lender.stop)
    finally:
        await asyncio.to_thread(planes.stop)


def _lender(
    planes: ControlPlanes, documents: Sequence[Mapping[str, Any]], options: Sequence[tuple[str, str]], folder: Path
) -> SupervisedProcess:
    file = folder / "fleet.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)}), encoding="utf-8")
    arguments = [f"--fleet={file}", *(f"--{name}={value}" for name, value in options)]
    arguments += [f"--kubeconfig={name}={plane.kubeconfig}" for name, plane in planes.clusters.items()]
    return SupervisedProcess([sys.executable, "-P", "-m", "sim.lend", *arguments], log=folder / "lend.log").start()


def _furnished(fleet: RealFleet) -> bool:
    assert fleet.lender.running, f"sim.lend ended:\n{fleet.lender.log_tail()}"
    text = fleet.log.read_text(encoding="utf-8")
    return all(f"cluster {name}: controllers at work" in text for name in fleet.planes.clusters)
