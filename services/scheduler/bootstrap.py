"""Wires the scheduler."""

from __future__ import annotations

from services.scheduler.app import SchedulerService
from services.scheduler.settings import SchedulerSettings


def build(settings: SchedulerSettings | None = None) -> SchedulerService:
    """Returns the service, with settings from the environment unless given."""
    return SchedulerService(settings or SchedulerSettings())
