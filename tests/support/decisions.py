"""Past decisions: from the core to the record on the log and back."""

from __future__ import annotations

from gpufleet.bus.records import Record
from gpufleet.model.log import HistoryEntry
from gpufleet.wire.records import dump_history, parse_history
from services.scheduler.core.outputs import Outputs
from services.scheduler.history import Replayed, all_again, history


def through_json(entry: HistoryEntry) -> HistoryEntry:
    """Returns a decision as a reader of the log gets it."""
    return parse_history(Record("gpufleet.history", 0, 0, entry.workload, dump_history(entry), {}, 0.0))


def again(out: Outputs) -> list[Replayed]:
    """Returns what comes of making every decision of some outputs again, from their records."""
    return all_again([through_json(history(entry)) for entry in out.history])
