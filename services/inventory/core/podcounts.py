"""What the pods of one component do in a cluster, in counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpufleet.model.cluster import ComponentPods, UnitPods
from services.inventory.core.objects import Pod, Provisioning
from services.inventory.core.whereabouts import Where, nodes_of


def summary(pods: Sequence[Pod], claims: Mapping[str, Provisioning], since: float, where: Where) -> ComponentPods:
    """Returns what the pods of one component do; claims from before ``since`` are not believed any more."""
    # Pods of another unit come from another object, whose revisions bear other hashes.
    newest = {p.unit: p.revision for p in sorted(pods, key=lambda p: (p.created, p.uid))}
    units: dict[str, list[int]] = {}
    ready = finished = failed = evicted = timed_out = 0
    bound: list[Pod] = []
    leaving: list[Pod] = []
    unschedulable: list[float] = []
    provisioning: list[float] = []
    no_stock = False
    message = ""
    for pod in pods:
        unit = units.setdefault(pod.unit, [0, 0, 0])
        if pod.terminating:
            unit[2] += 1
            if pod.holds_room:
                leaving.append(pod)
            continue
        if pod.phase == "Succeeded":
            finished += 1
            unit[1] += 1
        elif pod.phase == "Failed":
            evicted += pod.infrastructure_failure
            failed += not pod.infrastructure_failure
        elif pod.node:
            bound.append(pod)
            unit[0] += 1
            ready += pod.ready
        elif pod.unschedulable_since is not None and pod.revision == newest[pod.unit]:
            claim = claims.get(pod.uid)
            if claim is not None and not claim.no_stock and claim.at > since:
                provisioning.append(claim.at)
            else:
                unschedulable.append(pod.unschedulable_since)
                message = max(message, pod.message)
                timed_out += claim is not None and not claim.no_stock
            no_stock = no_stock or (claim is not None and claim.no_stock)
    return ComponentPods(
        bound=len(bound),
        ready=ready,
        finished=finished,
        failed=failed,
        evicted=evicted,
        unschedulable=tuple(sorted(unschedulable)),
        provisioning=len(provisioning),
        provisioning_since=min(provisioning, default=None),
        no_stock=no_stock,
        message=message,
        units=_units(units),
        timed_out=timed_out,
        nodes=nodes_of(bound, where),
        leaving=nodes_of(leaving, where),
    )


def _units(counts: dict[str, list[int]]) -> tuple[UnitPods, ...]:
    """Returns pods by unit where that says more than their sum: some bear a unit's mark, or are being deleted."""
    if not any(unit or terminating for unit, (_, _, terminating) in counts.items()):
        return ()
    return tuple(UnitPods(unit, *numbers) for unit, numbers in sorted(counts.items()))
