"""Wires the dispatcher."""

from __future__ import annotations

from services.dispatcher.app import DispatcherService
from services.dispatcher.settings import DispatcherSettings


def build(settings: DispatcherSettings | None = None) -> DispatcherService:
    """Returns the service, with settings from the environment unless given."""
    return DispatcherService(settings or DispatcherSettings())
