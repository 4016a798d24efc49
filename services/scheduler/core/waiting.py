"""What a workload waits for, for how long, and when it is looked at again."""

from __future__ import annotations

import heapq

from gpufleet.model.placement import Placement, pods_of
from gpufleet.model.policy import DivisionType, PropagationPolicy
from gpufleet.model.reasons import Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core import keeping, turn, unit_fill
from services.scheduler.core.divide import Mode
from services.scheduler.core.divide_whole import whole
from services.scheduler.core.draft import Draft
from services.scheduler.core.inputs import Inputs
from services.scheduler.core.queue import QuotaNeed
from services.scheduler.core.quota_terms import preemptible
from services.scheduler.core.state import Entry, State


def wait(state: State, draft: Draft, line: str) -> None:
    """Lets the workload wait for capacity in the clusters that its policy means."""
    entry, workload, policy = draft.entry, draft.workload, draft.policy
    at_once = whole(workload, policy.placement.division, is_gang=policy.placement.gang)
    order = state.order(entry)
    kept = before.kept if (before := keeping.kept_before(draft)) is not None else ""
    own = draft.shares or draft.caps.keys() - {kept} or draft.refused.keys() - {kept} or draft.units is not None
    key: tuple[object, ...] = (entry.key,)
    if not own:
        key = (
            policy.key,
            policy.digest or policy.version,
            workload.api_version,
            workload.kind,
            workload.namespace,
            tuple((p.component, p.shape.id, p.virtual) for way in draft.ways for p in way.parts),
            tuple(c.replicas for c in workload.components) if at_once or workload.kind != "Deployment" else (),
            line,
            kept,
        )
    blocks = turn.queued(draft)
    placed = pods_of(draft.shares)
    if draft.quota is not None and draft.limit is not None and placed >= draft.limit:
        # No cluster helps as long as the quota does not.
        leaf, firm = draft.leaf, not preemptible(workload)
        need = QuotaNeed(leaf.name, draft.unit, firm, workload.job) if leaf is not None else None
        state.queue.add(order, (*key, need), (), (), draft.stock, draft.now, need, line=line, blocks=blocks)
        keeping.overtaken(draft, order, at_once=at_once)
        return
    needs = tuple(tuple(draft.wanted(way, one=not at_once)) for way in draft.ways)
    blind = policy.placement.division in (DivisionType.DUPLICATED, DivisionType.STATIC)
    if (at_once and draft.shares) or (blind and not at_once):
        needs = ()
    clusters = tuple(sorted(draft.candidates.tier_of))
    state.queue.add(order, key, clusters, needs, draft.stock, draft.now, line=line, blocks=blocks)
    keeping.overtaken(draft, order, at_once=at_once)


def with_timeout(
    draft: Draft, policy: PropagationPolicy, placement: Placement | None, inputs: Inputs, verdict: Verdict
) -> tuple[Inputs, float | None]:
    """Returns the inputs with the time since which nothing is placed, where that is bounded, and when it is over."""
    if policy.queue_timeout is None or draft.shares or verdict not in (Verdict.UNSCHEDULABLE, Verdict.QUEUED):
        return inputs, None
    known = dict(placement.inputs).get("waiting") if placement is not None and not placement.shares else None
    since = float(known) if known is not None and draft.mode is not Mode.FRESH else draft.now
    return (*inputs, ("waiting", f"{since:.3f}")), since + policy.queue_timeout


def set_timer(state: State, draft: Draft, timeout: float | None, *, waits: bool) -> None:
    """Has a workload looked at when a toleration ends; while it waits, also when its back-off ends or a cap expires."""
    entry = draft.entry
    eviction = entry.eviction
    until = draft.candidates.until
    times = [until[s.cluster] for s in draft.shares if s.cluster in until] if until else []
    if waits and eviction is not None:
        times += [cap.until for cap in eviction.caps if cap.until > draft.now]
        if eviction.not_before > draft.now and draft.blocked:
            times.append(eviction.not_before)
    if waits:
        times += unit_fill.next_look(draft)
        if timeout is not None and timeout > draft.now:
            times.append(timeout)
    wake(state, entry, times)


def ends_of_toleration(
    state: State, placement: Placement, policy: PropagationPolicy, workload: Workload, now: float
) -> list[float]:
    """Returns when taints of its clusters, which are tolerated for a while, will drive a placement out."""
    until = state.candidates.candidates(state.fleet, policy, workload).until
    return [until[s.cluster] for s in placement.shares if until.get(s.cluster, now) > now] if until else []


def wake(state: State, entry: Entry, times: list[float]) -> None:
    """Sets when a workload is looked at again: at the earliest of some times (epoch seconds), or not by time."""
    at = min(times, default=None)
    if at != entry.timer:
        entry.timer = at
        if at is not None:
            heapq.heappush(state.timers, (at, entry.key))
