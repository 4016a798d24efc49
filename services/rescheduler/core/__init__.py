"""The pure part of the rescheduler: what has to move, and how often it may."""

from __future__ import annotations

from services.rescheduler.core.decide import decide
from services.rescheduler.core.state import Limits, State

__all__ = ["Limits", "State", "decide"]
