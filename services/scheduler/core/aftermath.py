"""The last look before anybody has to yield: does the preemptor have its place once the pods of its victims are gone?

The search goes by what is left of the nodes now. Here the whole cluster is filled anew by the rule of the ledger, as it
will be when the inventory shows those pods gone: every reservation in the order of its version, the preemptor's last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace

from gpufleet.model.placement import ClusterShare, Source
from services.scheduler.core import namespace_quota
from services.scheduler.core.blocks import Blocks, take
from services.scheduler.core.draft import Draft
from services.scheduler.core.gone import NOT_YET, Gone, shown_without
from services.scheduler.core.losses import Loss
from services.scheduler.core.member import Member
from services.scheduler.core.reserve import Hold, Holding, holding
from services.scheduler.core.whereabouts import last


def runs(draft: Draft, share: ClusterShare, losses: Iterable[Loss]) -> bool:
    """Returns whether a share of the preemptor, and all that others have reserved there, has its place then."""
    member = draft.member(share.cluster)
    losses = list(losses)
    if not _in_quota(draft, member, share, losses):
        return False
    gone, going = Gone(), dict[str, int]()
    for loss in losses:
        if loss.cluster == member.name:
            for piece in last(loss.victim.pieces, loss.pods):
                if piece.number == NOT_YET:
                    going[loss.victim.key] = going.get(loss.victim.key, 0) + piece.pods
                elif piece.pool:
                    gone.add(piece.kind, 1)
    pods = draft.entry.pods.get(member.name)
    held = holding(draft.state.following_version(), share, draft.ways, pods)
    own = list(held.holds) if held is not None else []
    others, rest = _others(member, draft.entry.key, going, {loss.victim.key for loss in losses})
    # What victims keep is reserved anew, before the preemptor's or, if they are decided on once more, after it.
    orders = ([*others, *rest, *own], [*others, *own, *rest]) if rest else ([*others, *own],)
    left = {pool.name: shown_without(pool, gone)[0] for pool in member.pools}
    return all(_fit(member, {name: dict(blocks) for name, blocks in left.items()}, holds) for holds in orders)


def _fit(member: Member, blocks: dict[str, Blocks], holds: Iterable[Hold]) -> bool:
    """Returns whether some holds fit, one after the other."""
    return all(_takes(member, blocks, hold) for hold in holds)


def _in_quota(draft: Draft, member: Member, share: ClusterShare, losses: Iterable[Loss]) -> bool:
    """Returns whether the ResourceQuotas of the namespace have room for what is new of a share."""
    back: dict[str, int] = {}
    for loss in losses:
        if loss.cluster == member.name and loss.victim.key.partition("/")[0] == draft.workload.namespace:
            for piece in last(loss.victim.pieces, loss.pods):
                for name, amount in piece.shape.pod.requests:
                    back[name] = back.get(name, 0) + amount * piece.pods
    before = draft.before.get(share.cluster)
    known, now = dict(before.components) if before is not None else {}, dict(share.components)
    new = {c.name: now.get(c.name, 0) - known.get(c.name, 0) for c in draft.workload.components}
    return namespace_quota.admits(draft, member, new, back)


def _others(member: Member, key: str, going: Mapping[str, int], victims: Set[str]) -> tuple[list[Hold], list[Hold]]:
    """Returns what others have reserved, in order, without so many pods of some; what victims keep is apart."""

    def order(item: tuple[str, Holding]) -> tuple[object, str]:
        return (item[1].version, item[0])

    found: list[Hold] = []
    rest: list[Hold] = []
    for other, held in sorted(member.held.items(), key=order):
        left = going.get(other, 0)
        if other == key:
            continue
        kept: list[Hold] = []
        for hold in reversed(held.holds):
            count = min(left, hold.count)
            left -= count
            if hold.count > count:
                kept.append(replace(hold, count=hold.count - count) if count else hold)
        (rest if other in victims else found).extend(reversed(kept))
    return found, rest


def _takes(member: Member, blocks: dict[str, Blocks], hold: Hold) -> bool:
    """Takes the room of a hold, and returns whether there is enough; what waits for nodes may wait for more of them."""
    if hold.source is Source.VIRTUAL and hold.part.virtual is not None:
        return True
    left = hold.count
    anywhere = member.pool(hold.pool) is None
    for pool in member.pools:
        if left and (anywhere or pool.name == hold.pool) and hold.part.shape.admitted(pool.identity):
            left -= take(blocks[pool.name], hold.part.shape.fitter(pool.layout), left)
    return not left or not hold.pool or hold.source is Source.ELASTIC or hold.provisioning > 0
