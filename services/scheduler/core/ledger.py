"""Keeps the members' holds in step with placements, pods and time; the rule itself is in `reserve`."""

from __future__ import annotations

import heapq
from collections.abc import Set as AbstractSet

from gpufleet.model.placement import ClusterShare, Placement
from services.scheduler.core import booking
from services.scheduler.core.booking import Made
from services.scheduler.core.reserve import Holding, holding
from services.scheduler.core.state import RELEASED, Entry, State
from services.scheduler.core.units import Way, applying, ways


def ways_of(state: State, entry: Entry) -> tuple[Way, ...]:
    """Returns the ways in which an entry's pods may land, cached until the workload or its policies change."""
    workload = entry.workload
    if workload is None:
        return ()
    policies = state.resource_policies.get(workload.namespace)
    policy = applying(workload, policies.values()) if policies else None
    known_for = () if policy is None else (policy.name, policy.digest, policy.version)
    if entry.ways_for != known_for:
        entry.ways = ways(workload, policy, state.fleet.catalog)
        entry.ways_for = known_for
    return entry.ways


def update(
    state: State,
    entry: Entry,
    now: float,
    *,
    taken: AbstractSet[str] = frozenset(),
    made: Made | None = None,
) -> None:
    """Brings the holds of an entry up to date everywhere; where its pods are is looked at again too.

    ``taken`` names clusters whose pools had the slots of this placement's share taken from them, last of all;
    ``made`` gives the holds of all shares, if all are new, and what of them is booked.
    """
    placement = entry.placement
    state.victims.changed(entry.key)
    _expire(state, entry, placement, now)
    live = placement if placement is not None and placement.verdict not in RELEASED and not entry.expired else None
    if live is None or entry.workload is None:
        if entry.held_in:
            _release(state, entry)
        held = False
    elif made is not None and not entry.held_in and not entry.pods:
        entry.booked = booking.reserve(state.fleet, entry.key, live.version, made)
        entry.held_in.update(taken)
        held = bool(taken)
    else:
        if made is not None:
            for cluster in sorted(taken):
                state.fleet.touch(state.fleet.member(cluster))
            taken = frozenset()
        held = _renew(state, entry, live, taken)
    for cluster in sorted(taken - entry.held_in) if taken else ():
        state.fleet.touch(state.fleet.member(cluster))
    if held and placement is not None:
        deadline = max(placement.decided_at, state.thawed_at) + state.settings.hold_timeout
        if entry.deadline != deadline:
            entry.deadline = deadline
            heapq.heappush(state.deadlines, (deadline, entry.key))
    else:
        entry.deadline = None
    if len(state.deadlines) > 2 * len(state.entries) + 1024:
        rebuild_deadlines(state)


def _release(state: State, entry: Entry) -> None:
    """Gives back all that an entry holds."""
    if entry.booked is not None:
        booking.release(state.fleet, entry.key, entry.booked)
        entry.booked = None
    else:
        for cluster in sorted(entry.held_in):
            state.fleet.hold(state.fleet.member(cluster), entry.key, None, taken=False)
    state.grown.update(dict.fromkeys(entry.held_in))
    entry.held_in.clear()


def _renew(state: State, entry: Entry, live: Placement, taken: AbstractSet[str]) -> bool:
    """Sets what every share holds, and returns whether any does."""
    entry.booked = None
    wanted: dict[str, Holding] = {}
    known = ways_of(state, entry)
    for share in live.shares:
        held = holding(live.version, share, known, entry.pods.get(share.cluster))
        if held is not None:
            wanted[share.cluster] = held
    for cluster in sorted(entry.held_in | wanted.keys()):
        held = wanted.get(cluster)
        direct = cluster in taken and cluster not in entry.held_in and _whole(live.share(cluster), held)
        _set(state, entry, cluster, held, direct=direct)
        if cluster in taken and not direct:
            state.fleet.touch(state.fleet.member(cluster))  # room was taken for pods that run already, too
    return bool(wanted)


def _whole(share: ClusterShare | None, held: Holding | None) -> bool:
    if share is None or held is None:
        return False
    return sum(slot.count for slot in share.slots) == sum(hold.count for hold in held.holds)


def _expire(state: State, entry: Entry, placement: Placement | None, now: float) -> None:
    if placement is None:
        entry.expired = False
    elif not state.frozen:
        entry.expired = now >= max(placement.decided_at, state.thawed_at) + state.settings.hold_timeout


def _set(state: State, entry: Entry, cluster: str, held: Holding | None, *, direct: bool) -> None:
    member = state.fleet.member(cluster)
    before = member.held.get(entry.key)
    if before == held:
        return
    state.fleet.hold(member, entry.key, held, taken=direct)
    if held is None:
        entry.held_in.discard(cluster)
    else:
        entry.held_in.add(cluster)
    if before is not None:
        state.grown[cluster] = None


def rebuild_deadlines(state: State) -> None:
    """Drops deadlines that do not count any more."""
    state.deadlines = [(e.deadline, e.key) for e in state.entries.values() if e.deadline is not None]
    heapq.heapify(state.deadlines)


def expire(state: State, now: float) -> None:
    """Ends the holds whose time has run out; while frozen no time passes for them."""
    while not state.frozen and state.deadlines and state.deadlines[0][0] <= now:
        deadline, key = heapq.heappop(state.deadlines)
        entry = state.entries.get(key)
        if entry is not None and entry.deadline == deadline:
            update(state, entry, now)


def freeze(state: State, frozen: bool, now: float) -> None:
    """Stops or restarts the clock of the holds; they begin anew when it restarts."""
    if state.frozen == frozen:
        return
    state.frozen = frozen
    if not frozen:
        state.thawed_at = now
        for key in sorted(key for key, entry in state.entries.items() if entry.placement is not None):
            update(state, state.entries[key], now)
        rebuild_deadlines(state)


def next_deadline(state: State) -> float | None:
    """Returns when the next hold runs out, or None."""
    if state.frozen:
        return None
    while state.deadlines:
        deadline, key = state.deadlines[0]
        entry = state.entries.get(key)
        if entry is not None and entry.deadline == deadline:
            return deadline
        heapq.heappop(state.deadlines)
    return None
