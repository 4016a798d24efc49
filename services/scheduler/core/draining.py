"""Taking every copy of a workload back, and what has a placement but no submission (any more)."""

from __future__ import annotations

from gpufleet.model.placement import Placement
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core import assign, commit
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.state import Entry, State


def without_submission(state: State, entry: Entry, now: float, out: Outputs) -> None:
    """Removes what was deleted; touches nothing of what is missing on the log or cannot be read, and says so."""
    placement = entry.placement
    if entry.deleted or (placement is not None and placement.verdict is Verdict.DELETING):
        state.queue.remove(entry.key)
        state.unmatched.discard(entry.key)
        if drain(state, entry, now, out, "every cluster has to report its copy gone"):
            commit.drop(state, entry, out, now)
    elif entry.unreadable:
        message = f"the last submission cannot be read: {entry.unreadable}"
        reason = Reason(Code.INVALID_RECORD, message)
        if placement is None:
            _write(state, entry, out, now, verdict=Verdict.UNSCHEDULABLE, reasons=(reason,), replicas=0)
        else:
            kept = tuple(r for r in placement.reasons if r.code is not Code.INVALID_RECORD)
            commit.rewrite(state, entry, placement, out, now, reasons=(reason, *kept))
    elif placement is not None and placement.verdict is not Verdict.ORPHANED:
        reason = Reason(
            Code.SUBMISSION_MISSING,
            "its submission is not on the log; submit it again, or submit and delete it to remove its copies",
        )
        commit.rewrite(state, entry, placement, out, now, verdict=Verdict.ORPHANED, reasons=(reason,))
    elif placement is not None:
        commit.heal(entry, out)


def must_drain(placement: Placement, workload: Workload, entry: Entry) -> bool:
    """Returns whether copies of an earlier submission have to go before the present one is decided on."""
    if placement.verdict is Verdict.DELETING:
        return True
    if not placement.inputs and not placement.uid:
        return False  # read from a document, which does not say
    return placement.uid != workload.uid and bool(placement.shares or entry.assignments or placement.leaving)


def drain(state: State, entry: Entry, now: float, out: Outputs, why: str) -> bool:
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
            reasons=(Reason(Code.WAITING_FOR_REMOVAL, f"{why}: {', '.join(left)}"),),
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
