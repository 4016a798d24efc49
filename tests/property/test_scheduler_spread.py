"""What is chosen under spread constraints keeps to them, and does not depend on the order in which clusters come."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.policy import SpreadConstraint
from services.scheduler.core.spread import Candidate, choose
from services.scheduler.core.spread_groups import Group, select_groups
from services.scheduler.core.topology import groups_of

few = st.integers(1, 3)


@st.composite
def constraint(draw: st.DrawFn, field: str) -> SpreadConstraint:
    least = draw(few)
    return SpreadConstraint(field, "", least, draw(st.sampled_from([0, least, least + 1])))


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Candidate], dict[str, ClusterSpec | None]]:
    names = [f"c{i}" for i in range(draw(st.integers(0, 7)))]
    specs: dict[str, ClusterSpec | None] = {
        name: ClusterSpec(name, region=draw(st.sampled_from("rst")), provider=draw(st.sampled_from("pq")))
        for name in names
    }
    candidates = [
        Candidate(name, 0, draw(st.sampled_from([0, 100])), draw(st.integers(0, 9)), draw(st.booleans()))
        for name in names
    ]
    return candidates, specs


@given(
    clusters(),
    st.lists(st.sampled_from(["cluster", "region", "provider"]), unique=True, min_size=1).flatmap(
        lambda fields: st.tuples(*(constraint(field) for field in fields))
    ),
    st.integers(0, 30),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_what_is_chosen_keeps_to_the_constraints(
    fleet: tuple[list[Candidate], dict[str, ClusterSpec | None]],
    constraints: tuple[SpreadConstraint, ...],
    replicas: int,
    duplicated: bool,
    random: object,
) -> None:
    candidates, specs = fleet
    choice = choose(candidates, constraints, specs, replicas, duplicated=duplicated)
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = choose(shuffled, tuple(reversed(constraints)), specs, replicas, duplicated=duplicated)
    assert (set(again.clusters), again.unmet) == (set(choice.clusters), choice.unmet)
    if choice.unmet:
        assert not choice.clusters
        return
    held = {c.cluster for c in candidates if c.held}
    assert held <= set(choice.clusters) <= specs.keys()
    for rule in constraints:
        used = {name for cluster in choice.clusters for name in groups_of(rule, specs[cluster])}
        kept = {name for cluster in held for name in groups_of(rule, specs[cluster])}
        assert len(used) >= rule.min_groups
        if rule.field != "cluster" and rule.max_groups:
            assert len(used) <= max(rule.max_groups, len(kept))


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=6),
    few,
    st.integers(0, 3),
    st.integers(1, 8),
)
def test_a_set_of_groups_is_found_where_there_is_one(
    groups: dict[str, tuple[int, int]], least: int, more: int, target: int
) -> None:
    known = [Group(name, value, weight) for name, (value, weight) in groups.items()]
    most = least + more
    possible = any(
        sum(g.value for g in some) >= target
        for size in range(least, min(most, len(known)) + 1)
        for some in combinations(known, size)
    )
    found = select_groups(known, least, most, target)
    assert (found is not None) == possible
    if found is not None:
        assert least <= len(found) <= most
        assert sum(g.value for g in found) >= target
