"""ResourceQuotas of a workload's namespace in a member: what they leave bounds what the cluster may be given.

What is asked for is known from the inventory, plus what placements hold for pods that it does not show yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gpufleet.model import quantity
from gpufleet.model.reasons import Code, Reason
from services.scheduler.core.draft import Draft
from services.scheduler.core.member import Member
from services.scheduler.core.reserve import requested
from services.scheduler.core.shapes import UNBOUNDED


def left(draft: Draft, member: Member) -> dict[str, int] | None:
    """Returns what may still be asked for by resource, without the workload's own room; None without a quota."""
    inventory, namespace = member.inventory, draft.workload.namespace
    quotas = [q for q in inventory.quotas if q.namespace == namespace] if inventory is not None else []
    if not quotas:
        return None
    held = requested(member.held, namespace)
    found: dict[str, int] = {}
    for quota in quotas:
        hard, used = dict(quota.hard), dict(quota.used)
        for name in quota.bounds:
            rest = hard.get(name, 0) - used.get(name, 0) - held.get(name, 0)
            found[name] = min(found.get(name, rest), rest)
    return found


def most(draft: Draft, member: Member) -> int:
    """Returns how many more sets of one pod of each component the namespace's quotas allow."""
    rest = left(draft, member)
    if rest is None:
        return UNBOUNDED
    needs: dict[str, int] = {}
    for component in draft.workload.components:
        for name, amount in component.shape.requests:
            needs[name] = needs.get(name, 0) + amount
    return max(0, min((rest[name] // amount for name, amount in needs.items() if name in rest), default=UNBOUNDED))


def admits(
    draft: Draft, member: Member, counts: Mapping[str, int], back: Mapping[str, int] = MappingProxyType({})
) -> bool:
    """Returns whether the namespace's quotas allow so many more pods by component, once ``back`` is given back."""
    rest = left(draft, member)
    if rest is None:
        return True
    rest = {name: amount + back.get(name, 0) for name, amount in rest.items()}
    for component in draft.workload.components:
        for name, amount in component.shape.requests:
            if name in rest:
                rest[name] -= amount * counts.get(component.name, 0)
    return all(amount >= 0 for amount in rest.values())


def why(draft: Draft, member: Member, counts: Mapping[str, int], given: int) -> Reason | None:
    """Returns the reason of a cluster whose namespace has no quota left for some pods; None if it has.

    ``given`` are pods of a single component that it is given by this decision.
    """
    rest = left(draft, member)
    if rest is None:
        return None
    needs: dict[str, int] = {}
    for component in draft.workload.components:
        for name, amount in component.shape.requests:
            if given and name in rest:
                rest[name] -= amount * given
            needs[name] = needs.get(name, 0) + amount * counts.get(component.name, 0)
    for name, amount in sorted(needs.items(), key=lambda item: ("/" not in item[0], item[0])):
        if name in rest and amount > max(0, rest[name]):
            return Reason(
                Code.NAMESPACE_QUOTA,
                f"needs {quantity.render(amount, name)} {name}, the ResourceQuota of namespace "
                f"{draft.workload.namespace} has {quantity.render(max(0, rest[name]), name)} left",
                member.name,
            )
    return None
