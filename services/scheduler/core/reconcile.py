"""Taking over: from the tables as they were read to a state that may decide (rules 1, 4, 5, 6).

The truth about a workload is the highest (epoch, version) among its placement, assignments and observations, because
compaction may have kept a stale writer's record in place of the last one.
"""

from __future__ import annotations

from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    ClusterShare,
    Observation,
    ObservedPhase,
    Placement,
    Version,
    pods_of,
)
from gpufleet.model.reasons import Verdict
from gpufleet.model.workload import Division
from services.scheduler.core import commit, dependencies, doubt, ledger
from services.scheduler.core.divide import Mode
from services.scheduler.core.queue import Queue
from services.scheduler.core.state import Entry, State


def start(state: State, epoch: int, log: str, now: float) -> None:
    """Begins to decide under an epoch. Everything is looked at; what stands on the same inputs is left as it is."""
    if epoch != state.epoch:
        state.counter = 0
    state.active = True
    state.epoch, state.log = epoch, log
    state.queue = Queue(state.settings)  # who waited when this instance decided before may have a place, or be gone
    for key in sorted(state.entries):
        entry = state.entries[key]
        _recover(state, entry, now)
        ledger.update(state, entry, now)
        doubt.learn(state, entry, now)
        state.quotas.update(key, entry.current, entry.placement)
        dependencies.update(state, entry)
        state.ask(key, Mode.FILL)
    ledger.rebuild_deadlines(state)


def _recover(state: State, entry: Entry, now: float) -> None:
    """Puts the truth in place of an overtaken placement; it is decided anew then, because its inputs are unknown."""
    known = entry.placement.version if entry.placement is not None else Version(-1, 0)
    highest = max((a.version for a in entry.assignments.values()), default=Version(-1, 0))
    live = {c: o for c, o in entry.observations.items() if o.phase is ObservedPhase.APPLIED}
    seen = max((o.version for o in live.values()), default=Version(-1, 0))
    if max(highest, seen) <= known:
        return
    if highest >= seen:
        shares = _from_assignments(entry, highest)
        uid = next(a.uid for a in entry.assignments.values() if a.version == highest)
    else:
        shares = _from_observations(entry, live, seen)
        uid = entry.workload.uid if entry.workload is not None else ""
    removed_all = not shares and entry.workload is None
    placement = Placement(
        workload=entry.key,
        version=max(highest, seen),
        verdict=Verdict.DELETING if removed_all else Verdict.SCHEDULED if shares else Verdict.UNSCHEDULABLE,
        replicas=pods_of(shares),
        shares=shares,
        policy=entry.placement.policy if entry.placement is not None else "",
        uid=uid,
        decided_at=now,
        arrival=entry.arrival or 0,
    )
    commit.put(state, entry, placement, now)


def _from_assignments(entry: Entry, version: Version) -> tuple[ClusterShare, ...]:
    last = next(a for a in entry.assignments.values() if a.version == version)
    shares = []
    for cluster, replicas in last.division:
        components = _components(entry, entry.assignments.get(cluster), replicas)
        if components:
            shares.append(ClusterShare(cluster, components))
    return tuple(sorted(shares, key=lambda share: share.cluster))


def _components(entry: Entry, known: Assignment | None, replicas: int) -> tuple[tuple[str, int], ...]:
    active = known is not None and known.state is not AssignmentState.REMOVING
    if known is not None and active and sum(count for _, count in known.components) == replicas:
        return known.components
    workload = entry.workload
    if workload is None:
        return (("main", replicas),) if replicas else ()
    if len(workload.components) == 1:
        return ((workload.components[0].name, replicas),)
    return tuple(sorted((c.name, c.replicas) for c in workload.components))


def _from_observations(entry: Entry, live: dict[str, Observation], version: Version) -> tuple[ClusterShare, ...]:
    workload = entry.workload
    shares = []
    for cluster, observation in sorted(live.items()):
        if observation.version != version:
            continue
        if workload is None:
            components: tuple[tuple[str, int], ...] = (("main", observation.ready),)
        elif (workload.job and workload.division is Division.WHOLE) or len(workload.components) != 1:
            components = tuple(sorted((c.name, c.replicas) for c in workload.components))
        else:
            components = ((workload.components[0].name, observation.ready),)
        shares.append(ClusterShare(cluster, components))
    return tuple(shares)
