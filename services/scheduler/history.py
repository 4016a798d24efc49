"""The value of `gpufleet.history`: a decision with what it was derived from, written, read, and made again.

What the core knew is written in its own types, so a record is read by schedulers of the same format only. A record has
a bound; what has no place in it is left out and named, and then the decision cannot be made again exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from gpufleet.model import log
from gpufleet.model.manifest import PackedManifest
from gpufleet.model.placement import Version
from services.scheduler.core.compare import differences, loses_alike
from services.scheduler.core.evidence import FORMAT, Evidence
from services.scheduler.core.outputs import HistoryEntry
from services.scheduler.core.replay import consequences, replay
from services.scheduler.core.testimony import cut, testify

# Bytes of the state; the placement and the rest of the record come on top.
MOST: Final = 600_000


class Result(StrEnum):
    """What came of making a decision again."""

    SAME = "same"
    DIFFERENT = "different"
    INEXACT = "inexact"  # too much is left out of the record
    FOLLOWS = "follows"  # a consequence of another workload's decision, which is not at hand
    UNKNOWN = "unknown"  # no state, or one that this version does not read


@dataclass(frozen=True, slots=True)
class Replayed:
    """A past decision that was made again. ``told``: the differences, or why it could not be compared."""

    entry: log.HistoryEntry
    result: Result
    told: tuple[str, ...] = ()


class UnknownState(ValueError):
    """The state of a record is missing, or is none that this version reads."""


def history(entry: HistoryEntry, most: int = MOST) -> log.HistoryEntry:
    """Returns the record of a decision, with a state of at most so many bytes."""
    settings: Mapping[str, Any] = {}
    state: Mapping[str, Any] = {}
    omitted: tuple[str, ...] = ()
    if entry.witness is not None:
        evidence, text = _bounded(testify(entry.witness), most)
        state, omitted = PackedManifest.of_json(text), evidence.left_out
        settings = asdict(evidence.settings)
    return log.HistoryEntry(
        workload=entry.workload,
        version=entry.version,
        decided_at=entry.at,
        trigger=entry.mode,
        settings=settings,
        placement=entry.placement,
        omitted=omitted,
        state=state,
        because=entry.because,
    )


def _bounded(evidence: Evidence, most: int) -> tuple[Evidence, bytes]:
    kept, text, step = evidence, _ENCODER.encode(evidence), 0
    while len(text) > most and (less := cut(evidence, step)) is not None:
        kept, text, step = less, _ENCODER.encode(less), step + 1
    return kept, text


def evidence_of(entry: log.HistoryEntry) -> Evidence:
    """Returns what a decision saw. Raises UnknownState."""
    if not entry.state:
        raise UnknownState("the record has no state: it was written by an earlier scheduler")
    found = entry.state.get("format")
    if found != FORMAT:
        raise UnknownState(f"the record's state has format {found}; this version reads format {FORMAT}")
    try:
        return msgspec.convert(entry.state, Evidence)
    except msgspec.ValidationError as error:
        raise UnknownState(f"the record's state cannot be read: {error}") from error


def decide_again(entry: log.HistoryEntry, cause: log.HistoryEntry | None = None, number: int = 0) -> Replayed:
    """Makes a past decision again from its record, and says whether it is the same.

    A consequence of another one is made from that record, the ``cause``, if it is given; ``number`` counts those for
    the same workload before it.
    """
    if entry.because and (cause is None or entry.placement is None):
        return Replayed(entry, Result.FOLLOWS, (f"a consequence of the decision on {entry.because}",))
    if entry.placement is None:
        return Replayed(entry, Result.UNKNOWN, ("the record does not say what was decided",))
    try:
        evidence = evidence_of(cause if cause is not None else entry)
    except UnknownState as error:
        return Replayed(entry, Result.UNKNOWN, (str(error),))
    if evidence.left_out:
        return Replayed(entry, Result.INEXACT, tuple(f"not in the record: {what}" for what in evidence.left_out))
    if evidence.key != (entry.because or entry.workload):
        return Replayed(entry, Result.DIFFERENT, (f"the state is that of {evidence.key}",))
    try:
        if entry.because:
            made = consequences(evidence, entry.workload)
            found = loses_alike(entry.placement, made[number] if number < len(made) else None)
        else:
            found = differences(entry.placement, replay(evidence), evidence)
    except ValueError as error:
        return Replayed(entry, Result.UNKNOWN, (f"the record's state makes no sense: {error}",))
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # The types of a state are checked, but not that it makes sense.
        return Replayed(entry, Result.UNKNOWN, (f"the record's state makes no sense: {error!r}",))
    return Replayed(entry, Result.DIFFERENT if found else Result.SAME, tuple(found))


def all_again(entries: Sequence[log.HistoryEntry]) -> list[Replayed]:
    """Makes decisions again; consequences from the decisions that they follow from, as far as these are among them.

    A consequence is written before its cause: the next decision at that time on the workload that it names.
    """
    made: dict[tuple[str, float], list[log.HistoryEntry]] = {}
    for entry in entries:
        made.setdefault((entry.workload, entry.decided_at), []).append(entry)
    results = []
    before: dict[tuple[str, Version], int] = {}
    for entry in entries:
        later = (other for other in made.get((entry.because, entry.decided_at), ()) if other.version > entry.version)
        cause = min(later, key=lambda other: other.version, default=None) if entry.because else None
        number = 0
        if cause is not None:
            key = (entry.workload, cause.version)
            number = before.get(key, 0)
            before[key] = number + 1
        results.append(decide_again(entry, cause, number))
    return results


def _plain(value: object) -> msgspec.Raw:
    if isinstance(value, PackedManifest):
        return msgspec.Raw(value.json)
    raise TypeError(f"{type(value).__name__} is no JSON")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
