"""Queues, whatever comes and ends: in order where they block, and where they do not nobody is starved."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.policy import PriorityClass
from gpufleet.model.reasons import Code
from gpufleet.model.workload import Workload
from services.scheduler.core.decide import decide
from services.scheduler.core.events import (
    ClusterRegistered,
    Event,
    InventoryChanged,
    PolicyChanged,
    Started,
    Tick,
    WorkloadDeleted,
    WorkloadSubmitted,
)
from services.scheduler.core.settings import Settings
from services.scheduler.core.state import State
from tests.support.quotas import quota, tree
from tests.support.scheduling import World, deployment, gpus_free, inventory, job, policy

RANKS = {"low": -10, "mid": 10, "high": 100}
PATIENT = Settings(stale_after=1e12, hold_timeout=1e12)


def train(name: str, workers: int, arrival: int, rank: str = "", namespace: str = "test") -> Workload:
    made = job(name, {"Worker": (workers, 1)}, arrival=arrival, digest=f"{name}{arrival}")
    return replace(made, key=f"{namespace}/PyTorchJob/{name}", namespace=namespace, priority_class=rank)


def end(w: World, key: str) -> None:
    clusters = w.assigned(key)
    w.feed(WorkloadDeleted(key))
    for cluster in clusters:
        w.gone(key, cluster)


submission = st.tuples(st.integers(1, 7), st.sampled_from(sorted(RANKS)))


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(submission | st.integers(0, 9), max_size=14), quotas=st.booleans())
def test_in_a_blocking_queue_nobody_is_placed_before_somebody_who_waits_before_it(
    steps: list[tuple[int, str] | int], quotas: bool
) -> None:
    w = World(replace(PATIENT, blocking=not quotas))
    w.clusters(a=gpus_free(4), b=gpus_free(3))
    w.feed(PolicyChanged(policy()), *(PolicyChanged(PriorityClass(n, v, preempts=False)) for n, v in RANKS.items()))
    if quotas:
        w.feed(PolicyChanged(tree(quota("team", 5, 6, "test", blocking=True))))
    keys: list[str] = []
    runs: set[str] = set()
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            keys.append(f"test/PyTorchJob/w{number}")
            w.submit(train(f"w{number}", step[0], number, step[1]))
        elif keys:
            key = keys.pop(step % len(keys))
            runs.discard(key)
            end(w, key)
        placements = {key: w.placement(key) for key in keys}
        came = {key for key, p in placements.items() if p.placed and key not in runs}
        for key, placement in placements.items():
            never = any(r.code in (Code.NEVER_FITS, Code.NO_QUOTA) for r in placement.reasons)
            if not placement.placed and not never:
                order = w.state.order(w.state.entry(key))
                assert all(w.state.order(w.state.entry(other)) < order for other in came), (came, key)
        runs |= came


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(5, 8),
    before=st.lists(st.integers(1, 4), min_size=2, max_size=2),
    stream=st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=12, max_size=12),
    rank=st.sampled_from(["", "same"]),
)
def test_in_any_other_queue_nobody_is_overtaken_for_ever(
    size: int, before: list[int], stream: list[list[int]], rank: str
) -> None:
    """Jobs run for four steps of 20 s; the first may be overtaken for 60 s, and has its place four steps later."""
    w = World(replace(PATIENT, overtake_after=60.0))
    w.clusters(a=gpus_free(4, 4))
    w.feed(PolicyChanged(policy()))
    running: deque[tuple[int, str]] = deque()
    number = 0

    def come(workers: int, step: int) -> None:
        nonlocal number
        number += 1
        w.submit(train(f"w{number}", workers, number))
        note(step)

    def note(step: int) -> None:
        known = {key for _, key in running}
        for key, (_, p) in sorted(w.placements.items()):
            if p is not None and p.placed and key not in known:
                running.append((step + 4, key))

    for workers in before:
        come(workers, 0)
    number += 1
    w.submit(train("large", size, number))
    note(0)
    for step, sizes in enumerate(stream):
        for workers in sizes:
            come(workers, step)
        w.now += 20
        w.feed(Tick())
        note(step)
        while running and running[0][0] <= step:
            end(w, running.popleft()[1])
        note(step)
        placement = w.placements["test/PyTorchJob/large"][1]
        if placement is None or placement.placed:
            return  # it runs, or has run to its end
    raise AssertionError(f"a job of {size} waited for 12 steps")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_order_of_equal_events_does_not_matter(data: st.DataObject) -> None:
    """With quotas and priorities too: what comes in one batch is decided by what it says, not by where it stands."""
    events: list[Event] = [
        *(PolicyChanged(PriorityClass(name, value)) for name, value in RANKS.items()),
        PolicyChanged(policy(namespace="")),
        PolicyChanged(tree(quota("one", 4, 10, "ns1"), quota("two", 4, 10, "ns2"), total=12)),
    ]
    for cluster, node in (("a", gpus_free(4, 4)), ("b", gpus_free(6))):
        events += [ClusterRegistered(ClusterSpec(cluster)), InventoryChanged(inventory(cluster, node, at=1.0))]
    wanted = st.tuples(
        st.booleans(), st.integers(1, 6), st.sampled_from(sorted(RANKS)), st.sampled_from(["ns1", "ns2"])
    )
    for number, (is_job, count, rank, namespace) in enumerate(data.draw(st.lists(wanted, max_size=8))):
        made = train(f"w{number}", count, number, rank, namespace)
        if not is_job:
            plain = deployment(f"w{number}", count, arrival=number, digest=str(number))
            key = f"{namespace}/Deployment/w{number}"
            made = replace(plain, key=key, namespace=namespace, priority_class=rank)
        events.append(WorkloadSubmitted(made))
    found = []
    for order in (events, data.draw(st.permutations(events))):
        state = State(PATIENT)
        decide(state, [Started(1, "log"), *order], 1.0)
        # Every placement as it is in the end; versions only number the decisions.
        found.append([(p.workload, p.verdict, p.shares, p.queue_position, p.priority) for p in state.placements()])
    assert found[0] == found[1]
