"""What is to be done with one workload now: remove it, keep it, or decide on it.

submitted -> Scheduled | PartiallyScheduled | Unschedulable <-> Queued (back-off) | Suspended
          -> Finished | Failed | GivenUp                 (stand until the submission changes)
tombstone, or a new uid -> Deleting -> every copy gone -> tombstone, or decided anew
missing at start -> Orphaned                             (nothing is touched)
"""

from __future__ import annotations

from dataclasses import dataclass

from gpufleet.model.placement import Placement, pods_of
from gpufleet.model.policy import DivisionType, PropagationPolicy
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
    keeping,
    overrides,
    standing,
    takeover,
    turn,
    waiting,
    without_policy,
    witness,
)
from services.scheduler.core.divide import Mode
from services.scheduler.core.draft import Draft
from services.scheduler.core.inputs import Inputs, eviction_id, inputs_of, pending_eviction, same, submission
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.place import place
from services.scheduler.core.prepare import prepare
from services.scheduler.core.queue import Queued
from services.scheduler.core.room import clock
from services.scheduler.core.state import FINAL, Entry, State
from services.scheduler.core.verdict import verdict_of


def settle(state: State, entry: Entry, mode: Mode, now: float, out: Outputs) -> None:
    """Brings one workload to what its tables say should be."""
    out.count("settled")
    state.settling = (entry.key, mode)
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
    _decide(_case(state, entry, workload, placement, mode, now, out))


@dataclass(slots=True)
class _Case:
    """A workload with what a decision on it starts from.

    ``applies``: an eviction judged just this placement; ``unknown``: the placement does not say what it was derived
    from, because it was read from a document, or recovered; ``unchanged``: the submission is what it was decided for;
    ``replaced``: a cluster of it has a new one in its place.
    """

    state: State
    entry: Entry
    workload: Workload
    placement: Placement | None
    mode: Mode
    now: float
    out: Outputs
    chosen: activation.InForce
    inputs: Inputs
    applies: bool
    unknown: bool
    unchanged: bool
    replaced: bool

    @property
    def pods(self) -> bool:
        """Whether there is anything to count, unlike in a ConfigMap."""
        return bool(self.workload.components or self.workload.job)


def _case(
    state: State, entry: Entry, workload: Workload, placement: Placement | None, mode: Mode, now: float, out: Outputs
) -> _Case:
    chosen = activation.in_force(state, entry, workload, placement)
    inputs = inputs_of(state, entry, workload, chosen.policy, placement)
    case = _Case(state, entry, workload, placement, mode, now, out, chosen, inputs, False, False, False, False)
    if placement is not None:
        case.applies = entry.eviction is not None and pending_eviction(placement, entry.eviction)
        case.unknown = not placement.inputs
        case.unchanged = case.unknown or submission(placement.inputs) == submission(inputs)
        case.replaced = not workload.job and standing.replaced(state, entry, placement)
    return case


def _decide(case: _Case) -> None:
    """The steps of a decision, the cheapest first."""
    if _ended(case) or _stands(case):
        return
    policy = case.chosen.policy
    attached = () if case.pods else dependencies.clusters_for(case.state, case.entry)
    if policy is None or (foreign := activation.not_ours(case.state, policy)) is not None:
        _leave(case, attached, None if policy is None else foreign)
        return
    draft = _drafted(case, policy)
    _hold_back(case, draft)
    case.out.count("decisions")
    if case.pods and not draft.blocked:
        keeping.keep_off(draft)
        if case.state.quotas.root is not None:
            witness.quotas(draft)
            admit.admit(draft)
    draft = _placed(draft, case.out)
    inputs = case.inputs
    if attached:
        draft.shares = dependencies.joined(draft.shares, attached)
        draft.reasons.append(dependencies.told(case.state, case.entry))
        inputs = (*inputs, (dependencies.INPUT, dependencies.stamp(attached)))
    _conclude(case, draft, inputs)


def _ended(case: _Case) -> bool:
    """Records that a workload has run to its end, if it has just done so."""
    placement = case.placement
    end = ending.ended(case.entry, case.workload, placement, case.chosen.policy)
    if end is None or placement is None:
        return False
    told = tuple(r for r in placement.reasons if r.code is not Code.WAITING_FOR_REMOVAL)
    reasons = ending.failure(case.entry, end) or told
    commit.rewrite(case.state, case.entry, placement, case.out, case.now, verdict=end, reasons=reasons)
    case.state.queue.remove(case.entry.key)
    return True


def _stands(case: _Case) -> bool:
    """Leaves a placement as it is, if it may stand; writes only what somebody else has overwritten."""
    state, entry, placement, chosen = case.state, case.entry, case.placement, case.chosen
    if placement is None or case.applies:
        return False
    final = placement.verdict in FINAL and case.unchanged and case.mode is not Mode.FRESH
    if not final:
        if case.mode is not Mode.FILL or case.replaced:
            return False
        known = case.inputs
        if chosen.recorded is not None:
            known = tuple(("policy", chosen.recorded) if name == "policy" else (name, value) for name, value in known)
        if not standing.stands(state, entry, placement, known, chosen.policy, case.workload, case.now):
            return False
    if chosen.recorded is not None and placement.edition is None:
        # It has to carry its edition now.
        commit.rewrite(state, entry, placement, case.out, case.now, reasons=placement.reasons)
    commit.heal(entry, case.out)
    if chosen.policy is not None and not final:
        ends = waiting.ends_of_toleration(state, placement, chosen.policy, case.workload, case.now)
        waiting.wake(state, entry, ends)
    assign.derive(state, entry, case.out)
    return True


def _leave(case: _Case, attached: tuple[str, ...], foreign: Reason | None) -> None:
    """Leaves alone what no policy selects, or another scheduler's; what pods need travels with them."""
    state, entry, workload, placement, chosen = case.state, case.entry, case.workload, case.placement, case.chosen
    policy = chosen.policy
    if policy is None and attached:
        without_policy.attach(state, entry, workload, case.inputs, attached, case.now, case.out)
        return
    if policy is None and placement is not None and dependencies.INPUT in dict(placement.inputs):
        placement = None  # nothing needs it any more
    reason = foreign
    if reason is None:
        what = f"{workload.api_version} {workload.kind} {workload.name} in {workload.namespace}"
        message = f"no PropagationPolicy or ClusterPropagationPolicy selects {what}"
        if chosen.lazy:
            message = f"{chosen.lazy} selects it, but is lazy: it counts from the next submission on"
        reason = Reason(Code.NO_MATCHING_POLICY, message)
    key = policy.key if policy is not None else ""
    without_policy.leave_alone(state, entry, workload, placement, case.inputs, case.now, case.out, reason, key)


def _drafted(case: _Case, policy: PropagationPolicy) -> Draft:
    """Returns what the placing steps start from."""
    state, entry, workload, placement, mode = case.state, case.entry, case.workload, case.placement, case.mode
    state.unmatched.discard(entry.key)
    if placement is not None and mode is Mode.FILL and not same(placement.inputs, case.inputs):
        rescaled = policy.placement.division is DivisionType.DUPLICATED or placement.replicas != workload.replicas
        mode = Mode.STEADY if rescaled or not case.unknown else Mode.FILL
    draft = prepare(
        state, entry, workload, policy, placement, mode, case.now, applies=case.applies, changed=not case.unchanged
    )
    draft.seen.ignored = case.chosen.ignored
    for other in case.chosen.ignored:
        message = f"{other.key} selects it too, but {policy.key} goes first and has claimed it"
        draft.reasons.append(Reason(Code.POLICY_IGNORED, message))
    if entry.unreadable:
        message = f"the last submission cannot be read: {entry.unreadable}"
        draft.reasons.append(Reason(Code.INVALID_RECORD, message))
    return draft


def _hold_back(case: _Case, draft: Draft) -> None:
    """Blocks a draft that is given up, suspended, backing off or behind others, and says so."""
    state, entry, policy, eviction = case.state, case.entry, draft.policy, case.entry.eviction
    in_force = case.applies or (eviction is not None and dict(case.inputs).get("eviction") == eviction_id(eviction))
    judged = eviction if in_force and draft.mode is not Mode.FRESH else None
    if judged is not None and judged.give_up and case.unchanged:
        draft.blocked = "given up"
        times = f"after {judged.attempts} attempts" if judged.attempts else "by the rescheduler"
        draft.reasons.append(Reason(Code.ATTEMPTS_EXHAUSTED, f"given up {times}; submit it again to try once more"))
    elif policy.suspend_scheduling and not admit.decides(state, case.workload):
        # With a quota, a suspension only says that the quota decides when it starts.
        draft.blocked = "suspended"
        draft.reasons.append(Reason(Code.SUSPENDED, f"{policy.key} suspends scheduling"))
    elif absent := overrides.absent(state.overrides, policy):
        draft.blocked = "suspended"
        draft.reasons.append(absent)
    elif judged is not None and judged.not_before > case.now:
        draft.blocked = "backing off"
        message = f"attempt {judged.attempts + 1} starts at {clock(judged.not_before)}"
        draft.reasons.append(Reason(Code.BACKING_OFF, message))
    elif case.pods and (reason := turn.behind(state, entry, case.workload)) is not None:
        draft.blocked = turn.BEHIND
        draft.reasons.append(reason)


def _conclude(case: _Case, draft: Draft, inputs: Inputs) -> None:
    """Records what was decided and, where something is missing, lets the workload wait."""
    state, entry, now, policy = case.state, case.entry, case.now, draft.policy
    verdict = verdict_of(draft)
    earlier = case.placement if case.unchanged else None
    inputs, timeout = waiting.with_timeout(draft, policy, earlier, inputs, verdict)
    reasons = _reasons(case, draft, verdict)
    if timeout is not None and timeout <= now and policy.queue_timeout is not None:
        verdict = Verdict.GIVEN_UP
        message = f"waited for longer than the queueTimeout of {policy.queue_timeout:g} s"
        reasons.insert(0, Reason(Code.QUEUE_TIMEOUT, message))
    leaving = commit.leaving(state, entry, draft.shares)
    if leaving and draft.shares:
        message = f"starts when its copy in {', '.join(leaving)} is reported gone"
        reasons.insert(0, Reason(Code.WAITING_FOR_REMOVAL, message))
    waits = verdict in (Verdict.UNSCHEDULABLE, Verdict.PARTIALLY_SCHEDULED)
    order, line = state.order(entry), turn.line_of(state, case.workload)
    queued = None
    if waits or verdict is Verdict.QUEUED:
        since = case.placement.waiting_since if case.placement is not None else None
        queued = Queued(state.queue.position(order, line), line, -order[0], now if since is None else since)
    commit.record(
        state,
        entry,
        case.out,
        now,
        verdict=verdict,
        shares=draft.shares,
        reasons=tuple(reasons),
        replicas=draft.replicas,
        policy=policy.key,
        inputs=inputs,
        uid=case.workload.uid,
        draft=draft,
        queued=queued,
        leaves=leaving,
        force=case.replaced,
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


def _reasons(case: _Case, draft: Draft, verdict: Verdict) -> list[Reason]:
    """Returns what is told: what an earlier decision said that still counts, then what this one found."""
    placement, policy, chosen = case.placement, draft.policy, case.chosen
    clusters = [share.cluster for share in draft.shares]
    told: list[Reason] = []
    if placement is not None and case.unchanged:
        told += [r for r in placement.reasons if r.code is Code.PREEMPTS and r.cluster in clusters][-takeover.NAMED :]
        if verdict is not Verdict.SCHEDULED or placement.decided_at == case.now:
            # Who was preempted goes on being told so until it has a place again.
            told += [r for r in placement.reasons if r.code is Code.PREEMPTED]
    told += draft.reasons
    told += activation.held_back(policy, clusters)
    if chosen.lazy:
        message = f"{chosen.lazy} was changed, but is lazy: it counts from the next submission on"
        told.append(Reason(Code.POLICY_PENDING, message))
    return told


def _placed(draft: Draft, out: Outputs) -> Draft:
    """Returns the draft with everything placed that can be: on free nodes, in stock, then in the place of others.

    With `preemptBeforeProvision` others yield before nodes are created, with BeforeNextUnit before the next unit.
    """
    for first in takeover.before_others(draft):
        place(first)
        if pods_of(first.shares) >= first.replicas or takeover.attempt(first, out):
            return first
        for cluster in sorted(first.taken):
            draft.state.fleet.touch(draft.member(cluster))
    place(draft)
    takeover.attempt(draft, out)
    return draft
