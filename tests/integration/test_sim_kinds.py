"""Declared kinds on simulated clusters: from the fleet's documents, and while they run."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import load_registry
from gpufleet.cli import declared
from gpufleet.cli.errors import CliError
from gpufleet.cli.live import Tables
from gpufleet.cli.up import read_fleet
from gpufleet.wire import yaml
from gpufleet.wire.documents import parse_documents
from gpufleet.wire.records import dump_policy
from sim.model.api import Create
from sim.serve import Served, serve
from tests.support.manifests import MODEL_SERVER
from tests.support.system import cluster, pod
from tests.support.waiting import eventually

TOKEN = "told"
SERVER = {
    "apiVersion": "serving.example.com/v1",
    "kind": "ModelServer",
    "metadata": {"name": "llm", "namespace": "default"},
    "spec": {"replicas": 2, "template": {"spec": pod()}},
}


@contextlib.asynccontextmanager
async def serving(
    *documents: dict[str, Any], tls: bool = False, kubeconfig: Path | None = None
) -> AsyncIterator[Served]:
    parsed = parse_documents(yaml.load(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})))
    async with serve(parsed, tls=kubeconfig is not None, kubeconfig=kubeconfig, control_token=TOKEN) as served:
        yield served


def other_version() -> dict[str, Any]:
    changed = copy.deepcopy(MODEL_SERVER)
    changed["spec"]["versions"] = ["v1", "v2"]
    return changed


async def ready(served: Served, name: str, api_version: str = "serving.example.com/v1") -> None:
    drive = served.fleet.clusters[name].drive
    drive.apply([Create({**SERVER, "apiVersion": api_version})], 1.0)

    def counted() -> bool:
        seen = served.fleet.clusters[name].drive.view.get(api_version, "ModelServer", "default", "llm")
        return seen is not None and (seen.get("status") or {}).get("ready") == 2

    await eventually(counted, "both pods to be ready")


async def test_kinds_of_the_fleet_s_documents_are_served_from_the_start() -> None:
    limited = cluster("b")
    limited["status"]["apis"] = ["apps/v1/Deployment"]
    async with serving(MODEL_SERVER, cluster("a"), limited) as served:
        await ready(served, "a")
        assert served.fleet.clusters["b"].drive.view.resource("serving.example.com/v1", "ModelServer") is None


async def test_kinds_come_and_change_while_clusters_run() -> None:
    async with serving(cluster("a")) as served:
        web = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": pod()}
        served.fleet.clusters["a"].drive.apply([Create(web)], 1.0)
        served.declare(MODEL_SERVER)
        first = served.fleet.clusters["a"].drive
        await ready(served, "a")
        served.declare(MODEL_SERVER)
        assert served.fleet.clusters["a"].drive is first, "nothing new"
        served.declare(other_version())
        seen = served.fleet.clusters["a"].drive.view.get("serving.example.com/v2", "ModelServer", "default", "llm")
        assert seen is not None
        assert served.fleet.clusters["a"].drive.view.get("v1", "Pod", "default", "p") is not None
        for wrong in ({"kind": "WorkloadKind"}, cluster("x"), {**MODEL_SERVER, "spec": {"group": "x"}}):
            with pytest.raises(ValueError):
                served.declare(wrong)


async def test_the_follower_tells_the_clusters_of_every_kind_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = Tables(load_registry())

    @contextlib.asynccontextmanager
    async def tables(kafka: KafkaSettings, topics: tuple[str, ...]) -> AsyncIterator[Tables]:
        assert topics == ("policies",) and kafka.fetch_wait_ms == 500
        yield view

    def give(value: bytes, name: str = "model-server") -> None:
        view.take([Record(view.registry["policies"].name, 0, 7, f"WorkloadKind//{name}", value, {}, 0.0)])

    said: list[str] = []
    monkeypatch.setattr(declared, "tables", tables)
    async with serving(cluster("a"), kubeconfig=tmp_path / "kubeconfig") as served:
        url = f"https://127.0.0.1:{served.server.port}"
        give(b"{")
        following = asyncio.create_task(
            declared.follow(KafkaSettings(), tmp_path / "kubeconfig", url, TOKEN, said.append)
        )
        give(dump_policy(MODEL_SERVER))
        await eventually(lambda: len(said) == 1, "the kind to be told")
        await ready(served, "a")
        give(dump_policy(other_version()))
        await eventually(lambda: len(said) == 2, "its other edition to be told")
        give(dump_policy({**MODEL_SERVER, "metadata": {"name": "broken"}, "spec": {"kind": "X"}}), "broken")
        await eventually(lambda: len(said) == 3, "what is wrong with the other one")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert said[:2] == ["simulated clusters serve the kind model-server"] * 2
    assert "refuse" in said[2] and "spec.versions" in said[2]


def test_kinds_may_stand_beside_the_clusters_of_a_fleet(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [cluster("a"), MODEL_SERVER]}))
    assert read_fleet([path]) == ([cluster("a")], [MODEL_SERVER])
    path.write_text(json.dumps(MODEL_SERVER))
    with pytest.raises(CliError, match="no Cluster documents"):
        read_fleet([path])
