"""The scheduler's memory: a cache of topics, owned by the caller and changed only by `decide`."""

from __future__ import annotations

from services.scheduler.core.settings import Settings


class State:
    """A fresh state knows nothing and decides nothing until it is given `Started`."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
