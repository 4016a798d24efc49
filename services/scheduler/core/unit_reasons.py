"""Why the units of a ResourcePolicy take no more pods in a cluster, unit by unit."""

from __future__ import annotations

from gpufleet.model.reasons import Code, Reason
from services.scheduler.core import explain, unit_use
from services.scheduler.core.draft import Draft
from services.scheduler.core.member import Member
from services.scheduler.core.room import clock
from services.scheduler.core.units import Way


def why(draft: Draft, member: Member, *, one: bool) -> Reason:
    """Returns the reason of a cluster, with a word about every unit up to where the pods have to stop."""
    name, policy = member.name, draft.units
    if policy is not None and draft.rejected:
        return Reason(
            Code.UNIT_LABEL_MISSING,
            f"ResourcePolicy {policy.name} rejects the pods: they lack {draft.rejected}, one of its matchLabelKeys",
            name,
        )
    member.settle()
    if member.debt:
        return explain.shortage(member, draft.wanted(draft.ways[0], one=one), stock=draft.stock)
    said: list[str] = []
    codes: list[Code] = []
    for way in draft.ways:
        code, text = _unit(draft, member, way, one=one)
        stops = way.variant != "" and draft.stopped.get(name) == way.variant
        said.append(f"unit {way.unit} ({_kind(way)}) {text}{_wait(draft, member.name, way) if stops else ''}")
        codes.append(code)
        if stops:
            return Reason(Code.WAITING_IN_UNIT, "; ".join(said), name)
    same = len(set(codes)) == 1 and codes[0] is not Code.GANG_DOES_NOT_FIT
    return Reason(codes[0] if same else Code.NO_UNIT_HAS_ROOM, "; ".join(said), name)


def _kind(way: Way) -> str:
    return way.rule.resource.value if way.rule is not None else ""


def _unit(draft: Draft, member: Member, way: Way, *, one: bool) -> tuple[Code, str]:
    counts = {c.name: min(1, c.replicas) if one else c.replicas for c in draft.workload.components}
    share = next((share for share in draft.shares if share.cluster == member.name), None)
    rule = way.rule
    if rule is not None and not unit_use.within(draft, member.name, way, counts, share.slots if share else ()):
        bounds = [] if rule.max is None else [f"{rule.max} pod{'' if rule.max == 1 else 's'}"]
        bounds += [f"{amount} of {resource}" for resource, amount in explain.amounts(rule.max_resources)]
        return Code.UNIT_AT_MAX, f"is at its maximum of {' and '.join(bounds)}"
    reason = explain.shortage(member, draft.wanted(way, one=one), stock=draft.stock)
    return reason.code, reason.message


def _wait(draft: Draft, cluster: str, way: Way) -> str:
    policy = draft.units
    match policy.when_try_next if policy is not None else "":
        case "TimeoutOrExceedMax" if policy is not None:
            since = draft.waited.get((cluster, way.variant), draft.now)
            return f"; pods wait for it until {clock(since + (policy.timeout or 0.0))}"
        case "LackResourceAndNoTerminating":
            count = unit_use.terminating(draft, cluster, way.variant)
            return f"; pods wait while {count} pods in it are being deleted"
    return "; pods wait for it until it has room or reaches its maximum"
