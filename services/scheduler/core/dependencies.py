"""`propagateDeps`: what the pods of a workload name travels to its clusters (specification 1.2, after Karmada).

ConfigMaps, Secrets, PersistentVolumeClaims and ServiceAccounts are submitted as workloads are. One that no policy
selects goes where the workloads go that need it, and leaves with the last of them; one that a policy selects goes to
both. What is not known for certain (a submission that is missing, a policy that is gone) takes nothing away.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpufleet.model import kinds
from gpufleet.model.kinds.digest import digest
from gpufleet.model.placement import ClusterShare, Placement
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Workload
from services.scheduler.core.divide import Mode
from services.scheduler.core.state import Entry, State

INPUT = "required"
_NAMED = 3


def update(state: State, entry: Entry) -> None:
    """Notes what an entry's placement requires where, and has what it requires looked at if that has changed."""
    known = state.required_by.needs.get(entry.key)
    placement = entry.placement
    policy = state.policies.get(placement.policy) if placement is not None and placement.policy else None
    if known is None and (policy is None or not policy.propagate_deps):
        return
    clusters = tuple(share.cluster for share in placement.shares) if placement is not None else ()
    workload = entry.workload
    needs: frozenset[str] = frozenset()
    if clusters and workload is not None and policy is not None:
        needs = kinds.references(workload) if policy.propagate_deps else frozenset()
    elif clusters and known is not None:
        needs = known[0]  # the submission or the policy is missing, which takes nothing away
    if (needs, clusters) == (known or (frozenset(), ())):
        return
    state.required_by.put(entry.key, needs, clusters)
    for key in sorted(needs | (known[0] if known is not None else frozenset())):
        if key in state.entries:
            state.ask(key, Mode.FILL)


def clusters_for(state: State, entry: Entry) -> tuple[str, ...]:
    """Returns the clusters that need an entry's object, and those where it cannot be told whether they still do."""
    found = {cluster for clusters in state.required_by.of(entry.key).values() for cluster in clusters}
    placement = entry.placement
    if placement is not None and INPUT in dict(placement.inputs):
        for share in placement.shares:
            if share.cluster not in found and _unclear(state, share.cluster, placement):
                found.add(share.cluster)
    return tuple(sorted(found))


def _unclear(state: State, cluster: str, placement: Placement) -> bool:
    namespace = placement.workload.partition("/")[0]
    for key in state.on_cluster.get(cluster, ()):
        other = state.entries.get(key)
        if key == placement.workload or other is None or other.placement is None:
            continue
        missing = other.workload is None and not other.deleted
        without = other.workload is not None and other.workload.components and not other.placement.policy
        if key.partition("/")[0] == namespace and (missing or without):
            return True
    return False


def stamp(clusters: Iterable[str]) -> str:
    """Returns what a placement records of the clusters that need it; empty for none."""
    listed = list(clusters)
    return digest({"clusters": listed})[:16] if listed else ""


def joined(shares: tuple[ClusterShare, ...], clusters: Iterable[str]) -> tuple[ClusterShare, ...]:
    """Returns shares of an object without pods, with one for each of some clusters besides."""
    known = {share.cluster: share for share in shares}
    return tuple(known.get(name) or ClusterShare(name, ()) for name in sorted({*known, *clusters}))


def told(state: State, entry: Entry) -> Reason:
    """Returns what needs an entry's object, in words."""
    names = sorted(state.required_by.of(entry.key))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    who = ", ".join(names[:_NAMED]) + more if names else "workloads whose submission or policy is missing"
    return Reason(Code.TRAVELS_ALONG, f"is needed by {who}")


def policy_of(state: State, entry: Entry) -> PropagationPolicy | None:
    """Returns the policy that an object without its own one is written by: that of the first workload that needs it."""
    for key in sorted(state.required_by.of(entry.key)):
        other = state.entries.get(key)
        if other is not None and other.placement is not None:
            policy = state.policies.get(other.placement.policy)
            if policy is not None:
                return policy
    return None


def stands(state: State, entry: Entry, workload: Workload, placement: Placement) -> bool:
    """Returns whether the clusters that need an object are those that a placement was decided for."""
    if workload.components or workload.job:
        return True
    return dict(placement.inputs).get(INPUT, "") == stamp(clusters_for(state, entry))
