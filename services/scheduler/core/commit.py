"""Making a decision the truth: version, tables, ledger, indexes, records to write."""

from __future__ import annotations

from typing import Any

from gpufleet.model.placement import ClusterShare, Placement, clusters_of
from gpufleet.model.policy import DivisionType, PropagationPolicy
from gpufleet.model.reasons import Reason, Verdict
from services.scheduler.core import activation, assign, dependencies, explain, ledger
from services.scheduler.core.divide_whole import whole
from services.scheduler.core.draft import Draft
from services.scheduler.core.inputs import with_overrides
from services.scheduler.core.outputs import HistoryEntry, Outputs, PlacementWrite
from services.scheduler.core.queue import Queued
from services.scheduler.core.state import Entry, State
from services.scheduler.core.witness import witness


def record(
    state: State,
    entry: Entry,
    out: Outputs,
    now: float,
    *,
    verdict: Verdict,
    shares: tuple[ClusterShare, ...],
    reasons: tuple[Reason, ...],
    replicas: int,
    policy: str,
    inputs: tuple[tuple[str, str], ...],
    uid: str,
    draft: Draft | None = None,
    queued: Queued | None = None,
    leaves: tuple[str, ...] | None = None,
    force: bool = False,
) -> None:
    """Makes a decision the entry's placement, if it says anything new or is forced, and derives its assignments.

    ``leaves`` None: for a job, every cluster that may still hold a copy which is not part of it any more.
    """
    before = entry.placement
    applied = entry.applied
    if draft is not None:
        entry.applied = draft.policy
    if leaves is None:
        leaves = leaving(state, entry, shares)
    if inputs and entry.current is not None:
        inputs = with_overrides(state, entry.current, shares, inputs)
    placement = Placement(
        workload=entry.key,
        version=state.following_version(),
        verdict=verdict,
        replicas=replicas,
        shares=shares,
        reasons=explain.bounded(
            reasons, state.settings.reason_clusters, draft.unnamed if draft is not None else explain.EMPTY
        ),
        policy=policy,
        uid=uid,
        workload_version=entry.workload.version if entry.workload is not None else 0,
        inputs=inputs,
        decided_at=now,
        queue_position=queued.position if queued is not None else None,
        leaving=leaves,
        arrival=entry.arrival or 0,
        unit_waits=draft.unit_waits if draft is not None else (),
        edition=activation.carried(state, entry, policy, inputs),
        queue=queued.line if queued is not None else "",
        priority=queued.priority if queued is not None else 0,
        waiting_since=queued.since if queued is not None else None,
        group=_serving(state, before, draft, policy, shares),
        **_told(state, entry, policy),
    )
    if before is not None and not force and _says_the_same(before, placement):
        if draft is not None:
            for cluster in sorted(draft.taken):
                state.fleet.touch(state.fleet.member(cluster))
        if entry.rewrite:
            entry.rewrite = False
            out.place(PlacementWrite(entry.key, before.version, before))
            out.count("rewritten")
    else:
        state.next_version()
        out.history.append(_history(state, entry, placement, draft, applied, now))
        put(state, entry, placement, now, draft=draft)
        out.place(PlacementWrite(entry.key, placement.version, placement))
        entry.rewrite = False
        out.count(f"verdict_{verdict.value}")
    assign.derive(state, entry, out)


def _serving(
    state: State, before: Placement | None, draft: Draft | None, policy: str, shares: tuple[ClusterShare, ...]
) -> str:
    """Returns which priority group takes everything, empty if none does."""
    rule = state.policies.get(policy) if draft is None else draft.policy
    if not shares or (rule is not None and not rule.placement.exclusive):
        return ""
    if draft is not None and draft.group:
        return draft.group
    return before.group if before is not None and before.policy == policy else ""


def _told(state: State, entry: Entry, policy: str) -> dict[str, Any]:
    """Returns what the rescheduler has to know of the workload and its policy."""
    workload, rule, before = entry.workload, state.policies.get(policy), entry.placement
    if workload is None or rule is None:
        return {
            "job": workload.job if workload is not None else before is not None and before.job,
            "movable": before is not None and before.movable,
            "redispatch_user_failures": before is not None and before.redispatch_user_failures,
            "min_member": before.min_member if before is not None else None,
        }
    division = rule.placement.division
    return {
        "job": workload.job,
        "movable": division in (DivisionType.DYNAMIC, DivisionType.AGGREGATED)
        or whole(workload, division, is_gang=rule.placement.gang),
        "redispatch_user_failures": rule.redispatch_user_failures,
        "min_member": workload.min_member,
    }


def put(state: State, entry: Entry, placement: Placement | None, now: float, draft: Draft | None = None) -> None:
    """Sets an entry's placement and keeps ledger and indexes in step."""
    before = entry.placement
    same = before is not None and placement is not None and before.shares is placement.shares
    if before is not None:
        for share in before.shares if not same else ():
            _discard(state.on_cluster, share.cluster, entry.key)
        if placement is None or placement.policy != before.policy:
            _discard(state.by_policy, before.policy, entry.key)
    entry.placement = placement
    if placement is not None:
        key, on_cluster = entry.key, state.on_cluster
        for cluster in clusters_of(placement.shares) if not same else ():
            on_cluster[cluster].add(key)
        state.by_policy.setdefault(placement.policy, set()).add(entry.key)
    if state.quotas.root is not None:
        state.quotas.update(entry.key, entry.current, placement)
    if draft is None:
        ledger.update(state, entry, now)
    else:
        ledger.update(state, entry, now, taken=draft.taken, made=draft.made)
    dependencies.update(state, entry)


def drop(state: State, entry: Entry, out: Outputs, now: float) -> None:
    """Writes the tombstone of a placement whose every copy is gone, and forgets it."""
    if entry.placement is not None:
        out.place(PlacementWrite(entry.key, state.next_version(), None))
        out.count("deleted")
        put(state, entry, None, now)
    entry.gone.clear()
    entry.rewrite = False
    state.queue.remove(entry.key)
    state.unmatched.discard(entry.key)


def leaving(state: State, entry: Entry, shares: tuple[ClusterShare, ...]) -> tuple[str, ...]:
    """Returns the clusters that may hold a copy of a job which is not part of its shares (any more)."""
    workload = entry.workload
    if workload is None or not workload.job:
        return ()
    kept = {share.cluster for share in shares}
    clusters = set(entry.assignments) | set(entry.placement.leaving if entry.placement is not None else ())
    # A share that was just given up has its assignment still Active; it counts as well.
    return tuple(cluster for cluster in sorted(clusters - kept) if not assign.is_gone(state, entry, cluster))


def _says_the_same(before: Placement, after: Placement) -> bool:
    # Numbers in messages change with every event elsewhere; a record is worth writing only for something else.
    return (
        before.verdict is after.verdict
        and before.replicas == after.replicas
        and before.shares == after.shares
        and {(r.code, r.cluster) for r in before.reasons} == {(r.code, r.cluster) for r in after.reasons}
        and before.policy == after.policy
        and before.uid == after.uid
        and before.inputs == after.inputs
        and before.leaving == after.leaving
        and before.unit_waits == after.unit_waits
        and before.edition == after.edition
        and before.group == after.group
        and (before.queue, before.priority, before.waiting_since is None)
        == (after.queue, after.priority, after.waiting_since is None)
        and (before.job, before.movable, before.redispatch_user_failures)
        == (after.job, after.movable, after.redispatch_user_failures)
    )


def _history(
    state: State,
    entry: Entry,
    placement: Placement,
    draft: Draft | None,
    applied: PropagationPolicy | None,
    now: float,
) -> HistoryEntry:
    key, mode = state.settling
    if key != entry.key:
        return HistoryEntry(placement, now, because=key)
    return HistoryEntry(placement, now, mode.value, witness(state, entry, placement, draft, applied, mode, now))


def _discard(index: dict[str, set[str]], name: str, key: str) -> None:
    keys = index.get(name)
    if keys is not None:
        keys.discard(key)
        if not keys:
            del index[name]


def rewrite(
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
    record(
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


def heal(entry: Entry, out: Outputs) -> None:
    """Writes a placement again that a lower epoch has overwritten."""
    if entry.rewrite and entry.placement is not None:
        out.place(PlacementWrite(entry.key, entry.placement.version, entry.placement))
        out.count("rewritten")
    entry.rewrite = False
