"""`python -m sim.lend --fleet fleet.yaml --kubeconfig NAME=PATH …`: gives real control planes what they lack.

First the nodes, node pools and virtual nodes of the Cluster documents are written; then the operators of the job
kinds, the node autoscaler and the virtual nodes' kubelets work in them as clients of their API, until SIGTERM. Plain
nodes are kwok's business. A second start on the same clusters goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import AccessError, ApiStatusError, KubeError
from gpufleet.model.cluster import ClusterSpec, Inventory
from gpufleet.wire.documents import DocumentErrors, Parsed, parse_documents
from gpufleet.wire.yaml import load
from sim.fleet import cluster_writes, pool_of
from sim.model.api import Create, Json, Write
from sim.model.autoscaler import pools_writes
from sim.model.cache import Cache
from sim.model.cluster import Behaviour, Lent, lent
from sim.model.objects import CONFIG_MAP, NODE
from sim.model.remote import RemoteDrive
from sim.model.scheduler.nodes import is_virtual

logger = logging.getLogger(__name__)
FIELD_MANAGER = "sim-lend"
RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Borrower:
    """A real cluster and what its documents say of it."""

    name: str
    access: Mapping[str, str]
    spec: ClusterSpec
    inventory: Inventory


async def lend(
    borrower: Borrower,
    *,
    namespaces: Sequence[str] = (),
    behaviour: Behaviour | None = None,
    how: Lent | None = None,
) -> None:
    """Writes what the documents describe, then runs the controllers until cancelled; a cluster that is away is retried.

    Raises AccessError for a kubeconfig that cannot be used, ApiStatusError for an object that the cluster will never
    take.
    """
    lending = how or Lent()
    async with await connect(borrower.name, borrower.access) as client:
        await furnish(client, _furniture(borrower, namespaces, lending))
        logger.info("cluster %s: nodes and pools are written", borrower.name)
        while True:
            drive = RemoteDrive(client, lent(behaviour, lending))
            say = asyncio.create_task(_say_when_synced(borrower.name, drive))
            try:
                await drive.run()
            except KubeError as error:
                logger.warning("cluster %s: %s; trying again", borrower.name, error)
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                say.cancel()


async def furnish(client: KubeClient, objects: Iterable[Json]) -> None:
    """Creates objects one after the other; what exists stays as it is, but a ConfigMap gets its data again."""
    for obj in objects:
        while True:
            try:
                await client.create(obj, field_manager=FIELD_MANAGER)
            except ApiStatusError as error:
                if error.already_exists:
                    await _renew(client, obj)
                elif error.invalid:
                    raise
                else:
                    # A namespace without its service account yet takes no pods.
                    await _again(client, obj, error)
                    continue
            except KubeError as error:
                await _again(client, obj, error)
                continue
            break


async def _renew(client: KubeClient, obj: Json) -> None:
    if (obj["apiVersion"], obj["kind"]) == CONFIG_MAP:
        resource = await client.resource_for(*CONFIG_MAP)
        metadata, data = obj["metadata"], {"data": obj["data"]}
        await client.patch_merge(resource, metadata["name"], data, metadata["namespace"], field_manager=FIELD_MANAGER)


async def _again(client: KubeClient, obj: Json, error: KubeError) -> None:
    logger.info("cluster %s: %s %s: %s", client.cluster, obj["kind"], obj["metadata"]["name"], error)
    await asyncio.sleep(RETRY_SECONDS)


async def _say_when_synced(name: str, drive: RemoteDrive) -> None:
    await drive.synced.wait()
    logger.info("cluster %s: controllers at work", name)


def _furniture(borrower: Borrower, namespaces: Iterable[str], how: Lent) -> list[Json]:
    """Namespaces, nodes with their fillers, virtual nodes, node pools, in the order in which they are written."""
    wanted = sorted({*namespaces, *(borrower.inventory.namespaces or ())} - {"default", "kube-system"})
    objects: list[Json] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in wanted]
    writes: list[Write] = list(cluster_writes(borrower.inventory))
    pools = [pool_of(borrower.spec, c) for c in borrower.inventory.node_classes if c.elastic is not None]
    if pools:
        writes += pools_writes(Cache(()), pools)
    for write in writes:
        assert isinstance(write, Create)
        objects.append(_annotated(write.obj, how.node_annotations))
    return objects


def _annotated(obj: Json, annotations: Mapping[str, str]) -> Json:
    """A plain node gets the mark of whoever plays its kubelet."""
    if (obj["apiVersion"], obj["kind"]) != NODE or is_virtual(obj):
        return obj
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **annotations}}}


def borrowers(parsed: Parsed, kubeconfigs: Mapping[str, Path]) -> list[Borrower]:
    """The clusters that have a kubeconfig. Raises ValueError for a kubeconfig of a cluster without a document."""
    unknown = sorted(set(kubeconfigs) - set(parsed.clusters))
    if unknown:
        known = ", ".join(sorted(parsed.clusters)) or "none"
        raise ValueError(f"no Cluster document for {', '.join(unknown)}; the fleet has {known}")
    return [
        Borrower(
            name, {"kubeconfig": str(path)}, parsed.clusters[name].spec, parsed.inventories.get(name) or Inventory(name)
        )
        for name, path in sorted(kubeconfigs.items())
    ]


async def _run(clusters: Sequence[Borrower], namespaces: Sequence[str], behaviour: Behaviour) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(lend(c, namespaces=namespaces, behaviour=behaviour)) for c in clusters]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Works until SIGTERM or SIGINT. Exit code 2 for documents, kubeconfigs or objects that cannot be used."""
    options = _options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    behaviour = Behaviour(
        ready_after=options.ready_after, stop_seconds=options.stop_seconds, idle_seconds=options.idle_seconds
    )
    try:
        documents = [d for path in options.fleet for d in load(path.read_bytes(), str(path))]
        clusters = borrowers(parse_documents(documents), dict(map(_named, options.kubeconfig)))
        asyncio.run(_run(clusters, options.namespace, behaviour))
    except (OSError, ValueError, DocumentErrors, AccessError, ApiStatusError) as error:
        print(f"sim.lend: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (equals and name and path):
        raise ValueError(f"--kubeconfig {text}: write NAME=PATH, the name is that of a Cluster document")
    return name, Path(path).resolve()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sim.lend",
        description="Nodes, job operators, a node autoscaler and virtual nodes for real APIs.",
    )
    parser.add_argument("--fleet", type=Path, action="append", required=True, help="file with Cluster documents")
    parser.add_argument(
        "--kubeconfig", action="append", required=True, metavar="NAME=PATH", help="how a cluster is reached"
    )
    parser.add_argument("--namespace", action="append", default=[], help="namespace that every cluster gets")
    parser.add_argument("--ready-after", type=float, default=0.0, help="seconds from bound to Ready, on virtual nodes")
    parser.add_argument("--stop-seconds", type=float, default=0.0, help="seconds from deleted to gone, likewise")
    parser.add_argument("--idle-seconds", type=float, default=600.0, help="how long a created node stays empty")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
