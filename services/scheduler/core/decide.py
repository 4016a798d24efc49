"""The one entry: apply events to the tables, decide what they concern, and say what to write."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from services.scheduler.core import doubt, ledger, reconcile, settle, tables, takeover
from services.scheduler.core import turn as turns
from services.scheduler.core.divide import Mode
from services.scheduler.core.events import Event
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.state import State

# A workload is decided at most so often in one batch; what is woken oftener is tried with the next retry.
_ROUNDS = 3
# When a PriorityClass changes so many of those that wait are decided anew at once, the next ones so many seconds later.
_MOVED = 200
_PAUSE = 0.1


def decide(state: State, events: Sequence[Event], now: float) -> Outputs:
    """Applies a batch of events at ``now`` (epoch seconds) and returns what follows from it.

    The same state, events and time give the same outputs in the same order. Before `Started` (and after `Stopped`)
    only the tables are kept, and the outputs are empty.
    """
    out = Outputs()
    batch = tables.Batch(state, now, out)
    tables.apply(batch, events)
    if batch.started is not None:
        reconcile.start(state, batch.started.epoch, batch.started.log, now)
    if not state.active:
        state.pending.clear()
        state.grown.clear()
        state.moved.clear()
        deposed = out.deposed_by
        out = Outputs()
        out.deposed_by = deposed
        return out
    state.futile.clear()
    ledger.expire(state, now)
    doubt.expire(state, now)
    _due(state, now, out)
    _work(state, now, out)
    out.wake_at = _wake_at(state, now)
    return out


def _due(state: State, now: float, out: Outputs) -> None:
    """Asks for what time alone brings about: retries, ends of back-offs and of caps."""
    for key in state.queue.due(now):
        state.ask(key, Mode.FILL)
        out.count("retries")
    for _ in range(min(_MOVED, len(state.moved))):
        state.ask(state.moved.popleft(), Mode.FILL)
    while state.timers and state.timers[0][0] <= now:
        at, key = heapq.heappop(state.timers)
        entry = state.entries.get(key)
        if entry is not None and entry.timer == at:
            entry.timer = None
            state.ask(key, Mode.FILL)


def _work(state: State, now: float, out: Outputs) -> None:
    """Settles what was asked for in the order of the queue, then what the room that became free wakes."""
    heap: list[tuple[turns.Turn, str]] = []
    rounds: dict[str, int] = {}
    lured: set[str] = set()  # by room or quota alone, which somebody before them may take

    def push() -> None:
        for key in state.pending:
            heapq.heappush(heap, (turns.turn(state, state.entry(key)), key))

    def ask(key: str) -> None:
        lured.discard(key)
        state.ask(key, Mode.FILL)
        heapq.heappush(heap, (turns.turn(state, state.entry(key)), key))

    push()
    while True:
        while heap:
            place, key = heapq.heappop(heap)
            if key not in state.pending:
                continue
            if state.quotas.root is not None and (now_at := turns.turn(state, state.entry(key))) > place:
                heapq.heappush(heap, (now_at, key))  # its quota has been given something meanwhile
                continue
            mode = state.pending.pop(key)
            if key in lured:
                lured.discard(key)
                if _hopeless(state, key):
                    continue
            rounds[key] = rounds.get(key, 0) + 1
            waited_in = state.queue.class_of(key)
            entry = state.entry(key)
            settle.settle(state, entry, mode, now, out)
            state.forget(entry)
            for victim in state.evicted:
                ask(victim)
            state.evicted.clear()
            for next_one in _let_go(state):
                if rounds.get(next_one, 0) < _ROUNDS:
                    ask(next_one)
            if waited_in is not None and state.queue.class_of(key) != waited_in:
                # It has left its class, so the next one may fit too.
                head = state.queue.head(waited_in)
                if head is not None and rounds.get(head, 0) < _ROUNDS and not _hopeless(state, head):
                    ask(head)
        for key in (*state.queue.woken(state.fleet, _grown(state)), *_woken_by_quota(state)):
            if rounds.get(key, 0) < _ROUNDS and key not in state.pending:
                lured.add(key)
                state.ask(key, Mode.FILL)
        if not state.pending:
            return
        push()


def _woken_by_quota(state: State) -> list[str]:
    """Returns who may fit because some quota has become free."""
    if not state.quotas.freed:
        return []
    state.quotas.freed = False
    return state.queue.woken_by_quota(state.quotas)


def _hopeless(state: State, key: str) -> bool:
    """Returns whether who waits cannot be placed: no room for it or no quota, and nobody who could yield to it."""
    entry = state.entries[key]
    if entry.current is None:
        return False
    if state.queue.granted(key, state.quotas):
        return not state.queue.helped(key, state.fleet) and takeover.nobody_yields(state, entry, entry.current)
    return state.quotas.leaf_of(entry.current) is not None and takeover.nobody_yields(state, entry, entry.current)


def _let_go(state: State) -> list[str]:
    """Returns who is next in the queues whose first has left, and frees what was kept for it."""
    heads = []
    for name in state.queue.let_go:
        line = state.queue.line(name)
        if line.kept and line.kept_for is None:
            state.grown[line.kept] = None
            state.quotas.freed = True
            line.kept = ""
        head = state.queue.head((turns.BEHIND, name))
        if head is not None:
            heads.append(head)
    state.queue.let_go.clear()
    return heads


def _grown(state: State) -> list[str]:
    grown = sorted(state.grown)
    if grown:
        state.futile.clear()
    state.grown.clear()
    return grown


def _wake_at(state: State, now: float) -> float | None:
    while state.timers:
        at, key = state.timers[0]
        entry = state.entries.get(key)
        if entry is not None and entry.timer == at:
            break
        heapq.heappop(state.timers)
    times = [
        state.queue.wake_at(),
        ledger.next_deadline(state),
        doubt.next_end(state),
        state.timers[0][0] if state.timers else None,
        now + _PAUSE if state.moved else None,
    ]
    return min((at for at in times if at is not None), default=None)
