"""What the libraries alone can do on the same machine: the measure for the pipeline's throughput."""

from __future__ import annotations

import asyncio
import json
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.fleet import deployment
from gpufleet.kube.client import KubeClient
from gpufleet.kube.writes import create_if_absent

_CONCURRENCY = 16
_FETCH_WAIT_MS = 20


async def kafka(bootstrap: str, count: int) -> float:
    """Returns answers per second of a consumer that answers every record with one, to the last acknowledgement."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("bench.in", 1, 1), NewTopic("bench.out", 1, 1)])
    await admin.close()
    source = AIOKafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=_FETCH_WAIT_MS)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await source.start()
    await producer.start()
    try:
        # As in `gpufleet.bus`: the embedded broker may take another offset for the first one.
        source.assign([TopicPartition("bench.in", 0)])
        source.seek(TopicPartition("bench.in", 0), 0)
        begun = time.time()
        async with asyncio.TaskGroup() as group:
            group.create_task(_submit(producer, count))
            group.create_task(_relay(source, producer, count))
        await producer.flush()
        return count / (time.time() - begun)
    finally:
        await source.stop()
        await producer.stop()


async def _submit(producer: AIOKafkaProducer, count: int) -> None:
    for index in range(count):
        key, value = deployment(f"bare-{index}")
        await producer.send("bench.in", value, key.encode())


async def _relay(source: AIOKafkaConsumer, producer: AIOKafkaProducer, count: int) -> None:
    relayed = 0
    while relayed < count:
        for records in (await source.getmany(timeout_ms=1000)).values():
            for record in records:
                await producer.send("bench.out", record.value, record.key)
                relayed += 1


async def kubernetes(client: KubeClient, count: int) -> float:
    """Returns Deployments per second that are created in one cluster by server-side apply, as fast as it goes."""
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def one(index: int) -> None:
        async with slots:
            manifest = json.loads(deployment(f"bare-{index}")[1])["manifest"]
            await create_if_absent(client, manifest, field_manager="bench")

    begun = time.time()
    await asyncio.gather(*map(one, range(count)))
    return count / (time.time() - begun)
