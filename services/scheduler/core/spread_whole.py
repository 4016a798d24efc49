"""Spread constraints of what goes to one cluster as a whole: whether one cluster can meet them, and in which group.

One cluster is one group of each kind, but for zones, of which it may have several. A constraint that wants more cannot
be met. Of the groups in which some cluster takes the whole, one is chosen as upstream chooses it, counting whole sets
of pods as available replicas; inside it every cluster is as good as the other. A bound on clusters says nothing new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Code, Reason
from services.scheduler.core import gang
from services.scheduler.core.divide import Mode
from services.scheduler.core.draft import Draft
from services.scheduler.core.member import Member
from services.scheduler.core.spread import Candidate, choose, counted, left_out, score
from services.scheduler.core.topology import groups_of
from services.scheduler.core.units import Way

Tried = list[tuple[Member, tuple[Way, ...]]]


def narrow(draft: Draft, tiers: list[Tried]) -> list[Tried]:
    """Returns the clusters of each tier that the constraints leave, and notes why the others are left out.

    Where no cluster can meet them the draft is unmet. What runs already stays in its cluster, whatever the group.
    """
    placement = draft.policy.placement
    if not placement.spread or placement.division is DivisionType.STATIC or draft.blocked:
        return tiers
    able = [[(m, ways) for m, ways in tier if _meets(draft, m)] for tier in tiers]
    if any(tiers) and not any(able):
        wide = max(placement.spread, key=lambda c: c.min_groups)
        message = (
            f"the policy spreads over at least {counted(wide, wide.min_groups)}, but it goes to one cluster as a whole"
        )
        draft.reasons.append(Reason(Code.SPREAD_UNMET, message, needs="minGroups: 1"))
        draft.unmet = True
        return able
    if draft.before and draft.mode is not Mode.FRESH:
        return able
    return [_of_one_group(draft, tier) for tier in able]


def _meets(draft: Draft, member: Member) -> bool:
    return all(len(groups_of(c, member.spec)) >= c.min_groups for c in draft.policy.placement.spread)


def _of_one_group(draft: Draft, tier: Tried) -> Tried:
    constraints = [replace(c, min_groups=1) for c in draft.policy.placement.spread if c.field != "cluster"]
    sets = _sets(draft, tier) if constraints else {}
    if not any(sets.values()):
        return tier  # nothing to choose by, and whatever gains room first will do
    candidates = [Candidate(m.name, 0, score(draft, m.name), sets[m.name]) for m, _ in tier]
    chosen = choose(candidates, constraints, {m.name: m.spec for m, _ in tier}, 1).clusters
    others = [m.name for m, _ in tier if m.name not in chosen]
    draft.reasons.extend(left_out(draft.policy.placement.spread, others))
    return [(m, ways) for m, ways in tier if m.name in chosen]


def _sets(draft: Draft, tier: Sequence[tuple[Member, Sequence[Way]]]) -> Mapping[str, int]:
    """Returns by cluster whether it takes the whole: on running nodes, or with stock where none does on these."""
    needed = gang.least(draft.workload)
    found: dict[str, int] = {}
    for stock in (False, True) if draft.stock else (False,):
        found = {m.name: int(any(gang.pack(m, way, needed, stock) for way in ways)) for m, ways in tier}
        if any(found.values()):
            break
    return found
