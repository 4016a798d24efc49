"""The step after the division: what found no room takes it from others, if anybody has to yield (specification 4).

The victims lose their pods and go back into the queue at their old place, and the preemptor is placed at once: its
reservation holds the room from then on. If it could not run after all, nobody is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gpufleet.model.placement import ClusterShare, Placement, pods_of
from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core import commit, turn, unit_fill, unit_use, witness
from services.scheduler.core.aftermath import runs
from services.scheduler.core.claim import Claim
from services.scheduler.core.divide_replicas import partial
from services.scheduler.core.divide_whole import whole
from services.scheduler.core.draft import Draft
from services.scheduler.core.evidence import Taking
from services.scheduler.core.keeping import kept_before
from services.scheduler.core.losses import Loss, Preemption
from services.scheduler.core.member import Member
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.preempt import Candidate, Search
from services.scheduler.core.prepare import bounded
from services.scheduler.core.queue import Queued
from services.scheduler.core.quota_terms import preemptible
from services.scheduler.core.ranking import preempts
from services.scheduler.core.room import eligible, way_of_share
from services.scheduler.core.slots import merged
from services.scheduler.core.state import Entry, State
from services.scheduler.core.trial import real
from services.scheduler.core.units import Way
from services.scheduler.core.whereabouts import last

_SHORTAGES = frozenset(
    {
        Code.INSUFFICIENT_RESOURCES,
        Code.NO_STOCK,
        Code.GANG_DOES_NOT_FIT,
        Code.NO_UNIT_HAS_ROOM,
        Code.QUOTA_EXCEEDED,
        Code.HIGHER_GROUP_TOOK_ALL,
    }
)
# A reason names so many victims, the others are counted; and so many earlier ones are told beside the last.
NAMED = 5


def nobody_yields(state: State, entry: Entry, workload: Workload) -> bool:
    """Returns whether nobody would ever yield to a workload, going by the ranks of all who have a place (`Claim`)."""
    if not (state.ranked or state.quotas.root):
        return True
    leaf, rank = state.quotas.leaf_of(workload), -state.order(entry)[0]
    least = rank if preemptible(workload) else rank + 1  # of its own quota even its equals may have to
    state.victims.catch_up(state)
    return all((leaf is None or known.leaf == leaf.name) and known.priority >= least for known in state.victims.ranks())


def before_others(draft: Draft) -> Iterator[Draft]:
    """Yields drafts in which others may have to yield before there is looked for room elsewhere, in order."""
    if draft.blocked:
        return
    if draft.policy.preempt_before_provision and draft.stock:
        yield _first(draft, without_stock=True)
    elif draft.units is not None and draft.units.preempt_policy == "BeforeNextUnit":
        there = {slot.variant for share in draft.before.values() for slot in share.slots}
        for count in range(1, len(draft.ways)):
            ways, others = draft.ways[:count], draft.ways[count:]
            if real(ways[-1]) and there.isdisjoint(way.variant for way in others):
                yield _first(draft, ways=ways)


def _first(draft: Draft, **changes: Any) -> Draft:
    return replace(
        draft,
        _options=[],
        way_of={},
        slots={},
        reasons=list(draft.reasons),
        taken=set(),
        frozen=set(),
        waited={} if "without_stock" in changes else dict(draft.waited),
        stopped={},
        unnamed={},
        made=None,
        **changes,
    )


def attempt(draft: Draft, out: Outputs) -> bool:
    """Makes room for what a draft could not place, if it may and can; returns whether it did."""
    state, workload = draft.state, draft.workload
    placed = pods_of(draft.shares)
    missing = draft.replicas - placed
    if missing <= 0 or draft.blocked or draft.unmet or draft.quota is Code.NO_QUOTA:
        return False
    if draft.policy.suspend_dispatching:
        return False  # it would not start
    if not (state.ranked or state.quotas.root):
        return False
    division = draft.policy.placement.division
    at_once = whole(workload, division, is_gang=draft.policy.placement.gang)
    if not workload.components or (at_once and placed):
        return False
    if not at_once and division in (DivisionType.DUPLICATED, DivisionType.STATIC):
        return False
    if not preempts(state.ranked_as(draft.entry) or workload, state.priority_classes):
        return False
    rank = -state.order(draft.entry)[0]
    asked = _asked(draft, at_once=at_once)
    if asked and rank <= state.futile.get(asked, rank - 1):
        return False  # whoever ranks no lower and asks for the same has found nobody
    if nobody_yields(state, draft.entry, workload):
        return False
    found = search(draft, placed, missing, at_once=at_once)
    if found is None:
        if asked:
            state.futile[asked] = rank
        return False
    state.futile.clear()
    out.count("preemptions")
    _evict(draft, found, out)
    _take(draft, found, at_once=at_once)
    return True


def _asked(draft: Draft, *, at_once: bool) -> tuple[object, ...]:
    """Returns what a search depends on besides the priority; nothing where it depends on the workload itself."""
    workload = draft.workload
    if draft.caps or draft.refused or (draft.leaf is not None and kept_before(draft) is not None):
        return ()
    if draft.shares and (draft.leaf or draft.units or len(draft.ways) > 1 or draft.policy.placement.spread):
        return ()  # what it has counts
    return (
        draft.policy.key,
        workload.api_version,
        workload.kind,
        workload.namespace,
        tuple((p.component, p.shape.id, p.virtual is None) for way in draft.ways for p in way.parts),
        tuple(c.replicas for c in workload.components) if at_once or not partial(draft) else (),
        draft.leaf.name if draft.leaf is not None else "",
        preemptible(workload),
        (draft.replicas, draft.shares) if draft.shares else None,
        (draft.units.name, tuple(c.labels for c in workload.components)) if draft.units is not None else None,
    )


def search(draft: Draft, placed: int, missing: int, *, at_once: bool) -> Preemption | None:
    """Returns who yields where for what is missing, or for some of it where replicas may come one by one, or None."""
    state, workload = draft.state, draft.workload
    counts = {c.name: c.replicas if at_once else 1 for c in workload.components if c.replicas}
    before = kept_before(draft) if draft.leaf is not None else None
    claim = Claim(
        state.quotas,
        -state.order(draft.entry)[0],
        draft.leaf,
        not preemptible(workload),
        state.quotas.needs(workload, counts) if draft.leaf is not None else (),
        0 if at_once else placed,
        state.quotas.charge_of(draft.entry.key),
        workload.job,
        before.unit if before is not None else (),
    )
    search = Search(
        state.victims,
        claim,
        draft.entry.key,
        counts,
        lambda found: runs(draft, _share(draft, found, at_once=at_once), found.losses),
    )
    if not search.may_take(1):
        return None  # what more may take, less may
    tiers = _tiers(draft)
    some = partial(draft) and not at_once
    wanted = [1 if at_once else missing]
    if some:
        wanted += sorted({claim.inside(missing), claim.guaranteed(missing)} - {0, missing}, reverse=True)
    if state.recalled is not None:
        tiers, wanted = _as_found(draft, state.recalled.taking, tiers)
    for units in wanted:
        found = search.best(tiers, units)
        if found is None and draft.quota is not None:
            found = search.elsewhere(tiers, units, sorted(state.fleet.members))
        if found is not None and found.losses:
            return found
    found = search.most(tiers, missing) if some and missing > 1 else None
    # Where room does not lack, something else is in the way.
    return found if found is not None and found.losses else None


def _as_found(
    draft: Draft, taking: Taking | None, tiers: list[list[Candidate]]
) -> tuple[list[list[Candidate]], list[int]]:
    """Returns the cluster that others were looked for in, and for how many units, when this was decided: what the
    search left aside is not known any more."""
    if taking is None or (taking.without_stock, taking.ways) != (draft.without_stock, len(draft.ways)):
        return [], []
    return [[at for at in tier if at.member.name == taking.cluster] for tier in tiers], [taking.units]


def _tiers(draft: Draft) -> list[list[Candidate]]:
    spoken = len(draft.reasons)
    tiers = []
    shares = {share.cluster: share for share in draft.shares}
    left_out = {reason.cluster for reason in draft.reasons if reason.code is Code.SPREAD_CHOSE_OTHERS}
    left_out.update(draft.policy.suspend_dispatching_on)
    ways = [way for way in draft.ways if real(way)]
    for tier in draft.candidates.tiers:
        by_way: list[list[Candidate]] = [[] for _ in ways]
        for member in tier.members:
            if member.name in left_out or not eligible(draft, member):
                continue
            share = shares.get(member.name)
            bound = way_of_share(draft, share) if share is not None and share.slots else None
            usable = unit_fill.open_ways(draft, member.name)
            if share is not None and share.slots and not unit_fill.mixes(draft):
                usable = () if bound is None else (bound,)
            for way, found in zip(ways, by_way, strict=True):
                if way in usable:
                    limit = _limit(draft, member, way, share)
                    if limit > 0:
                        found.append(Candidate(member, way, limit))
        tiers += by_way
    del draft.reasons[spoken:]
    return tiers


def _limit(draft: Draft, member: Member, way: Way, share: ClusterShare | None) -> int:
    """Returns how many more pods may land in a cluster in some way, if there is room."""
    have = share.replicas if share is not None else 0
    most = min(way.limit, draft.caps.get(member.name, way.limit)) - have
    slots = share.slots if share is not None else ()
    components = draft.workload.components
    if len(components) == 1:
        return min(most, unit_use.left(draft, member.name, way, slots))
    counts = {c.name: c.replicas for c in components}
    return most if unit_use.within(draft, member.name, way, counts, slots) else 0


def _evict(draft: Draft, found: Preemption, out: Outputs) -> None:
    """Takes what the victims lose, and tells them who has their place."""
    state, now = draft.state, draft.now
    witness.preemption(draft, found)
    rank = -state.order(draft.entry)[0]
    for loss in found.losses:
        entry = state.entries[loss.victim.key]
        placement = entry.placement
        if placement is None:
            continue
        state.credits.add(loss.cluster, entry.key, last(loss.victim.pieces, loss.pods))
        why = "of higher priority" if rank > loss.victim.rank.priority else "whose quota is guaranteed it"
        reason = Reason(
            Code.PREEMPTED,
            f"lost {loss.pods} of {loss.victim.pods} pods to {draft.entry.key} (priority {rank}), {why}",
            loss.cluster,
        )
        shares = _left(placement, loss)
        # Who waited already for the rest of its pods has waited since then.
        waits = placement.waiting_since
        line = turn.line_of(state, entry.current) if entry.current is not None else ""
        order = state.order(entry)
        commit.record(
            state,
            entry,
            out,
            now,
            verdict=Verdict.PARTIALLY_SCHEDULED if shares else Verdict.QUEUED,
            shares=shares,
            reasons=(*[r for r in placement.reasons if r.code is Code.PREEMPTED][-NAMED:], reason),
            replicas=placement.replicas,
            policy=placement.policy,
            inputs=placement.inputs,
            uid=placement.uid,
            queued=Queued(state.queue.position(order, line), line, -order[0], now if waits is None else waits),
        )
        out.count("preempted_pods", loss.pods)
        state.evicted.append(entry.key)
    for cluster in sorted({loss.cluster for loss in found.losses}):
        state.credits.refresh(state, cluster)
        draft.taken.discard(cluster)


def _left(placement: Placement, loss: Loss) -> tuple[ClusterShare, ...]:
    shares = []
    for share in placement.shares:
        left: ClusterShare | None = share
        if share.cluster == loss.cluster:
            left = bounded(share, share.replicas - loss.pods, None, at_once=not loss.victim.divisible)
        if left is not None:
            shares.append(left)
    return tuple(shares)


def _take(draft: Draft, found: Preemption, *, at_once: bool) -> None:
    """Gives the workload the room that was made."""
    shares = {share.cluster: share for share in draft.shares}
    shares[found.cluster] = _share(draft, found, at_once=at_once)
    before, draft.shares = draft.shares, tuple(shares[cluster] for cluster in sorted(shares))
    draft.taken.discard(found.cluster)
    if draft.made is not None:
        for share in before:
            draft.state.fleet.touch(draft.member(share.cluster))
        draft.taken.clear()
        draft.made = None
    draft.state.fleet.touch(draft.member(found.cluster))
    if pods_of(draft.shares) >= draft.replicas:
        draft.reasons = [r for r in draft.reasons if r.code not in _SHORTAGES]
        draft.unnamed = {code: count for code, count in draft.unnamed.items() if code not in _SHORTAGES}
        draft.quota = None
    draft.reasons.insert(0, _told(found))


def _share(draft: Draft, found: Preemption, *, at_once: bool) -> ClusterShare:
    """Returns what the workload has in the cluster then."""
    known = next((share for share in draft.shares if share.cluster == found.cluster), None)
    if at_once:
        counts = {c.name: c.replicas for c in draft.workload.components}
    else:
        name = draft.workload.components[0].name
        counts = {name: (known.replicas if known is not None else 0) + found.units}
    slots = [*(known.slots if known is not None else ()), *found.slots]
    return ClusterShare(found.cluster, tuple(sorted(counts.items())), merged(draft, slots, sort=known is not None))


def _told(found: Preemption) -> Reason:
    losses = sorted(found.losses, key=lambda loss: (-loss.pods, loss.victim.key))
    names = ", ".join(f"{loss.victim.key} ({loss.pods})" for loss in losses[:NAMED])
    more = f" and {len(losses) - NAMED} more" if len(losses) > NAMED else ""
    return Reason(Code.PREEMPTS, f"takes the place of {names}{more}", found.cluster)
