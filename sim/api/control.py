"""The control endpoint, with which tests and demos disturb the simulated API servers.

All of it wants the control token as bearer token:

- `GET /control/clusters`: names and versions;
- `GET /control/clusters/<name>/counters`: requests and latencies;
- `PUT /control/kinds`: a WorkloadKind document; the clusters serve its kind from then on, and its objects have pods;
- `GET, PUT, DELETE /control/clusters/<name>/faults`: what is wrong now (see `faults.from_document`); PUT also takes
  `dropWatches` (end the watches now) and `expireWatches` (forget all changes, so that watches must list again).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from aiohttp import web

from sim.api import codec, errors
from sim.api.cluster import Cluster
from sim.api.faults import Faults, from_document, to_document
from sim.api.handlers import error_response, json_response

Json = dict[str, Any]


async def handle(
    clusters: dict[str, Cluster], token: str, request: web.Request, declare: Callable[[Json], None] | None
) -> web.Response:
    """Answer a request below `/control/`. `declare` takes a WorkloadKind document, or raises ValueError."""
    try:
        return await _answer(clusters, token, request, declare)
    except errors.ApiError as error:
        return error_response(error)


async def _answer(
    clusters: dict[str, Cluster], token: str, request: web.Request, declare: Callable[[Json], None] | None
) -> web.Response:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise errors.unauthorized()
    parts = [part for part in request.path.split("/") if part][1:]
    if parts == ["clusters"] and request.method == "GET":
        listed = [{"name": c.name, "version": c.store.version, "watches": len(c.hub)} for c in clusters.values()]
        return json_response(200, {"clusters": listed})
    if parts == ["kinds"] and request.method == "PUT" and declare is not None:
        try:
            declare(codec.decode(await request.read(), codec.JSON))
        except ValueError as error:
            raise errors.bad_request(str(error)) from None
        return json_response(200, {})
    if len(parts) != 3 or parts[0] != "clusters" or parts[1] not in clusters:
        raise errors.path_not_found()
    cluster = clusters[parts[1]]
    if parts[2] == "counters" and request.method == "GET":
        return json_response(200, cluster.counters.document())
    if parts[2] != "faults" or request.method not in {"GET", "PUT", "DELETE"}:
        raise errors.path_not_found()
    if request.method == "DELETE":
        cluster.faults = Faults()
    elif request.method == "PUT":
        disturb(cluster, codec.decode(await request.read(), codec.JSON))
    return json_response(200, to_document(cluster.faults))


def disturb(cluster: Cluster, document: Any) -> None:
    """Make a faults document true for a cluster, in place of what was wrong before; ApiError 400."""
    try:
        faults = from_document(document)
    except (TypeError, ValueError) as error:
        raise errors.bad_request(f"faults: {error}") from None
    cluster.faults = faults
    if document.get("expireWatches"):
        cluster.store.compact()
    if document.get("dropWatches") or faults.gone or document.get("expireWatches"):
        cluster.hub.drop()
