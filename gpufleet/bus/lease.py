"""How long a member of a consumer group may still believe that it is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

SAFE_SHARE: Final = 2 / 3


class Lease:
    """Time since the last heartbeat that the group's coordinator accepted.

    aiokafka has no public word on heartbeats: `Consumer.last_poll_timestamp` tells of fetches, which a broker answers
    whoever is a member. So the coroutine that sends one heartbeat (`GroupCoordinator._do_heartbeat`, True when
    accepted) is wrapped on the consumer's coordinator. What counts is the moment before the request was sent: the
    coordinator's own clock for this member started not earlier. An accepted join counts as a heartbeat.
    """

    def __init__(self, session_timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.session_timeout = session_timeout
        self._clock = clock
        self._last = float("-inf")

    def attach(self, consumer: Any) -> None:
        """Watch the heartbeats of an aiokafka consumer that has a group. Safe to repeat.

        Raises RuntimeError for an aiokafka whose coordinator is built otherwise: silence would mean two leaders.
        """
        coordinator: Any = getattr(consumer, "_coordinator", None)
        beat = getattr(coordinator, "_do_heartbeat", None)
        if beat is None or not hasattr(coordinator, "generation"):
            raise RuntimeError("this aiokafka has no GroupCoordinator._do_heartbeat; gpufleet needs aiokafka 0.14")
        if getattr(beat, "watched_by", None) is self:
            return

        async def watched() -> bool:
            sent = self._clock()
            accepted: bool = await beat()
            if accepted:
                self.renew(sent)
            elif coordinator.generation < 0:  # the coordinator does not know this member any more
                self.drop()
            return accepted

        watched.watched_by = self  # type: ignore[attr-defined]
        coordinator._do_heartbeat = watched

    def renew(self, at: float | None = None) -> None:
        """A heartbeat that was sent `at` (clock of this object; default now) was accepted."""
        self._last = max(self._last, self._clock() if at is None else at)

    def drop(self) -> None:
        """The member is none any more."""
        self._last = float("-inf")

    @property
    def age(self) -> float:
        """Seconds since the last accepted heartbeat; infinite without one."""
        return self._clock() - self._last

    @property
    def safe(self) -> bool:
        """Whether something may be sent: no later than 2/3 of the session time-out after the last heartbeat."""
        return self.age <= self.session_timeout * SAFE_SHARE

    @property
    def expired(self) -> bool:
        """Whether the group has surely given the member's share to another one."""
        return self.age > self.session_timeout
