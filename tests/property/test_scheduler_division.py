"""What holds for every division, and that the order of events inside a batch does not matter."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.placement import Source
from services.scheduler.core.decide import decide
from services.scheduler.core.divide import (
    Mode,
    Option,
    aggregated,
    descending,
    pour,
    pour_columns,
    webster,
    webster_column,
)
from services.scheduler.core.events import (
    ClusterRegistered,
    Event,
    InventoryChanged,
    PolicyChanged,
    Started,
    WorkloadSubmitted,
)
from services.scheduler.core.state import State
from tests.support.scheduling import deployment, gpus_free, inventory, job, policy

NAMES = "abcdef"
WEIGHTS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 30), min_size=1)


def one_by_one(seats: int, weights: dict[str, int], last_first: bool) -> dict[str, int]:
    """The definition, seat after seat with exact fractions."""
    names = sorted((n for n, w in weights.items() if w), reverse=last_first)
    given = dict.fromkeys(names, 0)
    for _ in range(seats if names else 0):
        best = min(names, key=lambda n: (-Fraction(weights[n], 2 * given[n] + 1), given[n], names.index(n)))
        given[best] += 1
    return given


def fnv1a32(text: str) -> int:
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


@given(st.text(min_size=1))
def test_ties_go_to_the_last_name_where_the_hash_of_the_uid_is_odd(uid: str) -> None:
    assert descending(uid) is (fnv1a32(uid) % 2 == 1)


@given(st.integers(0, 60), WEIGHTS, st.booleans())
def test_webster_is_its_definition(seats: int, weights: dict[str, int], last_first: bool) -> None:
    assert webster(seats, weights, last_first) == one_by_one(seats, weights, last_first)


@given(st.integers(0, 10**6), st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2**60), min_size=1))
def test_webster_is_monotone_and_complete(seats: int, weights: dict[str, int]) -> None:
    small, large = webster(seats, weights), webster(seats + 1, weights)
    assert sum(small.values()) == (seats if any(weights.values()) else 0)
    assert all(large[name] >= count for name, count in small.items())


OPTIONS = st.lists(
    st.builds(
        Option,
        cluster=st.sampled_from(NAMES),
        tier=st.integers(0, 2),
        assigned=st.integers(0, 6),
        running=st.integers(0, 6),
        stock=st.integers(0, 6),
    ),
    unique_by=lambda option: option.cluster,
    max_size=6,
).map(lambda options: sorted(options, key=lambda o: (o.tier, o.cluster)))
MODES = st.sampled_from([Mode.FILL, Mode.STEADY])


@given(OPTIONS, st.integers(0, 60), MODES, st.booleans(), st.booleans())
def test_pour_never_gives_more_than_there_is_room_for(
    options: list[Option], replicas: int, mode: Mode, last_first: bool, existing_first: bool
) -> None:
    counts = pour(options, replicas, mode, last_first=last_first, existing_first=existing_first)
    for option in options:
        assert 0 <= counts[option.cluster] <= option.assigned + option.running + option.stock
    room = sum(o.assigned + o.running + o.stock for o in options)
    assert sum(counts.values()) == min(replicas, room)


@given(OPTIONS, st.integers(0, 60), st.booleans())
def test_filling_moves_nothing_and_a_lower_tier_is_used_only_when_the_higher_is_full(
    options: list[Option], replicas: int, existing_first: bool
) -> None:
    placed = sum(o.assigned for o in options)
    filled = pour(options, replicas, Mode.FILL, existing_first=existing_first)
    if replicas >= placed:
        assert all(filled[o.cluster] >= o.assigned for o in options)
    steady = pour(options, replicas, Mode.STEADY)
    for high in options:
        for low in options:
            if high.tier < low.tier and steady[low.cluster] > 0:
                assert steady[high.cluster] == high.assigned + high.running + high.stock


@given(OPTIONS, st.integers(0, 60), MODES)
def test_aggregated_stays_within_room(options: list[Option], replicas: int, mode: Mode) -> None:
    counts = aggregated(options, replicas, mode)
    for option in options:
        assert 0 <= counts[option.cluster] <= option.assigned + option.running + option.stock
    assert sum(counts.values()) <= max(replicas, 0)


CLUSTERS = st.dictionaries(
    st.sampled_from(["c1", "c2", "c3"]), st.lists(st.integers(0, 8), min_size=1, max_size=4), min_size=1
)
SIZES = st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(1, 8)), min_size=1, max_size=6)


def batch(clusters: dict[str, list[int]], sizes: list[tuple[bool, int, int]]) -> list[Event]:
    events: list[Event] = [PolicyChanged(policy(["c1", "c2"], ["c3"], ecs_provision=True))]
    for name, free in clusters.items():
        events.append(ClusterRegistered(ClusterSpec(name)))
        events.append(InventoryChanged(inventory(name, gpus_free(*free, stock=1), at=0.0)))
    for i, (is_job, replicas, gpus) in enumerate(sizes):
        made = (
            job(f"j{i}", {"Worker": (replicas, gpus)}, arrival=i)
            if is_job
            else deployment(f"d{i}", replicas, gpu=gpus, arrival=i, uid=f"u{i}")
        )
        events.append(WorkloadSubmitted(made))
    events.append(Started(1))
    return events


@settings(deadline=None)
@given(CLUSTERS, SIZES, st.randoms(use_true_random=False))
def test_the_order_of_events_in_a_batch_does_not_matter(
    clusters: dict[str, list[int]], sizes: list[tuple[bool, int, int]], random: object
) -> None:
    events = batch(clusters, sizes)
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = decide(State(), events, 0.0), decide(State(), shuffled, 0.0)
    assert one.placements == other.placements
    assert one.assignments == other.assignments
    assert one.wake_at == other.wake_at


@settings(deadline=None)
@given(CLUSTERS, SIZES)
def test_slots_say_where_every_replica_was_counted_and_nodes_are_never_overbooked(
    clusters: dict[str, list[int]], sizes: list[tuple[bool, int, int]]
) -> None:
    state = State()
    out = decide(state, batch(clusters, sizes), 0.0)
    used = dict.fromkeys(clusters, 0)
    created = dict.fromkeys(clusters, 0)
    for write in out.placements:
        placement = write.placement
        assert placement is not None
        gpus = sizes[int(write.workload[-1])][2]
        for share in placement.shares:
            assert sum(slot.count for slot in share.slots) == share.replicas
            used[share.cluster] += share.count(Source.RUNNING) * gpus
            created[share.cluster] += share.count(Source.ELASTIC) * gpus
    for name, free in clusters.items():
        assert used[name] <= sum(free)
        assert created[name] <= 8
        assert state.fleet.members[name].debt == 0


@given(st.integers(0, 40), st.lists(st.sampled_from([0, 0, 1, 2, 3, 5, 7, 14, 29, 30]), max_size=12), st.booleans())
def test_columns_get_what_names_get(seats: int, weights: list[int], last_first: bool) -> None:
    by_name = webster(seats, {f"c{place:02}": weight for place, weight in enumerate(weights)}, last_first)
    by_place = webster_column(seats, np.array(weights, np.int64), last_first)
    assert {f"c{place:02}": count for place, count in by_place.items()} == {n: c for n, c in by_name.items() if c}


TIERS = st.lists(st.lists(st.tuples(*[st.integers(0, 9)] * 3), max_size=4), max_size=3)


@given(st.integers(0, 60), TIERS, st.sampled_from([0, 1, 2]), st.booleans(), st.booleans())
def test_columns_are_poured_as_options_are(
    replicas: int, tiers: list[list[tuple[int, int, int]]], stock: int, last_first: bool, existing_first: bool
) -> None:
    """``stock``: does not count, is all fresh, or some of it is on nodes that are created anyway."""
    tiers = [
        [(r, (f + c if stock == 2 else f) if stock else 0, c if stock == 2 else 0) for r, f, c in t] for t in tiers
    ]
    options = [
        Option(f"c{number}{place}", number, 0, running, more, coming=coming)
        for number, tier in enumerate(tiers)
        for place, (running, more, coming) in enumerate(tier)
    ]
    expected = pour(options, replicas, Mode.FILL, last_first=last_first, existing_first=existing_first)
    columns = []
    for tier in tiers:
        running, more, coming = (np.array([row[i] for row in tier], np.int64) for i in range(3))
        columns.append((running, more if stock else None, coming if stock == 2 else None))
    poured = pour_columns(columns, replicas, last_first=last_first, existing_first=existing_first)
    found = {f"c{number}{place}": count for number, counts in enumerate(poured) for place, count in counts.items()}
    assert found == {cluster: count for cluster, count in expected.items() if count}
