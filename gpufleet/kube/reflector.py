"""List and watch: keeps a sink in step with a kind in one cluster.

Three layers, as in kopf (``kopf/_cogs/clients/watching.py``):

1. ``run`` never ends; it alone waits, with full jitter, after a round that failed or made no progress;
2. ``_follow`` is a round: a list where there is no resourceVersion to go on from, then a watch;
3. ``_watch`` is one HTTP call, ended by the server after a jittered ``timeoutSeconds``.

A broken watch is resumed where it stopped. A 410, as HTTP status or as an ERROR event over a 200, makes the
reflector list again: the sink then gets everything that exists, so deletions that were missed are seen.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from gpufleet.kube.client import PAGE_SIZE, Json, KubeClient
from gpufleet.kube.errors import UNREADABLE, ApiStatusError, BadAnswer, KubeError, status_error
from gpufleet.kube.resources import Resource
from gpufleet.kube.retry import Backoff, Random, Sleep

logger = logging.getLogger(__name__)

T = TypeVar("T")
Decode = Callable[[msgspec.Raw], T]


@dataclass(frozen=True, slots=True)
class Replaced(Generic[T]):
    """Everything that exists, as of ``resource_version``; what is not in it is gone."""

    items: list[T]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    """An object was added or modified (the two are not told apart: a sink must bear either at any time)."""

    item: T


@dataclass(frozen=True, slots=True)
class Removed(Generic[T]):
    """An object was deleted or does not match the selectors any more; ``item`` is its last state."""

    item: T


Change: TypeAlias = Replaced[T] | Changed[T] | Removed[T]


class Sink(Protocol[T]):
    """Where changes go, in order. Called synchronously, so it should be quick.

    An exception from it is logged; the reflector lists again, since the sink has then missed something.
    """

    def apply(self, change: Replaced[T] | Changed[T] | Removed[T], /) -> None: ...


@dataclass(slots=True)
class ReflectorStats:
    """Counters since the start, plain numbers for a metrics collector; times are ``clock()`` seconds."""

    lists: int = 0  # all after the first are relists
    watches: int = 0
    events: int = 0
    bookmarks: int = 0
    failures: int = 0
    expired: int = 0  # 410s
    undecodable: int = 0
    sink_errors: int = 0
    last_event: float | None = None


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    namespace: str = ""
    name: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_event_decoder = msgspec.json.Decoder(_Event)
_object_decoder = msgspec.json.Decoder(_Object)
_dict_decoder = msgspec.json.Decoder(dict[str, Any])

# A watch that lived so long was not refused in disguise, whether or not anything happened in it.
SETTLED_SECONDS = 5.0


class Reflector(Generic[T]):
    """Keeps ``sink`` in step with the objects of one kind. Start it with ``run()`` in a task; cancel to stop.

    ``synced`` is set once the first list has reached the sink, ``last_contact`` is the ``clock()`` (monotonic
    seconds) at which the server was last heard (None: never), ``last_error`` what went wrong since then.
    """

    def __init__(
        self,
        client: KubeClient,
        api_version: str,
        kind: str,
        sink: Sink[T],
        decode: Decode[T],
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = PAGE_SIZE,
        watch_seconds: tuple[int, int] = (240, 300),
        grace: float = 15.0,
        backoff: Backoff | None = None,
        sleep: Sleep = asyncio.sleep,
        random: Random = random_module.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``decode`` turns the JSON of one object into what the sink takes.

        See :mod:`gpufleet.kube.structs`; :func:`decode_json` gives dicts. An object that it cannot decode
        (msgspec.DecodeError or ValueError) is left out, logged and counted; the others go on. ``watch_seconds``
        are the bounds of the jittered ``timeoutSeconds``; silence of that plus ``grace`` seconds ends a watch.
        """
        self._client = client
        self._api_version = api_version
        self._kind = kind
        self._sink = sink
        self._decode = decode
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._page_size = page_size
        self._watch_seconds = watch_seconds
        self._grace = grace
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._random = random
        self._clock = clock
        self._resource: Resource | None = None
        self._resource_version: str | None = None
        self._progress = False
        self.synced = asyncio.Event()
        self.last_contact: float | None = None
        self.last_error: KubeError | None = None
        self.stats = ReflectorStats()

    async def run(self) -> None:
        """List and watch until cancelled. Never returns and raises nothing but CancelledError."""
        attempt = 0
        while True:
            self._progress = False
            failure = await self._round()
            if self._progress:
                attempt = 0
                if failure is None:
                    continue
            asked = failure.retry_after if isinstance(failure, ApiStatusError) else None
            await self._sleep(self._backoff.delay(attempt, self._random, asked))
            attempt += 1

    async def _round(self) -> Exception | None:
        try:
            await self._follow()
        except KubeError as error:
            self.stats.failures += 1
            if str(error) != str(self.last_error):
                logger.warning("reflector of %s: %s", self._label, error)
            self.last_error = error
            return error
        except Exception as error:
            # From the sink, or a fault in here: what the sink knows is not certain any more.
            self._resource_version = None
            self.stats.sink_errors += 1
            logger.exception("reflector of %s: a change could not be taken in, listing again", self._label)
            return error
        return None

    async def _follow(self) -> None:
        """List where there is nothing to go on from, then one watch."""
        if self._resource_version is None:
            await self._list()
        if self._resource_version is not None:
            await self._watch(self._resource_version)

    async def _list(self) -> None:
        resource = await self._client.resource_for(self._api_version, self._kind)
        listing = await self._client.list_decoded(
            resource,
            self._decode_or_skip,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            page_size=self._page_size,
            on_page=self._heard,
        )
        if not listing.resource_version:
            raise BadAnswer(f"list of {self._label}: no resourceVersion")
        self._resource = resource
        self.stats.lists += 1
        items = [item for item in listing.items if item is not None]
        self._sink.apply(Replaced(items, listing.resource_version))
        self._resource_version = listing.resource_version
        self.synced.set()

    async def _watch(self, since: str) -> None:
        assert self._resource is not None
        low, high = self._watch_seconds
        opened: float | None = None
        try:
            async with self._client.open_watch(
                self._resource,
                since,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                seconds=low + int((high - low) * self._random()),
                grace=self._grace,
            ) as lines:
                opened = self._clock()
                self.stats.watches += 1
                self._heard()
                async for line in lines:
                    self._heard()
                    self._take(line)
                    if self._resource_version is None:
                        return
                    self._progress = self._progress or self._resource_version != since
        except ApiStatusError as error:
            if error.path_missing or error.invalid:
                self._resource_version = None
            if not error.expired:
                raise
            self._expire()
        finally:
            if opened is not None and self._clock() - opened >= SETTLED_SECONDS:
                self._progress = True

    def _take(self, line: bytes) -> None:
        """Hand one line of a watch to the sink and note its resourceVersion."""
        try:
            event = _event_decoder.decode(line)
            if event.type == "ERROR":
                self._refused(event.object)
                return
            meta = _object_decoder.decode(event.object).metadata
        except UNREADABLE as error:
            self._resource_version = None
            raise BadAnswer(f"watch of {self._label}: not an event: {error}") from error
        if event.type == "BOOKMARK":
            self.stats.bookmarks += 1
        elif event.type in ("ADDED", "MODIFIED", "DELETED"):
            self.stats.events += 1
            self.stats.last_event = self._clock()
            item = self._decode_or_skip(event.object)
            if item is not None:
                self._sink.apply(Removed(item) if event.type == "DELETED" else Changed(item))
        if meta.resource_version:
            self._resource_version = meta.resource_version

    def _refused(self, status: msgspec.Raw) -> None:
        # After an ERROR event the position is in doubt, whatever the code is.
        error = status_error(0, status, request=f"watch of {self._label}")
        self._resource_version = None
        if not error.expired:
            raise error
        self._expire()

    def _expire(self) -> None:
        self.stats.expired += 1
        self._resource_version = None

    def _heard(self) -> None:
        self.last_contact = self._clock()
        self.last_error = None

    def _decode_or_skip(self, raw: msgspec.Raw) -> T | None:
        try:
            return self._decode(raw)
        except Exception as error:
            self.stats.undecodable += 1
            try:
                meta = _object_decoder.decode(raw).metadata
            except UNREADABLE:
                meta = _Meta(name="?")
            logger.warning(
                "reflector of %s: %s/%s cannot be read and is left out: %s",
                self._label,
                meta.namespace,
                meta.name,
                error,
            )
            return None

    @property
    def _label(self) -> str:
        return f"{self._kind} in cluster {self._client.cluster}"


def decode_json(raw: msgspec.Raw) -> Json:
    """A ``decode`` for sinks that take plain dicts."""
    return _dict_decoder.decode(raw)
