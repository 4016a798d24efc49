"""100 simulated clusters of 100 nodes each in one process: start, memory, reads and pods."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks import fleet
from benchmarks.machine import cpu_seconds, memory
from benchmarks.report import Report
from gpufleet.embedded.process import SupervisedProcess
from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient

CLUSTERS = 100
NODES = 100
PODS = 50  # in each cluster
IDLE_SECONDS = 10.0
_PATIENCE = 120.0


async def measure(report: Report) -> None:
    """Starts `python -m sim` as its own process and uses every cluster through the Kubernetes API."""
    documents = fleet.clusters(CLUSTERS, NODES)
    with tempfile.TemporaryDirectory() as folder:
        path, kubeconfig = Path(folder) / "fleet.json", Path(folder) / "kubeconfig"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "sim", f"--fleet={path}", f"--kubeconfig={kubeconfig}"]
        command.append(f"--namespace={fleet.NAMESPACE}")
        begun = time.monotonic()
        child = SupervisedProcess(command, log=Path(folder) / "sim.log").start()
        try:
            while not kubeconfig.exists():
                if not child.running or time.monotonic() - begun > _PATIENCE:
                    raise RuntimeError(f"the simulated clusters did not start:\n{child.log_tail()}")
                await asyncio.sleep(0.05)
            report.add(f"simulation: start of {CLUSTERS} clusters of {NODES} nodes", time.monotonic() - begun, "s")
            await _use(report, kubeconfig, [str(d["metadata"]["name"]) for d in documents])
            before = cpu_seconds(child.pid)
            await asyncio.sleep(IDLE_SECONDS)
            report.add("simulation, idle: CPU", (cpu_seconds(child.pid) - before) / IDLE_SECONDS * 100, "% of core")
            report.add("simulation, idle: memory", memory(child.pid) / 2**20, "MiB")
        finally:
            child.stop()


async def _use(report: Report, kubeconfig: Path, names: list[str]) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(await connect(name, {"kubeconfig": str(kubeconfig), "context": name}))
            for name in names
        ]
        begun = time.monotonic()
        counts = await asyncio.gather(*(_nodes(client) for client in clients))
        report.add(f"simulation: list of {sum(counts):,} nodes, all clusters at once", time.monotonic() - begun, "s")
        _, value = fleet.deployment("many", PODS)
        manifest = json.loads(value)["manifest"]
        begun = time.monotonic()
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(*(_run(client, manifest) for client in clients))
        seconds = time.monotonic() - begun
        report.add(f"simulation: {PODS * len(clients):,} pods from Deployment to Ready", seconds, "s")


async def _nodes(client: KubeClient) -> int:
    return len((await client.list(await client.resource_for("v1", "Node"))).items)


async def _run(client: KubeClient, manifest: Mapping[str, Any]) -> None:
    """Creates a Deployment and watches it until every pod is ready."""
    created = await client.apply(manifest, field_manager="bench")
    resource = await client.resource_for("apps/v1", "Deployment")
    since = created["metadata"]["resourceVersion"]
    async with client.open_watch(resource, since, fleet.NAMESPACE, seconds=int(_PATIENCE)) as lines:
        async for line in lines:
            event = json.loads(line)
            if event["type"] != "BOOKMARK" and event["object"].get("status", {}).get("readyReplicas") == PODS:
                return
