"""From a record on the workloads topic to an object in a cluster: latency at idle, throughput of a burst.

The same is done by a bare aiokafka consumer and producer, and by a bare Kubernetes client, on the same machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.fleet import NAMESPACE, POLICY, clusters, deployment, policy
from benchmarks.report import Report
from gpufleet.cli.system import System
from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from gpufleet.kube.reflector import Changed, Reflector, Removed, Replaced, decode_json
from gpufleet.kube.writes import create_if_absent

IDLE_SUBMISSIONS = 200
BURST = 2000
CLUSTERS = 10
_CONCURRENCY = 16


@dataclass
class _Seen:
    """When each object was first seen in a cluster (epoch seconds)."""

    at: dict[str, float] = field(default_factory=dict)

    def apply(self, change: Replaced[Any] | Changed[Any] | Removed[Any]) -> None:
        """Notes new objects."""
        items = change.items if isinstance(change, Replaced) else [change.item]
        for item in items:
            self.at.setdefault(item["metadata"]["name"], time.time())


async def measure(report: Report, broker: str, bootstrap: str = "") -> None:
    """Measures on one broker; ``bootstrap`` empty is the embedded one."""
    goal = "< 25 ms" if bootstrap else "< 40 ms"
    system = System(fleet=clusters(CLUSTERS, 25), bootstrap=bootstrap, simulation=(("namespace", NAMESPACE),))
    async with system:
        consumer = AIOKafkaConsumer(
            "gpufleet.placements", bootstrap_servers=system.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=5
        )
        producer = AIOKafkaProducer(bootstrap_servers=system.bootstrap, acks="all")
        await consumer.start()
        await producer.start()
        watch = _Watch(system)
        await watch.start()
        try:
            await producer.send_and_wait("gpufleet.policies", policy(), POLICY.encode())
            await _idle(report, broker, goal, consumer, producer, watch)
            await _burst(report, broker, consumer, producer, watch)
            await _bare_kafka(report, broker, system.bootstrap)
            await _bare_client(report, watch.clients[0])
        finally:
            await watch.stop()
            await producer.stop()
            await consumer.stop()


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
    report: Report, broker: str, goal: str, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, watch: _Watch
) -> None:
    decided: list[float] = []
    applied: list[float] = []
    for index in range(IDLE_SUBMISSIONS + 10):
        name = f"idle-{index}"
        key, value = deployment(name)
        begun = time.time()
        await producer.send_and_wait("gpufleet.workloads", value, key.encode())
        seen = await _placement(consumer, key)
        await _until(lambda name=name: name in watch.seen.at)  # type: ignore[misc]
        if index >= 10:  # the first ones warm up
            decided.append(seen - begun)
            applied.append(watch.seen.at[name] - begun)
    report.latencies(f"{broker}: produce to placement seen by a reader, at idle", decided, goal)
    report.latencies(f"{broker}: produce to object seen in its cluster, at idle", applied, "< 100 ms")


async def _burst(
    report: Report, broker: str, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, watch: _Watch
) -> None:
    names = [f"burst-{index}" for index in range(BURST)]
    wanted = {f"{NAMESPACE}/Deployment/{name}" for name in names}
    begun = time.time()
    for name in names:
        key, value = deployment(name)
        await producer.send("gpufleet.workloads", value, key.encode())
    await producer.flush()
    last = begun
    while wanted:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            for record in records:
                wanted.discard(record.key.decode())
                last = time.time()
    report.add(f"{broker}: placements of {BURST} submissions at once", BURST / (last - begun), "per second")
    await _until(lambda: all(name in watch.seen.at for name in names), 300)
    done = max(watch.seen.at[name] for name in names)
    report.add(f"{broker}: objects applied of {BURST} submissions at once", BURST / (done - begun), "per second")


async def _placement(consumer: AIOKafkaConsumer, key: str) -> float:
    """Waits for a record of a key; returns when it was seen."""
    while True:
        for records in (await consumer.getmany(timeout_ms=10_000)).values():
            if any(record.key.decode() == key for record in records):
                return time.time()


async def _until(condition: Callable[[], bool], limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the benchmark waited too long")
        await asyncio.sleep(0.0005)


async def _bare_kafka(report: Report, broker: str, bootstrap: str) -> None:
    """A consumer that answers every record with one, without thinking."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("bench.in", 1, 1), NewTopic("bench.out", 1, 1)])
    await admin.close()
    source = AIOKafkaConsumer(
        "bench.in", bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=5
    )
    answers = AIOKafkaConsumer(
        "bench.out", bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=5
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    for client in (source, answers, producer):
        await client.start()
    try:
        begun = time.time()
        for index in range(BURST):
            key, value = deployment(f"bare-{index}")
            await producer.send("bench.in", value, key.encode())
        relayed = asyncio.create_task(_relay(source, producer))
        seen = 0
        while seen < BURST:
            seen += sum(len(records) for records in (await answers.getmany(timeout_ms=1000)).values())
        seconds = time.time() - begun
        await relayed
        report.add(f"{broker}: bare aiokafka, the same records in and out", BURST / seconds, "per second")
    finally:
        for client in (source, answers, producer):
            await client.stop()


async def _relay(source: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
    relayed = 0
    while relayed < BURST:
        for records in (await source.getmany(timeout_ms=1000)).values():
            for record in records:
                await producer.send("bench.out", record.value, record.key)
                relayed += 1


async def _bare_client(report: Report, client: KubeClient) -> None:
    """Creates as many Deployments by server-side apply as fast as the client can."""
    import json

    slots = asyncio.Semaphore(_CONCURRENCY)

    async def one(index: int) -> None:
        async with slots:
            manifest = json.loads(deployment(f"bare-{index}")[1])["manifest"]
            await create_if_absent(client, manifest, field_manager="bench")

    work: list[Awaitable[None]] = [one(index) for index in range(BURST)]
    begun = time.time()
    await asyncio.gather(*work)
    report.add("bare Kubernetes client: server-side applies, one cluster", BURST / (time.time() - begun), "per second")
