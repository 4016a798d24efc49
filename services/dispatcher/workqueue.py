"""A queue of keys, as in client-go (`util/workqueue`): a key is worked on by one task at a time and waits once."""

from __future__ import annotations

import asyncio


class WorkQueue:
    """Keys to be looked at. Not for several threads.

    A key that is added while it is worked on comes again afterwards. Of several delays of a key the shortest counts.
    """

    def __init__(self) -> None:
        self._ready: dict[str, None] = {}  # ordered sets
        self._background: dict[str, None] = {}  # taken when nothing else is ready
        self._active: set[str] = set()
        self._again: set[str] = set()  # active, and to come again
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait to be worked on."""
        return len(self._ready) + len(self._background) + len(self._again)

    def add(self, key: str, *, background: bool = False) -> None:
        """Makes a key ready; in the background, where it waits for all others."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._active:
            self._again.add(key)
        elif not background:
            self._background.pop(key, None)
            self._ready[key] = None
        elif key not in self._ready:
            self._background[key] = None
        self._wake.set()

    def add_after(self, key: str, delay: float) -> None:
        """Makes a key ready after ``delay`` seconds, unless it is before."""
        if delay <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        known = self._timers.get(key)
        if known is not None:
            if known.when() <= loop.time() + delay:
                return
            known.cancel()
        self._timers[key] = loop.call_later(delay, self.add, key)

    async def get(self) -> str:
        """Waits for a key; `done` must follow."""
        while not self._ready and not self._background:
            self._wake.clear()
            await self._wake.wait()
        keys = self._ready or self._background
        key = next(iter(keys))
        del keys[key]
        self._active.add(key)
        return key

    def done(self, key: str) -> None:
        """The work on a key has ended."""
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Drops everything that waits."""
        for timer in self._timers.values():
            timer.cancel()
        for keys in (self._timers, self._ready, self._background, self._again):
            keys.clear()
