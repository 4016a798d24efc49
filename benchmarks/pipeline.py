"""From a record on the workloads topic to an object in a cluster: latency at idle, throughput of a burst.

All times are of one clock, that of the machine: a record carries the time at which it was produced, the scheduler logs
how long after that the broker had acknowledged the placement (`workload.placed`, field `seconds`), and the watches of
this process tell when an object is there.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer

from benchmarks import bare
from benchmarks.fleet import NAMESPACE, POLICY, clusters, deployment, policy
from benchmarks.machine import cpu_seconds, others
from benchmarks.report import Report
from gpufleet.cli.system import System
from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from gpufleet.kube.reflector import Changed, Reflector, Removed, Replaced, decode_json
from gpufleet.telemetry import memory

IDLE_SUBMISSIONS = 200
WARM_UP = 20
BURST = 2000
CLUSTERS = 10
_PAUSE = (0.05, 0.15)  # seconds between submissions at idle
_PATIENCE = 120.0


@dataclass
class _Seen:
    """When each object was first seen in a cluster (epoch seconds)."""

    at: dict[str, float] = field(default_factory=dict)
    _waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    def apply(self, change: Replaced[Any] | Changed[Any] | Removed[Any]) -> None:
        """Notes new objects."""
        items = change.items if isinstance(change, Replaced) else [change.item]
        for item in items:
            name = item["metadata"]["name"]
            if name not in self.at:
                self.at[name] = time.time()
                if (waiting := self._waiting.pop(name, None)) is not None:
                    waiting.set_result(None)

    async def wait(self, name: str) -> float:
        """Returns when an object was seen. Raises TimeoutError."""
        if name not in self.at:
            waiting = self._waiting[name] = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(_PATIENCE):
                await waiting
        return self.at[name]


async def measure(report: Report, broker: str, bootstrap: str = "", broker_pid: int = 0) -> None:
    """Measures on one broker; ``bootstrap`` empty is the embedded one, ``broker_pid`` 0 one that runs elsewhere."""
    goal = "< 25 ms" if bootstrap else "< 40 ms"
    memory.own()
    system = System(fleet=clusters(CLUSTERS, 25), bootstrap=bootstrap, simulation=(("namespace", NAMESPACE),))
    async with system:
        producer = AIOKafkaProducer(bootstrap_servers=system.bootstrap, acks="all")
        await producer.start()
        watch = _Watch(system)
        await watch.start()
        processes = {name: child.pid for name, child in system.children.items()}
        pid = system.broker.pid if system.broker is not None else broker_pid
        processes |= {"broker": pid} if pid else {}
        try:
            await producer.send_and_wait("gpufleet.policies", policy(), POLICY.encode())
            memory.settle()
            await _idle(report, broker, goal, system, producer, watch, processes)
            await _burst(report, broker, system, producer, watch, processes)
            report.add(f"{broker}: bare aiokafka, as many in and out", await bare.kafka(system.bootstrap, BURST), "/s")
            report.add(f"{broker}: bare client, one cluster", await bare.kubernetes(watch.clients[0], BURST), "/s")
        finally:
            await watch.stop()
            await producer.stop()


class _Watch:
    """Watches the Deployments of all clusters."""

    def __init__(self, system: System) -> None:
        self.seen = _Seen()
        self.clients: list[KubeClient] = []
        self._system = system
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connects and lists."""
        reflectors = []
        for document in self._system.fleet:
            name = document["metadata"]["name"]
            client = await connect(name, {"kubeconfig": str(self._system.kubeconfig), "context": name})
            self.clients.append(client)
            reflector = Reflector(client, "apps/v1", "Deployment", self.seen, decode_json, namespace=NAMESPACE)
            reflectors.append(reflector)
            self._tasks.append(asyncio.create_task(reflector.run()))
        for reflector in reflectors:
            await reflector.synced.wait()

    async def stop(self) -> None:
        """Disconnects."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self.clients:
            await client.close()


async def _idle(
    report: Report,
    broker: str,
    goal: str,
    system: System,
    producer: AIOKafkaProducer,
    watch: _Watch,
    processes: Mapping[str, int],
) -> None:
    """One submission after the other, each when the one before has long become quiet."""
    chance = random.Random(7)
    applied: dict[str, float] = {}
    foreign = others(())
    for index in range(WARM_UP + IDLE_SUBMISSIONS):
        if index == WARM_UP:
            foreign = others(processes.values())
        key, value = deployment(f"idle-{index}")
        begun = time.time()
        await producer.send_and_wait("gpufleet.workloads", value, key.encode())
        applied[key] = await watch.seen.wait(f"idle-{index}") - begun
        await asyncio.sleep(chance.uniform(*_PAUSE))
    report.add(f"{broker}, at idle: CPU of other programs meanwhile", foreign(), "% of core")
    measured = list(applied)[WARM_UP:]
    placed = _placements(system)
    seconds = [placed[key].seconds for key in measured]
    report.latencies(f"{broker}, at idle: produce to acknowledged placement", seconds, goal)
    report.latencies(f"{broker}, at idle: produce to object seen", [applied[key] for key in measured], "< 100 ms")


async def _burst(
    report: Report,
    broker: str,
    system: System,
    producer: AIOKafkaProducer,
    watch: _Watch,
    processes: Mapping[str, int],
) -> None:
    submissions = {f"burst-{index}": deployment(f"burst-{index}") for index in range(BURST)}
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    foreign = others(processes.values())
    begun = time.time()
    for key, value in submissions.values():
        await producer.send("gpufleet.workloads", value, key.encode())
    await producer.flush()
    applied = [await watch.seen.wait(name) for name in submissions]
    report.add(f"{broker}, burst: CPU of other programs meanwhile", foreign(), "% of core")
    placed = _placements(system)
    last = max(placed[key].at for key, _ in submissions.values())
    report.add(f"{broker}, burst of {BURST}: placements acknowledged", BURST / (last - begun), "/s")
    report.add(f"{broker}, burst of {BURST}: objects applied", BURST / (max(applied) - begun), "/s")
    for name, pid in sorted(processes.items()):
        spent = (cpu_seconds(pid) - before[name]) / BURST * 1000
        report.add(f"{broker}, burst of {BURST}: CPU of {name} per submission", spent, "ms")


@dataclass(frozen=True)
class _Placed:
    """When the broker had acknowledged a placement (epoch seconds), and how long after the workload's record."""

    at: float
    seconds: float


def _placements(system: System) -> dict[str, _Placed]:
    """Returns the first placement of each workload, from the scheduler's log."""
    found: dict[str, _Placed] = {}
    for line in (system.root / "logs" / "scheduler.log").read_text(encoding="utf-8").splitlines():
        if '"workload.placed"' in line and "seconds" in (entry := json.loads(line)):
            at = datetime.fromisoformat(entry["timestamp"]).timestamp()
            found.setdefault(entry["workload"], _Placed(at, entry["seconds"]))
    return found
