"""Past decisions: from the core to the record on the log and back."""

from __future__ import annotations

from gpufleet.bus.records import Record
from gpufleet.model.log import HistoryEntry
from gpufleet.wire.records import dump_history, parse_history
from services.scheduler.core.outputs import Outputs
from services.scheduler.history import Replayed, Result, all_again, history


def through_json(entry: HistoryEntry) -> HistoryEntry:
    """Returns a decision as a reader of the log gets it."""
    return parse_history(Record("gpufleet.history", 0, 0, entry.workload, dump_history(entry), {}, 0.0))


def again(out: Outputs) -> list[Replayed]:
    """Returns what comes of making every decision of some outputs again, from their records."""
    return all_again([through_json(history(entry)) for entry in out.history])


def same_again(out: Outputs) -> None:
    """Asserts that every decision of some outputs is the same again.

    Whoever lets a decision depend on something new adds it to `witness` and `evidence`.
    """
    for made in again(out):
        assert made.result is Result.SAME, (made.entry.workload, made.result.value, *made.told)
