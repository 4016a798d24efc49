"""What is to be done with one workload now: remove it, keep it, or decide on it.

submitted -> Scheduled | PartiallyScheduled | Unschedulable <-> Queued (back-off) | Suspended
          -> Finished | Failed | GivenUp                 (stand until the submission changes)
tombstone, or a new uid -> Deleting -> every copy gone -> tombstone, or decided anew
missing at start -> Orphaned                             (nothing is touched)
"""

from __future__ import annotations

import heapq
from dataclasses import replace

from gpufleet.model.placement import (
    ObservedPhase,
    Placement,
)
from gpufleet.model.policy import DivisionType, PropagationPolicy
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core import (
    activation,
    admit,
    assign,
    commit,
    dependencies,
    ending,
    takeover,
    turn,
    unit_fill,
    without_policy,
)
from services.scheduler.core.divide import Mode
from services.scheduler.core.draft import Draft
from services.scheduler.core.inputs import (
    Inputs,
    eviction_id,
    inputs_of,
    overridden_alike,
    pending_eviction,
    same,
    submission,
)
from services.scheduler.core.outputs import Outputs, PlacementWrite
from services.scheduler.core.place import place, whole
from services.scheduler.core.prepare import prepare
from services.scheduler.core.queue import QuotaNeed
from services.scheduler.core.quota import preemptible
from services.scheduler.core.room import clock
from services.scheduler.core.state import FINAL, Entry, State


def settle(state: State, entry: Entry, mode: Mode, now: float, out: Outputs) -> None:
    """Brings one workload to what its tables say should be."""
    out.count("settled")
    workload = entry.current
    if workload is None:
        _without_submission(state, entry, now, out)
        return
    placement = entry.placement
    if placement is not None and _must_drain(placement, workload, entry):
        if not _drain(state, entry, now, out, "the copies of the earlier submission are being removed first"):
            return
        commit.put(state, entry, None, now)  # its version is overtaken by the next one; no tombstone is needed
        placement = None
    _decide(state, entry, workload, placement, mode, now, out)


def _without_submission(state: State, entry: Entry, now: float, out: Outputs) -> None:
    placement = entry.placement
    if entry.deleted or (placement is not None and placement.verdict is Verdict.DELETING):
        state.queue.remove(entry.key)
        state.unmatched.discard(entry.key)
        if _drain(state, entry, now, out, "every cluster has to report its copy gone"):
            commit.drop(state, entry, out, now)
    elif entry.unreadable:
        message = f"the last submission cannot be read: {entry.unreadable}"
        reason = Reason(Code.INVALID_RECORD, message)
        if placement is None:
            _write(state, entry, out, now, verdict=Verdict.UNSCHEDULABLE, reasons=(reason,), replicas=0)
        else:
            kept = tuple(r for r in placement.reasons if r.code is not Code.INVALID_RECORD)
            _rewrite(state, entry, placement, out, now, reasons=(reason, *kept))
    elif placement is not None and placement.verdict is not Verdict.ORPHANED:
        reason = Reason(
            Code.SUBMISSION_MISSING,
            "its submission is not on the log; submit it again, or submit and delete it to remove its copies",
        )
        _rewrite(state, entry, placement, out, now, verdict=Verdict.ORPHANED, reasons=(reason,))
    elif placement is not None:
        _heal(entry, out)


def _must_drain(placement: Placement, workload: Workload, entry: Entry) -> bool:
    if placement.verdict is Verdict.DELETING:
        return True
    if not placement.inputs and not placement.uid:
        return False  # read from a document, which does not say
    return placement.uid != workload.uid and bool(placement.shares or entry.assignments or placement.leaving)


def _drain(state: State, entry: Entry, now: float, out: Outputs, why: str) -> bool:
    """Takes every copy back; returns whether all are gone."""
    placement = entry.placement
    if placement is None and not entry.assignments:
        return True
    copies = set(entry.assignments)
    if placement is not None:
        copies |= {share.cluster for share in placement.shares} | set(placement.leaving)
    left = [cluster for cluster in sorted(copies) if not assign.is_gone(state, entry, cluster)]
    state.queue.remove(entry.key)
    if left and (placement is None or placement.verdict is not Verdict.DELETING):
        _write(
            state,
            entry,
            out,
            now,
            verdict=Verdict.DELETING,
            reasons=(Reason(Code.WAITING_FOR_REMOVAL, why),),
            replicas=placement.replicas if placement is not None else 0,
            policy=placement.policy if placement is not None else "",
            uid=placement.uid if placement is not None else "",
            leaving=tuple(left),
        )
    elif left:
        assign.derive(state, entry, out)
    else:
        for cluster in sorted(entry.assignments):
            assign.bury(entry, cluster, entry.version, out)
    return not left


def _decide(
    state: State, entry: Entry, workload: Workload, placement: Placement | None, mode: Mode, now: float, out: Outputs
) -> None:
    chosen = activation.in_force(state, entry, workload, placement)
    policy, ignored = chosen.policy, chosen.ignored
    inputs = inputs_of(state, entry, workload, policy, placement)
    end = ending.ended(entry, workload, placement, policy)
    if end is not None and placement is not None:
        told = tuple(r for r in placement.reasons if r.code is not Code.WAITING_FOR_REMOVAL)
        _rewrite(state, entry, placement, out, now, verdict=end, reasons=ending.failure(entry, end) or told)
        state.queue.remove(entry.key)
        return
    eviction = entry.eviction
    applies = placement is not None and eviction is not None and pending_eviction(placement, eviction)
    # A placement that was read from a document, or recovered, does not say what it was derived from.
    unknown = placement is not None and not placement.inputs
    unchanged = placement is not None and (unknown or submission(placement.inputs) == submission(inputs))
    final = placement is not None and placement.verdict in FINAL and unchanged and mode is not Mode.FRESH
    replaced = _replaced(state, entry, placement) if placement is not None and not workload.job else False
    if placement is not None and not applies and (final or (mode is Mode.FILL and not replaced)):
        known = (
            inputs
            if chosen.recorded is None
            else tuple(("policy", chosen.recorded) if name == "policy" else (name, value) for name, value in inputs)
        )
        stands = final or _stands(state, entry, placement, known, policy, workload, now)
        if stands:
            _heal(entry, out)
            if policy is not None and not final:
                _wake(state, entry, _ends_of_toleration(state, placement, policy, workload, now))
            assign.derive(state, entry, out)
            return
    warnings = [
        Reason(Code.POLICY_IGNORED, f"{other.key} selects it too, but {policy.key} goes first and has claimed it")
        for other in ignored
        if policy is not None
    ]
    pods = bool(workload.components or workload.job)  # or nothing to count, such as a ConfigMap
    attached = () if pods else dependencies.clusters_for(state, entry)
    if policy is None and attached:
        without_policy.attach(state, entry, workload, inputs, attached, now, out)
        return
    if policy is None and placement is not None and dependencies.INPUT in dict(placement.inputs):
        placement = None  # nothing needs it any more
    if policy is None:
        what = f"{workload.api_version} {workload.kind} {workload.name} in {workload.namespace}"
        message = f"no PropagationPolicy or ClusterPropagationPolicy selects {what}"
        if chosen.lazy:
            message = f"{chosen.lazy} selects it, but is lazy: it counts from the next submission on"
        without_policy.leave_alone(
            state, entry, workload, placement, inputs, now, out, Reason(Code.NO_MATCHING_POLICY, message)
        )
        return
    foreign = activation.not_ours(state, policy)
    if foreign is not None:
        without_policy.leave_alone(state, entry, workload, placement, inputs, now, out, foreign, policy.key)
        return
    if entry.unreadable:
        warnings.append(Reason(Code.INVALID_RECORD, f"the last submission cannot be read: {entry.unreadable}"))
    state.unmatched.discard(entry.key)
    if placement is not None and mode is Mode.FILL and not same(placement.inputs, inputs):
        rescaled = policy.placement.division is DivisionType.DUPLICATED or placement.replicas != workload.replicas
        mode = Mode.STEADY if rescaled or not unknown else Mode.FILL
    draft = prepare(state, entry, workload, policy, placement, mode, now, applies=applies, changed=not unchanged)
    draft.reasons.extend(warnings)
    in_force = applies or (eviction is not None and dict(inputs).get("eviction") == eviction_id(eviction))
    given_up = in_force and eviction is not None and eviction.give_up and mode is not Mode.FRESH and unchanged
    backing_off = in_force and eviction is not None and eviction.not_before > now and mode is not Mode.FRESH
    if given_up and eviction is not None:
        draft.blocked = "given up"
        times = f"after {eviction.attempts} attempts" if eviction.attempts else "by the rescheduler"
        draft.reasons.append(Reason(Code.ATTEMPTS_EXHAUSTED, f"given up {times}; submit it again to try once more"))
    elif policy.suspend_scheduling and not admit.decides(state, workload):
        # With a quota, a suspension only says that the quota decides when it starts.
        draft.blocked = "suspended"
        draft.reasons.append(Reason(Code.SUSPENDED, f"{policy.key} suspends scheduling"))
    elif backing_off and eviction is not None:
        draft.blocked = "backing off"
        message = f"attempt {eviction.attempts + 1} starts at {clock(eviction.not_before)}"
        draft.reasons.append(Reason(Code.BACKING_OFF, message))
    elif pods and (reason := turn.behind(state, entry, workload)) is not None:
        draft.blocked = turn.BEHIND
        draft.reasons.append(reason)
    out.count("decisions")
    if pods and not draft.blocked:
        turn.keep_off(draft)
    if state.quotas.root is not None and not draft.blocked and pods:
        admit.admit(draft)
    draft = _placed(draft, out)
    if attached:
        draft.shares = dependencies.joined(draft.shares, attached)
        draft.reasons.append(dependencies.told(state, entry))
        inputs = (*inputs, (dependencies.INPUT, dependencies.stamp(attached)))
    verdict = _verdict(draft)
    if placement is not None and unchanged and (verdict is not Verdict.SCHEDULED or placement.decided_at == now):
        # Who was preempted goes on being told so until it has a place again.
        draft.reasons[:0] = [r for r in placement.reasons if r.code is Code.PREEMPTED]
    if placement is not None and unchanged:
        kept = {share.cluster for share in draft.shares}
        draft.reasons[:0] = [r for r in placement.reasons if r.code is Code.PREEMPTS and r.cluster in kept]
    inputs, timeout = _waiting(draft, policy, placement if unchanged else None, inputs, verdict)
    if timeout is not None and timeout <= now and policy.queue_timeout is not None:
        verdict = Verdict.GIVEN_UP
        message = f"waited for longer than the queueTimeout of {policy.queue_timeout:g} s"
        draft.reasons.insert(0, Reason(Code.QUEUE_TIMEOUT, message))
    draft.reasons.extend(activation.held_back(policy, [share.cluster for share in draft.shares]))
    if chosen.lazy:
        message = f"{chosen.lazy} was changed, but is lazy: it counts from the next submission on"
        draft.reasons.append(Reason(Code.POLICY_PENDING, message))
    reasons = tuple(draft.reasons)
    leaving = commit.leaving(state, entry, draft.shares)
    if leaving and draft.shares:
        message = f"starts when its copy in {', '.join(leaving)} is reported gone"
        reasons = (Reason(Code.WAITING_FOR_REMOVAL, message), *reasons)
    waits = verdict in (Verdict.UNSCHEDULABLE, Verdict.PARTIALLY_SCHEDULED)
    order, line = state.order(entry), turn.line_of(state, workload)
    commit.record(
        state,
        entry,
        out,
        now,
        verdict=verdict,
        shares=draft.shares,
        reasons=reasons,
        replicas=draft.replicas,
        policy=policy.key,
        inputs=inputs,
        uid=workload.uid,
        draft=draft,
        position=state.queue.position(order, line) if waits or verdict is Verdict.QUEUED else None,
        force=replaced,
    )
    if verdict is Verdict.GIVEN_UP:
        state.queue.remove(entry.key)
    elif draft.blocked == turn.BEHIND and sum(share.replicas for share in draft.shares) < draft.replicas:
        state.queue.add(order, (turn.BEHIND, line), (), (), draft.stock, now, line=line, blocks=False)
    elif (waits or draft.quota is not None) and not draft.blocked:
        _wait(state, draft, line)
    else:
        state.queue.remove(entry.key)
    _set_timer(state, draft, timeout, waits=waits or verdict is Verdict.QUEUED)


def _placed(draft: Draft, out: Outputs) -> Draft:
    """Returns the draft with everything placed that can be: on free nodes, in stock, then in the place of others.

    With `preemptBeforeProvision` others yield before nodes are created.
    """
    if draft.policy.preempt_before_provision and draft.stock and not draft.blocked:
        first = replace(
            draft,
            without_stock=True,
            _options=[],
            way_of={},
            slots={},
            reasons=list(draft.reasons),
            taken=set(),
            frozen=set(),
            waited={},
            stopped={},
            unnamed={},
            made=[],
        )
        place(first)
        if sum(share.replicas for share in first.shares) >= first.replicas or takeover.attempt(first, out):
            return first
        for cluster in sorted(first.taken):
            draft.state.fleet.touch(draft.member(cluster))
    place(draft)
    takeover.attempt(draft, out)
    return draft


def _waiting(
    draft: Draft, policy: PropagationPolicy, placement: Placement | None, inputs: Inputs, verdict: Verdict
) -> tuple[Inputs, float | None]:
    """Returns the inputs with the time since which nothing is placed, where that is bounded, and when it is over."""
    if policy.queue_timeout is None or draft.shares or verdict not in (Verdict.UNSCHEDULABLE, Verdict.QUEUED):
        return inputs, None
    known = dict(placement.inputs).get("waiting") if placement is not None and not placement.shares else None
    since = float(known) if known is not None and draft.mode is not Mode.FRESH else draft.now
    return (*inputs, ("waiting", f"{since:.3f}")), since + policy.queue_timeout


def _stands(
    state: State,
    entry: Entry,
    placement: Placement,
    inputs: Inputs,
    policy: PropagationPolicy | None,
    workload: Workload,
    now: float,
) -> bool:
    """Returns whether a placement is complete, stands on the same inputs, and nothing that it uses was lost."""
    if policy is None or placement.verdict is not Verdict.SCHEDULED or not same(placement.inputs, inputs):
        return False
    if policy.placement.division is DivisionType.DUPLICATED and not workload.job:
        return False  # copies go wherever they may
    if any(assign.is_gone(state, entry, cluster) for cluster in placement.leaving):
        return False
    if not overridden_alike(state, workload, placement) or not dependencies.stands(state, entry, workload, placement):
        return False
    unreadable = any(r.code is Code.INVALID_RECORD for r in placement.reasons)
    if bool(entry.unreadable) is not unreadable:
        return False
    candidates = state.candidates.candidates(state.fleet, policy, workload)
    for share in placement.shares:
        member = state.fleet.member(share.cluster)
        seen = entry.observations.get(share.cluster)
        if member.removed or candidates.driven_out(share.cluster, now):
            return False
        if seen is not None and seen.phase is ObservedPhase.REFUSED:
            return False
        if state.settings.lost_when_unreachable and member.inventory is not None and not member.ready:
            return False
    return True


def _replaced(state: State, entry: Entry, placement: Placement) -> bool:
    """Returns whether a cluster that it uses was replaced by a new one under the old name, which has nothing of it."""
    for share in placement.shares:
        known = entry.assignments.get(share.cluster)
        now = state.fleet.member(share.cluster).incarnation
        if known is not None and known.incarnation and now and known.incarnation != now:
            return True
    return False


def _verdict(draft: Draft) -> Verdict:
    placed = sum(share.replicas for share in draft.shares)
    if draft.blocked == "given up":
        return Verdict.GIVEN_UP
    if placed >= draft.replicas and (draft.shares or not draft.replicas) and draft.workload.components:
        return Verdict.SCHEDULED
    if draft.blocked == "suspended":
        return Verdict.SUSPENDED
    if not draft.workload.components and draft.shares:
        return Verdict.SCHEDULED
    if placed:
        return Verdict.PARTIALLY_SCHEDULED
    return Verdict.QUEUED if draft.blocked or draft.quota is not None else Verdict.UNSCHEDULABLE


def _wait(state: State, draft: Draft, line: str) -> None:
    """Lets the workload wait for capacity in the clusters that its policy means."""
    entry, workload, policy = draft.entry, draft.workload, draft.policy
    at_once = whole(workload, policy.placement.division, is_gang=policy.placement.gang)
    order = state.order(entry)
    kept = before.kept if (before := turn.kept_before(draft)) is not None else ""
    own = draft.shares or draft.caps or draft.refused.keys() - {kept} or draft.units is not None
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
    placed = sum(share.replicas for share in draft.shares)
    if draft.quota is not None and draft.limit is not None and placed >= draft.limit:
        # No cluster helps as long as the quota does not.
        need = QuotaNeed(draft.leaf.name, draft.unit, not preemptible(workload)) if draft.leaf is not None else None
        state.queue.add(order, (*key, need), (), (), draft.stock, draft.now, need, line=line, blocks=blocks)
        turn.overtaken(draft, order, at_once=at_once)
        return
    needs = tuple(tuple(draft.wanted(way, one=not at_once)) for way in draft.ways)
    blind = policy.placement.division in (DivisionType.DUPLICATED, DivisionType.STATIC)
    if (at_once and draft.shares) or (blind and not at_once):
        needs = ()
    clusters = tuple(sorted(draft.candidates.tier_of))
    state.queue.add(order, key, clusters, needs, draft.stock, draft.now, line=line, blocks=blocks)
    turn.overtaken(draft, order, at_once=at_once)


def _set_timer(state: State, draft: Draft, timeout: float | None, *, waits: bool) -> None:
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
    _wake(state, entry, times)


def _ends_of_toleration(
    state: State, placement: Placement, policy: PropagationPolicy, workload: Workload, now: float
) -> list[float]:
    """Returns when taints of its clusters, which are tolerated for a while, will drive a placement out."""
    until = state.candidates.candidates(state.fleet, policy, workload).until
    return [until[s.cluster] for s in placement.shares if until.get(s.cluster, now) > now] if until else []


def _wake(state: State, entry: Entry, times: list[float]) -> None:
    at = min(times, default=None)
    if at != entry.timer:
        entry.timer = at
        if at is not None:
            heapq.heappush(state.timers, (at, entry.key))


def _heal(entry: Entry, out: Outputs) -> None:
    """Writes a placement again that a lower epoch has overwritten."""
    if entry.rewrite and entry.placement is not None:
        out.place(PlacementWrite(entry.key, entry.placement.version, entry.placement))
        out.count("rewritten")
    entry.rewrite = False


def _write(
    state: State,
    entry: Entry,
    out: Outputs,
    now: float,
    *,
    verdict: Verdict,
    reasons: tuple[Reason, ...],
    replicas: int,
    policy: str = "",
    uid: str = "",
    leaving: tuple[str, ...] = (),
) -> None:
    commit.record(
        state,
        entry,
        out,
        now,
        verdict=verdict,
        shares=(),
        reasons=reasons,
        replicas=replicas,
        policy=policy,
        inputs=(),
        uid=uid,
        leaves=leaving,
    )


def _rewrite(
    state: State,
    entry: Entry,
    placement: Placement,
    out: Outputs,
    now: float,
    *,
    reasons: tuple[Reason, ...],
    verdict: Verdict | None = None,
) -> None:
    """Says something new about a placement without touching its division."""
    commit.record(
        state,
        entry,
        out,
        now,
        verdict=verdict or placement.verdict,
        shares=placement.shares,
        reasons=reasons,
        replicas=placement.replicas,
        policy=placement.policy,
        inputs=placement.inputs,
        uid=placement.uid,
        leaves=placement.leaving,
    )
