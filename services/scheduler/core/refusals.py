"""Why clusters did not take (more of) a workload: the last step of a decision."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Code, Reason
from services.scheduler.core import explain, gang, namespace_quota, unit_reasons
from services.scheduler.core.divide_whole import whole
from services.scheduler.core.draft import Draft
from services.scheduler.core.member import Member
from services.scheduler.core.room import avoided, way_in


def add_refusals(draft: Draft) -> None:
    """Adds why clusters did not take (more of) it; costs nothing where everything went where it should."""
    draft.reasons.extend(draft.candidates.reasons)
    counts = draft.counts or {}
    division = draft.policy.placement.division
    at_once = whole(draft.workload, division, is_gang=draft.policy.placement.gang)
    blind = not at_once and division in (DivisionType.DUPLICATED, DivisionType.STATIC)
    if draft.limit is not None and sum(counts.values()) >= draft.limit:
        if not draft.limit and not blind and draft.quota is Code.QUOTA_EXCEEDED:
            _never(draft, at_once=at_once)
        return  # the quota is what it waits for
    missing = draft.replicas - sum(counts.values())
    if draft.blocked or draft.unmet or blind:
        return  # capacity was not looked at
    if missing <= 0 and len(draft.candidates.tiers) == 1:
        return
    used = {cluster for cluster, count in counts.items() if count}
    if missing <= 0 and not used:
        return
    last = max((draft.tier_of(cluster) or 0 for cluster in used), default=-1)
    spoken = {reason.cluster for reason in draft.reasons}
    if missing <= 0:
        # Room in a higher group that nothing is moved back to needs no excuse.
        spoken |= draft.with_room(last, counts)
    stays = at_once and missing <= 0 and any(draft.before.get(cluster) is not None for cluster in used)
    limit = budget = draft.state.settings.reason_clusters
    named = sum(bool(reason.cluster) for reason in draft.reasons)
    for number, tier in enumerate(draft.candidates.tiers):
        if (missing <= 0 and number == last) or (stays and number < last):
            continue
        needless = missing <= 0 and number > last
        for place, member in enumerate(tier.members):
            if named >= limit and (needless or budget <= 0):
                # More are only counted, by code.
                code = Code.HIGHER_GROUP_TOOK_ALL if needless else Code.INSUFFICIENT_RESOURCES
                rest = len(tier.members) - place
                rest -= sum([m.name in spoken for m in tier.members[place:]]) if spoken else 0
                if rest:
                    draft.unnamed[code] = draft.unnamed.get(code, 0) + rest
                break
            if member.name in spoken:
                continue
            if needless:
                reason = _not_needed(member.name, draft.candidates.tiers[last].name)
            elif budget > 0:
                budget -= 1
                reason = _full(draft, member, counts, one=not at_once)
            else:
                reason = Reason(Code.INSUFFICIENT_RESOURCES, "no room", member.name)
            draft.reasons.append(reason)
            named += 1
    if missing > 0 and not used:
        _never(draft, at_once=at_once)


def _full(draft: Draft, member: Member, counts: Mapping[str, int], *, one: bool) -> Reason:
    before = draft.before.get(member.name)
    new = counts.get(member.name, 0) - (before.replicas if before is not None else 0)
    cap = draft.caps.get(member.name)
    if cap is not None and counts.get(member.name, 0) >= cap:
        kept = draft.kept
        return kept if kept is not None and kept.cluster == member.name else avoided(draft, member.name)
    if new > 0 and member.dirty:
        return Reason(Code.INSUFFICIENT_RESOURCES, f"had room for {new} more, which it was given", member.name)
    if one and new <= 0:
        room = draft.room_of(member)
        if room > 0:
            return Reason(Code.INSUFFICIENT_RESOURCES, f"has room for {room} more, which is not enough", member.name)
    if member.inventory is not None and member.inventory.quotas:
        least = {c.name: min(1, c.replicas) for c in draft.workload.components} if one else gang.least(draft.workload)
        quota = namespace_quota.why(draft, member, least, max(0, new) if one else 0)
        if quota is not None:
            return quota
    if draft.units is not None:
        return unit_reasons.why(draft, member, one=one)
    reason = explain.shortage(member, draft.wanted(way_in(draft, member.name), one=one), stock=draft.stock)
    if one and reason.code is Code.GANG_DOES_NOT_FIT:
        # Not looked at by the division: a group is used that takes all, or takes more.
        return Reason(Code.INSUFFICIENT_RESOURCES, "has room, but its group does not take all replicas", member.name)
    return reason


@lru_cache(maxsize=4096)
def _not_needed(cluster: str, last: str) -> Reason:
    message = f"not needed: the groups up to {last or 'a higher group'} took all"
    return Reason(Code.HIGHER_GROUP_TOOK_ALL, message, cluster)


def _never(draft: Draft, *, at_once: bool) -> None:
    """Says so if no candidate could take it even when empty."""
    if draft.blocked or any(reason.code is Code.NEVER_FITS for reason in draft.reasons):
        return
    counts = gang.least(draft.workload)
    if not at_once:
        counts = {c.name: min(1, c.replicas) for c in draft.workload.components}
    tried = False
    for tier in draft.candidates.tiers:
        for member in tier.members:
            if gang.could_ever_fit(member, draft.ways, counts):
                return
            tried = True
    if not tried:
        return
    pods = sum(counts.values())
    what = f"all {pods} pods of it" if at_once and pods > 1 else "a pod of it"
    draft.reasons.insert(
        0, Reason(Code.NEVER_FITS, f"no cluster could take {what} even if it were empty and had all of its stock")
    )
