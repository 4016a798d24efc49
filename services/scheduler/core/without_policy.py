"""What is recorded of a workload that no policy of ours selects."""

from __future__ import annotations

from gpufleet.model.placement import Placement, pods_of
from gpufleet.model.reasons import Reason, Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core import commit, dependencies
from services.scheduler.core.inputs import Inputs
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.state import Entry, State


def attach(
    state: State, entry: Entry, workload: Workload, inputs: Inputs, clusters: tuple[str, ...], now: float, out: Outputs
) -> None:
    """Puts what no policy selects, but pods need, where they are."""
    state.queue.remove(entry.key)
    state.unmatched.add(entry.key)
    commit.record(
        state,
        entry,
        out,
        now,
        verdict=Verdict.SCHEDULED,
        shares=dependencies.joined((), clusters),
        reasons=(dependencies.told(state, entry),),
        replicas=0,
        policy="",
        inputs=(*inputs, (dependencies.INPUT, dependencies.stamp(clusters))),
        uid=workload.uid,
    )


def leave_alone(
    state: State,
    entry: Entry,
    workload: Workload,
    placement: Placement | None,
    inputs: Inputs,
    now: float,
    out: Outputs,
    reason: Reason,
    policy: str = "",
) -> None:
    """Without a policy, or with another scheduler's, nothing is placed anew, and what is placed stays."""
    shares = placement.shares if placement is not None else ()
    placed = pods_of(shares)
    replicas = max(placed, workload.replicas)
    verdict = (
        Verdict.UNSCHEDULABLE if not shares else Verdict.PARTIALLY_SCHEDULED if placed < replicas else Verdict.SCHEDULED
    )
    state.queue.remove(entry.key)
    if not policy:
        state.unmatched.add(entry.key)
    commit.record(
        state,
        entry,
        out,
        now,
        verdict=verdict,
        shares=shares,
        reasons=(reason,),
        replicas=replicas,
        policy=policy,
        inputs=inputs,
        uid=workload.uid,
    )
