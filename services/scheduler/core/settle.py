"""What is to be done with one workload now: remove it, keep it, or decide on it.

submitted -> Scheduled | PartiallyScheduled | Unschedulable <-> Queued (back-off) | Suspended
          -> Finished | Failed | GivenUp                 (stand until the submission changes)
tombstone, or a new uid -> Deleting -> every copy gone -> tombstone, or decided anew
missing at start -> Orphaned                             (nothing is touched)
"""

from __future__ import annotations

from dataclasses import replace

from gpufleet.model.placement import Placement, pods_of
from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core import (
    activation,
    admit,
    assign,
    commit,
    dependencies,
    draining,
    ending,
    standing,
    takeover,
    turn,
    waiting,
    without_policy,
)
from services.scheduler.core.divide import Mode
from services.scheduler.core.draft import Draft
from services.scheduler.core.inputs import eviction_id, inputs_of, pending_eviction, same, submission
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.place import place
from services.scheduler.core.prepare import prepare
from services.scheduler.core.room import clock
from services.scheduler.core.state import FINAL, Entry, State
from services.scheduler.core.verdict import verdict_of


def settle(state: State, entry: Entry, mode: Mode, now: float, out: Outputs) -> None:
    """Brings one workload to what its tables say should be."""
    out.count("settled")
    workload = entry.current
    if workload is None:
        draining.without_submission(state, entry, now, out)
        return
    placement = entry.placement
    if placement is not None and draining.must_drain(placement, workload, entry):
        if not draining.drain(state, entry, now, out, "the copies of the earlier submission are being removed first"):
            return
        commit.put(state, entry, None, now)  # its version is overtaken by the next one; no tombstone is needed
        placement = None
    _decide(state, entry, workload, placement, mode, now, out)


def _decide(
    state: State, entry: Entry, workload: Workload, placement: Placement | None, mode: Mode, now: float, out: Outputs
) -> None:
    chosen = activation.in_force(state, entry, workload, placement)
    policy, ignored = chosen.policy, chosen.ignored
    inputs = inputs_of(state, entry, workload, policy, placement)
    end = ending.ended(entry, workload, placement, policy)
    if end is not None and placement is not None:
        told = tuple(r for r in placement.reasons if r.code is not Code.WAITING_FOR_REMOVAL)
        commit.rewrite(state, entry, placement, out, now, verdict=end, reasons=ending.failure(entry, end) or told)
        state.queue.remove(entry.key)
        return
    eviction = entry.eviction
    applies = placement is not None and eviction is not None and pending_eviction(placement, eviction)
    # A placement that was read from a document, or recovered, does not say what it was derived from.
    unknown = placement is not None and not placement.inputs
    unchanged = placement is not None and (unknown or submission(placement.inputs) == submission(inputs))
    final = placement is not None and placement.verdict in FINAL and unchanged and mode is not Mode.FRESH
    replaced = standing.replaced(state, entry, placement) if placement is not None and not workload.job else False
    if placement is not None and not applies and (final or (mode is Mode.FILL and not replaced)):
        known = (
            inputs
            if chosen.recorded is None
            else tuple(("policy", chosen.recorded) if name == "policy" else (name, value) for name, value in inputs)
        )
        stands = final or standing.stands(state, entry, placement, known, policy, workload, now)
        if stands:
            if chosen.recorded is not None and placement.edition is None:
                commit.rewrite(state, entry, placement, out, now, reasons=placement.reasons)  # it has to carry it now
            commit.heal(entry, out)
            if policy is not None and not final:
                waiting.wake(state, entry, waiting.ends_of_toleration(state, placement, policy, workload, now))
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
    verdict = verdict_of(draft)
    if placement is not None and unchanged and (verdict is not Verdict.SCHEDULED or placement.decided_at == now):
        # Who was preempted goes on being told so until it has a place again.
        draft.reasons[:0] = [r for r in placement.reasons if r.code is Code.PREEMPTED]
    if placement is not None and unchanged:
        kept = {share.cluster for share in draft.shares}
        draft.reasons[:0] = [r for r in placement.reasons if r.code is Code.PREEMPTS and r.cluster in kept]
    inputs, timeout = waiting.with_timeout(draft, policy, placement if unchanged else None, inputs, verdict)
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
    elif draft.blocked == turn.BEHIND and pods_of(draft.shares) < draft.replicas:
        state.queue.add(order, (turn.BEHIND, line), (), (), draft.stock, now, line=line, blocks=False)
    elif (waits or draft.quota is not None) and not draft.blocked:
        waiting.wait(state, draft, line)
    else:
        state.queue.remove(entry.key)
    waiting.set_timer(state, draft, timeout, waits=waits or verdict is Verdict.QUEUED)


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
        if pods_of(first.shares) >= first.replicas or takeover.attempt(first, out):
            return first
        for cluster in sorted(first.taken):
            draft.state.fleet.touch(draft.member(cluster))
    place(draft)
    takeover.attempt(draft, out)
    return draft
