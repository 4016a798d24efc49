"""`gpufleet replay`, and `explain` of a past decision: what the history says, made again by the code that decided."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpufleet.bus.client import read_topics
from gpufleet.bus.records import Record
from gpufleet.bus.settings import KafkaSettings
from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.live import SOURCE, reaching_kafka
from gpufleet.cli.output import Format, note, out, show_documents, show_json, table
from gpufleet.cli.show import reasons_table, sentence
from gpufleet.model.log import HistoryEntry
from gpufleet.model.placement import Version
from gpufleet.wire.documents import dump_placement
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import parse_history
from gpufleet.wire.records_base import parse_time, render_time
from gpufleet.wire.records_keys import HISTORY
from services.scheduler.core.compare import OF_BLOCKS, blind_for_blocks
from services.scheduler.core.evidence import Evidence, Rest
from services.scheduler.core.replay import replay as make_again
from services.scheduler.history import Replayed, Result, all_again, decide_again, evidence_of


def read_log(kafka: KafkaSettings, workload: str) -> list[HistoryEntry]:
    """Returns the decisions on the history, in the order in which they were written. Raises CliError."""
    with reaching_kafka():
        records = asyncio.run(read_topics(kafka, ["history"], source=SOURCE))
    return _parsed(record for record in records if not workload or record.key == workload)


def read_file(path: str, workload: str) -> list[HistoryEntry]:
    """Returns the decisions of a file with the value of one record in every line; ``-`` is standard input.

    Raises CliError where nothing in it can be read.
    """
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CliError(f"{path}: {error.strerror or error}") from error
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    found = _parsed(_record(path, number, line) for number, line in lines)
    if lines and not found:
        raise CliError(f"{path}: no line of it can be read; write the value of one record of {HISTORY} in every line")
    return [entry for entry in found if not workload or entry.workload == workload]


def _record(path: str, number: int, line: bytes) -> Record:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    key = str(value.get("workload") or "") if isinstance(value, dict) else ""
    return Record(f"{path} line", 0, number, key or "-", line, {}, 0.0)


def _parsed(records: Iterable[Record]) -> list[HistoryEntry]:
    found = []
    for record in records:
        try:
            found.append(parse_history(record))
        except RecordError as error:
            where = f"{record.topic} {record.offset}"
            note(f"warning: {where} cannot be read and is left out: {error}")
    return found


def chosen(entries: Sequence[HistoryEntry], at: str, decision: str) -> list[HistoryEntry]:
    """Returns the decisions that are meant: all, the one of a version, or of each workload the last one up to a time.

    Raises CliError for what is no version or time.
    """
    if decision:
        epoch, _, version = decision.partition(".")
        if not (epoch.isdigit() and version.isdigit()):
            raise CliError(f"{decision!r} is no decision; give EPOCH.VERSION as `gpufleet replay` prints them")
        return [entry for entry in entries if entry.version == Version(int(epoch), int(version))]
    if not at:
        return list(entries)
    try:
        until = parse_time(at)
    except ValueError:
        raise CliError(f"{at!r} is no time; write it as 2026-01-31T12:00:00Z") from None
    last: dict[str, HistoryEntry] = {}
    for entry in entries:
        known = last.get(entry.workload)
        if entry.decided_at <= until and (known is None or entry.version >= known.version):
            last[entry.workload] = entry
    return [last[workload] for workload in sorted(last)]


def show(entries: Sequence[HistoryEntry], format_: Format) -> None:
    """Makes decisions again and prints what came of it. Raises CliError if any is another one."""
    results = all_again(entries)
    if format_ in (Format.JSON, Format.YAML):
        value = {"decisions": [_object(result) for result in results]}
        show_json(value) if format_ is Format.JSON else show_documents([value], format_)
    elif format_ is Format.NAME:
        for result in results:
            out(f"{result.entry.workload} {_id(result.entry)}")
    else:
        table(
            ["workload", "decision", "decided", "verdict", "placed", "again"],
            [[*_row(result.entry), result.result.value] for result in results],
        )
        for result in results:
            if result.told and (result.result is not Result.FOLLOWS or format_ is Format.WIDE):
                out()
                out(f"{result.entry.workload} {_id(result.entry)} is {_AGAIN[result.result]}")
                for text in result.told:
                    out(f"  {text}")
    count = {kind: sum(r.result is kind for r in results) for kind in Result}
    note(", ".join([_decisions(len(results)), *(f"{n} {kind.value}" for kind, n in count.items() if n)]))
    if count[Result.DIFFERENT]:
        raise CliError(f"not the same when made again: {_decisions(count[Result.DIFFERENT])}", Exit.FAILED)


def _decisions(count: int) -> str:
    return f"{count} decision{'' if count == 1 else 's'}"


_AGAIN = {
    Result.SAME: "the same",
    Result.DIFFERENT: "another one when it is made again",
    Result.INEXACT: "not to be made again exactly: its record was cut",
    Result.FOLLOWS: "not made by itself",
    Result.UNKNOWN: "not to be made again",
}


def _id(entry: HistoryEntry) -> str:
    return f"{entry.version.epoch}.{entry.version.version}"


def _row(entry: HistoryEntry) -> list[str]:
    placement = entry.placement
    verdict, placed = (
        ("-", "-")
        if placement is None
        else (
            placement.verdict.value,
            f"{placement.placed}/{placement.replicas}",
        )
    )
    return [entry.workload, _id(entry), render_time(entry.decided_at), verdict, placed]


def _object(result: Replayed) -> dict[str, Any]:
    workload, decision, decided, verdict, placed = _row(result.entry)
    return {
        "workload": workload,
        "decision": decision,
        "decidedAt": decided,
        "verdict": verdict,
        "placed": placed,
        "again": result.result.value,
        "told": list(result.told),
    }


# -- explain of a past decision --------------------------------------------------------------------------------------


def explain(entries: Sequence[HistoryEntry], name: str, format_: Format) -> None:
    """Says why a workload was where it was, cluster by cluster, also of those that the placement had no place for.

    Raises CliError where the history has no such decision.
    """
    entry = max(entries, key=lambda e: e.version, default=None)
    if entry is None or entry.placement is None:
        raise CliError(
            f"the history has no such decision about {name}; `gpufleet replay {name}` lists those that it has"
        )
    result = decide_again(entry)
    placement = entry.placement
    rest: list[tuple[str, str]] = []
    if result.result is Result.SAME:
        evidence = evidence_of(entry)
        placement = replace(placement, reasons=_all_reasons(entry, evidence))
        rest = [row for group in evidence.rest for row in _left(group)]
    else:
        note(f"warning: only what was recorded is shown; made again it is {result.result.value}: {result.told[0]}")
    if format_ in (Format.JSON, Format.YAML):
        document = dump_placement(placement, {}, slots=True)
        more = {"decision": _id(entry), "decidedAt": render_time(entry.decided_at), "again": result.result.value}
        left = {"others": [{"cluster": cluster, "message": text} for cluster, text in rest]} if rest else {}
        show_documents([document | more | left], format_)
        return
    out(sentence(placement))
    out(f"Decided at {render_time(entry.decided_at)}, decision {_id(entry)}; made again it is {result.result.value}.")
    reasons_table(placement)
    if rest:
        out()
        table(["other cluster", "room"], rest)


def _all_reasons(entry: HistoryEntry, evidence: Evidence) -> tuple[Any, ...]:
    """Returns the reasons of every cluster that is known; of what the record only counts, the rest of it."""
    assert entry.placement is not None
    recorded = entry.placement.reasons
    again = make_again(evidence, everything=True)
    known = {(reason.code, reason.cluster) for reason in recorded}
    names, blind = {cluster.name for cluster in evidence.clusters}, blind_for_blocks(evidence)
    more = tuple(
        replace(reason, message=_NO_ROOM) if reason.cluster in blind and reason.code in OF_BLOCKS else reason
        for reason in (again.reasons if again is not None else ())
        if reason.cluster in names and (reason.code, reason.cluster) not in known
    )
    counted = evidence.more > 0
    told = not counted or evidence.rest or evidence.refused
    kept = tuple(r for r in recorded if r.cluster or not told or not r.message.endswith(" more clusters"))
    return (*kept, *more, *evidence.refused)


# Where the record has no free blocks that could be told of.
_NO_ROOM = "had no room for more of its pods"


def _left(group: Rest) -> list[tuple[str, str]]:
    stock = group.stock or (0,) * len(group.clusters)
    rooms = zip(group.clusters, group.running, stock, strict=True)
    return [(cluster, _room(running, more)) for cluster, running, more in rooms]


def _room(running: int, stock: int) -> str:
    if not running and not stock:
        return "had no room for a pod"
    created = f" and {stock} on nodes that could be created" if stock else ""
    return f"had room for {running} pods{created}, and was given none"
