"""Runs the drives of many clusters on the event loop in real time, without polling: on changes and on wake-ups."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sim.api.errors import ApiError
from sim.model.api import Ref, Write
from sim.model.drive import Drive, OnError

logger = logging.getLogger(__name__)
# Reconciles in one go, so that a burst in one cluster does not keep the loop from serving requests.
SLICE = 50


def _log(cluster: str) -> OnError:
    def log(controller: str, about: Write | Ref, error: Exception) -> None:
        known = isinstance(error, ApiError)
        logger.log(
            logging.INFO if known else logging.WARNING, "cluster %s: %s: %s: %r", cluster, controller, about, error
        )

    return log


class Runner:
    """Settles each drive when it has work or a wake-up is due. `clock` gives epoch seconds.

    To be used inside a running event loop; drives may be added and removed at any time.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Drive, asyncio.TimerHandle] = {}
        self._ready: dict[Drive, asyncio.Handle] = {}
        self._drives: dict[Drive, None] = {}

    def add(self, drive: Drive) -> None:
        """Starts to run a drive."""
        self._drives[drive] = None
        drive.on_work = lambda: self._soon(drive)
        if drive.on_error is None:
            drive.on_error = _log(drive.store.name)
        self._soon(drive)

    def remove(self, drive: Drive) -> None:
        """Stops to run a drive; its objects stay as they are."""
        self._drives.pop(drive, None)
        drive.on_work = None
        for handles in (self._timers, self._ready):
            handle = handles.pop(drive, None)
            if handle is not None:
                handle.cancel()

    def close(self) -> None:
        """Stops to run all drives."""
        for drive in list(self._drives):
            self.remove(drive)

    def _soon(self, drive: Drive) -> None:
        if drive in self._drives and drive not in self._ready:
            self._ready[drive] = self._loop.call_soon(self._run, drive)

    def _run(self, drive: Drive) -> None:
        self._ready.pop(drive, None)
        timer = self._timers.pop(drive, None)
        if timer is not None:
            timer.cancel()
        try:
            done = drive.settle(self._clock(), SLICE)
        except Exception:
            # One cluster's trouble is not the others'.
            logger.exception("cluster %s: the controllers have stumbled", drive.store.name)
            done = not drive.busy
        if not done:
            self._soon(drive)
            return
        wake_at = drive.next_wake()
        if wake_at is not None:
            delay = max(0.0, wake_at - self._clock())
            self._timers[drive] = self._loop.call_later(delay, self._run, drive)
