"""Helpers for tests of the simulated Kubernetes API: documents, a server in the test's loop, the real kubectl."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from sim.api.cluster import Cluster
from sim.api.errors import ApiError
from sim.api.server import SimServer
from sim.api.store import Store

Json = dict[str, Any]

NOW = 1_800_000_000.0
TOKEN = "test-token"
CONTROL_TOKEN = "control-token"
KUBECTL = Path(sys.executable).parent / "kubectl"

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
DEPLOYMENTS_PATH = "/apis/apps/v1/namespaces/default/deployments"
PODS_PATH = "/api/v1/namespaces/default/pods"
CONFIG_MAPS_PATH = "/api/v1/namespaces/default/configmaps"


def new_store(name: str = "c1", **options: Any) -> Store:
    """An empty cluster."""
    return Store(name, now=NOW, **options)


def deployment(name: str = "web", *, replicas: int | None = 2, image: str = "nginx:1.25", **metadata: Any) -> Json:
    """A Deployment with one container named `main`."""
    spec: Json = {
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": image}]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def pod(name: str = "p", *, node: str = "", owner: Json | None = None, **metadata: Any) -> Json:
    """A pod with one container; `owner` is an object that controls it and blocks on it."""
    spec: Json = {"containers": [{"name": "main", "image": "nginx:1.25"}]}
    if node:
        spec["nodeName"] = node
    document: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": spec,
    }
    if owner is not None:
        document["metadata"]["ownerReferences"] = [owner_reference(owner)]
    return document


def config_map(name: str = "cm", *, owners: list[Json] | None = None, **metadata: Any) -> Json:
    """A ConfigMap, owned by `owners` if there are any."""
    document: Json = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", **metadata},
    }
    if owners:
        document["metadata"]["ownerReferences"] = [owner_reference(owner) for owner in owners]
    return document


def owner_reference(owner: Json, *, block: bool = True) -> Json:
    """A controller reference to a stored object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": block,
    }


def fails(code: int, reason: str = "", match: str = "") -> Any:
    """`with fails(409, "Conflict"):` expects an ApiError with this code and reason."""
    return _Fails(code, reason, match)


class _Fails:
    def __init__(self, code: int, reason: str, match: str) -> None:
        self._code, self._reason = code, reason
        self._raises = pytest.raises(ApiError, match=match or None)

    def __enter__(self) -> Any:
        self._info = self._raises.__enter__()
        return self._info

    def __exit__(self, *exc: Any) -> Any:
        handled = self._raises.__exit__(*exc)
        if handled:
            error = self._info.value
            assert (error.code, error.reason) == (self._code, self._reason or error.reason), error
        return handled


@dataclass
class Api:
    """A served cluster and a session that is logged in to it."""

    server: SimServer
    cluster: Cluster
    session: aiohttp.ClientSession

    @property
    def store(self) -> Store:
        """The store behind it."""
        return self.cluster.store

    def url(self, path: str) -> str:
        """The full address of an API path."""
        return self.server.url(self.cluster.name) + path

    async def call(
        self, method: str, path: str, body: Any = None, *, media: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        """A request: status and decoded answer."""
        headers = {"Content-Type": media} if body is not None else {}
        if accept:
            headers["Accept"] = accept
        data = body if isinstance(body, (str, bytes)) or body is None else json.dumps(body)
        async with self.session.request(method, self.url(path), data=data, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith(("{", "[")) else text

    async def control(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request to the control endpoint."""
        headers = {"Authorization": f"Bearer {CONTROL_TOKEN}"}
        url = f"{self.server.address}/control/clusters{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, json=body, headers=headers) as response,
        ):
            return response.status, await response.json()


@asynccontextmanager
async def served(name: str = "c1", *, tls: bool = False, **options: Any) -> AsyncIterator[Api]:
    """A cluster behind a server on a free port; `options` go to the store."""
    server = SimServer(tls=tls, control_token=CONTROL_TOKEN, bookmark_seconds=0.2)
    import time

    cluster = server.add(Store(name, now=time.time(), **options), token=TOKEN)
    async with server, aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        yield Api(server, cluster, session)


class Kubectl:
    """The real kubectl against a served cluster."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._kubeconfig = folder / "kubeconfig"
        self._cache = folder / "cache"
        self._kubeconfig.write_text(yaml.safe_dump(api.server.kubeconfig()))

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start it without waiting for its end."""
        return await asyncio.create_subprocess_exec(
            str(KUBECTL),
            f"--kubeconfig={self._kubeconfig}",
            f"--cache-dir={self._cache}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """Run it: its output, with the errors behind; fails if it fails unless `check=False`."""
        process = await self.start(*arguments)
        out, err = await process.communicate(stdin.encode())
        text = out.decode() + err.decode()
        assert not check or process.returncode == 0, f"kubectl {' '.join(arguments)}: {text}"
        return text
