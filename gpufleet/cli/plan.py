"""`gpufleet plan` and `gpufleet simulate`: what would happen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpufleet.cli import files
from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.output import Format, note, out, show_json, table
from gpufleet.model.placement import Placement
from gpufleet.model.reasons import Verdict
from gpufleet.wire.documents import dump_placement

if TYPE_CHECKING:
    from gpufleet.wire.documents_scenario import Scenario
    from gpufleet.wire.yaml import Document
    from services.scheduler.core.outputs import HistoryEntry


def plan(paths: Sequence[str], format_: Format, namespace: str) -> None:
    """Prints where the workloads of the documents would go."""
    from gpufleet.wire.documents import lint_clusters, lint_policies
    from services.scheduler.core.select import select
    from sim.plan import plan as decide

    parsed = files.read(paths, namespace=namespace)
    for warning in lint_policies(parsed, lambda workload: select(parsed.policies.values(), workload)):
        note(f"warning: {warning}")
    for warning in lint_clusters(parsed, parsed.clusters):
        note(f"warning: {warning}")
    if not parsed.clusters:
        note("warning: no Cluster documents: nothing can be placed; give a fleet with -f")
    show_steps([(0.0, decide(parsed))], format_)


def simulate(path: str, format_: Format, history: str = "") -> None:
    """Runs the scenario of a file and prints the placements after each step. Raises CliError if an `expect` fails.

    ``history`` is a file for the record of every decision, one a line.
    """
    from gpufleet.wire.documents import DocumentErrors
    from sim.scenario.run import run
    from sim.scenario.steps import compile_script
    from sim.scenario.world import Restless

    document, scenario, beside = _scenario(path)
    folder = Path() if path == "-" else Path(path).parent

    def read(name: str) -> list[Document]:
        return files.load_documents(str(folder / name))

    entries: list[HistoryEntry] = []
    try:
        outcome = run(compile_script(document, scenario, read, beside), entries.append if history else None)
    except (DocumentErrors, Restless) as error:
        raise CliError(str(error)) from error
    for warning in outcome.warnings:
        note(f"warning: {warning}")
    show_steps(outcome.steps, format_)
    if history:
        _write_history(history, entries)
    if outcome.failures:
        count = len(outcome.failures)
        raise CliError(
            "\n".join([f"{count} expectation{'s' if count > 1 else ''} failed", *outcome.failures]), Exit.FAILED
        )


def _write_history(path: str, entries: Sequence[HistoryEntry]) -> None:
    from gpufleet.wire.records import dump_history
    from services.scheduler.history import history

    try:
        Path(path).write_bytes(b"".join(dump_history(history(entry)) + b"\n" for entry in entries))
    except OSError as error:
        raise CliError(f"{path}: {error.strerror or error}") from error


def _scenario(path: str) -> tuple[Document, Scenario, list[Document]]:
    """Returns the one Scenario of a file, and the documents beside it. Raises CliError."""
    from gpufleet.wire.documents import DocumentErrors, parse_documents

    documents = files.load_documents(path)
    beside = [document for document in documents if document.manifest.get("kind") != "Scenario"]
    scenarios = [document for document in documents if document.manifest.get("kind") == "Scenario"]
    if len(scenarios) != 1 and not any(document.errors for document in documents):
        raise CliError(f"{path}: has {len(scenarios)} Scenario documents; simulate takes one")
    try:
        parsed = parse_documents(scenarios or documents)
    except DocumentErrors as error:
        raise CliError(str(error)) from error
    for warning in parsed.warnings:
        note(f"warning: {warning}")
    assert parsed.scenario is not None
    return scenarios[0], parsed.scenario, beside


def show_steps(steps: Sequence[tuple[float, Sequence[Placement]]], format_: Format) -> None:
    """Prints placements after each step: one JSON document, Placement documents, or a table."""
    if format_ is Format.JSON:
        show_json({"steps": [_step(at, placements) for at, placements in steps]})
        return
    if format_ is Format.YAML:
        from gpufleet.wire.yaml import dump

        out(dump([dump_placement(p) for _, placements in steps for p in placements]).rstrip("\n"))
        return
    for index, (at, placements) in enumerate(steps):
        if len(steps) > 1:
            out(f"{'' if index == 0 else chr(10)}at {seconds(at)}")
        show_placements(placements, format_)


def show_placements(placements: Sequence[Placement], format_: Format) -> None:
    """Prints a table of placements, with the codes of why something is not placed; `wide` has the messages."""
    if format_ is Format.NAME:
        for placement in placements:
            out(placement.workload)
        return
    wide = format_ is Format.WIDE
    rows = [
        [p.workload, p.verdict.value, f"{p.placed}/{p.replicas}", where(p) or "-", _why(p, wide=wide)]
        for p in placements
    ]
    table(["workload", "verdict", "placed", "clusters", "reasons" if wide else "reason"], rows)


def _why(placement: Placement, *, wide: bool) -> str:
    if wide:
        return "; ".join(f"{r.cluster + ': ' if r.cluster else ''}{r.message}" for r in placement.reasons[:3])
    if placement.verdict in (Verdict.SCHEDULED, Verdict.FINISHED):
        return ""  # what is said of clusters that were not needed is no reason for anything
    return ", ".join(dict.fromkeys(r.code.value for r in placement.reasons))


def where(placement: Placement) -> str:
    """Returns ``c-idc=4, c-ack=2 (2 elastic)``."""
    parts = []
    for share in placement.shares:
        sources = {
            slot.source.value: share.count(slot.source) for slot in share.slots if slot.source.value != "running"
        }
        extra = f" ({', '.join(f'{count} {name}' for name, count in sorted(sources.items()))})" if sources else ""
        parts.append(f"{share.cluster}={share.replicas}{extra}")
    return ", ".join(parts)


def _step(at: float, placements: Sequence[Placement]) -> dict[str, Any]:
    return {"at": seconds(at), "placements": [dump_placement(p) for p in placements]}


def seconds(at: float) -> str:
    """Returns ``90s``, ``0.5s``."""
    return f"{at:.3f}".rstrip("0").rstrip(".") + "s"
