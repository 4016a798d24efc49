"""Digests of what a decision was derived from (rule 4), and whether they are still the same."""

from __future__ import annotations

from collections.abc import Iterable

from gpufleet.model.placement import ClusterShare, Eviction, Placement
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.workload import Workload
from services.scheduler.core.activation import policy_stamp, workload_digest
from services.scheduler.core.assign import units_digest
from services.scheduler.core.overrides import stamp
from services.scheduler.core.state import Entry, State
from services.scheduler.core.units import applying

Inputs = tuple[tuple[str, str], ...]


def eviction_id(eviction: Eviction) -> str:
    """Returns what a placement records of the eviction that it was decided on."""
    return f"{eviction.judged.epoch}.{eviction.judged.version}@{eviction.at:.3f}"


def pending_eviction(placement: Placement, eviction: Eviction) -> bool:
    """Returns whether an eviction has yet to be applied: it judged just this placement."""
    return eviction.judged == placement.version and dict(placement.inputs).get("eviction") != eviction_id(eviction)


def inputs_of(
    state: State, entry: Entry, workload: Workload, policy: PropagationPolicy | None, placement: Placement | None
) -> Inputs:
    """Returns the digests of what a decision on a workload is derived from (rule 4)."""
    found = [("workload", workload_digest(workload))]
    if entry.scale is not None:
        found.append(("scale", str(entry.scale)))
    if policy is not None:
        found.append(("policy", policy_stamp(policy)))
    policies = state.resource_policies.get(workload.namespace)
    units = applying(workload, policies.values()) if policies else None
    if units is not None:
        found.append(("units", units_digest(units)))
    if entry.eviction is not None and placement is not None:
        known = dict(placement.inputs).get("eviction")
        if known == eviction_id(entry.eviction) or pending_eviction(placement, entry.eviction):
            found.append(("eviction", eviction_id(entry.eviction)))
    return tuple(found)


def with_overrides(state: State, workload: Workload, shares: Iterable[ClusterShare], inputs: Inputs) -> Inputs:
    """Returns the inputs with a digest of what the override policies change in the clusters of some shares."""
    if state.overrides.empty and all(name != "overrides" for name, _ in inputs):
        return inputs
    found = stamp(state.overrides, state.fleet, workload, (share.cluster for share in shares))
    known = tuple(item for item in inputs if item[0] != "overrides")
    return (*known, ("overrides", found)) if found else known


def overridden_alike(state: State, workload: Workload, placement: Placement) -> bool:
    """Returns whether the override policies still say what they said when a placement was decided."""
    return with_overrides(state, workload, placement.shares, placement.inputs) == placement.inputs


def submission(inputs: Inputs) -> tuple[str | None, str | None]:
    """Returns the part of the inputs that the producer controls."""
    known = dict(inputs)
    return (known.get("workload"), known.get("scale"))


def same(before: Inputs, after: Inputs) -> bool:
    """Returns whether a placement still stands on the same inputs.

    An eviction is judged by the version that it names, and an edited ResourcePolicy concerns later pods only.
    """
    known, now = dict(before), dict(after)
    return all(known.get(name) == now.get(name) for name in ("workload", "scale", "policy"))
