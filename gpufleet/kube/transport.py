"""Requests over the connections of a kubernetes_asyncio ``ApiClient``.

The connections, their TLS context, proxy and credentials are the library's; its generated methods are not used,
because they encode, decode and validate in Python, which costs two to four times the CPU of a raw request. Nor is its
session: that one looks for a netrc file and for a proxy in the environment at each request, both in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from gpufleet.kube.errors import ApiStatusError, BadAnswer, KubeError, Unreachable, parse_retry_after, status_error

if TYPE_CHECKING:
    import aiohttp

JSON = "application/json"
CONNECT_SECONDS = 10.0
MAX_LINE_BYTES = 64 * 1024 * 1024
USER_AGENT = "gpufleet"
MAX_STATUS_BYTES = 64 * 1024
READ_BUFFER_BYTES = 2 * 1024 * 1024  # the library's choice: an object may be as large


class Transport:
    """Sends requests to one API server. ``api_client`` is a kubernetes_asyncio ``ApiClient``."""

    def __init__(self, api_client: Any) -> None:
        import aiohttp

        self._api_client = api_client
        self._configuration = api_client.configuration
        self._rest = api_client.rest_client
        self._base: str = self._configuration.host.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=self._rest.pool_manager.connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._fixed = self._fixed_arguments()
        # A proxy is told through a CONNECT of its own; without TLS it reads the request itself.
        told = self._fixed.get("proxy_headers", {}) if "proxy" in self._fixed and self._base.startswith("http:") else {}
        self._headers = {"Accept": JSON, "User-Agent": USER_AGENT, **told}

    @property
    def server(self) -> str:
        """The base URL, as in the kubeconfig."""
        return self._base

    async def close(self) -> None:
        """Close every connection, watches too."""
        await self._session.close()
        await self._api_client.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        timeout: float,
    ) -> bytes:
        """The body of a 2xx answer.

        ``timeout`` (seconds) bounds the whole request, waiting for a connection included. Raises
        ApiStatusError for any other status and Unreachable when no complete answer came.
        """
        import aiohttp

        label = f"{method} {path}"
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS)
        try:
            async with self._session.request(
                method, **await self._arguments(path, params, body, content_type), timeout=limits
            ) as response:
                data = await response.read()
                if 200 <= response.status < 300:
                    return data
                raise _refusal(response, data, label)
        except KubeError:
            raise
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise Unreachable(f"{label} at {self._base}: {describe(error)}") from error

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Mapping[str, str], open_timeout: float, idle_timeout: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch; yields an iterator over the lines of the answer.

        ``open_timeout`` bounds the time until the headers are there, ``idle_timeout`` the silence after that.
        The iterator ends when the server ends the answer, and raises Unreachable when it is broken off, also
        in the middle of a line.
        """
        import aiohttp

        label = f"WATCH {path}"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=idle_timeout)
        try:
            async with asyncio.timeout(open_timeout):
                response = await self._session.request(
                    "GET", **await self._arguments(path, params, None, JSON), timeout=limits
                )
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{label} at {self._base}: {describe(error)}") from error
        try:
            if response.status != 200:
                raise _refusal(response, await _read_some(response, open_timeout), label)
            _keep_alive(response)
            async with aclosing(self._lines(response, label)) as lines:
                yield lines
        finally:
            response.close()

    async def _lines(self, response: aiohttp.ClientResponse, label: str) -> AsyncGenerator[bytes]:
        # Not StreamReader.readline: that gives up at a line length which a large object can exceed.
        import aiohttp

        rest = bytearray()
        try:
            async for chunk in response.content.iter_any():
                if b"\n" not in chunk:
                    rest += chunk
                    if len(rest) > MAX_LINE_BYTES:
                        raise BadAnswer(f"{label}: a line of more than {MAX_LINE_BYTES} bytes")
                    continue
                first, *more = chunk.split(b"\n")
                rest += first
                if rest:
                    yield bytes(rest)
                for line in more[:-1]:
                    if line:
                        yield line
                rest = bytearray(more[-1])
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{label} at {self._base}: {describe(error)}") from error
        if rest.strip():
            raise Unreachable(f"{label} at {self._base}: broken off in the middle of an event")

    async def _arguments(
        self, path: str, params: Mapping[str, str] | None, body: bytes | None, content_type: str
    ) -> dict[str, Any]:
        from yarl import URL

        headers = dict(self._headers)
        # The library calls the token a key; the hook that reads a new one runs in here.
        token = await self._configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token
        if body is not None:
            headers["Content-Type"] = content_type
        url = self._base + path + ("?" + urlencode(params) if params else "")
        return {**self._fixed, "url": URL(url, encoded=True), "headers": headers, "data": body}

    def _fixed_arguments(self) -> dict[str, Any]:
        """What is the same for all requests: the proxy and the name in the server's certificate."""
        from yarl import URL

        arguments: dict[str, Any] = {}
        headers = dict(self._rest.proxy_headers or {})
        proxy = self._rest.proxy or proxy_from_environment(self._base)
        if proxy:
            url = URL(proxy)
            if url.user is not None:
                credentials = f"{url.user}:{url.password or ''}".encode()
                headers.setdefault("Proxy-Authorization", f"Basic {base64.b64encode(credentials).decode()}")
            arguments["proxy"] = url.with_user(None)
        if headers:
            arguments["proxy_headers"] = headers
        if self._rest.server_hostname:
            arguments["server_hostname"] = self._rest.server_hostname
        return arguments


def proxy_from_environment(server: str) -> str | None:
    """The proxy that ``HTTPS_PROXY`` or ``HTTP_PROXY`` names for a server's URL, unless ``NO_PROXY`` excepts it."""
    parts = urlsplit(server)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


def describe(error: BaseException) -> str:
    """The error's text, or its type where the text is empty (as for a time-out)."""
    if isinstance(error, TimeoutError):
        return str(error) or "timed out"
    return str(error) or type(error).__name__


def _refusal(response: aiohttp.ClientResponse, data: bytes, label: str) -> ApiStatusError:
    retry_after = parse_retry_after(response.headers.get("Retry-After"))
    return status_error(response.status, data, retry_after=retry_after, request=label)


async def _read_some(response: aiohttp.ClientResponse, timeout: float) -> bytes:
    import aiohttp

    try:
        async with asyncio.timeout(timeout):
            return await response.content.read(MAX_STATUS_BYTES)
    except (aiohttp.ClientError, OSError):
        return b""


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    # A watch may be silent for minutes. Probes by the kernel find a peer that is gone within a minute.
    connection = response.connection
    sock = connection.transport.get_extra_info("socket") if connection and connection.transport else None
    if sock is None:
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError:
        return
