"""The whole system as a user has it, in processes of its own, and the means to act on it and to look at it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiokafka import AIOKafkaProducer

from gpufleet.bus.client import open_client
from gpufleet.bus.dlq import DeadLetter, fold
from gpufleet.bus.records import Record
from gpufleet.bus.topics import DLQ_SUFFIX, Registry, load_registry
from gpufleet.cli.demo.stage import is_ready
from gpufleet.cli.live import Tables
from gpufleet.cli.system import SERVICES, System
from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import KubeError
from gpufleet.model.names import FREEZE_KEY, WORKLOAD_LABEL, workload_label
from gpufleet.model.placement import Observation, Placement
from gpufleet.wire.records import parse_placement
from tests.support.waiting import eventually

Json = dict[str, Any]

CONTROL_TOKEN = "control"
SIMULATION = (("namespace", "test"), ("control-token", CONTROL_TOKEN))
# Long enough for a busy machine; what is waited for comes within a second or two on an idle one.
PATIENCE = 60.0
_FETCH_WAIT_MS = 100
_TABLES = ("clusters", "policies", "workloads", "inventory", "placements", "assignments", "observations", "evictions")


# -- documents -------------------------------------------------------------------------------------------------------


def cluster(name: str, *, nodes: int = 2, gpus: int = 8, cpu: str = "96", **status: Any) -> Json:
    """A Cluster document with one class of nodes."""
    allocatable = {"cpu": cpu, "memory": "1Ti", "pods": "250", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"provider": "idc", "region": "cn-hangzhou"},
        "status": {"nodeClasses": [{"name": "gpu", "allocatable": allocatable, "nodes": nodes, **status}]},
    }


def pod(*, gpus: int = 1, cpu: str = "1") -> Json:
    """A pod template's spec."""
    amounts = {"cpu": cpu, "memory": "1Gi", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {"containers": [{"name": "main", "image": "app:1", "resources": {"requests": amounts, "limits": amounts}}]}


def deployment(name: str, replicas: int = 2, *, gpus: int = 1, namespace: str = "test") -> Json:
    """A Deployment."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod(gpus=gpus)},
        },
    }


def job(name: str, *, workers: int = 1, gpus: int = 1, namespace: str = "test") -> Json:
    """A PyTorchJob of one master and some workers."""
    template = {"spec": pod(gpus=gpus)}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "pytorchReplicaSpecs": {
                "Master": {"replicas": 1, "restartPolicy": "Never", "template": template},
                "Worker": {"replicas": workers, "restartPolicy": "Never", "template": template},
            }
        },
    }


def policy(name: str, *clusters: str, namespace: str = "test", selectors: Sequence[Json] = ()) -> Json:
    """A PropagationPolicy that divides by available replicas over clusters, for all known kinds of its namespace."""
    return {
        "apiVersion": "policy.one.alibabacloud.com/v1alpha1",
        "kind": "PropagationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "resourceSelectors": list(selectors)
            or [
                {"apiVersion": "apps/v1", "kind": "Deployment"},
                {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob"},
            ],
            "placement": {
                "clusterAffinity": {"clusterNames": list(clusters)},
                "replicaScheduling": {
                    "replicaSchedulingType": "Divided",
                    "replicaDivisionPreference": "Weighted",
                    "weightPreference": {"dynamicWeight": "AvailableReplicas"},
                },
            },
        },
    }


def key_of(manifest: Mapping[str, Any]) -> str:
    """The key on its topic of a policy or a workload."""
    metadata, kind = manifest["metadata"], manifest["kind"]
    namespace = metadata.get("namespace", "")
    if kind == "PropagationPolicy":
        return f"{kind}/{namespace}/{metadata['name']}"
    return f"{namespace}/{kind}/{metadata['name']}"


# -- the system ------------------------------------------------------------------------------------------------------


@dataclass
class Fleet:
    """A running system with its topics followed; `journal` has every record of them in the order of arrival."""

    system: System
    registry: Registry
    view: Tables
    producer: AIOKafkaProducer
    clients: dict[str, KubeClient] = field(default_factory=dict)
    journal: list[Record] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    _control: aiohttp.ClientSession | None = None

    # Acting

    async def produce(
        self,
        topic: str,
        key: str | bytes | None,
        value: Any,
        *,
        partition: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """One record as a foreign producer sends it: objects as JSON, bytes as they are. Returns its origin."""
        encoded = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        name = self.registry.name(topic)
        place = await self.producer.send_and_wait(
            name,
            encoded,
            key=key.encode() if isinstance(key, str) else key,
            partition=partition,
            headers=[(header, text.encode()) for header, text in (headers or {}).items()],
        )
        return f"{name}/{partition}/{place.offset}"

    async def submit(self, *manifests: Json) -> list[str]:
        """Bare manifests on their topics; returns the keys."""
        keys = [key_of(manifest) for manifest in manifests]
        for key, manifest in zip(keys, manifests, strict=True):
            await self.produce("policies" if "Policy" in manifest["kind"] else "workloads", key, manifest)
        return keys

    async def again(self, topic: str, record: Record) -> None:
        """A record that was on a topic before, as it was."""
        await self.produce(topic, record.key, record.value, partition=record.partition, headers=record.headers)

    async def delete(self, *workloads: str) -> None:
        """Tombstones on the topic of workloads."""
        for workload in workloads:
            await self.produce("workloads", workload, None)

    async def disturb(self, name: str, faults: Json | None) -> None:
        """Makes a simulated API server fail (see `sim.api.faults`), or None: work again."""
        assert self._control is not None
        url = f"{self.system.url('sim').replace('http:', 'https:')}/control/clusters/{name}/faults"
        async with self._control.request("DELETE" if faults is None else "PUT", url, json=faults) as answer:
            assert answer.status == 200, await answer.text()

    async def kill(self, name: str) -> None:
        """Ends a service at once."""
        self.down.add(name)
        await asyncio.to_thread(self.system.children[name].kill)

    async def restart(self, name: str) -> None:
        """Starts a service that was killed, or stops it before; waits until it is ready."""
        await self.system.restart(name)
        self.down.discard(name)

    # Looking

    def placement(self, workload: str) -> Placement | None:
        """The last decision."""
        return self.view.placement(workload)

    def shares(self, workload: str) -> dict[str, int]:
        """Replicas by cluster as decided last."""
        placement = self.placement(workload)
        return {s.cluster: s.replicas for s in placement.shares} if placement else {}

    def observed(self, workload: str) -> dict[str, Observation]:
        """What the clusters say of a workload."""
        return {o.cluster: o for o in self.view.observed(workload)}

    def ready(self, workload: str) -> int:
        """Ready pods as the clusters' observations say."""
        return sum(o.ready for o in self.observed(workload).values())

    def keys(self, topic: str) -> set[str]:
        """Keys of a topic that are not tombstoned."""
        return set(self.view.records.get(topic, {}))

    def decisions(self, workload: str, since: int = 0) -> list[Placement]:
        """Every placement record of a workload from a place in the journal on, tombstones left out."""
        topic = self.registry.name("placements")
        found = [r for r in self.journal[since:] if r.topic == topic and r.key == workload and r.value is not None]
        return [parse_placement(record) for record in found]

    def letters(self) -> dict[str, DeadLetter]:
        """Dead letters by the origin of the record."""
        return {letter.origin: letter for letter in fold(r for r in self.journal if r.topic.endswith(DLQ_SUFFIX))}

    async def pods(self, name: str, workload: str) -> list[Json]:
        """The metadata of a workload's pods in a cluster that are not on their way out, with `ready`."""
        client, label = self.clients[name], workload_label(workload)
        listing = await client.list(await client.resource_for("v1", "Pod"), workload.split("/", maxsplit=1)[0])
        return [
            item["metadata"] | {"ready": is_ready(item)}
            for item in listing.items
            if item["metadata"].get("labels", {}).get(WORKLOAD_LABEL) == label
            and not item["metadata"].get("deletionTimestamp")
        ]

    async def ready_pods(self, workload: str) -> dict[str, int]:
        """A workload's ready pods by cluster, as their APIs say."""
        found = {name: sum(pod["ready"] for pod in await self.pods(name, workload)) for name in self.clients}
        return {name: count for name, count in found.items() if count}

    async def objects(self, name: str, api_version: str, kind: str, namespace: str = "test") -> list[Json]:
        """Objects of a kind in a cluster."""
        client = self.clients[name]
        return list((await client.list(await client.resource_for(api_version, kind), namespace)).items)

    def newest(self, topic: str, workload: str) -> list[Record]:
        """The newest records about a workload in the order of their keys."""
        found = self.view.records.get(topic, {})
        return [found[key] for key in sorted(found) if key == workload or key.endswith(f"/{workload}")]

    async def marks(self, workload: str) -> dict[str, tuple[str, str, frozenset[str]]]:
        """By cluster what any write to a Deployment would change, and its pods."""
        marks = {}
        for place in self.clients:
            for found in await self.objects(place, "apps/v1", "Deployment"):
                metadata = found["metadata"]
                if key_of(found) == workload:
                    pods = frozenset(pod["uid"] for pod in await self.pods(place, workload))
                    marks[place] = (metadata["uid"], metadata["resourceVersion"], pods)
        return marks

    # Waiting

    async def settled(self) -> None:
        """Everything that was written before has been read and acted on: something later has come all the way."""
        (marker,) = await self.submit(deployment("marker", 2 * len(self.clients)))
        await self.until_ready(marker)
        await self.delete(marker)
        await self.until_gone(marker)

    async def until(self, condition: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str) -> Any:
        """Waits for a condition. A cluster that does not answer is asked again; a service that ended fails the test."""

        async def look() -> Any:
            self._check_alive()
            value = condition()
            try:
                return await value if isinstance(value, Awaitable) else value
            except KubeError:
                return None

        return await eventually(look, what, timeout=PATIENCE)

    async def until_ready(self, workload: str, shares: Mapping[str, int] | None = None) -> Placement:
        """Waits until a workload is placed (so divided, if given), and the clusters' APIs show just that many pods."""

        async def look() -> bool:
            wanted = self.shares(workload)
            placed = bool(wanted) and (shares is None or wanted == dict(shares))
            if not placed or self.ready(workload) != sum(wanted.values()):
                return False
            return await self.ready_pods(workload) == wanted

        with self._explained(workload):
            await self.until(look, f"{workload} to be ready{'' if shares is None else f' as {dict(shares)}'}")
        placement = self.placement(workload)
        assert placement is not None
        return placement

    async def until_ready_in(self, name: str, workload: str) -> None:
        """Waits until one cluster's part of a workload is ready, whatever the others do."""

        async def look() -> bool:
            wanted = self.shares(workload).get(name, 0)
            return wanted > 0 and sum(pod["ready"] for pod in await self.pods(name, workload)) == wanted

        with self._explained(workload):
            await self.until(look, f"{workload} to be ready in {name}")

    async def until_gone(self, *workloads: str) -> None:
        """Waits until nothing is left of workloads: on no topic, in no cluster."""

        def traces() -> list[str]:
            return [
                f"{topic}: {key}"
                for topic in ("workloads", "placements", "assignments", "observations")
                for key in sorted(self.keys(topic))
                for workload in workloads
                if key == workload or key.endswith(f"/{workload}")
            ]

        try:
            await self.until(lambda: not traces(), "to be gone")
        except AssertionError as error:
            raise AssertionError(f"{error}; left are {traces()}") from None

        async def no_pods() -> bool:
            return not any([await self.ready_pods(workload) for workload in workloads])

        await self.until(no_pods, f"the pods of {', '.join(workloads)} to be gone")

    async def restore(self) -> None:
        """Puts everything back as it was, whatever a test that failed has left: the next one starts afresh.

        Services that have ended are started, faults and a freeze end, workloads and all policies but the first go.
        """
        for name in self.clients:
            await self.disturb(name, None)
        for name in SERVICES:
            if not self.system.children[name].running:
                await self.restart(name)
        if FREEZE_KEY in self.keys("policies"):
            await self.produce("policies", FREEZE_KEY, None)
        await self.clear()
        for key in self.keys("policies") - {key_of(policy("all"))}:
            await self.produce("policies", key, None)

    async def clear(self) -> None:
        """Deletes every workload, and waits until all are gone."""
        known = self.keys("workloads")
        await self.delete(*sorted(known))
        await self.until_gone(*sorted(known | self.keys("placements")))

    def _check_alive(self) -> None:
        for name, child in self.system.children.items():
            assert child.running or name in self.down, f"{name} ended with {child.returncode}:\n{child.log_tail()}"

    @contextlib.contextmanager
    def _explained(self, workload: str) -> Any:
        try:
            yield
        except AssertionError as error:
            seen = {c: (o.phase.value, o.ready, o.message) for c, o in self.observed(workload).items()}
            raise AssertionError(f"{error}; decided {self.placement(workload)}; observed {seen}") from None


@contextlib.asynccontextmanager
async def running_fleet(
    folder: Path, *clusters: Json, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Fleet]:
    """A system of simulated clusters, ready, with a policy `all` that takes every workload of namespace `test`.

    ``folder`` is where logs go; they stay.
    """
    documents = list(clusters) or [cluster("alpha"), cluster("beta")]
    system = System(fleet=documents, settings=settings or {}, simulation=SIMULATION, folder=folder)
    async with system, following(system) as fleet:
        await fleet.submit(policy("all", *(d["metadata"]["name"] for d in documents)))
        yield fleet


def assert_stopped_gracefully(folder: Path) -> None:
    """Services that were stopped have finished, left their groups and closed every client that they opened."""
    logs = {name: (folder / "logs" / f"{name}.log").read_text(encoding="utf-8") for name in SERVICES}
    assert [name for name, text in logs.items() if "Unclosed" in text] == []
    assert [name for name, text in logs.items() if '"service.stopped"' not in text.splitlines()[-1]] == []


@contextlib.asynccontextmanager
async def following(system: System) -> AsyncIterator[Fleet]:
    """The means to act on a running system and to look at it."""
    registry = load_registry(prefix=system.kafka.topic_prefix)
    view, journal = Tables(registry), list[Record]()
    letters = [topic.short for topic in registry if topic.name.endswith(DLQ_SUFFIX)]
    # The embedded broker works for every fetch: who only looks asks less often than those who decide.
    kafka = system.kafka.model_copy(update={"fetch_wait_ms": max(_FETCH_WAIT_MS, system.kafka.fetch_wait_ms)})

    def take(records: list[Record]) -> None:
        journal.extend(records)
        view.take(records)

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            open_client(kafka, source="tests", reads=[*_TABLES, "epochs", *letters], sink=take)
        )
        producer = AIOKafkaProducer(bootstrap_servers=system.bootstrap)
        await producer.start()
        stack.push_async_callback(producer.stop)
        fleet = Fleet(system, registry, view, producer, journal=journal)
        for document in system.simulated:
            name = document["metadata"]["name"]
            fleet.clients[name] = await stack.enter_async_context(await connect(name, system.access(name)))
        fleet._control = await stack.enter_async_context(_control(system))
        yield fleet


def _control(system: System) -> aiohttp.ClientSession:
    config = yaml.safe_load(system.kubeconfig.read_text(encoding="utf-8"))
    authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {CONTROL_TOKEN}"},
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority)),
    )


def counted(records: Sequence[Record], topic: str) -> Counter[str | None]:
    """How many records of a topic each key has."""
    return Counter(record.key for record in records if record.topic.rpartition("gpufleet.")[2] == topic)
