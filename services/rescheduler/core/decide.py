"""`decide`: from what was observed to evictions. Only failures of capacity and infrastructure move.

The pending check follows ACK One's timings and Karmada's descheduler (`new target = assigned - unschedulable`, never
below what is bound). A failed job is sent elsewhere; its old copy is taken back by the scheduler first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gpufleet.model.cluster import Health
from gpufleet.model.placement import (
    ClusterCap,
    ClusterShare,
    DispatchRecord,
    Eviction,
    FailureClass,
    Observation,
    Placement,
    Version,
    WorkloadHealth,
)
from gpufleet.model.reasons import Code
from services.rescheduler.core import events as ev
from services.rescheduler.core.state import Limits, State, Tracked

PENDING = "PendingTooLong"
PROVISIONING = "ProvisioningFailed"
START_FAILED = "StartFailed"
INFRASTRUCTURE = "InfrastructureFailure"
USER_FAILURE = "JobFailed"
CLUSTER_LOST = "ClusterUnreachable"


@dataclass(slots=True)
class Outputs:
    """What to write: evictions in workload order, keys to tombstone, when to look again, and counts by reason."""

    evictions: list[Eviction] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)
    wake_at: float | None = None
    moved: dict[str, int] = field(default_factory=dict)
    held_back: int = 0


def decide(state: State, events: Sequence[ev.Event], now: float, *, active: bool = True) -> Outputs:
    """Takes events in, and returns the evictions that are due at ``now`` (epoch seconds).

    An instance that stands by (``active`` false) takes events in and has nothing to say.
    """
    out = Outputs()
    if state.started is None:
        state.started = state.last_check = now
    previous = state.frozen
    for event in events:
        _take(state, event, now)
    if not active:
        state.unfrozen = state.unfrozen or (previous and not state.frozen)
        return out
    previous, state.unfrozen = previous or state.unfrozen, False
    for workload in sorted(state.loose):
        out.forget.append(workload)
        state.tracked[workload].eviction = None
        _drop(state, workload)
    if not state.frozen:
        due = set(state.urgent)
        if previous or _check_due(state, now):
            due |= state.pending
            state.last_check = now
        for workload in sorted(due):
            _judge(state, workload, now, out)
    out.wake_at = _wake_at(state, now)
    return out


def _take(state: State, event: ev.Event, now: float) -> None:
    match event:
        case ev.PlacementChanged(workload, placement, buried):
            tracked = state.of(workload)
            version = placement.version if placement is not None else buried
            if version is not None and tracked.placement and version < tracked.placement.version:
                return  # an older record: the log may deliver again
            _index(state, workload, tracked.placement, placement)
            held = {s.cluster for s in placement.shares} if placement else set()
            tracked.since = {c: tracked.since.get(c, now) for c in sorted(held)}
            tracked.placement = placement
            _suspect(state, workload)
        case ev.PodsChanged(cluster, workload, pods):
            tracked = state.of(workload)
            if pods is None:
                tracked.pods.pop(cluster, None)
            else:
                tracked.pods[cluster] = pods
            _suspect(state, workload)
        case ev.ClusterChanged(cluster, inventory):
            health = inventory.health if inventory else None
            before = state.health.get(cluster)
            if health is None:
                state.health.pop(cluster, None)
            else:
                state.health[cluster] = health
            if health is not before:
                for workload in state.by_cluster.get(cluster, ()):
                    _suspect(state, workload)
        case ev.Observed(cluster, workload, observation):
            tracked = state.of(workload)
            known = tracked.observations.get(cluster)
            if observation is None:
                tracked.observations.pop(cluster, None)
            elif known is None or observation.version >= known.version:
                tracked.observations[cluster] = observation
            _suspect(state, workload)
        case ev.EvictionRead(workload, eviction):
            tracked = state.of(workload)
            if eviction is None or tracked.eviction is None or eviction.judged >= tracked.eviction.judged:
                tracked.eviction = eviction
            _suspect(state, workload)
        case ev.FreezeChanged(frozen):
            state.frozen = frozen


def _index(state: State, workload: str, old: Placement | None, new: Placement | None) -> None:
    for share in old.shares if old else ():
        state.by_cluster.get(share.cluster, set()).discard(workload)
    for share in new.shares if new else ():
        state.by_cluster.setdefault(share.cluster, set()).add(workload)


def _suspect(state: State, workload: str) -> None:
    """Notes whether a workload has to be looked at; most have not, so a check costs what is wrong, not what runs."""
    state.pending.discard(workload)
    state.urgent.discard(workload)
    tracked = state.tracked[workload]
    (state.loose.add if tracked.placement is None and tracked.eviction else state.loose.discard)(workload)
    if tracked.forgotten:
        _drop(state, workload)
        return
    placement = tracked.placement
    if placement is None or not placement.movable:
        return
    for share in placement.shares:
        if state.health.get(share.cluster) is Health.UNREACHABLE or _failure(tracked, share.cluster):
            state.urgent.add(workload)
        elif _unschedulable(tracked, share.cluster):
            state.pending.add(workload)


def _drop(state: State, workload: str) -> None:
    state.loose.discard(workload)
    state.pending.discard(workload)
    state.urgent.discard(workload)
    if state.tracked[workload].forgotten:
        del state.tracked[workload]


def _judge(state: State, workload: str, now: float, out: Outputs) -> None:
    """Decides about one workload that may need a move."""
    tracked, limits = state.tracked[workload], state.limits
    placement = tracked.placement
    assert placement is not None
    last = tracked.eviction
    if last is not None and (last.give_up or last.judged >= placement.version):
        return  # said already; the scheduler has not answered yet
    if last is not None and now < last.at + _backoff(limits, last.attempts):
        return
    caps = [cap for share in placement.shares for cap in _caps(state, tracked, share, now)]
    if not caps:
        return
    if not _within_rate(state, now):
        out.held_back += 1
        return
    state.moves.append(now)
    evicted = {cap.cluster for cap in caps}
    counts = any(cap.code not in (PENDING, PROVISIONING) for cap in caps)
    attempts = (last.attempts if last else 0) + 1
    kept = [c for c in (last.caps if last else ()) if c.until > now and c.cluster not in evicted]
    history = list(last.history if last else ())
    for cap in caps:
        history.append(DispatchRecord(cap.cluster, tracked.since.get(cap.cluster, now), now, cap.code))
        out.moved[cap.code] = out.moved.get(cap.code, 0) + 1
    infrastructure = sum(1 for record in history if record.reason in (INFRASTRUCTURE, USER_FAILURE, CLUSTER_LOST))
    give_up = placement.job and counts and infrastructure > limits.max_redispatch
    eviction = Eviction(
        workload=workload,
        judged=placement.version,
        caps=tuple(sorted([*kept, *caps], key=lambda c: c.cluster)),
        attempts=attempts,
        history=tuple(history[-limits.history :]),
        not_before=now + _backoff(limits, attempts - 1) if placement.job and attempts > 1 else now,
        give_up=give_up,
        at=now,
    )
    tracked.eviction = eviction
    out.evictions.append(eviction)
    state.pending.discard(workload)
    state.urgent.discard(workload)


def _caps(state: State, tracked: Tracked, share: ClusterShare, now: float) -> Iterable[ClusterCap]:
    """Returns how a cluster's share has to be bounded, if at all."""
    placement, limits = tracked.placement, state.limits
    assert placement is not None
    until = now + limits.cool_down
    if state.health.get(share.cluster) is Health.UNREACHABLE:
        yield ClusterCap(share.cluster, 0, until, CLUSTER_LOST, "the cluster's API does not answer")
        return
    failed = _failure(tracked, share.cluster)
    if failed is not None:
        code = {FailureClass.START: START_FAILED, FailureClass.USER: USER_FAILURE}.get(failed.failure, INFRASTRUCTURE)
        yield ClusterCap(share.cluster, 0, until, code, failed.message or "the job failed in this cluster")
        return
    # Before that its pods wait for the pods of its victims to stop.
    earliest = placement.decided_at + limits.preemption_grace if _preempts(placement, share.cluster) else 0.0
    waiting = _unschedulable(tracked, share.cluster)
    long = sum(1 for since in waiting if now - max(since, earliest) > limits.pending_after)
    if not long:
        return
    running = sum(c.bound + c.finished for _, c in tracked.pods[share.cluster].components)
    if placement.min_member is not None and running >= placement.min_member:
        return  # the gang runs; the others are welcome to wait
    text = f"{long} of {share.replicas} pods unschedulable for more than {limits.pending_after:g} s"
    awaited, failure = _awaited(tracked, share)
    text += f"; {failure}" if failure else ""
    if placement.job or share_is_whole(placement):
        yield ClusterCap(share.cluster, 0, until, START_FAILED, text, awaited)
        return
    target = max(share.replicas - long, min(running, share.replicas))
    if target < share.replicas:
        yield ClusterCap(share.cluster, target, until, PROVISIONING if failure else PENDING, text, awaited)


def _awaited(tracked: Tracked, share: ClusterShare) -> tuple[tuple[str, ...], str]:
    """Returns of which node classes nodes were awaited that did not come, and what became of those.

    Pods that are unschedulable for another reason say nothing about nodes.
    """
    classes: set[str] = set()
    late, refused = 0, False
    for name, pods in tracked.pods[share.cluster].components:
        in_vain = pods.unschedulable and (pods.timed_out or pods.no_stock)
        if in_vain and (found := share.awaited(name, pods.bound + pods.finished)):
            classes.update(found)
            late += pods.timed_out
            refused = refused or pods.no_stock
    what = "no stock for the nodes that they need" if refused else ""
    if late:
        what = f"{late} waited for nodes that did not come"
    return tuple(sorted(classes)), what


def share_is_whole(placement: Placement) -> bool:
    """Returns whether the workload is placed whole (several components are never split)."""
    return any(len(share.components) > 1 for share in placement.shares)


def _preempts(placement: Placement, cluster: str) -> bool:
    return any(reason.code is Code.PREEMPTS and reason.cluster == cluster for reason in placement.reasons)


def _unschedulable(tracked: Tracked, cluster: str) -> list[float]:
    """Returns since when each pod has been unschedulable, oldest first."""
    pods = tracked.pods.get(cluster)
    return sorted(since for _, c in pods.components for since in c.unschedulable) if pods else []


def _failure(tracked: Tracked, cluster: str) -> Observation | None:
    """Returns the failure of a job that has to move from a cluster, or None.

    A failure that was judged already, before the job came back to the same cluster, does not count again.
    """
    placement, seen = tracked.placement, tracked.observations.get(cluster)
    if placement is None or seen is None or not placement.job or seen.health is not WorkloadHealth.FAILED:
        return None
    judged = tracked.eviction.judged if tracked.eviction else Version()
    if seen.version <= judged:
        return None
    if seen.failure is FailureClass.USER and not placement.redispatch_user_failures:
        return None
    return seen if seen.failure is not FailureClass.NONE else None


def _backoff(limits: Limits, attempts: int) -> float:
    """Returns 10 s, 20 s, 40 s… up to the most."""
    return min(limits.backoff_most, limits.backoff_first * 2.0 ** max(0, attempts - 1)) if attempts > 0 else 0.0


def _within_rate(state: State, now: float) -> bool:
    while state.moves and state.moves[0] <= now - 60.0:
        state.moves.popleft()
    return len(state.moves) < state.limits.moves_per_minute


def _check(state: State, at: float) -> int:
    """Returns the number of the last check at a time. Checks are on a grid that starts with the service."""
    assert state.started is not None
    return math.floor((at - state.started) / state.limits.check_every + 1e-6)  # a sum of floats may fall short


def _check_due(state: State, now: float) -> bool:
    """Returns whether a check falls between the last one and now."""
    return _check(state, now) > _check(state, state.last_check)


def _wake_at(state: State, now: float) -> float | None:
    """Returns the next check if anything is pending, and the end of a back-off or of the rate's minute if urgent."""
    if state.frozen:
        return None
    assert state.started is not None
    times: list[float] = []
    if state.pending:
        times.append(state.started + (_check(state, now) + 1) * state.limits.check_every)
    for workload in state.urgent:
        tracked = state.tracked[workload]
        last, placement = tracked.eviction, tracked.placement
        if placement is None or (last is not None and (last.give_up or last.judged >= placement.version)):
            continue
        ready = last.at + _backoff(state.limits, last.attempts) if last else now
        rate = state.moves[0] + 60.0 if len(state.moves) >= state.limits.moves_per_minute else now
        times.append(max(ready, rate))
    return min(times, default=None)
