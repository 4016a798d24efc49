"""The HTTP side of a service: `/livez`, `/readyz` with the checks as JSON, `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn
from prometheus_client import make_asgi_app

from gpufleet.telemetry.health import Health
from gpufleet.telemetry.metrics import Metrics

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class AddressTaken(RuntimeError):
    """The HTTP address of a service is in use."""


def routes(health: Health, metrics: Metrics) -> list[tuple[str, Asgi]]:
    """ASGI routes; 200 where all checks are fine, else 503."""

    async def livez(_scope: Any, _receive: Any, send: Any) -> None:
        await _answer(send, *await health.live())

    async def readyz(_scope: Any, _receive: Any, send: Any) -> None:
        await _answer(send, *await health.ready())

    return [("/livez", livez), ("/readyz", readyz), ("/metrics", make_asgi_app(metrics.registry))]


async def _answer(send: Any, fine: bool, body: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200 if fine else 503, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode() + b"\n"})


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own, and perhaps several servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves an ASGI application on `host:port`; port 0 takes a free one, `address` says which."""

    def __init__(self, app: Any, host: str, port: int, *, name: str) -> None:
        self.address = (host, port)
        self._name = name
        self._server = _Server(
            uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises AddressTaken; uvicorn itself would end the process."""
        host, port = self.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            listener.close()
            raise AddressTaken(
                f"{self._name} cannot listen on {host}:{port}: {error.strerror or error}; choose another address"
            ) from error
        self.address = (host, int(listener.getsockname()[1]))
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name=f"{self._name} http")

    async def stop(self) -> None:
        if self._task is not None:
            self._server.should_exit = True
            await self._task
