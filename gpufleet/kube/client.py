"""A client for one cluster: JSON in and out as plain dicts, typed errors, discovery.

Open one with :func:`gpufleet.kube.access.connect`. Every method may raise

- :class:`~gpufleet.kube.errors.ApiStatusError` when the server refuses,
- :class:`~gpufleet.kube.errors.Unreachable` when no complete answer came (a write may have taken effect),
- :class:`~gpufleet.kube.errors.NotServed` when the cluster does not serve the kind,
- :class:`~gpufleet.kube.errors.BadAnswer` when the answer is not what the Kubernetes API sends.

Nothing is tried again in here; see :mod:`gpufleet.kube.retry`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar

import msgspec

from gpufleet.kube.errors import UNREADABLE, ApiStatusError, BadAnswer, NotServed
from gpufleet.kube.resources import (
    NAMESPACES,
    WELL_KNOWN,
    Resource,
    group_version_path,
    identity,
    parse_discovery,
)
from gpufleet.kube.transport import JSON, Transport

APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
REQUEST_SECONDS = 30.0
PAGE_SIZE = 500
DISCOVERY_HOLD_SECONDS = 5.0

Json = dict[str, Any]
Propagation = Literal["Foreground", "Background", "Orphan"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """All items of a list, as one consistent state of the server, and where a watch goes on from."""

    items: list[T]
    resource_version: str


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None  # Go writes an empty slice as null


_page_decoder = msgspec.json.Decoder(_Page)
_object_decoder = msgspec.json.Decoder(dict[str, Any])


class KubeClient:
    """One cluster's API. Use as an asynchronous context manager, or call :meth:`close`."""

    def __init__(
        self,
        cluster: str,
        transport: Transport,
        *,
        timeout: float = REQUEST_SECONDS,
        refresher: asyncio.Task[None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``timeout`` is the default bound of a request in seconds; ``refresher`` is ended by close()."""
        self.cluster = cluster
        self._transport = transport
        self._timeout = timeout
        self._refresher = refresher
        self._discovery = _Discovery(self, clock)

    async def __aenter__(self) -> KubeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def server(self) -> str:
        """The API server's base URL."""
        return self._transport.server

    async def close(self) -> None:
        """Stop refreshing the token and close the connections; requests and watches under way fail."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.gather(self._refresher, return_exceptions=True)
        await self._transport.close()

    # Discovery

    async def resource_for(self, api_version: str, kind: str) -> Resource:
        """How the cluster serves a kind. Cached; a miss asks again, at most every few seconds per version."""
        return await self._discovery.find(api_version, kind)

    async def served(self, api_version: str) -> dict[str, Resource]:
        """The kinds of a group and version as of now (none if it is not served); renews what resource_for knows."""
        return await self._discovery.ask(api_version)

    async def incarnation(self, *, timeout: float | None = None) -> str:
        """The uid of the namespace kube-system: another cluster under the same name has another one."""
        namespace = await self.get(NAMESPACES, "kube-system", timeout=timeout)
        uid = namespace.get("metadata", {}).get("uid")
        if not isinstance(uid, str) or not uid:
            raise BadAnswer(f"cluster {self.cluster}: the namespace kube-system has no uid")
        return uid

    # Reading

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        timeout: float | None = None,
    ) -> Json:
        """One object."""
        return await self._call("GET", resource, resource.path(namespace, name, subresource), timeout=timeout)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = PAGE_SIZE,
        timeout: float | None = None,
    ) -> Listing[Json]:
        """All objects as dicts; ``timeout`` bounds each page. apiVersion and kind are filled in."""

        def decode(raw: msgspec.Raw) -> Json:
            obj = _object_decoder.decode(raw)
            obj.setdefault("apiVersion", resource.api_version)
            obj.setdefault("kind", resource.kind)
            return obj

        return await self.list_decoded(
            resource,
            decode,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            page_size=page_size,
            timeout=timeout,
        )

    async def list_decoded(
        self,
        resource: Resource,
        decode: Callable[[msgspec.Raw], T],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = PAGE_SIZE,
        timeout: float | None = None,
        on_page: Callable[[], None] | None = None,
    ) -> Listing[T]:
        """All objects, each decoded from its JSON by ``decode`` as its page arrives.

        A continue token that expires on the way (410) makes it start again without paging, since another
        paged attempt would probably expire as well.
        """
        params = _selectors(label_selector, field_selector)
        path = resource.path(namespace)
        paged = params | {"limit": str(page_size)} if page_size else params
        items: list[T] = []
        token = ""
        while True:
            try:
                page = await self._page(resource, path, paged | ({"continue": token} if token else {}), timeout)
            except ApiStatusError as error:
                if not (error.expired and token):
                    raise
                items, token, paged = [], "", params
                continue
            if on_page is not None:
                on_page()
            items += [decode(item) for item in page.items or ()]
            token = page.metadata.continue_
            if not token:
                return Listing(items, page.metadata.resource_version)

    def open_watch(
        self,
        resource: Resource,
        resource_version: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        seconds: int,
        grace: float = 15.0,
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """One watch call with bookmarks from ``resource_version`` on; yields an iterator over its JSON lines.

        The server ends it after ``seconds``; after ``grace`` seconds more without a byte it counts as dead.
        Services use :class:`gpufleet.kube.reflector.Reflector` instead.
        """
        params = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        return self._transport.stream(
            resource.path(namespace), params=params, open_timeout=self._timeout, idle_timeout=seconds + grace
        )

    # Writing

    async def create(self, obj: Mapping[str, Any], *, field_manager: str, timeout: float | None = None) -> Json:
        """POST; ``metadata.generateName`` will do instead of a name."""
        resource, _, namespace = await self._locate(obj, name_required=False)
        return await self._call(
            "POST", resource, resource.path(namespace), {"fieldManager": field_manager}, body=obj, timeout=timeout
        )

    async def create_subresource(
        self,
        resource: Resource,
        name: str,
        subresource: str,
        obj: Mapping[str, Any],
        namespace: str | None = None,
        *,
        timeout: float | None = None,
    ) -> Json:
        """POST to a subresource, such as a Binding or an Eviction of a pod."""
        return await self._call(
            "POST", resource, resource.path(namespace, name, subresource), body=obj, timeout=timeout
        )

    async def apply(
        self,
        obj: Mapping[str, Any],
        *,
        field_manager: str,
        force: bool = False,
        subresource: str | None = None,
        timeout: float | None = None,
    ) -> Json:
        """Server-side apply: creates the object or takes it to what ``obj`` says.

        ``metadata.uid`` and ``metadata.resourceVersion`` in ``obj`` are preconditions, see
        :mod:`gpufleet.kube.fencing`. Without ``force`` a field that another manager owns with another value
        is a 409 (``field_conflict``).
        """
        resource, name, namespace = await self._locate(obj)
        params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        path = resource.path(namespace, name, subresource)
        return await self._call("PATCH", resource, path, params, body=obj, content_type=APPLY_PATCH, timeout=timeout)

    async def patch_merge(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any],
        namespace: str | None = None,
        *,
        field_manager: str,
        subresource: str | None = None,
        timeout: float | None = None,
    ) -> Json:
        """JSON merge patch (RFC 7396): null removes a field, lists are replaced."""
        return await self._call(
            "PATCH",
            resource,
            resource.path(namespace, name, subresource),
            {"fieldManager": field_manager},
            body=patch,
            content_type=MERGE_PATCH,
            timeout=timeout,
        )

    async def patch_status(
        self,
        resource: Resource,
        name: str,
        status: Mapping[str, Any],
        namespace: str | None = None,
        *,
        field_manager: str,
        timeout: float | None = None,
    ) -> Json:
        """Merge ``status`` (the value of that field) by way of the status subresource."""
        return await self.patch_merge(
            resource,
            name,
            {"status": status},
            namespace,
            field_manager=field_manager,
            subresource="status",
            timeout=timeout,
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation_policy: Propagation = "Background",
        grace_period_seconds: int | None = None,
        timeout: float | None = None,
    ) -> Json:
        """Delete; 409 (``stale``) if ``uid`` or ``resource_version`` is given and is not the object's.

        Returns a Status, or the object where finalizers or a grace period keep it for now.
        """
        options: Json = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation_policy,
        }
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if any(preconditions.values()):
            options["preconditions"] = {key: value for key, value in preconditions.items() if value}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        return await self._call("DELETE", resource, resource.path(namespace, name), body=options, timeout=timeout)

    async def raw(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        timeout: float | None = None,
    ) -> bytes:
        """Any request; ``path`` starts with a slash and is sent as it is."""
        return await self._transport.request(
            method,
            path,
            params=params,
            body=body,
            content_type=content_type,
            timeout=self._timeout if timeout is None else timeout,
        )

    async def _locate(
        self, obj: Mapping[str, Any], *, name_required: bool = True
    ) -> tuple[Resource, str | None, str | None]:
        metadata = obj.get("metadata", {})
        if not name_required and metadata.get("generateName") and not metadata.get("name"):
            obj = {**obj, "metadata": {**metadata, "name": metadata["generateName"]}}
        api_version, kind, name, namespace = identity(obj)
        resource = await self.resource_for(api_version, kind)
        if resource.namespaced and namespace is None:
            raise ValueError(f"{kind} {name} needs metadata.namespace")
        return resource, name, namespace

    async def _page(self, resource: Resource, path: str, params: Mapping[str, str], timeout: float | None) -> _Page:
        body = await self._send("GET", resource, path, params, timeout=timeout)
        try:
            return _page_decoder.decode(body)
        except UNREADABLE as error:
            raise BadAnswer(f"cluster {self.cluster}: GET {path}: not a list: {error}") from error

    async def _call(
        self,
        method: str,
        resource: Resource,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        timeout: float | None = None,
    ) -> Json:
        answer = await self._send(method, resource, path, params, body=body, content_type=content_type, timeout=timeout)
        try:
            return _object_decoder.decode(answer)
        except UNREADABLE as error:
            raise BadAnswer(f"cluster {self.cluster}: {method} {path}: not an object: {error}") from error

    async def _send(
        self,
        method: str,
        resource: Resource,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        timeout: float | None = None,
    ) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        try:
            return await self.raw(method, path, params=params, body=data, content_type=content_type, timeout=timeout)
        except ApiStatusError as error:
            if not error.path_missing:
                raise
            self._discovery.forget(resource.api_version)
            raise NotServed(self.cluster, resource.api_version, resource.kind) from error


class _Discovery:
    """Cache of what the server serves, one group and version at a time."""

    def __init__(self, client: KubeClient, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[str, dict[str, Resource]] = {}
        self._asked: dict[str, float] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def forget(self, api_version: str) -> None:
        self._known.pop(api_version, None)

    async def find(self, api_version: str, kind: str) -> Resource:
        found = WELL_KNOWN.get((api_version, kind)) or self._known.get(api_version, {}).get(kind)
        if found is not None:
            return found
        async with self._locks.setdefault(api_version, asyncio.Lock()):
            found = self._known.get(api_version, {}).get(kind)
            asked = self._asked.get(api_version)
            if found is None and (asked is None or self._clock() - asked >= DISCOVERY_HOLD_SECONDS):
                found = (await self.ask(api_version)).get(kind)
        if found is None:
            raise NotServed(self._client.cluster, api_version, kind)
        return found

    async def ask(self, api_version: str) -> dict[str, Resource]:
        kinds = await self._fetch(api_version)
        self._known[api_version], self._asked[api_version] = kinds, self._clock()
        return dict(kinds)

    async def _fetch(self, api_version: str) -> dict[str, Resource]:
        path = group_version_path(api_version)
        try:
            body = await self._client.raw("GET", path)
        except ApiStatusError as error:
            if error.not_found:
                return {}
            raise
        try:
            return parse_discovery(api_version, body)
        except UNREADABLE as error:
            raise BadAnswer(f"cluster {self._client.cluster}: GET {path}: not a discovery document") from error


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    pairs = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in pairs.items() if value}
