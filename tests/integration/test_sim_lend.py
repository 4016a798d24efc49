"""`python -m sim.lend`: what a cluster's documents describe is brought into a cluster that only has an API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpufleet.wire.documents import Parsed, parse_text
from sim.api.crds import install_crds
from sim.api.server import SimServer
from sim.api.store import Store
from sim.lend import borrowers, lend, main
from sim.model.drive import Drive
from sim.model.names import POOLS, STOCK
from sim.model.objects import condition_true
from sim.model.runner import Runner
from tests.support.waiting import eventually

FLEET = """
apiVersion: gpufleet.io/v1alpha1
kind: Cluster
metadata: {name: c}
spec: {provider: alibabacloud, region: cn-hangzhou}
status:
  nodeClasses:
  - name: a10
    labels: {gpu: a10}
    allocatable: {cpu: "64", memory: 512Gi, pods: "110", nvidia.com/gpu: "4"}
    nodes: 2
    elastic: {maxNodes: 3, stock: 2, provisionSeconds: 3}
  virtualNodes:
  - name: vk
    labels: {type: virtual-kubelet, topology.kubernetes.io/region: cn-wulanchabu}
    stock: [{gpuModelSeries: T4, gpus: 4}]
"""


def fleet(text: str = FLEET) -> Parsed:
    return parse_text(text, "fleet.yaml")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[tuple[Drive, Path]]:
    """A cluster without controllers, and its kubeconfig."""
    store = Store("c", now=time.time())
    install_crds(store, now=time.time())
    server = SimServer()
    server.add(store)
    drive, runner = Drive(store, []), Runner()
    runner.add(drive)
    await server.start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(server.kubeconfig()), encoding="utf-8")
    yield drive, kubeconfig
    runner.close()
    await server.stop()


@contextlib.asynccontextmanager
async def lending(parsed: Parsed, kubeconfig: Path) -> AsyncIterator[None]:
    [borrower] = borrowers(parsed, {"c": kubeconfig})
    task = asyncio.create_task(lend(borrower, namespaces=["test"]))
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def data(drive: Drive, name: str) -> dict[str, Any]:
    found = drive.view.get("v1", "ConfigMap", "kube-system", name) or {}
    return {pool: json.loads(text) for pool, text in found.get("data", {}).items()}


async def test_nodes_pools_and_virtual_nodes_come_as_documented(place: tuple[Drive, Path]) -> None:
    drive, kubeconfig = place
    async with lending(fleet(), kubeconfig):
        await eventually(lambda: data(drive, STOCK).get("a10", {}).get("stock") == 2, "the stock is shown")
        await eventually(lambda: condition_true(drive.view.get("v1", "Node", "", "vk") or {}, "Ready"), "vk is ready")
    nodes = {node["metadata"]["name"]: node["metadata"] for node in drive.view.list("v1", "Node")}
    assert sorted(nodes) == ["a10-0", "a10-1", "vk"]
    assert nodes["a10-0"]["annotations"] == {"kwok.x-k8s.io/node": "fake"}
    assert "kwok.x-k8s.io/node" not in nodes["vk"]["annotations"]
    assert drive.view.get("v1", "Namespace", "", "test")


async def test_a_second_start_keeps_nodes_and_renews_pools(place: tuple[Drive, Path]) -> None:
    drive, kubeconfig = place
    async with lending(fleet(), kubeconfig):
        await eventually(lambda: data(drive, STOCK), "the stock is shown")
    uids = [node["metadata"]["uid"] for node in drive.view.list("v1", "Node")]
    async with lending(fleet(FLEET.replace("stock: 2", "stock: 1")), kubeconfig):
        await eventually(lambda: data(drive, STOCK)["a10"]["stock"] == 1, "the new stock is shown")
    assert [node["metadata"]["uid"] for node in drive.view.list("v1", "Node")] == uids
    assert data(drive, POOLS)["a10"]["stock"] == 1


def test_a_kubeconfig_without_a_document_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(FLEET, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main([f"--fleet={file}", f"--kubeconfig=other={tmp_path}/kubeconfig"])
    assert left.value.code == 2
    assert "no Cluster document for other; the fleet has c" in capsys.readouterr().err


def test_a_missing_kubeconfig_ends_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(FLEET, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main([f"--fleet={file}", f"--kubeconfig=c={tmp_path}/nothing"])
    assert left.value.code == 2
    assert "does not exist" in capsys.readouterr().err
