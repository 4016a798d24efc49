"""An HTTP server that answers as it is told, for the parts of the Kubernetes client that need a misbehaving server."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from aiohttp import web

from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient


@dataclass
class Asked:
    """A request that the server got."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"


@dataclass
class Answer:
    """One answer. ``lines`` are written as a stream; then the answer ends, or as ``then`` says."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[Any] = ()
    then: str = "end"  # end | abort (cut the connection) | hold (until the client goes, or hold_until)
    hold_until: asyncio.Event | None = None
    wait: asyncio.Event | None = None  # answer only when it is set


def status(code: int, reason: str, message: str = "no", **details: Any) -> dict[str, Any]:
    """A Status object as the API server sends it."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
        "details": details,
    }


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return as soon as ``condition()`` holds; TimeoutError after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class ScriptedApi:
    """Answers come off the front of ``watches`` or ``answers``; when these are empty, watches hold, others are 404."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: deque[Answer] = deque()
        self.watches: deque[Answer] = deque()
        self.open_watches = 0
        self.holding = asyncio.Event()
        self.url = ""

    @property
    def kubeconfig(self) -> dict[str, Any]:
        return kubeconfig(self.url)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(
            request.method,
            request.raw_path.partition("?")[0],
            dict(request.query),
            dict(request.headers),
            await request.read(),
        )
        self.asked.append(asked)
        if asked.is_watch:
            answer = self.watches.popleft() if self.watches else Answer(then="hold")
        else:
            answer = self.answers.popleft() if self.answers else Answer(404, "404 page not found")
        if answer.wait is not None:
            await answer.wait.wait()
        if answer.then == "abort" and not answer.lines:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if answer.lines or (asked.is_watch and answer.status == 200):
            return await self._stream(request, answer)
        body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        return web.Response(status=answer.status, text=body, headers=answer.headers)

    async def _stream(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers=answer.headers)
        response.content_type = "application/json"
        response.enable_chunked_encoding()
        await response.prepare(request)
        self.open_watches += 1
        try:
            for line in answer.lines:
                await response.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
            if answer.then == "abort":
                assert request.transport is not None
                request.transport.close()
            elif answer.then == "hold":
                self.holding.set()
                await (answer.hold_until or asyncio.Event()).wait()
            return response
        finally:
            self.open_watches -= 1


def kubeconfig(url: str, token: str = "secret") -> dict[str, Any]:
    """The smallest kubeconfig for a server."""
    return {
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": token}}],
    }


@asynccontextmanager
async def scripted_api() -> AsyncIterator[ScriptedApi]:
    """A server on a free local port."""
    api = ScriptedApi()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", api.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    api.url = f"http://127.0.0.1:{port}"
    try:
        yield api
    finally:
        await runner.cleanup()


@asynccontextmanager
async def scripted_client(api: ScriptedApi, **options: Any) -> AsyncIterator[KubeClient]:
    """A client for it."""
    # Reading the system's certificates, which plain HTTP does not need, takes longer than most tests.
    with mock.patch.dict(os.environ, SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull):
        opened = await connect("c-test", {"inline": api.kubeconfig}, **options)
    async with opened as client:
        yield client
