"""What a scenario expects, against what is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpufleet.model.placement import Placement
from sim.scenario.steps import Check


def failures(checks: Iterable[Check], placements: Mapping[str, Placement], at: float) -> list[str]:
    """Returns a message for every expectation that is not met; each shows what differs, and why it is so."""
    found = []
    for check in checks:
        placement = placements.get(check.workload)
        lines = _differences(check, placement)
        if lines:
            head = f"{check.where}: at {at:g}s {check.workload} is not as expected"
            found.append("\n".join([head, *(f"  {line}" for line in (*lines, *_reasons(placement)))]))
    return found


def _differences(check: Check, placement: Placement | None) -> list[str]:
    """A workload without placement has no replicas, no assignments and no verdict."""
    wanted = check.expectation
    shares = {s.cluster: s.replicas for s in placement.shares if s.replicas} if placement is not None else {}
    lines: list[str] = []

    def compare(name: str, expected: object, actual: object) -> None:
        if expected is not None and expected != actual:
            lines.append(f"{name}: expected {_shown(expected)}, is {_shown(actual)}")

    compare("verdict", _text(wanted.verdict), _text(placement.verdict) if placement is not None else "(no placement)")
    compare("replicas", wanted.replicas, placement.replicas if placement is not None else 0)
    compare("placed", wanted.placed, placement.placed if placement is not None else 0)
    compare("unplaced", wanted.unplaced, placement.unplaced if placement is not None else 0)
    if wanted.assignments is not None:
        expected = {cluster: count for cluster, count in wanted.assignments if count}
        compare("assignments", expected, shares)
    compare("queuePosition", wanted.queue_position, placement.queue_position if placement is not None else None)
    codes = {reason.code.value for reason in placement.reasons} if placement is not None else set()
    missing = [code for code in wanted.codes or () if code not in codes]
    if missing:
        lines.append(f"reasons: expected {', '.join(missing)}, are {', '.join(sorted(codes)) or 'none'}")
    return lines


def _reasons(placement: Placement | None) -> list[str]:
    reasons = placement.reasons[:5] if placement is not None else ()
    return [f"because {r.cluster + ': ' if r.cluster else ''}{r.code.value}: {r.message}" for r in reasons]


def _text(verdict: object) -> str | None:
    return None if verdict is None else str(verdict)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {item}" for key, item in sorted(value.items())) + "}"
    return str(value)
