"""One simulated cluster behind the simulated API, on a thread of its own so that a blocking client can use it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from sim.api.control import disturb
from sim.api.server import SimServer
from sim.api.store import Store
from sim.model.cluster import simulated
from sim.model.drive import Drive
from sim.model.runner import Runner
from tests.support.apiserver import NODE
from tests.support.kube import gpu_node
from tests.support.kubeapi import Document, KubeApi, Reply

T = TypeVar("T")
NAME = "conformance"


class _PrefixedApi(KubeApi):
    """The tests' client for a server that has its clusters below a path."""

    def __init__(self, server: str, token: str, prefix: str) -> None:
        super().__init__(server, token)
        self._prefix = prefix

    def request(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Reply:
        return super().request(method, self._prefix + path, body, content_type, query, timeout)


class SimApiServer:
    """The simulated counterpart of a real control plane; a context manager."""

    name = "sim"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulated API server", daemon=True)

    def __enter__(self) -> SimApiServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        self.admin.create(gpu_node(NODE)).expect(201)
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _start(self) -> None:
        store = Store(NAME, now=time.time())
        self._server = SimServer()
        self._cluster = self._server.add(store, token="right")
        await self._server.start()
        self._runner = Runner()
        self._runner.add(Drive(store, simulated()))
        self.admin = _PrefixedApi(self._server.address, "right", f"/clusters/{NAME}")

    async def _stop(self) -> None:
        self._runner.close()
        await self._server.stop()

    def access(self, token: str | None = None) -> dict[str, Any]:
        config = self._server.kubeconfig()
        if token is not None:
            config["users"][0]["user"]["token"] = token
        return {"inline": config}

    @contextlib.contextmanager
    def interrupt(self) -> Iterator[None]:
        self._there(lambda: disturb(self._cluster, {"gone": True}))
        try:
            yield
        finally:
            self._there(lambda: disturb(self._cluster, {"expireWatches": True}))

    def _there(self, call: Callable[[], T]) -> T:
        async def run() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)
