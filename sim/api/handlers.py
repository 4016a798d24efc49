"""The HTTP side of one cluster's API: authentication, faults, negotiation, watches."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from sim.api import codec, discovery, errors, openapi, validation, verbs
from sim.api.cluster import Cluster
from sim.api.faults import Rule
from sim.api.requests import Target, flag, parse_target, selection, verb_of, version_of, whole_number
from sim.api.watching import Watcher, bookmark, expired_event

_log = logging.getLogger(__name__)

Json = dict[str, Any]
Clock = Callable[[], float]

MAX_BODY = 3 * 1024 * 1024
BOOKMARK_SECONDS = 60.0
DEFAULT_WATCH_SECONDS = 1800.0

_HEALTH = ("/healthz", "/livez", "/readyz")


class ConnectionLost(Exception):
    """The connection is closed without an answer."""


def json_response(code: int, document: Any, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=codec.encode(document), status=code, content_type=codec.JSON, headers=headers)


def error_response(error: errors.ApiError) -> web.Response:
    """A failure as Status, with Retry-After where it names a time."""
    retry = error.details.get("retryAfterSeconds")
    return json_response(error.code, error.status(), {"Retry-After": str(retry)} if retry else None)


class ApiHandler:
    """Answers the requests to clusters; one for the whole server.

    `clock` gives epoch seconds; `bookmark_seconds` is how often an idle watch gets a bookmark.
    """

    def __init__(self, clock: Clock, bookmark_seconds: float = BOOKMARK_SECONDS) -> None:
        self._clock = clock
        self.bookmark_seconds = bookmark_seconds

    async def handle(self, cluster: Cluster, path: str, request: web.Request) -> web.StreamResponse:
        """Answer a request; `path` is what follows the cluster's prefix."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        verb, resource = request.method.lower(), path.split("/", 2)[1]
        try:
            if cluster.faults.gone:
                raise ConnectionLost
            target = parse_target(cluster.store.registry, path)
            if target is not None:
                verb, resource = verb_of(request.method, target, request.query), target.resource.group_resource
            rule = await self._meet_faults(cluster, verb, resource)
            response = await self._answer(cluster, path, target, verb, request)
            if rule is not None and rule.when == "lost":
                raise ConnectionLost
            if rule is not None:
                raise rule.error()
        except errors.ApiError as error:
            response = error_response(error)
        except ConnectionLost:
            cluster.counters.observe(verb, resource, 0, loop.time() - started)
            return _close(request)
        except (KeyError, TypeError, ValueError, AttributeError):
            # A document that no check foresaw: one request fails, the server goes on.
            _log.exception("cannot answer %s %s", request.method, request.path)
            message = "Internal error occurred: the request could not be handled, see the server's log"
            response = error_response(errors.ApiError(500, "InternalError", message))
        cluster.counters.observe(verb, resource, response.status, loop.time() - started)
        return response

    async def _meet_faults(self, cluster: Cluster, verb: str, resource: str) -> Rule | None:
        """Wait, fail, or answer the rule that hits once the request is done."""
        faults = cluster.faults
        if faults.delay:
            await asyncio.sleep(faults.delay)
        if not faults.rules:
            return None
        rule = faults.hit(verb, resource)
        if rule is None:
            return None
        cluster.counters.faults += 1
        if rule.when == "before":
            raise rule.error()
        return rule

    async def _answer(
        self, cluster: Cluster, path: str, target: Target | None, verb: str, request: web.Request
    ) -> web.StreamResponse:
        if path in _HEALTH or path.startswith(tuple(f"{name}/" for name in _HEALTH)):
            return web.Response(text="ok")
        if path == "/version":
            return json_response(200, discovery.VERSION)
        _authenticate(cluster, request)
        if target is None:
            return _documents(cluster, path, request)
        form, _ = codec.accepted(request.headers.get("Accept", ""))
        include = request.query.get("includeObject", "Metadata")
        if verb == "watch":
            return await self._watch(cluster, target, form, include, request)
        body = await _read_body(request)
        warnings: list[str] = []
        code, answer = self._run(cluster, target, verb, body, request, form, include, warnings)
        response = web.Response(body=answer, status=code, content_type=codec.JSON)
        for warning in warnings:
            quoted = warning.replace('"', '\\"')
            response.headers.add("Warning", f'299 - "{quoted}"')
        return response

    def _run(
        self,
        cluster: Cluster,
        target: Target,
        verb: str,
        body: bytes,
        request: web.Request,
        form: str,
        include: str,
        warnings: list[str],
    ) -> tuple[int, bytes]:
        """One verb from start to end, without a pause in which others could write."""
        store, query, now = cluster.store, request.query, self._clock()
        agent = request.headers.get("User-Agent", "")
        if verb not in target.resource.verbs:
            raise errors.method_not_allowed(target.resource, verb)
        if verb == "list":
            found, metadata = verbs.list_objects(store, target, query)
            document = verbs.render_list(store, target, found, metadata, form, include, now)
            return 200, codec.encode(document)
        media = request.content_type if request.headers.get("Content-Type") else ""
        code, obj = 200, {}
        if verb == "get":
            obj = verbs.get(store, target)
        elif verb == "patch":
            kind = codec.PATCH_TYPES.get(media)
            if kind is None:
                raise errors.unsupported_media_type(media, codec.PATCH_TYPES)
            document = codec.decode(body, media)
            if kind != "apply":
                warnings += _unknown_fields(target, document, query)
            code, obj = verbs.patch(store, target, kind, document, query, agent, now)
        elif verb in {"delete", "deletecollection"}:
            options = codec.decode(body, media) if body else None
            act = verbs.delete if verb == "delete" else verbs.delete_collection
            code, obj = act(store, target, options, query, now)
            if verb == "deletecollection":
                return code, codec.encode(obj)
        elif verb in {"create", "update"}:
            act_write = verbs.create if verb == "create" else verbs.update
            document = codec.decode(body, media)
            warnings += _unknown_fields(target, document, query)
            code, obj = act_write(store, target, document, query, agent, now)
        else:
            raise errors.method_not_allowed(target.resource, verb)
        return code, codec.encode(verbs.render_object(store, target, obj, form, include, now))

    async def _watch(
        self, cluster: Cluster, target: Target, form: str, include: str, request: web.Request
    ) -> web.StreamResponse:
        query, store = request.query, cluster.store
        if "watch" not in target.resource.verbs:
            raise errors.method_not_allowed(target.resource, "watch")
        selected = selection(target.resource, query)
        since = version_of(query)
        bookmarks = flag(query, "allowWatchBookmarks")
        initial = flag(query, "sendInitialEvents")
        if initial and query.get("resourceVersionMatch") != "NotOlderThan":
            message = (
                'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires '
                "setting resourceVersionMatch to NotOlderThan"
            )
            raise errors.ApiError(422, "Invalid", message)
        seconds = whole_number(query, "timeoutSeconds") or DEFAULT_WATCH_SECONDS
        if since is not None and since > store.version and initial:
            raise errors.future_version(since, store.version)

        def render(obj: Json) -> Json:
            return verbs.render_object(store, target, obj, form, include, self._clock())

        watcher = Watcher(target.resource, target.namespace, selected, f"{form}/{include}", render)
        response = web.StreamResponse(headers={"Content-Type": codec.JSON, "Cache-Control": "no-cache, private"})
        try:
            # Everything between reading the store and joining the hub happens without a pause.
            if initial or not since:
                found = store.list(target.resource, target.namespace, labels=selected.labels, fields=selected.fields)
                for obj in found:
                    watcher.send("ADDED", render(obj))
                if initial and bookmarks:
                    end = bookmark(target.resource, store.version, initial_end=True)
                    watcher.send("BOOKMARK", render(end))
                since = store.version
            cluster.hub.add(watcher, since)
            await response.prepare(request)
            await self._stream(cluster, watcher, response, float(seconds), bookmarks=bookmarks, render=render)
        except errors.ApiError as error:
            if error.code != 410:
                raise
            await response.prepare(request)
            await response.write(expired_event(error))
        except (ConnectionResetError, BrokenPipeError):
            pass
        finally:
            cluster.hub.remove(watcher)
        if cluster.faults.gone:
            raise ConnectionLost
        return response

    async def _stream(
        self,
        cluster: Cluster,
        watcher: Watcher,
        response: web.StreamResponse,
        seconds: float,
        *,
        bookmarks: bool,
        render: Callable[[Json], Json],
    ) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        next_bookmark = loop.time() + self.bookmark_seconds
        while not watcher.closed:
            left = end - loop.time()
            if left <= 0:
                break
            wait = min(left, max(0.0, next_bookmark - loop.time())) if bookmarks else left
            chunk = await watcher.take(wait)
            if chunk:
                await response.write(chunk)
            elif bookmarks and loop.time() >= next_bookmark:
                watcher.send("BOOKMARK", render(bookmark(watcher.resource, cluster.store.version)))
            if loop.time() >= next_bookmark:
                next_bookmark = loop.time() + self.bookmark_seconds


def _authenticate(cluster: Cluster, request: web.Request) -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), cluster.token.encode()):
        raise errors.unauthorized()


def _unknown_fields(target: Target, document: Any, query: Mapping[str, str]) -> list[str]:
    """What `fieldValidation` makes of fields that the kind does not have: warnings, or ApiError 400 if Strict."""
    mode = query.get("fieldValidation", "Warn")
    resource = target.resource
    if mode == "Ignore" or target.subresource not in {"", "status"}:
        return []
    unknown = validation.check_strictly(resource, document)
    if unknown and mode == "Strict":
        raise errors.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            "strict decoding error: " + ", ".join(unknown)
        )
    return unknown


def _close(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=499)


async def _read_body(request: web.Request) -> bytes:
    if not request.can_read_body:
        return b""
    message = f"Request entity too large: limit is {MAX_BODY}"
    if (request.content_length or 0) > MAX_BODY:
        # The rest of the body is not read, so the connection cannot be used again.
        raise errors.ApiError(413, "RequestEntityTooLarge", message)
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise errors.ApiError(413, "RequestEntityTooLarge", message) from None


def _documents(cluster: Cluster, path: str, request: web.Request) -> web.Response:
    """Discovery and OpenAPI."""
    if request.method != "GET":
        raise errors.path_not_found()
    registry = cluster.store.registry
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["openapi", "v3"]:
        return _openapi(cluster, parts[2:])
    if parts == ["openapi", "v2"]:
        # Whatever is asked for: no client reads version 2 as JSON.
        return web.Response(body=openapi.v2_protobuf(), headers={"Content-Type": openapi.V2_PROTOBUF})
    form, _ = codec.accepted(request.headers.get("Accept", ""))
    document: Json | None = None
    if parts in (["api"], ["apis"]):
        core = parts == ["api"]
        if form == "APIGroupDiscoveryList":
            response = json_response(200, discovery.aggregated(registry, core=core))
            response.headers["Content-Type"] = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            return response
        document = discovery.core_versions() if core else discovery.group_list(registry)
    elif parts[:1] == ["api"] and len(parts) == 2:
        document = discovery.resource_list(registry, "", parts[1])
    elif parts[:1] == ["apis"] and len(parts) == 2:
        document = discovery.group(registry, parts[1])
    elif parts[:1] == ["apis"] and len(parts) == 3:
        document = discovery.resource_list(registry, parts[1], parts[2])
    elif not parts:
        document = {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}
    if document is None:
        raise errors.path_not_found()
    return json_response(200, document)


def _openapi(cluster: Cluster, parts: list[str]) -> web.Response:
    registry = cluster.store.registry
    if not parts:
        return json_response(200, openapi.index(registry, cluster.prefix))
    document: Json | None = None
    if parts[0] == "api" and len(parts) == 2:
        document = openapi.document(registry, "", parts[1])
    elif parts[0] == "apis" and len(parts) == 3:
        document = openapi.document(registry, parts[1], parts[2])
    if document is None:
        raise errors.path_not_found()
    return json_response(200, document)
