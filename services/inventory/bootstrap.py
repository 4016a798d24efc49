"""Wires inventory."""

from __future__ import annotations

from services.inventory.app import InventoryService
from services.inventory.settings import InventorySettings


def build(settings: InventorySettings | None = None) -> InventoryService:
    """Returns the service, with settings from the environment unless given."""
    return InventoryService(settings or InventorySettings())
