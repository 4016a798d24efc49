"""The one entry: apply events to the tables, decide what they concern, and say what to write."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.core.events import Event
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.state import State


def decide(state: State, events: Sequence[Event], now: float) -> Outputs:
    """Applies a batch of events at ``now`` (epoch seconds) and returns what follows from it.

    The same state, events and time give the same outputs in the same order. Before `Started` (and after `Stopped`)
    only the tables are kept, and the outputs are empty.
    """
    raise NotImplementedError
