"""A queue of keys, as in client-go (`util/workqueue`): a key is worked on by one task at a time and waits once."""

from __future__ import annotations

import asyncio
from collections import deque


class WorkQueue:
    """Keys to be looked at. Not for several threads.

    A key that is added while it is worked on comes again afterwards. Of several delays of a key the shortest counts.
    """

    def __init__(self) -> None:
        self._ready: deque[str] = deque()
        self._later: deque[str] = deque()  # of lower rank: taken when nothing else is ready
        self._waiting: set[str] = set()
        self._active: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that are ready and not worked on yet."""
        return len(self._waiting)

    def add(self, key: str, *, background: bool = False) -> None:
        """Makes a key ready; in the background, where it waits for all others."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._active:
            (self._later if background else self._ready).append(key)
            self._wake.set()

    def add_after(self, key: str, delay: float) -> None:
        """Makes a key ready after ``delay`` seconds, unless it is before."""
        if delay <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        known = self._timers.get(key)
        if key in self._waiting or (known is not None and known.when() <= loop.time() + delay):
            return
        if known is not None:
            known.cancel()
        self._timers[key] = loop.call_later(delay, self.add, key)

    async def get(self) -> str:
        """Waits for a key; `done` must follow."""
        while not self._ready and not self._later:
            self._wake.clear()
            await self._wake.wait()
        key = (self._ready or self._later).popleft()
        self._waiting.discard(key)
        self._active.add(key)
        return key

    def done(self, key: str) -> None:
        """The work on a key has ended."""
        self._active.discard(key)
        if key in self._waiting:
            self._ready.append(key)
            self._wake.set()

    def close(self) -> None:
        """Drops everything that waits."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._later.clear()
        self._waiting.clear()
