"""Watches: which changes a watcher sees, and their lines on the wire, each encoded once for all watchers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sim.api import codec, errors
from sim.api.changelog import Change
from sim.api.requests import Selection
from sim.api.resources import Resource
from sim.api.store import Store
from sim.api.values import as_served

Json = dict[str, Any]

# Renders an object in the form that the watcher asked for (plain, table, metadata only).
Render = Callable[[Json], Json]


def line(type: str, document: Json) -> bytes:
    """One line of a watch stream."""
    return codec.encode({"type": type, "object": document}) + b"\n"


class Watcher:
    """One watch: takes changes and hands out bytes.

    `form` names the rendering for the cache of encoded lines. A reader that is `limit` lines behind is cut off.
    """

    def __init__(
        self,
        resource: Resource,
        namespace: str | None,
        selection: Selection,
        form: str,
        render: Render,
        limit: int = 20_000,
    ) -> None:
        self.resource = resource
        self.namespace = namespace
        self.selection = selection
        self.version = 0
        """The version up to which the watcher has seen everything."""
        self.closed = False
        self._everything = selection.labels is None and selection.fields is None
        self._cache_key = f"{form}/{resource.group}/{resource.version}"
        self._render = render
        self._limit = limit
        self._lines: list[bytes] = []
        self._ready = asyncio.Event()

    def offer(self, change: Change) -> None:
        """Queue a change of the watched resource if the watcher is to see it."""
        if self.closed or change.version <= self.version:
            return
        self.version = change.version
        if self.namespace is not None and change.key[0] != self.namespace:
            return
        seen = self._as_seen(change)
        if seen is not None:
            self._lines.append(seen)
            if len(self._lines) > self._limit:
                self.close()
            self._ready.set()

    def _as_seen(self, change: Change) -> bytes | None:
        """The line of a change; leaving the selection looks like a deletion, entering it like a creation."""
        if self._everything:
            return self._line(change, change.type, change.obj)
        was = change.old is not None and self.selection.matches(change.old)
        is_now = change.type != "DELETED" and self.selection.matches(change.obj)
        if is_now:
            return self._line(change, "MODIFIED" if was else "ADDED", change.obj)
        if not was:
            return None
        if change.type == "DELETED":
            return self._line(change, "DELETED", change.obj)
        assert change.old is not None
        metadata = {**change.old["metadata"], "resourceVersion": str(change.version)}
        return self._line(change, "DELETED", {**change.old, "metadata": metadata})

    def _line(self, change: Change, type: str, obj: Json) -> bytes:
        key = f"{type}/{self._cache_key}"
        encoded = change.encodings.get(key)
        if encoded is None:
            encoded = line(type, self._render(as_served(self.resource, obj)))
            change.encodings[key] = encoded
        return encoded

    def send(self, type: str, document: Json) -> None:
        """Queue a line that is no change: an initial object, a bookmark, an error."""
        self._lines.append(line(type, document))
        self._ready.set()

    def close(self) -> None:
        """End the watch."""
        self.closed = True
        self._ready.set()

    async def take(self, timeout: float) -> bytes:
        """What is queued, waiting up to `timeout` seconds for something; empty if nothing came or it is closed."""
        if not self._lines and not self.closed:
            try:
                async with asyncio.timeout(timeout):
                    await self._ready.wait()
            except TimeoutError:
                return b""
        self._ready.clear()
        taken, self._lines = b"".join(self._lines), []
        return taken


class Hub:
    """Hands the changes of one store to its watchers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: dict[str, list[Watcher]] = {}
        self.delivered = store.version
        """The version up to which changes have been handed on."""
        store.subscribe(self._deliver)

    def close(self) -> None:
        """Leave the store."""
        self._store.unsubscribe(self._deliver)

    def __len__(self) -> int:
        return sum(len(watchers) for watchers in self._watchers.values())

    def _deliver(self, change: Change) -> None:
        self.delivered = change.version
        for watcher in self._watchers.get(change.resource.storage, ()):
            watcher.offer(change)
        if change.type == "DELETED" and change.resource.plural == "customresourcedefinitions":
            self.drop(change.obj["metadata"]["name"])

    def add(self, watcher: Watcher, since: int | None) -> None:
        """Start a watcher behind the version `since` (None: now), whose changes it gets at once. ApiError 410."""
        if since is not None:
            missed = self._store.changes_since(watcher.resource, since)
            watcher.version = since
            for change in missed:
                watcher.offer(change)
        watcher.version = max(watcher.version, since or 0)
        self._watchers.setdefault(watcher.resource.storage, []).append(watcher)

    def remove(self, watcher: Watcher) -> None:
        """Forget a watcher."""
        watchers = self._watchers.get(watcher.resource.storage, [])
        if watcher in watchers:
            watchers.remove(watcher)

    def drop(self, storage: str | None = None) -> int:
        """End the watches, all or those of one storage; answers how many."""
        dropped = 0
        for name, watchers in self._watchers.items():
            if storage in {None, name}:
                for watcher in watchers:
                    watcher.close()
                    dropped += 1
        return dropped


def bookmark(resource: Resource, version: int, *, initial_end: bool = False) -> Json:
    """The object of a BOOKMARK event."""
    metadata: Json = {"resourceVersion": str(version), "creationTimestamp": None}
    if initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}


def expired_event(error: errors.ApiError) -> bytes:
    """The ERROR line with which a watch from a forgotten version ends."""
    return line("ERROR", error.status())
