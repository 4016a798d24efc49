"""The HTTP server: many simulated clusters behind one port, told apart by the path prefix `/clusters/<name>`.

    server = SimServer()
    server.add(Store("c-idc", now=time.time()), token="secret")
    await server.start()
    Path("sim.kubeconfig").write_text(yaml.safe_dump(server.kubeconfig()))
    ...
    await server.stop()

It runs in the caller's event loop, so that drivers of the stores (controllers, schedulers) may share it.
"""

from __future__ import annotations

import base64
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from sim.api import control, errors
from sim.api.cluster import Cluster
from sim.api.handlers import BOOKMARK_SECONDS, MAX_BODY, ApiHandler, Clock, error_response
from sim.api.store import Store

Json = dict[str, Any]


class SimServer:
    """Serves stores. `port=0` takes a free one; `tls` makes a certificate authority of its own.

    Programs may do without TLS; kubectl may not, because it sends no token over plain HTTP.

    `control_token` guards `/control/…` (generated if it is not given). `clock` gives epoch seconds for the writes of
    clients; `bookmark_seconds` is how often an idle watch gets a bookmark.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: bool = False,
        control_token: str = "",
        clock: Clock = time.time,
        bookmark_seconds: float = BOOKMARK_SECONDS,
    ) -> None:
        self.host = host
        self.port = port
        self.control_token = control_token or secrets.token_urlsafe(16)
        self.clusters: dict[str, Cluster] = {}
        self.declare: Callable[[Json], None] | None = None
        """Takes WorkloadKind documents that are put on the control endpoint."""
        self._api = ApiHandler(clock, bookmark_seconds)
        self._ssl: ssl.SSLContext | None = None
        self.ca_pem = b""
        """The certificate authority that clients have to trust; empty without TLS."""
        if tls:
            self._ssl, self.ca_pem = _certificates(host)
        self._runner: web.AppRunner | None = None

    # Clusters

    def add(self, store: Store, *, token: str = "") -> Cluster:
        """Serve a store under its name; ValueError if the name is taken."""
        if store.name in self.clusters:
            raise ValueError(f"there is a cluster {store.name} already")
        cluster = Cluster(store, token or secrets.token_urlsafe(16))
        self.clusters[store.name] = cluster
        return cluster

    def remove(self, name: str) -> None:
        """Serve it no more: its watches end, requests get 404."""
        cluster = self.clusters.pop(name)
        cluster.hub.drop()
        cluster.hub.close()

    # Life

    async def start(self) -> None:
        """Bind the port and answer; OSError if it is taken."""
        application = web.Application(client_max_size=MAX_BODY + 1)
        application.router.add_route("*", "/{tail:.*}", self._dispatch)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=self._ssl, backlog=1024)
        await site.start()
        address = self._runner.addresses[0]
        self.port = int(address[1])

    async def stop(self) -> None:
        """End all watches and close the port."""
        for cluster in self.clusters.values():
            cluster.hub.drop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> SimServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Addresses

    @property
    def address(self) -> str:
        """`http://127.0.0.1:34567`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._ssl else 'http'}://{host}:{self.port}"

    def url(self, name: str) -> str:
        """The API server's URL of a cluster, as a kubeconfig has it."""
        return f"{self.address}/clusters/{name}"

    def kubeconfig(self, names: list[str] | None = None) -> Json:
        """A kubeconfig document with a context for each cluster (or for `names`), the first one current."""
        chosen = [self.clusters[name] for name in (names or list(self.clusters))]
        clusters, users, contexts = [], [], []
        for cluster in chosen:
            entry: Json = {"server": self.url(cluster.name)}
            if self.ca_pem:
                entry["certificate-authority-data"] = base64.b64encode(self.ca_pem).decode()
            clusters.append({"name": cluster.name, "cluster": entry})
            users.append({"name": cluster.name, "user": {"token": cluster.token}})
            contexts.append({"name": cluster.name, "context": {"cluster": cluster.name, "user": cluster.name}})
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": clusters,
            "users": users,
            "contexts": contexts,
            "current-context": chosen[0].name if chosen else "",
            "preferences": {},
        }

    # Requests

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith("/clusters/"):
            name, _, rest = path.removeprefix("/clusters/").partition("/")
            cluster = self.clusters.get(name)
            if cluster is None:
                return error_response(errors.path_not_found())
            return await self._api.handle(cluster, "/" + rest.rstrip("/"), request)
        if path.startswith("/control/"):
            return await control.handle(self.clusters, self.control_token, request, self.declare)
        if path in {"/healthz", "/livez", "/readyz"}:
            return web.Response(text="ok")
        return error_response(errors.path_not_found())


def _certificates(host: str) -> tuple[ssl.SSLContext, bytes]:
    """A server certificate for this machine's names, and the authority that signed it (PEM)."""
    import trustme

    authority = trustme.CA(organization_name="gpufleet simulation")
    names = dict.fromkeys((host, "localhost", "127.0.0.1", "::1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(name for name in names if name != "0.0.0.0")).configure_cert(context)
    return context, authority.cert_pem.bytes()
