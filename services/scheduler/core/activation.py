"""Which edition of a policy is in force (`activationPreference: Lazy`), and whether the policy is ours at all.

An edition with Lazy counts for a workload from its next submission on (a new manifest, or a new scale); until then the
one that it was decided by holds. The policies topic has only the last one, so the placement carries its own. Where it
does not (it was written when placements carried none), what is placed completely stays as it is, and what has to be
decided anyhow is decided by the edition that there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpufleet.model.placement import Placement
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Workload

if TYPE_CHECKING:
    from services.scheduler.core.state import Entry, State


def policy_stamp(policy: PropagationPolicy) -> str:
    """Returns what a placement records of the policy that it was decided by."""
    return f"{policy.key}@{policy.digest or f'v{policy.version}'}"


def workload_digest(workload: Workload) -> str:
    """Returns what a placement records of the submission."""
    return workload.digest or f"v{workload.version}"


@dataclass(frozen=True, slots=True)
class InForce:
    """The policy to decide by, and others that select the workload too.

    ``lazy`` names a policy whose edition waits for the next submission; ``recorded`` is then the stamp of the one that
    holds, if any.
    """

    policy: PropagationPolicy | None
    ignored: tuple[PropagationPolicy, ...]
    lazy: str = ""
    recorded: str | None = None


def in_force(state: State, entry: Entry, workload: Workload, placement: Placement | None) -> InForce:
    """Returns the policy that counts for a workload now."""
    policy, ignored = state.policies.select(workload, placement.policy if placement is not None else "")
    if policy is None or not policy.lazy or placement is None or not placement.inputs:
        return InForce(policy, ignored)
    known = dict(placement.inputs)
    scale = None if entry.scale is None else str(entry.scale)
    recorded = known.get("policy")
    submitted_anew = (known.get("workload"), known.get("scale")) != (workload_digest(workload), scale)
    if submitted_anew or recorded == policy_stamp(policy):
        return InForce(policy, ignored)
    if recorded is None:
        return InForce(None, (), policy.key)
    earlier = _stamped(recorded, entry.applied, state.policies.get(placement.policy))
    return InForce(earlier or policy, ignored, policy.key, recorded)


def edition(state: State, entry: Entry, placement: Placement) -> PropagationPolicy | None:
    """Returns the policy that a placement's assignments follow; None leaves in them what they say."""
    policy = state.policies.get(placement.policy)
    if policy is None or not policy.lazy:
        return policy
    recorded = dict(placement.inputs).get("policy")
    if recorded is None or recorded == policy_stamp(policy):
        return policy
    return _stamped(recorded, entry.applied)


def _stamped(stamp: str, *editions: PropagationPolicy | None) -> PropagationPolicy | None:
    return next((known for known in editions if known is not None and policy_stamp(known) == stamp), None)


def carried(state: State, entry: Entry, policy: str, inputs: tuple[tuple[str, str], ...]) -> Mapping[str, Any] | None:
    """Returns the document that a placement has to carry: that of the lazy policy's edition in its inputs."""
    current = state.policies.get(policy)
    if current is None or not current.lazy:
        return None
    stamp = dict(inputs).get("policy")
    if stamp is None:
        return None
    known = _stamped(stamp, entry.applied, current)
    if known is not None:
        return known.manifest
    before = entry.placement
    return before.edition if before is not None and dict(before.inputs).get("policy") == stamp else None


def not_ours(state: State, policy: PropagationPolicy) -> Reason | None:
    """Returns why a policy is another scheduler's, if it is."""
    own = state.settings.scheduler_name
    if policy.scheduler_name == own:
        return None
    message = f"{policy.key} is for the scheduler {policy.scheduler_name}; this one is {own} and leaves it alone"
    return Reason(Code.OTHER_SCHEDULER, message)


def held_back(policy: PropagationPolicy, placement_clusters: Sequence[str]) -> list[Reason]:
    """Returns where a policy suspends dispatching, if it does."""
    if policy.suspend_dispatching and placement_clusters:
        return [Reason(Code.SUSPENDED, f"{policy.key} suspends dispatching: decided, but written to no cluster")]
    if not policy.suspend_dispatching_on:
        return []
    return [
        Reason(Code.SUSPENDED, f"{policy.key} suspends dispatching there: decided, but not written", cluster)
        for cluster in placement_clusters
        if cluster in policy.suspend_dispatching_on
    ]
