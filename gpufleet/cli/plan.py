"""`gpufleet plan` and `gpufleet simulate`: what would happen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpufleet.cli import files
from gpufleet.cli.output import Format, note, out, show_json, table
from gpufleet.model.placement import Placement
from gpufleet.wire.documents import dump_placement


def plan(paths: Sequence[str], format_: Format, namespace: str) -> None:
    """Prints where the workloads of the documents would go."""
    from gpufleet.wire.documents_lint import lint_policies
    from services.scheduler.core.select import select
    from sim.plan import plan as decide

    parsed = files.read(paths, namespace=namespace)
    for warning in lint_policies(parsed, lambda workload: select(parsed.policies.values(), workload)):
        note(f"warning: {warning}")
    if not parsed.clusters:
        note("warning: no Cluster documents: nothing can be placed; give a fleet with -f")
    show_steps([(0.0, decide(parsed))], format_)


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
            out(f"{'' if index == 0 else chr(10)}at {at:g}s")
        show_placements(placements, format_)


def show_placements(placements: Sequence[Placement], format_: Format) -> None:
    """Prints a table of placements; `name` prints workload keys, `wide` adds the reasons."""
    if format_ is Format.NAME:
        for placement in placements:
            out(placement.workload)
        return
    headers = ["workload", "verdict", "placed", "clusters"]
    rows: list[list[str]] = [
        [p.workload, p.verdict.value, f"{p.placed}/{p.replicas}", where(p) or "-"] for p in placements
    ]
    if format_ is Format.WIDE:
        headers.append("reasons")
        for row, placement in zip(rows, placements, strict=True):
            row.append("; ".join(f"{r.cluster + ': ' if r.cluster else ''}{r.message}" for r in placement.reasons[:3]))
    table(headers, rows)


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
    return {"at": f"{at:g}s", "placements": [dump_placement(p) for p in placements]}
