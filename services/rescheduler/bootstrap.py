"""Wires the rescheduler."""

from __future__ import annotations

from services.rescheduler.app import ReschedulerService
from services.rescheduler.settings import ReschedulerSettings


def build(settings: ReschedulerSettings | None = None) -> ReschedulerService:
    """Returns the service, with settings from the environment unless given."""
    return ReschedulerService(settings or ReschedulerSettings())
