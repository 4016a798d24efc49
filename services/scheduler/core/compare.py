"""In which points a decision that was made again is another one."""

from __future__ import annotations

from collections.abc import Iterator

from gpufleet.model.placement import ClusterShare, Placement
from gpufleet.model.reasons import Code, Reason
from services.scheduler.core.evidence import Evidence

# Reasons whose words tell of free blocks.
OF_BLOCKS = frozenset({Code.INSUFFICIENT_RESOURCES, Code.NO_STOCK, Code.STOCK_NOT_TRUSTED, Code.GANG_DOES_NOT_FIT})


def differences(recorded: Placement, again: Placement | None, evidence: Evidence) -> list[str]:
    """Returns in which points a decision that was made again is another one, each in a sentence."""
    if again is None:
        return ["nothing follows from what it saw"]
    found = []
    for name, before, after in (
        ("verdict", recorded.verdict.value, again.verdict.value),
        ("policy", recorded.policy or "none", again.policy or "none"),
        ("uid", recorded.uid, again.uid),
        ("pods wanted", recorded.replicas, again.replicas),
        ("clusters to be left", list(recorded.leaving), list(again.leaving)),
        ("queue position", recorded.queue_position, again.queue_position),
        ("queue", recorded.queue, again.queue),
        ("priority", recorded.priority, again.priority),
        ("waiting since", recorded.waiting_since, again.waiting_since),
        ("inputs", dict(recorded.inputs), dict(again.inputs)),
        ("group", recorded.group, again.group if recorded.group else ""),  # decisions of older versions have none
        ("waits in units", list(recorded.unit_waits), list(again.unit_waits)),
    ):
        if before != after:
            found.append(f"{name}: {before} was recorded, {after} follows")
    found += _shares(recorded, again)
    found += _reasons(recorded.reasons, again.reasons, evidence)
    return found


def loses_alike(recorded: Placement, again: Placement | None) -> list[str]:
    """Returns in which points what another decision makes of a workload is not what was recorded.

    What it keeps, its verdict, and what it is told of those that took its place.
    """
    if again is None:
        return ["it loses nothing"]
    found = list(_shares(recorded, again))
    for name, before, after in (
        ("verdict", recorded.verdict.value, again.verdict.value),
        ("pods wanted", recorded.replicas, again.replicas),
        ("told", _lost(recorded), _lost(again)),
    ):
        if before != after:
            found.append(f"{name}: {before} was recorded, {after} follows")
    return found


def _lost(placement: Placement) -> list[str]:
    return [f"{r.cluster}: {r.message}" for r in placement.reasons if r.code is Code.PREEMPTED]


def blind_for_blocks(evidence: Evidence) -> set[str]:
    """Returns the clusters of which only the room is known, not the free blocks."""
    return {cluster.name for cluster in evidence.clusters if any(seen.rooms is not None for seen in cluster.classes)}


def _shares(recorded: Placement, again: Placement) -> Iterator[str]:
    for name in sorted({share.cluster for share in (*recorded.shares, *again.shares)}):
        before, after = recorded.share(name), again.share(name)
        if before != after:
            yield f"{name}: {_share(before)} was recorded, {_share(after)} follows"


def _share(share: ClusterShare | None) -> str:
    if share is None:
        return "nothing"
    where = ", ".join(f"{s.count} {s.source.value} on {s.node_class or 'any node'}" for s in share.slots)
    pods = ", ".join(f"{count} {name}" for name, count in share.components)
    return f"{pods or 'the object'}{f' ({where})' if where else ''}"


def _reasons(recorded: tuple[Reason, ...], again: tuple[Reason, ...], evidence: Evidence) -> Iterator[str]:
    """Compares reasons; those that only count clusters where not all of them are known are left out."""
    blind = blind_for_blocks(evidence)
    counted = evidence.more > 0
    before = {_reason(reason, blind) for reason in recorded if not (counted and _counts(reason))}
    after = {_reason(reason, blind) for reason in again if not (counted and _counts(reason))}
    for reason in sorted(before - after):
        yield f"reason {' '.join(filter(None, reason))} was recorded and does not follow"
    for code, cluster, message in sorted(after - before):
        if not (counted and cluster):
            yield f"reason {' '.join(filter(None, (code, cluster, message)))} follows and was not recorded"


def _reason(reason: Reason, blind: set[str]) -> tuple[str, str, str]:
    wordless = reason.cluster in blind and reason.code in OF_BLOCKS
    return (reason.code.value, reason.cluster, "" if wordless else reason.message)


def _counts(reason: Reason) -> bool:
    return not reason.cluster and reason.message.endswith(" more clusters")
